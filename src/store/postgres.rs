//! A PostgreSQL server that belongs to one data directory and to nobody else: for `dev` and for tests.
//!
//! It listens on a unix socket only, dies with the gateway (however that ends), and never needs a
//! system-wide server, a password or a port. `place` decides where it lives and as whom it runs, `binaries`
//! which installation it is started from.

mod binaries;
mod place;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Config, NoTls};

use self::binaries::Binaries;
use self::place::Place;
use crate::error::{Code, Error, Result};

/// The database that `database_url` names; made at the first start.
pub const DATABASE: &str = "evidence_gateway";

/// The only role there is.
const ROLE: &str = "postgres";

/// Longer than any crash recovery of a development database.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long a fast shutdown may take before the server is told to drop everything.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A log that is larger than this starts anew with the next start.
const MAX_LOG_BYTES: u64 = 8 * 1024 * 1024;

/// How much of the log an error carries to the operator.
const LOG_TAIL_BYTES: u64 = 2_000;

/// The folder of PostgreSQL's server programs, or what to install.
pub fn find_binaries() -> Result<PathBuf> {
    Ok(Binaries::find(None)?.program("postgres"))
}

/// What a private server is for.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// The folder that the server belongs to; made when it does not exist.
    pub dir: PathBuf,
    /// Whether committed data must survive a crash of the machine. False is several times faster.
    pub durable: bool,
    /// How many connections the server takes.
    pub max_connections: u16,
    /// The server's own cache of pages.
    pub shared_buffers_mb: u32,
}

impl PostgresOptions {
    /// For `dev`: data that is kept.
    pub fn kept(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), durable: true, max_connections: 100, shared_buffers_mb: 128 }
    }

    /// For tests: data that nobody will miss.
    pub fn throwaway(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), durable: false, max_connections: 300, shared_buffers_mb: 64 }
    }
}

/// A running server. Dropping it stops the server; so does the end of this process, even by SIGKILL.
#[derive(Debug)]
pub struct PrivatePostgres {
    options: PostgresOptions,
    place: Place,
    binaries: Binaries,
    server: Option<Server>,
    /// Held for as long as the server may run, so that no second gateway starts one on the same files.
    _lock: File,
}

#[derive(Debug)]
struct Server {
    pid: u32,
    /// The thread that started the server. The kernel ties the server's life to this thread, not to the
    /// process, so the thread does nothing but wait for the server to end.
    keeper: JoinHandle<()>,
}

impl PrivatePostgres {
    /// Starts the server of `options.dir`, making its files at the first start, and waits until it answers.
    pub async fn start(options: PostgresOptions) -> Result<Self> {
        fs::create_dir_all(&options.dir).map_err(|e| not_usable(&options.dir, e))?;
        let dir = fs::canonicalize(&options.dir).map_err(|e| not_usable(&options.dir, e))?;
        let lock = lock(&dir)?;
        let place = Place::choose(&dir)?;
        let binaries = Binaries::find(place.made_by_major())?;
        let mut postgres = Self { options, place, binaries, server: None, _lock: lock };
        if postgres.place.made_by_major().is_none() {
            let (place, binaries) = (postgres.place.clone(), postgres.binaries.clone());
            let durable = postgres.options.durable;
            tokio::task::spawn_blocking(move || initialize(&place, &binaries, durable))
                .await
                .map_err(Error::internal)??;
        }
        postgres.start_server().await?;
        postgres.create_database(DATABASE, None).await?;
        Ok(postgres)
    }

    /// Where clients connect: a URL that psql, libpq and tokio-postgres all understand.
    pub fn database_url(&self) -> String {
        self.database_url_of(DATABASE)
    }

    /// The same for another database of this server.
    pub fn database_url_of(&self, database: &str) -> String {
        let host = self.place.socket_dir.to_string_lossy();
        format!("postgres://{ROLE}@/{}?host={}", percent_encoded(database), percent_encoded(&host))
    }

    /// Where the data lives, which is not under `options.dir` when the server's user cannot reach that.
    pub fn data_dir(&self) -> &Path {
        &self.place.data_dir
    }

    /// The process id of the server, for those who want to hurt it; none when it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(|server| server.pid)
    }

    /// Makes a database unless it exists, optionally as a copy of `template`, to which nobody may be connected.
    pub async fn create_database(&self, name: &str, template: Option<&str>) -> Result<()> {
        let client = connect(&self.place).await.map_err(|e| Error::unavailable("PostgreSQL", e))?;
        let exists = client
            .query_opt("select 1 from pg_database where datname = $1", &[&name])
            .await
            .map_err(Error::internal)?;
        if exists.is_some() {
            return Ok(());
        }
        let template = template.map_or_else(String::new, |t| format!(" template {}", quoted(t)));
        client
            .batch_execute(&format!("create database {}{template}", quoted(name)))
            .await
            .map_err(Error::internal)
    }

    /// Removes a database and throws out whoever is connected to it.
    pub async fn drop_database(&self, name: &str) -> Result<()> {
        let client = connect(&self.place).await.map_err(|e| Error::unavailable("PostgreSQL", e))?;
        client
            .batch_execute(&format!("drop database if exists {} with (force)", quoted(name)))
            .await
            .map_err(Error::internal)
    }

    /// Stops the server and starts it again on the same data and the same socket.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop_server();
        self.start_server().await
    }

    /// Stops the server and waits until it has written everything.
    pub async fn stop(mut self) -> Result<()> {
        tokio::task::spawn_blocking(move || self.stop_server()).await.map_err(Error::internal)
    }

    async fn start_server(&mut self) -> Result<()> {
        self.clear_remains();
        let server = spawn(self.server_command()?)?;
        let server = self.server.insert(server);
        let started = Instant::now();
        loop {
            let error = match connect(&self.place).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if server.keeper.is_finished() || started.elapsed() > START_LIMIT {
                let log = self.place.log_file.display();
                let text = format!("the private PostgreSQL server did not start; its log is {log}");
                let tail = log_tail(&self.place.log_file);
                return Err(
                    Error::new(Code::Unavailable, text).because(format!("{error}; the log ends: {tail}"))
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What a gateway that was killed may have left: its server, still on the way down, or stale lock files
    /// whose process id now belongs to somebody else, which PostgreSQL cannot tell from a running server.
    fn clear_remains(&self) {
        let pid_file = self.place.data_dir.join("postmaster.pid");
        let Some(pid) = first_line(&pid_file).and_then(|line| line.parse::<u32>().ok()) else { return };
        let Ok(command_line) = fs::read(format!("/proc/{pid}/cmdline")) else { return };
        let ours = self.place.data_dir.as_os_str().as_encoded_bytes();
        if command_line.split(|byte| *byte == 0).any(|argument| argument == ours) {
            tracing::info!(pid, "stopping the PostgreSQL server of a gateway that is gone");
            self.signal(pid, "INT");
            let asked = Instant::now();
            while Path::new(&format!("/proc/{pid}")).exists() && asked.elapsed() < STOP_LIMIT {
                std::thread::sleep(Duration::from_millis(10));
            }
        } else {
            for stale in [pid_file, self.place.socket_dir.join(".s.PGSQL.5432.lock")] {
                if let Err(error) = fs::remove_file(&stale) {
                    tracing::debug!(file = %stale.display(), %error, "no stale lock file to remove");
                }
            }
        }
    }

    fn server_command(&self) -> Result<Command> {
        let log = open_log(&self.place.log_file)?;
        let sockets = self.place.socket_dir.to_string_lossy().replace('"', "\"\"");
        let mut settings = vec![
            "listen_addresses=".to_owned(),
            "port=5432".to_owned(),
            format!("unix_socket_directories=\"{sockets}\""),
            // Authentication is "trust": whoever can open the socket is in, so only the owner can.
            "unix_socket_permissions=0700".to_owned(),
            format!("max_connections={}", self.options.max_connections),
            format!("shared_buffers={}MB", self.options.shared_buffers_mb),
            "timezone=UTC".to_owned(),
            "logging_collector=off".to_owned(),
            "log_destination=stderr".to_owned(),
            "log_checkpoints=off".to_owned(),
            // Compiling costs more than any query of the gateway takes.
            "jit=off".to_owned(),
        ];
        if !self.options.durable {
            settings
                .extend(["fsync=off", "synchronous_commit=off", "full_page_writes=off"].map(str::to_owned));
        }
        let mut command = self.place.command(&self.binaries.program("postgres"), Some("INT"));
        command.arg("-D").arg(&self.place.data_dir);
        for setting in settings {
            command.arg("-c").arg(setting);
        }
        // Its own process group: Ctrl-C in the terminal is for the gateway, which still needs its database
        // while it finishes the requests that are under way.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Ok(command)
    }

    fn stop_server(&mut self) {
        let Some(server) = self.server.take() else { return };
        // Nobody wants the data of a throwaway server: it may skip its last checkpoint.
        let first = if self.options.durable { "INT" } else { "QUIT" };
        for signal in [first, "QUIT"] {
            if server.keeper.is_finished() {
                break;
            }
            self.signal(server.pid, signal);
            let asked = Instant::now();
            while !server.keeper.is_finished() && asked.elapsed() < STOP_LIMIT {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if server.keeper.join().is_err() {
            tracing::error!("the thread that keeps the PostgreSQL server failed");
        }
    }

    fn signal(&self, pid: u32, name: &str) {
        let mut command = self.place.command(&self.binaries.program("pg_ctl"), None);
        command.args(["kill", name, &pid.to_string()]).stdin(Stdio::null()).stdout(Stdio::null());
        if let Err(error) = command.stderr(Stdio::null()).status() {
            tracing::error!(pid, name, %error, "the PostgreSQL server cannot be signalled");
        }
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        self.stop_server();
        self.place.clean_up(self.options.durable);
    }
}

/// Starts the server on a thread that lives exactly as long as it.
fn spawn(mut command: Command) -> Result<Server> {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let keeper = std::thread::Builder::new()
        .name("postgres-keeper".to_owned())
        .spawn(move || {
            let child = command.spawn();
            let pid = child.as_ref().map(std::process::Child::id).map_err(|e| (e.kind(), e.to_string()));
            let heard = tell.send(pid).is_ok();
            let ended = child.and_then(|mut child| child.wait());
            tracing::debug!(heard, ?ended, "the PostgreSQL server has ended");
        })
        .map_err(Error::internal)?;
    match told.recv().map_err(Error::internal)? {
        Ok(pid) => Ok(Server { pid, keeper }),
        Err((kind, text)) => Err(place::cannot_run("setpriv", kind, text)),
    }
}

/// Makes the files of a server. They get their name last, so that an interrupted run leaves no half cluster.
fn initialize(place: &Place, binaries: &Binaries, durable: bool) -> Result<()> {
    let mut failure = String::new();
    // A system without C.UTF-8 still has C, which compares the same and only folds less case.
    for locale in ["C.UTF-8", "C"] {
        let draft = place.make_draft()?;
        let mut command = place.command(&binaries.program("initdb"), Some("TERM"));
        command.args(["--encoding=UTF8", "--auth-local=trust", "--auth-host=reject", "--no-instructions"]);
        command.arg(format!("--locale={locale}")).arg(format!("--username={ROLE}"));
        if !durable {
            command.arg("--no-sync");
        }
        let output = command
            .arg("-D")
            .arg(&draft)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| place::cannot_run("setpriv", e.kind(), e.to_string()))?;
        if output.status.success() {
            return fs::rename(&draft, &place.data_dir).map_err(|e| not_usable(&place.data_dir, e));
        }
        failure = String::from_utf8_lossy(&output.stderr).into_owned();
    }
    let text = format!("initdb could not make a database in {}", place.data_dir.display());
    Err(Error::new(Code::Unavailable, text).because(failure))
}

async fn connect(place: &Place) -> std::result::Result<Client, tokio_postgres::Error> {
    let mut config = Config::new();
    config.user(ROLE).dbname("postgres").host_path(&place.socket_dir).connect_timeout(Duration::from_secs(5));
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to the private PostgreSQL server broke");
        }
    });
    Ok(client)
}

/// Takes the folder for this process, or says who has it.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|e| not_usable(&path, e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let owner = first_line(&path)
                .map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
            let text = format!("{} is already in use by {owner}", dir.display());
            return Err(Error::new(Code::Conflict, text));
        }
        Err(TryLockError::Error(error)) => return Err(not_usable(&path, error)),
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(|e| not_usable(&path, e))?;
    Ok(file)
}

fn open_log(path: &Path) -> Result<File> {
    let large = fs::metadata(path).is_ok_and(|log| log.len() > MAX_LOG_BYTES);
    if large {
        fs::remove_file(path).map_err(|e| not_usable(path, e))?;
    }
    OpenOptions::new().create(true).append(true).open(path).map_err(|e| not_usable(path, e))
}

fn log_tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_else(|error| error.to_string())
}

fn first_line(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}

fn not_usable(path: &Path, cause: std::io::Error) -> Error {
    let text = format!("{} cannot be used: {cause}", path.display());
    Error::new(Code::Unavailable, text).because(cause)
}

fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_survive_awkward_paths() {
        assert_eq!(percent_encoded("/tmp/a b?c"), "%2Ftmp%2Fa%20b%3Fc");
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }

    #[test]
    fn a_folder_has_one_user_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        let error = lock(dir.path()).unwrap_err();
        assert!(error.message().ends_with(&format!("already in use by process {}", std::process::id())));
        drop(held);
        lock(dir.path()).unwrap();
    }
}
