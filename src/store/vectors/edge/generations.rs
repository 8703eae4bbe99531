//! Owns which of several indexes side by side is the present one: folders `1`, `2` and so on, and the file `present`,
//! which names one of them. A draft has a higher number than the present one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::folder::broken;
use crate::error::Result;

#[derive(Debug)]
pub(super) struct Generations {
    dir: PathBuf,
}

impl Generations {
    /// Makes the folder if it is not there, and removes what a program before 0.1 left in it: that index has no words
    /// and cannot be read any more.
    pub(super) fn new(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).map_err(|cause| broken(dir, cause))?;
        let this = Self { dir: dir.to_owned() };
        this.remove(fs::remove_dir_all(dir.join("shard")))?;
        this.remove(fs::remove_file(dir.join("index.json")))?;
        this.remove(fs::remove_file(dir.join("lock")))?;
        Ok(this)
    }

    pub(super) fn folder(&self, number: u32) -> PathBuf {
        self.dir.join(number.to_string())
    }

    pub(super) fn present(&self) -> Result<Option<u32>> {
        match fs::read_to_string(self.dir.join("present")) {
            Ok(text) => text.trim().parse().map(Some).map_err(|cause| broken(&self.dir, cause)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(broken(&self.dir, cause)),
        }
    }

    pub(super) fn present_or_first(&self) -> Result<u32> {
        if let Some(number) = self.present()? {
            return Ok(number);
        }
        self.set_present(1)?;
        Ok(1)
    }

    /// Renamed into place, so that at any time one index is named, and as a whole.
    pub(super) fn set_present(&self, number: u32) -> Result<()> {
        let draft = self.dir.join("present.new");
        let write = || {
            let mut file = File::create(&draft)?;
            file.write_all(number.to_string().as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, self.dir.join("present"))
        };
        write().map_err(|cause| broken(&self.dir, cause))
    }

    /// The number of the draft, whether there is one or not.
    pub(super) fn draft(&self) -> Result<u32> {
        let present = self.present()?.unwrap_or(1);
        let last = self.numbers()?.into_iter().max().unwrap_or(present);
        Ok(last.max(present + 1))
    }

    /// Deletes the indexes before this one.
    pub(super) fn delete_before(&self, number: u32) -> Result<()> {
        let mut former = self.numbers()?.into_iter().filter(|other| *other < number);
        former.try_for_each(|former| self.remove(fs::remove_dir_all(self.folder(former))))
    }

    fn numbers(&self) -> Result<Vec<u32>> {
        let entries = fs::read_dir(&self.dir).map_err(|cause| broken(&self.dir, cause))?;
        Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    }

    fn remove(&self, removed: io::Result<()>) -> Result<()> {
        match removed {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(broken(&self.dir, cause)),
            _ => Ok(()),
        }
    }
}
