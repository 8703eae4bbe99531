//! PostgreSQL: the pool, one request's session on it, statements as text with bound values, and rows as they
//! came over the wire. It knows bytes and types, no entities; who may read what is decided in `model`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bb8::RunError;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel_async::pooled_connection::bb8::{Pool, PooledConnection};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, PoolError, RecyclingMethod,
};
use diesel_async::{
    AnsiTransactionManager, AsyncConnectionCore, AsyncPgConnection, SimpleAsyncConnection, TransactionManager,
};
use futures_util::{FutureExt, TryStreamExt};
use tokio_postgres::NoTls;

use crate::config::DbOptions;
use crate::error::{Code, Error, Result};
use crate::store::db::reads::Notes;
use crate::store::db::rows::RowSet;
use crate::store::db::sql::Sql;
use crate::store::db::transaction::{Frozen, Violation};

pub mod lock;
pub mod migrations;
pub mod reads;
pub mod rows;
pub mod sql;
pub mod transaction;

/// The database: a bounded pool of connections.
#[derive(Clone)]
pub struct Db {
    pool: Pool<AsyncPgConnection>,
    /// Statements of all sessions.
    statements: Arc<AtomicU64>,
}

impl Db {
    /// Makes the pool. Connections are opened when they are first needed, so this succeeds without a server.
    pub async fn connect(url: &str, options: &DbOptions) -> Result<Self> {
        let setup = format!(
            "set statement_timeout = {}; set jit = off; set application_name = 'evidence-gateway'",
            options.statement_timeout.as_millis()
        );
        let mut config = ManagerConfig::default();
        // A ping at each check-out would double the statements of a small request; a connection that died in
        // the pool is noticed by its first statement, which `Session::rows` repeats on another one.
        config.recycling_method = RecyclingMethod::Fast;
        config.custom_setup = Box::new(move |url| {
            let setup = setup.clone();
            async move {
                let mut conn = <AsyncPgConnection as diesel_async::AsyncConnection>::establish(url).await?;
                conn.batch_execute(&setup)
                    .await
                    .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
                Ok(conn)
            }
            .boxed()
        });
        let manager = AsyncDieselConnectionManager::new_with_config(url, config);
        let pool = Pool::builder()
            .max_size(options.pool_size)
            .connection_timeout(options.pool_wait)
            .test_on_check_out(false)
            .build(manager)
            .await
            .map_err(Error::internal)?;
        Ok(Self { pool, statements: Arc::default() })
    }

    /// A connection of one's own, for migrations, imports and writes.
    pub async fn connection(&self) -> Result<PooledConnection<'_, AsyncPgConnection>> {
        self.pool.get().await.map_err(no_connection)
    }

    /// Runs several statements of the program's own, one after the other.
    pub async fn script(&self, sql: &str) -> Result<()> {
        self.connection().await?.batch_execute(sql).await.map_err(classify)
    }

    /// Starts the session of one request.
    pub fn session(&self) -> Session {
        Session { db: self.clone(), statements: Arc::default(), notes: Arc::default(), snapshot: None }
    }

    /// Asks the server for its version, to see whether it answers.
    pub async fn version(&self) -> Result<String> {
        let mut sql = Sql::default();
        sql.push("select current_setting('server_version')");
        let rows = self.session().rows(&sql.returning(1)).await?;
        Ok(rows.text(0, 0).unwrap_or_default().to_owned())
    }

    /// How the pool is, and what it has come to since the start.
    pub fn pool_state(&self) -> PoolState {
        let state = self.pool.state();
        PoolState {
            open: state.connections,
            idle: state.idle_connections,
            waits: state.statistics.get_waited,
            timeouts: state.statistics.get_timed_out,
            waited: state.statistics.get_wait_time,
            statements: self.statements.load(Ordering::Relaxed),
        }
    }
}

/// The pool in numbers.
#[derive(Debug, Clone, Copy)]
pub struct PoolState {
    /// Connections that are open.
    pub open: u32,
    /// Those of them that nobody uses.
    pub idle: u32,
    /// How often a connection was waited for and came.
    pub waits: u64,
    /// How often none came in time.
    pub timeouts: u64,
    /// How long was waited in all.
    pub waited: Duration,
    /// Statements that were sent, those of requests and of everybody else.
    pub statements: u64,
}

/// One request's access to the database; it counts the statements that the request costs and notes what they read.
#[derive(Clone)]
pub struct Session {
    db: Db,
    statements: Arc<AtomicU32>,
    notes: Arc<Notes>,
    /// What all its statements see, if that is one and the same.
    snapshot: Option<Frozen>,
}

impl Session {
    /// Runs one reading statement and gives its rows.
    ///
    /// A connection that turns out to be dead (the server was restarted while it lay in the pool) is replaced
    /// and the statement repeated: reading twice does no harm.
    pub async fn rows(&self, sql: &Sql) -> Result<RowSet> {
        self.db.statements.fetch_add(1, Ordering::Relaxed);
        self.notes.before(sql);
        let rows = match &self.snapshot {
            Some(snapshot) => snapshot.rows(sql).await?,
            None => {
                self.statements.fetch_add(1, Ordering::Relaxed);
                self.attempts(sql).await?
            }
        };
        self.notes.after(sql, &rows);
        Ok(rows)
    }

    async fn attempts(&self, sql: &Sql) -> Result<RowSet> {
        for _ in 0..RETRIES {
            match self.attempt(sql).await {
                Err(Failure::Lost(_)) => {}
                Err(Failure::Other(error, _)) => return Err(error),
                Ok(rows) => return Ok(rows),
            }
        }
        self.attempt(sql).await.map_err(|failure| match failure {
            Failure::Lost(cause) => Error::unavailable("PostgreSQL", cause),
            Failure::Other(error, _) => error,
        })
    }

    async fn attempt(&self, sql: &Sql) -> Result<RowSet, Failure> {
        let failed = |error| Failure::Other(error, None);
        let conn = self.db.pool.get_owned().await.map_err(|error| failed(no_connection(error)))?;
        let mut running = Running(Some(conn));
        let Some(conn) = &mut running.0 else { return Err(failed(Error::internal("no connection"))) };
        let rows = fetch(conn, sql).await;
        // It is done, and goes back to the pool as it is.
        drop(running.0.take());
        rows
    }

    /// What its statements have read.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// A session on the same database whose statements count on their own.
    pub fn apart(&self) -> Self {
        self.db.session()
    }

    /// How many statements this request has cost so far.
    pub fn statements(&self) -> u32 {
        self.statements.load(Ordering::Relaxed)
    }
}

fn no_connection(error: RunError<PoolError>) -> Error {
    match error {
        RunError::User(cause) => Error::unavailable("PostgreSQL", cause),
        RunError::TimedOut => Error::unavailable("PostgreSQL", "no connection became free in time"),
    }
}

/// A connection with a statement on it. Dropped while that runs (the request ran out of time, its client went
/// away), it has PostgreSQL stop: nobody waits for the answer, and others wait for the connection.
struct Running(Option<PooledConnection<'static, AsyncPgConnection>>);

impl Drop for Running {
    fn drop(&mut self) {
        let (Some(mut conn), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        runtime.spawn(async move {
            if let Err(error) = conn.cancel_token().cancel_query(NoTls).await {
                tracing::debug!(%error, "a statement could not be cancelled");
            }
            // Nobody tells when the cancellation has come there. Lest it hit another request's statement, the pool
            // takes this connection for broken and makes another one.
            AnsiTransactionManager::transaction_manager_status_mut(&mut *conn).set_in_error();
        });
    }
}

/// After a restart of the server every pooled connection is dead at once, and each costs one attempt.
const RETRIES: usize = 3;

enum Failure {
    Lost(DieselError),
    /// With the constraint that it breaks, if it breaks one.
    Other(Error, Option<(Violation, String)>),
}

async fn fetch(conn: &mut AsyncPgConnection, sql: &Sql) -> Result<RowSet, Failure> {
    let loaded: Result<RowSet, DieselError> = async {
        let mut rows = RowSet::new(sql.width());
        let mut stream = AsyncConnectionCore::load(conn, sql).await?;
        while let Some(row) = stream.try_next().await? {
            rows.push(&row)?;
        }
        Ok(rows)
    }
    .await;
    loaded.map_err(|error| match error {
        error if is_lost(&error) => Failure::Lost(error),
        error => {
            let refused = transaction::refused(&error);
            Failure::Other(classify(error), refused)
        }
    })
}

/// diesel has no kind for "the server went away" in all its forms: a closed channel, an administrator's
/// shutdown, a server that is still starting.
fn is_lost(error: &DieselError) -> bool {
    match error {
        DieselError::BrokenTransactionManager => true,
        DieselError::DatabaseError(DatabaseErrorKind::ClosedConnection, _) => true,
        DieselError::DatabaseError(
            DatabaseErrorKind::Unknown | DatabaseErrorKind::UnableToSendCommand,
            info,
        ) => {
            let text = info.message();
            [
                "connection closed",
                "terminating connection",
                "error communicating with the server",
                "shutting down",
                "starting up",
                "in recovery mode",
            ]
            .iter()
            .any(|sign| text.contains(sign))
        }
        _ => false,
    }
}

/// Turns what PostgreSQL says into what a client may read.
pub fn classify(error: DieselError) -> Error {
    if is_lost(&error) {
        return Error::unavailable("PostgreSQL", error);
    }
    match &error {
        DieselError::DatabaseError(_, info) if info.message().contains("statement timeout") => {
            Error::new(Code::Timeout, "the request took longer than its limit").because(error)
        }
        DieselError::DatabaseError(kind, info)
            if matches!(kind, DatabaseErrorKind::SerializationFailure)
                || info.message().contains("deadlock detected") =>
        {
            Error::new(Code::Conflict, "another write came first; try again").because(error)
        }
        _ => Error::internal(error),
    }
}
