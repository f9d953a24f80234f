//! The secret that operators show to the admin interface. Never told, neither by errors nor by logs.

use std::{fmt, path::Path};

use subtle::ConstantTimeEq;

use super::{files, report::Problem};

/// Largest file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Longest token: it stands in a header.
const TOKEN_BYTES_MAX: usize = 1024;
/// A shorter one is said to be short.
const TOKEN_BYTES_GOOD: usize = 16;

/// A token.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken(String);

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken")
    }
}

impl AdminToken {
    /// How to make a token file.
    pub const HOW_TO_MAKE: &str = "make one with: (umask 077; openssl rand -hex 32 >token)";

    /// Reads a token file: one line, blanks around it left out.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read(path: &Path) -> Result<AdminToken, Problem> {
        AdminToken::load(path).map_err(|why| {
            Problem::new(format!("the token file `{}` {why}", path.display())).with_help(AdminToken::HOW_TO_MAKE)
        })
    }

    /// As [`AdminToken::read`], with what follows the name of the file in a sentence as the error.
    pub(super) fn load(path: &Path) -> Result<AdminToken, String> {
        let text = files::read_text(path, FILE_BYTES_MAX)?;
        let token = text.trim();
        match token.len() {
            0 => Err("is empty".into()),
            _ if !token.bytes().all(|b| b.is_ascii_graphic()) => {
                Err("holds more than one line of letters, digits and signs".into())
            }
            1..=TOKEN_BYTES_MAX => Ok(AdminToken(token.into())),
            _ => Err(format!("holds more than {TOKEN_BYTES_MAX} letters")),
        }
    }

    /// True when `given` is the token. Takes the same time wherever they differ.
    pub fn is(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }

    /// The token itself, to be shown to a server and to nobody else.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// True when it may be guessed.
    pub fn is_short(&self) -> bool {
        self.0.len() < TOKEN_BYTES_GOOD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_line_without_blanks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (text, token) in [
            ("s3cret-s3cret-s3cret\n", Ok("s3cret-s3cret-s3cret")),
            ("  abc=\r\n\n", Ok("abc=")),
            ("", Err("is empty")),
            (" \n", Err("is empty")),
            ("two words", Err("holds more than one line of letters, digits and signs")),
            ("one\ntwo\n", Err("holds more than one line of letters, digits and signs")),
            ("schlüssel", Err("holds more than one line of letters, digits and signs")),
        ] {
            std::fs::write(&path, text).unwrap();
            let loaded = AdminToken::load(&path);
            assert_eq!(loaded.as_ref().map(|t| &*t.0).map_err(|why| &**why), token, "{text:?}");
            if let Ok(loaded) = loaded {
                assert!(loaded.is(token.unwrap()) && !loaded.is("") && !loaded.is(&format!("{}x", token.unwrap())));
                assert_eq!(format!("{loaded:?}"), "AdminToken");
            }
        }
        let problem = AdminToken::read(&folder.path().join("none")).unwrap_err();
        assert!(problem.message.ends_with("none` does not exist"), "{}", problem.message);
        assert_eq!(problem.help.as_deref(), Some(AdminToken::HOW_TO_MAKE));
    }
}
