//! Files that are named on the command line or in the configuration: read whole, within a limit, with an error in plain words.

use std::{fs::File, io, io::Read, path::Path};

use crate::sys::sandbox::is_out_of_reach;

/// Reads a text of at most `bytes_max` bytes.
///
/// # Errors
/// What follows the name of the file in a sentence: "does not exist".
pub(crate) fn read_text(path: &Path, bytes_max: u64) -> Result<String, String> {
    String::from_utf8(read_bytes(path, bytes_max)?).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good].iter().filter(|&&b| b == b'\n').count() + 1;
        format!("is not UTF-8 text (line {line})")
    })
}

/// Reads a file of at most `bytes_max` bytes.
///
/// # Errors
/// As [`read_text`].
pub(super) fn read_bytes(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = open(path)?;
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| why(path, &error))?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("is larger than {} MiB", bytes_max >> 20));
    }
    Ok(bytes)
}

/// Opens a regular file.
///
/// # Errors
/// As [`read_text`].
pub(super) fn open(path: &Path) -> Result<File, String> {
    let kind = std::fs::metadata(path).map_err(|error| why(path, &error))?;
    if kind.is_dir() {
        return Err("is a folder, not a file".into());
    }
    if !kind.is_file() {
        return Err("is not a regular file".into());
    }
    File::open(path).map_err(|error| why(path, &error))
}

/// Says what stands in the way of writing files in a folder, or of making it where it is missing; leaves no trace.
///
/// # Errors
/// As [`read_text`].
pub(super) fn note_unwritable_folder(path: &Path) -> Result<(), String> {
    if is_out_of_reach(path) {
        return Ok(()); // a server that runs cannot try it, and uses it only after a restart
    }
    let missing = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
    let is_there = |folder: &&Path| !matches!(folder.symlink_metadata(), Err(error) if missing.contains(&error.kind()));
    // An empty path is what stands above a relative one: the working directory.
    let named = path.ancestors().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    let Some(nearest) = named.into_iter().find(is_there) else { return Ok(()) };
    let place = |what: &str| match nearest == path {
        true => what.to_string(),
        false => format!("cannot be made: `{}` {what}", nearest.display()),
    };
    if !nearest.is_dir() {
        return Err(place("is not a directory"));
    }
    match tempfile::tempfile_in(nearest) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(place("may not be written to by this user"))
        }
        Err(error) => Err(place(&format!("cannot be written to: {error}"))),
    }
}

fn why(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied if is_out_of_reach(path) => {
            "lies outside of the folders that the server left itself when it started; restart the server to use it, or put \
             the file into a folder that it uses already"
                .into()
        }
        io::ErrorKind::NotFound => "does not exist".into(),
        io::ErrorKind::PermissionDenied => "may not be read by this user".into(),
        _ => format!("cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_told_in_plain_words() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x");
        assert_eq!(read_text(&file, 10), Err("does not exist".into()));
        assert_eq!(read_text(folder.path(), 10), Err("is a folder, not a file".into()));
        std::fs::write(&file, b"ok\n\xff").unwrap();
        assert_eq!(read_text(&file, 10), Err("is not UTF-8 text (line 2)".into()));
        std::fs::write(&file, "x".repeat((1 << 20) + 1)).unwrap();
        assert_eq!(read_text(&file, 1 << 20), Err("is larger than 1 MiB".into()));
        std::fs::write(&file, "ok").unwrap();
        assert_eq!(read_text(&file, 10), Ok("ok".into()));
    }

    #[test]
    fn a_folder_that_can_be_made_and_written_to_is_one_and_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let (deep, file) = (folder.path().join("a/b"), folder.path().join("file"));
        assert_eq!(note_unwritable_folder(folder.path()), Ok(()));
        assert_eq!(note_unwritable_folder(&deep), Ok(()));
        assert_eq!(note_unwritable_folder(Path::new("no-such-folder")), Ok(()));
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
        std::fs::write(&file, "").unwrap();
        assert_eq!(note_unwritable_folder(&file), Err("is not a directory".into()));
        let told = note_unwritable_folder(&file.join("below")).unwrap_err();
        assert_eq!(told, format!("cannot be made: `{}` is not a directory", file.display()));
        let told = note_unwritable_folder(Path::new("/proc/self/below")).unwrap_err();
        assert!(told.starts_with("cannot be made: `/proc/self` "), "{told}");
    }
}
