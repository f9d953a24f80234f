//! The files that `$INCLUDE` may open: those in the zone's folder, by relative path, and no others, however they are linked.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use crate::config::report::Source;

/// Most files open within one another.
const DEPTH_MAX: usize = 8;
/// Most files included by one zone text.
const FILES_MAX: usize = 1_000;
/// Most bytes included by one zone text.
const BYTES_MAX: u64 = 1 << 30;

/// Why a file cannot be included.
#[derive(Debug, thiserror::Error)]
pub enum IncludeError {
    /// The text is part of the configuration file.
    #[error("inline records cannot include files")]
    Inline,
    /// Absolute, or with `..`.
    #[error("`{0}` leaves the zone file's folder")]
    Leaves(String),
    /// Too many levels.
    #[error("files are included more than {DEPTH_MAX} levels deep")]
    TooDeep,
    /// A file that is being read includes itself.
    #[error("`{0}` includes itself")]
    Loop(String),
    /// Too much.
    #[error("more than {FILES_MAX} files or {BYTES_MAX} bytes are included")]
    TooMuch,
    /// A folder, a device, a pipe.
    #[error("`{0}` is not a regular file")]
    NotAFile(String),
    /// Bytes that are no text.
    #[error("`{0}` is not UTF-8 text")]
    NotText(String),
    /// It cannot be read.
    #[error("cannot read `{0}`: {1}")]
    Unreadable(String, io::Error),
}

impl IncludeError {
    /// What to do instead.
    pub fn help(&self) -> &'static str {
        match self {
            IncludeError::Inline => "put the records into a zone file and name it in `file`",
            IncludeError::Leaves(_) => {
                "put the file beside the zone file or below it, and name it by its relative path"
            }
            IncludeError::TooDeep | IncludeError::Loop(_) => "include each file once, from the zone file itself",
            IncludeError::TooMuch => "split the zone",
            IncludeError::NotAFile(_) => "name a zone file",
            IncludeError::NotText(_) => "write bytes outside ASCII as `\\DDD`",
            IncludeError::Unreadable(..) => "paths are relative to the zone file's folder",
        }
    }
}

/// The files being read, outermost first.
pub struct Includes<'a> {
    folder: Option<&'a Path>,
    open: Vec<PathBuf>,
    files: usize,
    bytes: u64,
}

impl<'a> Includes<'a> {
    /// Files may be included from `folder`; `None`: from nowhere.
    pub fn new(folder: Option<&'a Path>) -> Self {
        Includes { folder, open: Vec::new(), files: 0, bytes: 0 }
    }

    /// Reads the file and counts it as open until [`Self::close`].
    pub fn open(&mut self, path: &str) -> Result<Source, IncludeError> {
        let folder = self.folder.ok_or(IncludeError::Inline)?;
        let is_below = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::CurDir);
        if path.is_empty() || !Path::new(path).components().all(is_below) {
            return Err(IncludeError::Leaves(path.into()));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(IncludeError::TooDeep);
        }
        let unreadable = |error| IncludeError::Unreadable(path.into(), error);
        // An empty folder is what `Path::parent` gives for a bare file name.
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let named = folder.join(path);
        let real = named.canonicalize().map_err(unreadable)?;
        if !real.starts_with(folder.canonicalize().map_err(unreadable)?) {
            return Err(IncludeError::Leaves(path.into()));
        }
        if self.open.contains(&real) {
            return Err(IncludeError::Loop(path.into()));
        }
        // Before opening: a pipe without writer would block.
        let metadata = fs::metadata(&real).map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(IncludeError::NotAFile(path.into()));
        }
        self.files += 1;
        self.bytes = self.bytes.saturating_add(metadata.len());
        if self.files > FILES_MAX || self.bytes > BYTES_MAX {
            return Err(IncludeError::TooMuch);
        }
        let bytes = fs::read(&real).map_err(unreadable)?;
        let text = String::from_utf8(bytes).map_err(|_| IncludeError::NotText(path.into()))?;
        self.open.push(real);
        Ok(Source { name: named.display().to_string(), text })
    }

    /// The file opened last has been read.
    pub fn close(&mut self) {
        self.open.pop();
    }
}
