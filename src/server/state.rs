//! What outlives the process: small JSON files in `state-dir`, each written to a temporary file beside it, synced and renamed,
//! so that a crash leaves the old one or the new one. A file that cannot be used is set aside and never stops a start. A process
//! that takes over is handed the same files by word of mouth, and whoever handed them writes none from then on.
//! Knows nothing of what the files mean.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::SystemTime,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::world::unix_s;

/// Largest file that is written and read, in bytes.
const FILE_BYTES_MAX: u64 = 512 << 20;

/// Something that has a file in the state directory.
pub trait Stored: Serialize + DeserializeOwned {
    /// The version of its shape, from 1 up. To be raised when a file of the new shape would mislead a reader of the old one; older
    /// files are read by this version's shape, so fields that they lack need a default.
    const SCHEMA: u32;
}

/// The folder of state files, or none: then nothing is read and nothing written. Copies are of the same folder.
#[derive(Debug, Clone, Default)]
pub struct StateDir {
    path: Option<PathBuf>,
    handed: Arc<Mutex<Handed>>,
    /// True: another process writes there now. Held for reading by whoever writes.
    left: Arc<RwLock<bool>>,
}

/// State files by name, as one process hands them to the next.
pub type Handed = BTreeMap<String, String>;

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the state directory {} cannot be used: {reason}; make it writable for the user that runs the server, or name another in \
     `state-dir` of [server]", .path.display()
)]
pub struct Unusable {
    path: PathBuf,
    reason: io::Error,
}

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
#[error("the state file {} could not be written: {reason}", .path.display())]
pub struct NotWritten {
    path: PathBuf,
    reason: io::Error,
}

/// The shape of every file.
#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    schema: u32,
    /// Unix time in seconds.
    written: u64,
    data: T,
}

/// The part of a file that says who can read the rest.
#[derive(Deserialize)]
struct Head {
    schema: u32,
}

impl StateDir {
    /// Opens the folder and makes it (mode 0700) where it is missing; `None`: state is kept in memory only.
    ///
    /// # Errors
    /// It cannot be made or written to.
    pub fn open(path: Option<&Path>) -> Result<StateDir, Unusable> {
        let Some(path) = path else { return Ok(StateDir::default()) };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        let tried = made.and_then(|()| tempfile::tempfile_in(path));
        match tried {
            Ok(_) => Ok(StateDir { path: Some(path.to_owned()), ..StateDir::default() }),
            Err(reason) => Err(Unusable { path: path.to_owned(), reason }),
        }
    }

    /// False when nothing outlives the process.
    pub fn is_kept(&self) -> bool {
        self.path.is_some()
    }

    /// The same folder, where these count before the files in it: each is newer.
    pub fn with_handed(self, handed: Handed) -> StateDir {
        *self.handed() = handed;
        self
    }

    /// Nothing is written from now on: another process writes there. Waits for whatever is being written.
    pub fn leave(&self) {
        *self.left.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// The other process did not come to it.
    pub fn come_back(&self) {
        *self.left.write().unwrap_or_else(PoisonError::into_inner) = false;
    }

    /// What the file `name` (such as `overrides.json`) holds; `None` when there is none. One that cannot be used is set aside
    /// as `NAME.corrupt-UNIXTIME`, with a line in the log.
    pub fn read<T: Stored>(&self, name: &str) -> Option<T> {
        if let Some(text) = self.handed().remove(name) {
            match parse(text.as_bytes()) {
                Ok(found) => return Some(found),
                Err(why) => {
                    tracing::warn!("the process before this one handed over a {name} that is not used: {why}");
                    // The file is that process's as long as it serves: nothing is set aside.
                    return load(&self.path.as_ref()?.join(name)).ok().flatten();
                }
            }
        }
        let path = self.path.as_ref()?.join(name);
        match load(&path) {
            Ok(found) => found,
            Err(why) => {
                set_aside(&path, &why);
                None
            }
        }
    }

    /// Writes the file `name`. When it returns, the file is on the disk. Waits for the disk: not for a thread that must not.
    ///
    /// # Errors
    /// It could not be written; the file that was there before is untouched.
    pub fn write<T: Stored>(&self, name: &str, value: &T) -> Result<(), NotWritten> {
        let Some(folder) = &self.path else { return Ok(()) };
        let has_left = self.left.read().unwrap_or_else(PoisonError::into_inner);
        if *has_left {
            return Ok(());
        }
        let path = folder.join(name);
        let written = store(folder, &path, value);
        written.map_err(|reason| NotWritten { path, reason })
    }

    fn handed(&self) -> MutexGuard<'_, Handed> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a file of this value would hold.
///
/// # Errors
/// It cannot be told as JSON.
pub fn enveloped<T: Stored>(value: &T) -> io::Result<String> {
    let envelope = Envelope { schema: T::SCHEMA, written: unix_s(SystemTime::now()), data: value };
    serde_json::to_string(&envelope).map_err(io::Error::other)
}

/// What such a text says.
fn parse<T: Stored>(bytes: &[u8]) -> Result<T, String> {
    let head: Head = serde_json::from_slice(bytes).map_err(|error| format!("it is corrupt: {error}"))?;
    if !(1..=T::SCHEMA).contains(&head.schema) {
        return Err(format!("it has schema {}, and this version knows 1 to {}", head.schema, T::SCHEMA));
    }
    let whole: Envelope<T> = serde_json::from_slice(bytes).map_err(|error| format!("it is corrupt: {error}"))?;
    Ok(whole.data)
}

fn load<T: Stored>(path: &Path) -> Result<Option<T>, String> {
    let mut bytes = Vec::new();
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| format!("it cannot be read: {error}"))?,
    };
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| format!("it cannot be read: {error}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20));
    }
    parse(&bytes).map(Some)
}

fn set_aside(path: &Path, why: &str) {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".corrupt-{}", unix_s(SystemTime::now())));
    let (file, aside) = (path.display(), Path::new(&aside));
    match fs::rename(path, aside) {
        Ok(()) => {
            tracing::error!(
                "state file {file} is not used, and what it held is forgotten: {why}; it is now {}",
                aside.display()
            );
        }
        Err(error) => {
            tracing::error!(
                "state file {file} is not used, and what it held is forgotten: {why}; nor can it be set aside: {error}"
            );
        }
    }
}

/// Never holds the whole text, which for thousands of targets is tens of megabytes.
fn store<T: Stored>(folder: &Path, path: &Path, value: &T) -> io::Result<()> {
    let envelope = Envelope { schema: T::SCHEMA, written: unix_s(SystemTime::now()), data: value };
    let file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
    let mut writer = BufWriter::with_capacity(1 << 16, file);
    serde_json::to_writer(&mut writer, &envelope).map_err(io::Error::other)?;
    writer.write_all(b"\n")?;
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    if file.as_file().metadata()?.len() > FILE_BYTES_MAX {
        let too_large = format!("it would be larger than {} MiB, which is not read again", FILE_BYTES_MAX >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, too_large));
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all() // the new name, too
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Notes(Vec<String>);

    impl Stored for Notes {
        const SCHEMA: u32 = 2;
    }

    const NAME: &str = "notes.json";

    fn notes() -> Notes {
        Notes(vec!["one".into(), "zwölf".into()])
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_written_is_read_again_by_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/state");
        let state = StateDir::open(Some(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(state.read::<Notes>(NAME), None);
        state.write(NAME, &Notes(Vec::new())).unwrap();
        state.write(NAME, &notes()).unwrap();
        let again = StateDir::open(Some(&path)).unwrap();
        assert_eq!(again.read::<Notes>(NAME), Some(notes()));
        assert_eq!(names(&path), [NAME]);
        assert_eq!(fs::metadata(path.join(NAME)).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_set_aside_and_kept() {
        let good = r#"{"schema": 1, "written": 0, "data": ["x"]}"#;
        for (text, is_used) in [
            (good, true),
            (&good.replace('1', "2"), true),
            (&good.replace('1', "3"), false),
            (&good.replace('1', "0"), false),
            (&good[..20], false),
            ("", false),
            ("\0\0\0\0", false),
            (r#"{"schema": 1, "written": 0, "data": {"x": 1}}"#, false),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let state = StateDir::open(Some(folder.path())).unwrap();
            fs::write(folder.path().join(NAME), text).unwrap();
            assert_eq!(state.read::<Notes>(NAME).is_some(), is_used, "{text}");
            let left = names(folder.path());
            match is_used {
                true => assert_eq!(left, [NAME]),
                false => {
                    assert!(left.len() == 1 && left[0].starts_with("notes.json.corrupt-"), "{text}: {left:?}");
                    assert_eq!(fs::read_to_string(folder.path().join(&left[0])).unwrap(), text);
                }
            }
            state.write(NAME, &notes()).unwrap();
            assert_eq!(state.read::<Notes>(NAME), Some(notes()));
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_told_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("below"), PathBuf::from("/proc/self/isochrone")] {
            let told = StateDir::open(Some(&path)).unwrap_err().to_string();
            assert!(told.starts_with(&format!("the state directory {} cannot be used: ", path.display())), "{told}");
            assert!(told.contains("`state-dir` of [server]"), "{told}");
        }
    }

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(Some(folder.path())).unwrap();
        fs::create_dir(folder.path().join(NAME)).unwrap();
        let told = state.write(NAME, &notes()).unwrap_err().to_string();
        assert!(told.contains("notes.json could not be written: "), "{told}");
        assert_eq!(names(folder.path()), [NAME]);
    }

    #[test]
    fn without_a_folder_nothing_is_kept() {
        let state = StateDir::open(None).unwrap();
        assert!(!state.is_kept());
        state.write(NAME, &notes()).unwrap();
        assert_eq!(state.read::<Notes>(NAME), None);
    }

    #[test]
    fn what_is_handed_over_counts_before_a_file_and_a_broken_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(Some(folder.path())).unwrap();
        state.write(NAME, &Notes(vec!["older".into()])).unwrap();
        let broken = r#"{"schema": 3, "written": 0, "data": []}"#.to_string();
        for (text, read) in [(enveloped(&notes()).unwrap(), notes()), (broken, Notes(vec!["older".into()]))] {
            let state = StateDir::open(Some(folder.path())).unwrap().with_handed([(NAME.into(), text)].into());
            assert_eq!(state.read::<Notes>(NAME), Some(read));
        }
        let state = StateDir::default().with_handed([(NAME.into(), enveloped(&notes()).unwrap())].into());
        assert_eq!(state.read::<Notes>(NAME), Some(notes()));
        assert_eq!(names(folder.path()), [NAME]);
    }

    #[test]
    fn whoever_has_left_writes_nothing_until_it_is_back() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(Some(folder.path())).unwrap();
        let copy = state.clone();
        state.leave();
        copy.write(NAME, &notes()).unwrap();
        assert_eq!(names(folder.path()), [""; 0]);
        state.come_back();
        copy.write(NAME, &notes()).unwrap();
        assert_eq!(names(folder.path()), [NAME]);
    }
}
