//! `check-consistency`: a private PostgreSQL, a Redis, and two gateways that share them; readers ask and writers
//! write, some of them past the gateways, for as long as one likes, while servers are killed. Afterwards every
//! answer is compared with what the database's own log says of the time.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Args;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::cli::check::client::Client;
use crate::cli::check::history::History;
use crate::cli::check::work::World;
use crate::cli::{print, say};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::http::viewer::token::{TokenKeys, mint};
use crate::model::change::history::{TABLES, setup, versions};
use crate::model::cursor::CursorKey;
use crate::model::viewer::{Grant, Holder, Role};
use crate::store::db::Db;
use crate::store::db::migrations::migrate;
use crate::store::postgres::{PostgresOptions, PrivatePostgres};

mod client;
mod history;
mod work;

/// Tasks per project.
const TASKS: usize = 12;
/// For a gateway to start.
const READY: Duration = Duration::from_secs(30);
/// Seconds in which all that may be killed is killed once.
const ROUND: u64 = 20;
/// Violations that are printed.
const SHOWN: usize = 20;

/// The options of `check-consistency`.
#[derive(Debug, Args)]
pub struct Check {
    /// How long, in seconds.
    #[arg(long = "for", default_value_t = 60)]
    seconds: u64,
    /// Go on until so many answers were read.
    #[arg(long, default_value_t = 0)]
    reads: usize,
    /// Readers at once.
    #[arg(long, default_value_t = 4)]
    readers: usize,
    /// Writers through the gateways, and as many by psql.
    #[arg(long, default_value_t = 2)]
    writers: usize,
    /// Also kill Redis and a gateway, and hold a transaction open for five seconds.
    #[arg(long)]
    faults: bool,
    /// Where chance begins.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What runs beside this process. All of it ends with it.
struct Servers {
    folder: std::path::PathBuf,
    secret: String,
    database_url: String,
    redis: Child,
    gateways: Vec<(SocketAddr, Child)>,
    /// Passed on to the gateways.
    trust: bool,
}

impl Check {
    /// Runs, compares, and fails if an answer was wrong.
    pub async fn run(&self, config: &Config) -> Result<()> {
        let folder = config.data_dir.join(format!("check-{}", std::process::id()));
        let postgres = PrivatePostgres::start(PostgresOptions::throwaway(&folder)).await?;
        let checked = self.check(config, &postgres, folder.clone()).await;
        let stopped = postgres.stop().await;
        std::fs::remove_dir_all(&folder).map_err(Error::internal)?;
        checked.and(stopped)
    }

    async fn check(
        &self,
        config: &Config,
        postgres: &PrivatePostgres,
        folder: std::path::PathBuf,
    ) -> Result<()> {
        let url = postgres.database_url();
        migrate(&url).await?;
        let db = Db::connect(&url, &config.db_options()).await?;
        let projects = vec![Uuid::now_v7(), Uuid::now_v7()];
        db.script(&setup(&projects, TASKS)).await?;
        let tasks = versions(&db.session()).await?;
        let tasks =
            tasks.into_iter().filter(|((table, _), _)| table == TABLES[0]).map(|((_, id), _)| id).collect();
        let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let mut servers = Servers::start(config, folder, &secret, &url).await?;
        let world = Arc::new(World {
            gateways: servers.gateways.iter().map(|(address, _)| *address).collect(),
            database_url: url,
            key: CursorKey::new(secret.as_bytes()),
            bearers: bearers(&secret, &projects)?,
            projects,
            tasks,
            stop: AtomicBool::new(false),
            noted: Mutex::default(),
            random: AtomicU64::new(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        });
        say(&format!("{} readers and {} writers for {} s", self.readers, 2 * self.writers, self.seconds));
        let reading: Vec<_> = (0..self.readers).map(|n| tokio::spawn(work::read(world.clone(), n))).collect();
        let mut writing: Vec<_> =
            (0..self.writers).map(|n| tokio::spawn(work::write(world.clone(), n))).collect();
        let by_psql: Vec<_> =
            (0..self.writers).map(|_| tokio::spawn(work::write_by_psql(world.clone(), 0))).collect();
        let end = Instant::now() + Duration::from_secs(self.seconds);
        let round = Duration::from_secs(self.seconds.min(ROUND));
        while Instant::now() < end || world.noted().seen.len() < self.reads {
            let next = Instant::now() + round;
            if self.faults {
                servers.hurt(&world, round).await?;
            }
            tokio::time::sleep_until(next).await;
        }
        world.stop.store(true, Ordering::Relaxed);
        writing.extend(reading);
        for task in writing {
            task.await.map_err(Error::internal)?;
        }
        for task in by_psql {
            task.await.map_err(Error::internal)??;
        }
        report(&world, History::new(&TABLES, versions(&db.session()).await?))
    }
}

/// Readers of one project, of the other, of both, and of everything.
fn bearers(secret: &str, projects: &[Uuid]) -> Result<Vec<(String, Arc<[Uuid]>)>> {
    let keys = TokenKeys::new(&secret.parse().map_err(Error::internal)?, None);
    let scopes = [&projects[..1], &projects[1..], projects, &[]];
    let bearer = |scope: &[Uuid]| {
        let role = if scope.is_empty() { Role::Admin } else { Role::Viewer };
        let named = (!scope.is_empty()).then(|| scope.to_vec());
        Ok((mint(&keys, &Grant { holder: Holder::Nobody, role, projects: named }, 86_400)?, Arc::from(scope)))
    };
    scopes.into_iter().map(bearer).collect()
}

impl Servers {
    async fn start(config: &Config, folder: std::path::PathBuf, secret: &str, url: &str) -> Result<Self> {
        // A socket's address must be absolute, and the folder is as it was given.
        let folder = std::path::absolute(folder).map_err(Error::internal)?;
        let redis = start_redis(&folder)?;
        let mut servers = Self {
            folder,
            secret: secret.to_owned(),
            database_url: url.to_owned(),
            redis,
            gateways: Vec::new(),
            trust: config.cache_trust_everything,
        };
        for _ in 0..2 {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(Error::internal)?;
            let address = listener.local_addr().map_err(Error::internal)?;
            drop(listener);
            let gateway = servers.start_gateway(address).await?;
            servers.gateways.push((address, gateway));
        }
        Ok(servers)
    }

    async fn start_gateway(&self, address: SocketAddr) -> Result<Child> {
        let redis = format!("unix://{}", self.folder.join("redis.sock").display());
        let mut command = Command::new(std::env::current_exe().map_err(Error::internal)?);
        command.args(["serve", "--embedder", "off", "--log", "error", "--listen", &address.to_string()]);
        command.args([
            "--database-url",
            &self.database_url,
            "--redis-url",
            &redis,
            "--token-secret",
            &self.secret,
        ]);
        command.arg("--data-dir").arg(&self.folder);
        if self.trust {
            command.arg("--cache-trust-everything");
        }
        let mut child = command.kill_on_drop(true).stdin(Stdio::null()).spawn().map_err(Error::internal)?;
        let mut client = Client::new(address);
        let begun = Instant::now();
        while client.ask("GET", "/health/ready", "", "").await.is_none_or(|reply| reply.status != 200) {
            // If it ended by itself it has said why.
            if child.try_wait().map_err(Error::internal)?.is_some() || begun.elapsed() > READY {
                return Err(Error::internal("a gateway does not get ready"));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(child)
    }

    /// Kills what may be killed, one after the other, over most of this time.
    async fn hurt(&mut self, world: &Arc<World>, over: Duration) -> Result<()> {
        sleep(over / 8).await;
        say("killing Redis");
        self.redis.kill().await.map_err(Error::internal)?;
        sleep(over / 8).await;
        self.redis = start_redis(&self.folder)?;
        say("Redis is back; killing a gateway");
        sleep(over / 8).await;
        let (address, mut gateway) = self.gateways.remove(0);
        gateway.kill().await.map_err(Error::internal)?;
        let gateway = self.start_gateway(address).await?;
        self.gateways.push((address, gateway));
        say("the gateway is back; holding a transaction open");
        work::write_by_psql(world.clone(), 5).await
    }
}

fn start_redis(folder: &std::path::Path) -> Result<Child> {
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket", "redis.sock"]);
    command.current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let missing =
        |error| Error::bad_input("redis-server", "cannot be started; install redis-server").because(error);
    command.spawn().map_err(missing)
}

/// Compares, and says what came of it.
fn report(world: &World, history: History) -> Result<()> {
    let noted = std::mem::take(&mut *world.noted());
    let mut wrong: Vec<String> = Vec::new();
    let mut staleness = Vec::with_capacity(noted.seen.len());
    for seen in &noted.seen {
        wrong.extend(history.judge(seen));
        staleness.push(history.staleness(seen, &noted.acknowledged));
    }
    staleness.sort_by(f64::total_cmp);
    let at = |percent: usize| staleness.get(staleness.len() * percent / 100).copied().unwrap_or_default();
    let worst = staleness.last().copied().unwrap_or_default();
    print(&format!(
        "{} reads, {} from the cache, {} refused; {} versions written\nstaleness in ms: p50 {:.1}, p99 {:.1}, worst {worst:.1}\n{} answers that cannot have been\n",
        noted.seen.len(),
        noted.hits,
        noted.refused,
        noted.acknowledged.len(),
        at(50),
        at(99),
        wrong.len(),
    ))?;
    for text in wrong.iter().take(SHOWN) {
        say(text);
    }
    if wrong.is_empty() && !noted.seen.is_empty() {
        return Ok(());
    }
    Err(Error::internal("answers were told that the database's history does not allow"))
}
