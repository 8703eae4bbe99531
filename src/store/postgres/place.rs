//! Where the private server lives, and as whom it runs.
//!
//! PostgreSQL refuses to run as root, and the user it runs as instead cannot enter a clone below a closed
//! home such as /root. The path of a unix socket cannot be longer than 107 bytes. Both are settled here.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::not_usable;
use crate::error::{Code, Error, Result};

/// Where data goes that the server's user could not reach in its own place.
const ELSEWHERE: &str = "/var/lib/evidence-gateway";

/// `sun_path` has 108 bytes, and the last one is zero.
const MAX_SOCKET_PATH_BYTES: usize = 107;

const SOCKET_NAME: &str = ".s.PGSQL.5432";

/// An account that root hands the server to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Account {
    uid: u32,
    gid: u32,
}

/// The folders of one private server.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) data_dir: PathBuf,
    pub(super) socket_dir: PathBuf,
    pub(super) log_file: PathBuf,
    /// None: the server runs as we do.
    account: Option<Account>,
    /// Whether `data_dir` is below `ELSEWHERE`.
    elsewhere: bool,
}

impl Place {
    /// Settles everything for the folder `dir`, which exists and is absolute.
    pub(super) fn choose(dir: &Path) -> Result<Self> {
        let near = dir.join("postgres");
        let uid = fs::metadata("/proc/self").map_err(Error::internal)?.uid();
        let mut place = Self {
            socket_dir: near.clone(),
            data_dir: near,
            log_file: dir.join("postgres.log"),
            account: None,
            elsewhere: false,
        };
        if uid == 0 {
            place.leave_root(dir)?;
        } else if owner_of(&place.data_dir).is_some_and(|owner| owner.uid != uid) {
            let text = format!(
                "{} belongs to another user; start as that user, or choose another data directory",
                place.data_dir.display()
            );
            return Err(Error::new(Code::Unavailable, text));
        }
        place.choose_socket_dir()?;
        Ok(place)
    }

    /// The major version of the PostgreSQL that made the data; none when there is no data yet.
    pub(super) fn made_by_major(&self) -> Option<u32> {
        fs::read_to_string(self.data_dir.join("PG_VERSION")).ok()?.trim().parse().ok()
    }

    /// A command that runs as the server's user and gets `signal_at_our_end` when the thread that spawned it ends.
    pub(super) fn command(&self, program: &Path, signal_at_our_end: Option<&str>) -> Command {
        let mut command = as_account(self.account, signal_at_our_end);
        command.arg(program);
        command
    }

    /// An empty folder for initdb, next to `data_dir`.
    pub(super) fn make_draft(&self) -> Result<PathBuf> {
        let draft = self.data_dir.with_extension("new");
        if draft.exists() {
            fs::remove_dir_all(&draft).map_err(|e| not_usable(&draft, e))?;
        }
        self.make_private(&draft)?;
        Ok(draft)
    }

    /// Removes what is outside of the data directory and needed by nobody.
    pub(super) fn clean_up(&self, keep_data: bool) {
        let mut useless = Vec::new();
        if self.socket_dir != self.data_dir {
            useless.push(self.socket_dir.as_path());
        }
        if self.elsewhere && !keep_data {
            useless.extend(self.data_dir.parent());
        }
        for folder in useless {
            if let Err(error) = fs::remove_dir_all(folder) {
                tracing::warn!(folder = %folder.display(), %error, "a temporary folder stays behind");
            }
        }
    }

    fn leave_root(&mut self, dir: &Path) -> Result<()> {
        let account = owner_of(&self.data_dir).or_else(system_account).ok_or_else(|| {
            let text =
                "PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody` to run it as";
            Error::new(Code::Unavailable, text)
        })?;
        self.account = Some(account);
        // The folder itself is the gateway's own, so it may be opened; its parents are not.
        let mode = fs::metadata(dir).map_err(|e| not_usable(dir, e))?.mode();
        if mode & 0o001 == 0 {
            fs::set_permissions(dir, fs::Permissions::from_mode(mode & 0o7777 | 0o011))
                .map_err(|e| not_usable(dir, e))?;
        }
        if can_enter(account, dir)? {
            return Ok(());
        }
        let elsewhere = Path::new(ELSEWHERE).join(digest_of(dir));
        fs::create_dir_all(&elsewhere).map_err(|e| not_usable(&elsewhere, e))?;
        if !can_enter(account, &elsewhere)? {
            let text = format!(
                "the user that PostgreSQL runs as can enter neither {} nor {}; choose another data directory",
                dir.display(),
                elsewhere.display()
            );
            return Err(Error::new(Code::Unavailable, text));
        }
        tracing::info!(
            "PostgreSQL refuses to run as root and its own user cannot enter {}: its data is in {}",
            dir.display(),
            elsewhere.display()
        );
        self.data_dir = elsewhere.join("postgres");
        self.socket_dir.clone_from(&self.data_dir);
        self.account = owner_of(&self.data_dir).or(self.account);
        self.elsewhere = true;
        Ok(())
    }

    /// The data directory, which only the server's user can enter; another one when the path is of no use there.
    fn choose_socket_dir(&mut self) -> Result<()> {
        let usable = |dir: &Path| {
            let path = dir.join(SOCKET_NAME);
            // libpq splits the name of a host at commas.
            path.to_str().is_some_and(|path| path.len() <= MAX_SOCKET_PATH_BYTES && !path.contains(','))
        };
        if usable(&self.socket_dir) {
            return Ok(());
        }
        let name = format!("evidence-gateway-{}", &Uuid::new_v4().simple().to_string()[..12]);
        for parent in [std::env::temp_dir(), PathBuf::from("/tmp")] {
            let dir = parent.join(&name);
            if usable(&dir) && self.account.map_or(Ok(true), |account| can_enter(account, &parent))? {
                self.make_private(&dir)?;
                self.socket_dir = dir;
                return Ok(());
            }
        }
        let text = format!("{} is too long for the path of a unix socket", self.socket_dir.display());
        Err(Error::new(Code::Unavailable, text))
    }

    fn make_private(&self, dir: &Path) -> Result<()> {
        let made = fs::DirBuilder::new().mode(0o700).create(dir).and_then(|()| match self.account {
            Some(Account { uid, gid }) => std::os::unix::fs::chown(dir, Some(uid), Some(gid)),
            None => Ok(()),
        });
        made.map_err(|e| not_usable(dir, e))
    }
}

/// The error of a program that could not even be started.
pub(super) fn cannot_run(program: &str, kind: ErrorKind, text: String) -> Error {
    let message = if kind == ErrorKind::NotFound {
        format!("the program `{program}` is not installed: install the package `util-linux`")
    } else {
        format!("the program `{program}` cannot be run")
    };
    Error::new(Code::Unavailable, message).because(text)
}

fn as_account(account: Option<Account>, signal_at_our_end: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    if let Some(Account { uid, gid }) = account {
        command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
    }
    if let Some(signal) = signal_at_our_end {
        command.arg("--pdeathsig").arg(signal);
    }
    // Settings that a person has made for psql are not meant for this server.
    for variable in ["PGDATA", "PGPORT", "PGHOST", "PGDATESTYLE", "PGTZ", "PGOPTIONS", "PGCLIENTENCODING"] {
        command.env_remove(variable);
    }
    command.current_dir("/");
    command
}

/// Asks the kernel rather than the mode bits: access lists and mounts count too.
fn can_enter(account: Account, dir: &Path) -> Result<bool> {
    let status = as_account(Some(account), None)
        .args(["test", "-x"])
        .arg(dir)
        .stdin(Stdio::null())
        .status()
        .map_err(|e| cannot_run("setpriv", e.kind(), e.to_string()))?;
    Ok(status.success())
}

/// Whoever made the data must read it. Root owns nothing that the server could use.
fn owner_of(path: &Path) -> Option<Account> {
    let metadata = fs::metadata(path).ok()?;
    Some(Account { uid: metadata.uid(), gid: metadata.gid() }).filter(|account| account.uid != 0)
}

fn system_account() -> Option<Account> {
    let accounts = fs::read_to_string("/etc/passwd").ok()?;
    ["postgres", "nobody"].iter().find_map(|name| account_of(&accounts, name))
}

fn account_of(accounts: &str, name: &str) -> Option<Account> {
    let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some(Account { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
}

fn digest_of(dir: &Path) -> String {
    let digest = Sha256::digest(dir.as_os_str().as_encoded_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_their_whole_name() {
        let accounts =
            "root:x:0:0:root:/root:/bin/sh\npostgresql:x:1:1::/:\npostgres:x:105:111:,,,:/:/bin/sh\n";
        assert_eq!(account_of(accounts, "postgres"), Some(Account { uid: 105, gid: 111 }));
        assert_eq!(account_of(accounts, "nobody"), None);
    }

    #[test]
    fn a_folder_keeps_its_digest() {
        assert_eq!(digest_of(Path::new("/a")), digest_of(Path::new("/a")));
        assert_ne!(digest_of(Path::new("/a")), digest_of(Path::new("/b")));
    }
}
