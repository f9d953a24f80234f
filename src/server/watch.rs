//! Notices that a data file was replaced, by looking at it now and then: works on every file system, containers' mounts included.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::config::Config;

/// Files to be taken up again when they are replaced: the location databases, the measurements, the cookie secrets, the token,
/// certificate and key.
#[derive(Clone)]
pub struct Files {
    list: Vec<Watched>,
}

#[derive(Clone)]
struct Watched {
    path: PathBuf,
    loaded: Option<Stamp>,
    pending: Option<Stamp>,
}

/// What changes when a file is replaced or written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    len: u64,
    modified: Option<SystemTime>,
}

impl Files {
    /// As they are now. To be called before they are read, so that none can be replaced unnoticed in between.
    pub fn of(config: &Config) -> Files {
        let databases = config.geo.databases.iter().chain(&config.geo.asn_database);
        let secrets = config.server.cookie_secret_file.iter().chain(&config.admin.token_file);
        Files::at(databases.chain(&config.latency.measurements).chain(secrets))
    }

    /// The files at these paths, as they are now.
    pub fn at<'p>(paths: impl IntoIterator<Item = &'p PathBuf>) -> Files {
        let paths = paths.into_iter();
        Files { list: paths.map(|path| Watched { path: path.clone(), loaded: stamp(path), pending: None }).collect() }
    }

    /// A file that has changed and stood still from one call to the next, so that none is read while it is being written.
    /// Each change is told once.
    pub fn settled_change(&mut self) -> Option<PathBuf> {
        let mut changed = None;
        for file in &mut self.list {
            let now = stamp(&file.path);
            if now.is_none() || now == file.loaded {
                file.pending = None;
            } else if now == file.pending {
                file.loaded = now;
                changed = Some(file.path.clone());
            } else {
                file.pending = now;
            }
        }
        changed
    }

    /// True while a file changes: as of the last look, it is not what was read, and has not stood still yet.
    pub fn is_unsettled(&self) -> bool {
        self.list.iter().any(|file| file.pending.is_some_and(|pending| Some(pending) != file.loaded))
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp { inode: metadata.ino(), len: metadata.len(), modified: metadata.modified().ok() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_told_once_it_stands_still() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("places.mmdb");
        fs::write(&path, "one").unwrap();
        let mut files = Files { list: vec![Watched { path: path.clone(), loaded: stamp(&path), pending: None }] };
        assert_eq!(files.settled_change(), None);
        fs::write(&path, "half").unwrap();
        assert_eq!(files.settled_change(), None);
        fs::write(&path, "written to the end").unwrap();
        assert_eq!(files.settled_change(), None);
        assert_eq!(files.settled_change(), Some(path.clone()));
        assert_eq!(files.settled_change(), None);
        fs::remove_file(&path).unwrap();
        assert_eq!(files.settled_change(), None);
    }
}
