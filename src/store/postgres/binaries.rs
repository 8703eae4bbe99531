//! Which installation of PostgreSQL the private server is started from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Code, Error, Result};

/// The oldest version that the migrations are tested with.
const OLDEST_MAJOR: u32 = 15;

/// Where distributions put the server's programs, which they keep out of PATH.
const PARENTS: [(&str, &str); 2] = [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")];

/// One installation.
#[derive(Debug, Clone)]
pub(super) struct Binaries {
    /// None: found by PATH.
    folder: Option<PathBuf>,
    major: u32,
}

impl Binaries {
    /// The installation in PATH, or else the newest; when files exist already, the one that can read them.
    pub(super) fn find(made_by_major: Option<u32>) -> Result<Self> {
        let mut found: Vec<Self> = Self::at(None).into_iter().collect();
        let mut others: Vec<Self> = candidates().into_iter().filter_map(|dir| Self::at(Some(dir))).collect();
        others.sort_by_key(|binaries| std::cmp::Reverse(binaries.major));
        found.append(&mut others);
        let newest = found.iter().map(|binaries| binaries.major).max();
        let fits = |binaries: &Self| match made_by_major {
            Some(major) => binaries.major == major,
            None => binaries.major >= OLDEST_MAJOR,
        };
        found.into_iter().find(fits).ok_or_else(|| missing(made_by_major, newest))
    }

    /// The path, or the name for PATH, of one of its programs.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.as_ref().map_or_else(|| PathBuf::from(name), |folder| folder.join(name))
    }

    fn at(folder: Option<PathBuf>) -> Option<Self> {
        let mut binaries = Self { folder, major: 0 };
        // initdb rather than postgres: it comes with the server package too, and finds its own server.
        let output =
            Command::new(binaries.program("initdb")).arg("--version").stdin(Stdio::null()).output().ok()?;
        binaries.major = major_of(&String::from_utf8_lossy(&output.stdout))?;
        Some(binaries)
    }
}

fn candidates() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for (parent, prefix) in PARENTS {
        let Ok(entries) = fs::read_dir(Path::new(parent)) else { continue };
        for entry in entries.flatten() {
            let folder = entry.path().join("bin");
            if entry.file_name().to_string_lossy().starts_with(prefix) && folder.join("initdb").exists() {
                folders.push(folder);
            }
        }
    }
    folders
}

/// `initdb (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)` → 15, `initdb (PostgreSQL) 17rc1` → 17
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL)")?.1.trim_start();
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

fn missing(made_by_major: Option<u32>, newest: Option<u32>) -> Error {
    let text = match (made_by_major, newest) {
        (Some(major), _) => format!(
            "the data was made by PostgreSQL {major}, which is not installed: \
             install the package postgresql-{major}, or remove the data"
        ),
        (None, Some(newest)) => format!(
            "PostgreSQL {newest} is too old: install a package of version {OLDEST_MAJOR} or newer, \
             such as postgresql-{OLDEST_MAJOR}"
        ),
        (None, None) => "PostgreSQL is not installed: install the package `postgresql` \
                         (apt install postgresql; dnf install postgresql-server)"
            .to_owned(),
    };
    Error::new(Code::Unavailable, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_programs_say() {
        assert_eq!(major_of("initdb (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"), Some(15));
        assert_eq!(major_of("initdb (PostgreSQL) 18rc1"), Some(18));
        assert_eq!(major_of("something else"), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(missing(Some(14), Some(15)).message().contains("postgresql-14"));
        assert!(missing(None, None).message().contains("apt install postgresql"));
    }
}
