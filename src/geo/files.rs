//! The files of a location source: opened and checked, described, released, read again when needed.

use std::{
    fs::File,
    io::{self, Read, Seek},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::{
    error::GeoError,
    mmdb::Database,
    place::Place,
    ranges::{Family, Ranges},
    table::{MAGIC, Table},
};

/// A data file in memory.
pub(super) enum Source {
    Database(Box<Database>),
    Table(Box<Table>),
}

impl Source {
    /// Reads a file of either format and checks its layout.
    fn read(path: &Path, file: &File) -> Result<Self, GeoError> {
        let bytes = whole(file).map_err(|source| GeoError::Unreadable { path: path.to_owned(), source })?;
        Ok(if bytes.starts_with(&MAGIC[..7]) {
            Source::Table(Box::new(Table::parse(path, &bytes)?))
        } else {
            Source::Database(Box::new(Database::new(path, bytes)?))
        })
    }

    /// Its located ranges of that family.
    pub(super) fn ranges(&self, family: Family) -> Box<dyn Ranges<Place> + Send + '_> {
        match self {
            Source::Database(database) => Box::new(database.ranges(family)),
            Source::Table(table) => Box::new(table.ranges(family)),
        }
    }
}

fn open(path: &Path) -> Result<File, GeoError> {
    File::open(path).map_err(|source| GeoError::Unreadable { path: path.to_owned(), source })
}

fn whole(mut file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(file.metadata()?.len() as usize);
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// Where it is.
    pub path: PathBuf,
    /// What its publisher calls it.
    pub kind: String,
    /// When it was made, in seconds since 1970.
    pub build_epoch_s: u64,
    /// It has IPv4 networks.
    pub v4: bool,
    /// It has IPv6 networks.
    pub v6: bool,
}

/// Files, in order of precedence.
pub(super) struct Files {
    infos: Vec<FileInfo>,
    /// They stay open: what is read again is the file that was read at first, whatever has the name by then.
    files: Vec<File>,
    /// Their content, until it is released.
    loaded: Mutex<Option<Arc<Vec<Source>>>>,
    /// The same as long as anybody has it.
    shared: Mutex<Weak<Vec<Source>>>,
}

/// Holds the content of location files: whatever reads them meanwhile shares it, and sees one version of it.
pub struct Held {
    _content: Option<Arc<Vec<Source>>>,
}

impl Held {
    pub(super) fn new(content: Option<Arc<Vec<Source>>>) -> Self {
        Held { _content: content }
    }
}

impl Files {
    /// Reads all the files; `suits` may refuse one.
    pub(super) fn open(
        paths: &[PathBuf],
        suits: impl Fn(&Path, &Source) -> Result<(), GeoError>,
    ) -> Result<Self, GeoError> {
        let (mut infos, mut files, mut sources) = (Vec::new(), Vec::new(), Vec::new());
        for path in paths {
            let file = open(path)?;
            let source = Source::read(path, &file)?;
            suits(path, &source)?;
            infos.push(describe(path, &source)?);
            files.push(file);
            sources.push(source);
        }
        let sources = Arc::new(sources);
        Ok(Files { infos, files, shared: Mutex::new(Arc::downgrade(&sources)), loaded: Mutex::new(Some(sources)) })
    }

    pub(super) fn infos(&self) -> &[FileInfo] {
        &self.infos
    }

    /// "GeoLite2-City (geo/city.mmdb)", one after another.
    pub(super) fn description(&self) -> String {
        let texts: Vec<_> = self.infos.iter().map(|i| format!("{} ({})", i.kind, i.path.display())).collect();
        texts.join(", ")
    }

    /// The oldest file's: that is how old the data may be.
    pub(super) fn build_epoch_s(&self) -> u64 {
        self.infos.iter().map(|info| info.build_epoch_s).min().unwrap_or(0)
    }

    /// The content; read again when it was released and nobody holds it.
    pub(super) fn sources(&self) -> Result<Arc<Vec<Source>>, GeoError> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sources) = shared.upgrade() {
            return Ok(sources);
        }
        let read = self.infos.iter().zip(&self.files).map(|(info, file)| Source::read(&info.path, file));
        let sources = Arc::new(read.collect::<Result<Vec<_>, _>>()?);
        *shared = Arc::downgrade(&sources);
        Ok(sources)
    }

    /// Lets the content go.
    pub(super) fn release(&self) {
        *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn describe(path: &Path, source: &Source) -> Result<FileInfo, GeoError> {
    let path = path.to_owned();
    Ok(match source {
        Source::Database(database) => FileInfo {
            path,
            kind: database.database_type(),
            build_epoch_s: database.build_epoch_s(),
            v4: database.has(Family::V4)?,
            v6: database.has(Family::V6)?,
        },
        Source::Table(table) => FileInfo {
            path,
            kind: table.source().to_owned(),
            build_epoch_s: table.build_epoch_s(),
            v4: table.has(Family::V4),
            v6: table.has(Family::V6),
        },
    })
}
