//! A transaction: statements that count together or not at all. One that is neither committed nor rolled back (its
//! request ran out of time, its client went away) is cancelled, and its connection closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel_async::pooled_connection::bb8::PooledConnection;
use diesel_async::{AnsiTransactionManager, AsyncPgConnection, TransactionManager};
use tokio::sync::Mutex;
use tokio_postgres::NoTls;

use super::{Failure, RETRIES, Session, classify, fetch, is_lost, no_connection};
use crate::error::{Error, Result};
use crate::store::db::rows::RowSet;
use crate::store::db::sql::Sql;

/// Writes that become visible together. Its statements count among those of its session, `begin` and `commit` too.
pub struct Transaction {
    /// `None` once it is over.
    conn: Option<PooledConnection<'static, AsyncPgConnection>>,
    statements: Arc<AtomicU32>,
}

/// Why a writing statement failed. After either the transaction is good for nothing but a rollback.
#[derive(Debug)]
pub enum WriteError {
    /// A constraint refuses the row.
    Refused {
        /// What kind of constraint it is.
        violation: Violation,
        /// Its name.
        constraint: String,
        /// What PostgreSQL said, for the log.
        cause: Error,
    },
    /// Anything else.
    Failed(Error),
}

/// The kinds of constraints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// A value is out of its bounds.
    Check,
    /// Another row has the value.
    Unique,
    /// There is no such row to refer to.
    Reference,
}

impl From<Error> for WriteError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Refused { cause, .. } | WriteError::Failed(cause) => cause,
        }
    }
}

impl Session {
    /// Begins a transaction, on another connection if the first one turns out to be dead.
    pub async fn begin(&self) -> Result<Transaction> {
        let mut attempts = 0;
        loop {
            let mut conn = self.db.pool.get_owned().await.map_err(no_connection)?;
            self.statements.fetch_add(1, Ordering::Relaxed);
            match AnsiTransactionManager::begin_transaction(&mut *conn).await {
                Ok(()) => {
                    return Ok(Transaction { conn: Some(conn), statements: self.statements.clone() });
                }
                Err(error) if is_lost(&error) && attempts < RETRIES => attempts += 1,
                Err(error) => return Err(classify(error)),
            }
        }
    }
}

/// A transaction that only reads, in which every statement sees the same. Clones are the same one.
#[derive(Clone)]
pub(super) struct Frozen(Arc<Mutex<Option<Transaction>>>);

impl Frozen {
    /// One after the other: there is one connection.
    pub(super) async fn rows(&self, sql: &Sql) -> Result<RowSet> {
        let mut transaction = self.0.lock().await;
        let transaction = transaction.as_mut().ok_or_else(|| Error::internal("the snapshot is gone"))?;
        transaction.rows(sql).await.map_err(Error::from)
    }
}

impl Session {
    /// A session of the same request whose statements all see the database as it is at the first of them.
    /// [`Self::thaw`] gives its connection back.
    pub async fn frozen(&self) -> Result<Self> {
        let mut transaction = self.begin().await?;
        let mut sql = Sql::default();
        sql.push("set transaction isolation level repeatable read, read only");
        transaction.rows(&sql.returning(0)).await?;
        let snapshot = Some(Frozen(Arc::new(Mutex::new(Some(transaction)))));
        Ok(Self { snapshot, ..self.clone() })
    }

    /// Ends what [`Self::frozen`] began.
    pub async fn thaw(&self) {
        if let Some(Frozen(snapshot)) = &self.snapshot
            && let Some(transaction) = snapshot.lock().await.take()
        {
            transaction.rollback().await;
        }
    }
}

impl Transaction {
    /// Runs one statement and gives its rows.
    pub async fn rows(&mut self, sql: &Sql) -> Result<RowSet, WriteError> {
        self.statements.fetch_add(1, Ordering::Relaxed);
        fetch(self.conn()?, sql).await.map_err(|failure| match failure {
            Failure::Lost(cause) => Error::unavailable("PostgreSQL", cause).into(),
            Failure::Other(error, refused) => match refused {
                Some((violation, constraint)) => WriteError::Refused { violation, constraint, cause: error },
                None => error.into(),
            },
        })
    }

    /// Makes it count. If the server goes away meanwhile, nobody knows whether it does: an idempotency key tells.
    pub async fn commit(mut self) -> Result<()> {
        self.statements.fetch_add(1, Ordering::Relaxed);
        let ended = AnsiTransactionManager::commit_transaction(self.conn()?).await;
        ended.map_err(classify)?;
        self.conn = None;
        Ok(())
    }

    /// Takes it back.
    pub async fn rollback(mut self) {
        self.statements.fetch_add(1, Ordering::Relaxed);
        let Ok(conn) = self.conn() else { return };
        match AnsiTransactionManager::rollback_transaction(conn).await {
            Ok(()) => self.conn = None,
            // The pool closes a connection with an open transaction, and PostgreSQL takes that back by itself.
            Err(error) => tracing::debug!(%error, "a transaction could not be rolled back"),
        }
    }

    fn conn(&mut self) -> Result<&mut AsyncPgConnection> {
        let conn = self.conn.as_deref_mut();
        conn.ok_or_else(|| Error::internal("the transaction is over"))
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let (Some(conn), Ok(runtime)) = (self.conn.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        runtime.spawn(async move {
            if let Err(error) = conn.cancel_token().cancel_query(NoTls).await {
                tracing::debug!(%error, "a transaction could not be cancelled");
            }
            // The pool sees the open transaction and closes the connection; PostgreSQL rolls back.
            drop(conn);
        });
    }
}

/// The constraint that an error tells of.
pub(super) fn refused(error: &DieselError) -> Option<(Violation, String)> {
    let DieselError::DatabaseError(kind, info) = error else { return None };
    let violation = match kind {
        DatabaseErrorKind::CheckViolation => Violation::Check,
        DatabaseErrorKind::UniqueViolation => Violation::Unique,
        DatabaseErrorKind::ForeignKeyViolation => Violation::Reference,
        _ => return None,
    };
    Some((violation, info.constraint_name()?.to_owned()))
}
