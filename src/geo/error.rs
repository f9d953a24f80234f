//! What can go wrong with location data, said so that the person knows what to do next.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Location data that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GeoError {
    /// The file cannot be read at all.
    #[error("cannot read {}: {source}; check that the path is right and that this user may read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is damaged, cut short, or of another format.
    #[error("{} is damaged, cut short or not a location database ({reason}); fetch it again from its publisher", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The file is sound, but is not what it is used for.
    #[error("{} holds {found}, not {wanted}; name a database with {wanted} here", path.display())]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// What its records hold.
        found: &'static str,
        /// What they should hold.
        wanted: &'static str,
    },
    /// The compiled table cannot be written.
    #[error("cannot write {}: {source}; check that its directory exists, may be written to and has room", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The inputs of a compilation do not make a table.
    #[error("cannot make a location table: {0}")]
    Unusable(String),
}

impl GeoError {
    /// The file that it is about, if it is about one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            GeoError::Unreadable { path, .. }
            | GeoError::Corrupt { path, .. }
            | GeoError::WrongKind { path, .. }
            | GeoError::Unwritable { path, .. } => Some(path),
            GeoError::Unusable(_) => None,
        }
    }
}
