//! A lock of the whole database, on a connection of its own: of all processes that want it one has it, for as long
//! as its connection lives.

use std::time::Duration;

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use tokio::time::timeout;

use super::{Db, Failure, classify, fetch};
use crate::error::{Error, Result};
use crate::store::db::rows::RowSet;
use crate::store::db::sql::{Bind, Sql};

/// A server that was cut off does not say so.
const LIMIT: Duration = Duration::from_secs(5);
/// Has PostgreSQL notice within some ten seconds that the machine of the one who holds the lock is gone.
const NOTICE: &str =
    "set tcp_keepalives_idle = 5; set tcp_keepalives_interval = 2; set tcp_keepalives_count = 3";

/// A lock, taken or not. It is given back when this is dropped.
pub struct SessionLock {
    conn: AsyncPgConnection,
    key: i64,
}

impl Db {
    /// Connects for a lock, without taking it.
    pub async fn session_lock(&self, key: i64) -> Result<SessionLock> {
        let unavailable = |cause| Error::unavailable("PostgreSQL", cause);
        let connected = timeout(LIMIT, self.pool.dedicated_connection()).await;
        let connected = connected.map_err(|late| Error::unavailable("PostgreSQL", late))?;
        let mut conn = connected.map_err(unavailable)?;
        conn.batch_execute(NOTICE).await.map_err(classify)?;
        Ok(SessionLock { conn, key })
    }
}

impl SessionLock {
    /// Takes the lock unless somebody has it. To be asked once: PostgreSQL counts how often it was taken.
    pub async fn take(&mut self) -> Result<bool> {
        let mut sql = Sql::default();
        sql.push("select pg_try_advisory_lock(").bind(Bind::Int(self.key)).push(")");
        Ok(self.rows(&sql.returning(1)).await?.cell(0, 0) == Some(&[1]))
    }

    /// Sees whether the connection lives, and with it the lock.
    pub async fn check(&mut self) -> Result<()> {
        let mut sql = Sql::default();
        sql.push("select");
        self.rows(&sql).await.map(drop)
    }

    async fn rows(&mut self, sql: &Sql) -> Result<RowSet> {
        let fetched = timeout(LIMIT, fetch(&mut self.conn, sql)).await;
        let fetched = fetched.map_err(|late| Error::unavailable("PostgreSQL", late))?;
        fetched.map_err(|failure| match failure {
            Failure::Lost(cause) => Error::unavailable("PostgreSQL", cause),
            Failure::Other(error, _) => error,
        })
    }
}
