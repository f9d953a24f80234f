//! The file of secrets behind the server cookies, shared by all servers behind one address (RFC 9018 §5). Never shows a secret, not
//! even a broken one: problems point at a text whose letters are masked.

use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use super::{
    files,
    report::{Problem, Source, Spot},
};
use crate::wire::cookie::CookieSecrets;

/// Largest file, in bytes: two lines, and room for comments.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How to make a secret.
pub(super) const HOW_TO_MAKE: &str = "make a secret with: openssl rand -hex 16";

/// Why there are no secrets.
pub(super) enum Unusable {
    /// What follows the name of the file in a sentence: "does not exist".
    Unreadable(String),
    /// Something is wrong in it.
    Broken(Problem),
}

/// Reads the secrets.
///
/// # Errors
/// The first thing that is wrong with the file.
pub fn read(path: &Path) -> Result<CookieSecrets, Problem> {
    load(path).map_err(|unusable| match unusable {
        Unusable::Unreadable(why) => {
            Problem::new(format!("the cookie secret file `{}` {why}", path.display())).with_help(HOW_TO_MAKE)
        }
        Unusable::Broken(problem) => problem,
    })
}

/// True when the file can be read, or written, by others than its owner and group.
pub fn is_open_to_others(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o006 != 0 && metadata.is_file())
}

pub(super) fn load(path: &Path) -> Result<CookieSecrets, Unusable> {
    let text = files::read_text(path, FILE_BYTES_MAX).map_err(Unusable::Unreadable)?;
    parse(&text, &path.display().to_string()).map_err(Unusable::Broken)
}

/// One or two lines of 32 hexadecimal digits: the first makes cookies, both are accepted. Empty lines and lines that begin with `#`
/// say nothing.
fn parse(text: &str, name: &str) -> Result<CookieSecrets, Problem> {
    let problem = |at: usize, len: usize, message: &str, help: &str| {
        let masked = text.chars().map(|c| if c == '\n' { c } else { '*' }).collect();
        // Byte by byte the masked text is shorter where a letter has several bytes.
        let at = text[..at].chars().count();
        let spot = Spot { source: Arc::new(Source { name: name.into(), text: masked }), span: at..at + len };
        Err(Problem::at(spot, message).with_help(help))
    };
    let mut secrets = Vec::new();
    let mut at = 0;
    for line in text.split('\n') {
        let word = line.trim();
        if !word.is_empty() && !word.starts_with('#') {
            let (start, len) = (at + line.len() - line.trim_start().len(), word.chars().count());
            let Some(secret) = secret_of(word) else {
                return problem(start, len, "this line is not a secret of 32 hexadecimal digits", HOW_TO_MAKE);
            };
            if secrets.len() == 2 {
                let help = "the first line makes cookies, the second is accepted, too; remove what is older";
                return problem(start, len, "a third secret", help);
            }
            secrets.push(secret);
        }
        at += line.len() + 1;
    }
    match *secrets.as_slice() {
        [only] => Ok(CookieSecrets { current: only, previous: only }),
        [current, previous, ..] => Ok(CookieSecrets { current, previous }),
        [] => problem(0, 0, "no secret in this file", HOW_TO_MAKE),
    }
}

fn secret_of(word: &str) -> Option<[u8; 16]> {
    if word.len() != 32 || !word.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(word, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Report;

    const ONE: &str = "e5e973e5a6b2a43f48e7dc849e37bfcf";
    const TWO: &str = "445536BCD2513298075A5D379663C962";

    fn secrets(text: &str) -> Result<CookieSecrets, String> {
        parse(text, "secret").map_err(|problem| Report::from(problem).to_string())
    }

    #[test]
    fn the_first_line_makes_and_the_second_is_accepted() {
        let [one, two] = [ONE, TWO].map(|word| secret_of(word).unwrap());
        assert_eq!((one[0], one[15], two[0]), (0xe5, 0xcf, 0x44));
        let cases = [
            (ONE.to_string(), (one, one)),
            (format!("{ONE}\n"), (one, one)),
            (format!("{ONE}\n{TWO}\n"), (one, two)),
            (format!("# made on Monday\r\n\r\n  {TWO}\t\r\n# the old one\r\n{ONE}"), (two, one)),
        ];
        for (text, expected) in cases {
            let read = secrets(&text).unwrap();
            assert_eq!((read.current, read.previous), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_without_a_digit_of_it() {
        let short = &ONE[..31];
        let cases = [
            (String::new(), "error: no secret in this file\n --> secret:1:1"),
            ("# nothing\n".into(), "error: no secret in this file\n --> secret:1:1"),
            (format!("{ONE}\n {short}\n"), "32 hexadecimal digits\n --> secret:2:2"),
            (format!("é{short}"), "32 hexadecimal digits\n --> secret:1:1"),
            (format!("+{short}"), "32 hexadecimal digits\n --> secret:1:1"),
            (format!("{ONE} {TWO}"), "32 hexadecimal digits\n --> secret:1:1"),
            (format!("# ä\n{ONE}\n{TWO}\n{ONE}"), "error: a third secret\n --> secret:4:1"),
        ];
        for (text, expected) in cases {
            let shown = secrets(&text).err().unwrap();
            assert!(shown.contains(expected), "{shown}");
            assert!(!shown.contains(&ONE[1..8]) && !shown.contains(&TWO[..8]), "{shown}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, ONE).unwrap();
        for (mode, is_open) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true)] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(is_open_to_others(&path), is_open, "{mode:o}");
        }
        assert!(read(&path).is_ok() && !is_open_to_others(&folder.path().join("none")));
        let problem = read(&folder.path().join("none")).unwrap_err();
        assert!(problem.message.ends_with("none` does not exist"), "{}", problem.message);
    }
}
