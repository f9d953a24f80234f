//! Notices that a data file was replaced, by looking at it now and then: works on every file system, containers' mounts included.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{config::Config, zone::ZoneContent};

/// Files to be taken up again when they are replaced: the location databases, the measurements, the cookie secrets, the token,
/// certificate and key; where `watch` is set, the configuration file, too, with the zone files and signing keys that it names.
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
    /// As they are now. To be called before they are read, so that none can be replaced unnoticed in between. Those that `watch` is
    /// for have been read, out of the file at `path`: they are compared with what was read.
    pub fn of(config: &Config, path: &Path) -> Files {
        let databases = config.geo.databases.iter().chain(&config.geo.asn_database);
        let secrets = config.server.cookie_secret_file.iter().chain(&config.admin.token_file);
        let mut files = Files::at(databases.chain(&config.latency.measurements).chain(secrets));
        if config.server.watch {
            let texts = config.zones.iter().flat_map(|zone| &zone.texts).filter(|text| text.folder.is_some());
            let zone_files = texts.map(|text| (Path::new(&text.spot.source.name), text.text()));
            let keys = config.zones.iter().flat_map(|zone| &zone.dnssec_keys);
            let keys = keys.map(|key| (key.path.as_path(), key.text.0.as_str()));
            let own = config.zones.first().map(|zone| (path, zone.spot.source.text.as_str()));
            own.into_iter().chain(zone_files).chain(keys).for_each(|(path, text)| files.add_read(path, text));
        }
        files
    }

    /// Watches files that zone files include, too, where `watch` is set.
    pub fn add_included(&mut self, config: &Config, contents: &[ZoneContent]) {
        let included = contents.iter().flat_map(|content| &content.included).filter(|_| config.server.watch);
        included.for_each(|source| self.add_read(Path::new(&source.name), &source.text));
    }

    /// Watches a file, too, of which `text` was read; one that holds something else by now has changed.
    fn add_read(&mut self, path: &Path, text: &str) {
        if self.list.iter().all(|file| file.path != path) {
            let now = stamp(path);
            let loaded = now.filter(|_| fs::read_to_string(path).is_ok_and(|found| found == text));
            self.list.push(Watched { path: path.to_owned(), loaded, pending: None });
        }
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

    #[test]
    fn a_file_that_changed_after_it_was_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (same, other) = (folder.path().join("same"), folder.path().join("other"));
        fs::write(&same, "read").unwrap();
        fs::write(&other, "written since").unwrap();
        let mut files = Files { list: Vec::new() };
        [&same, &other, &same].into_iter().for_each(|path| files.add_read(path, "read"));
        assert_eq!((files.list.len(), files.settled_change()), (2, None));
        assert_eq!(files.settled_change(), Some(other));
        assert_eq!(files.settled_change(), None);
    }
}
