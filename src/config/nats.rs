//! What a server is at NATS: a name that can stand in subjects, and the file of credentials that it shows. One place says what is good,
//! for the configuration as for what comes over the wire.

/// Longest name of a server or prefix, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// How the file of a user's JWT and seed begins.
const JWT_MARK: &str = "-----BEGIN NATS USER JWT-----";
/// How the seed of a user's nkey begins.
const SEED_MARK: &str = "SU";

/// True for what a name may be made of.
pub fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// True for a name that can stand in a subject.
pub fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_name_byte)
}

/// What a file of credentials holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials<'t> {
    /// A user's JWT and its seed: all of the file.
    Jwt(&'t str),
    /// The seed of a user's nkey.
    Seed(&'t str),
}

impl Credentials<'_> {
    /// Finds them in the text of a file.
    pub fn find(text: &str) -> Option<Credentials<'_>> {
        if text.contains(JWT_MARK) {
            return Some(Credentials::Jwt(text));
        }
        text.lines().map(str::trim).find(|line| line.starts_with(SEED_MARK)).map(Credentials::Seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_stand_in_a_subject() {
        for name in ["a", "eu-1", "ns_2", &"x".repeat(NAME_BYTES_MAX)] {
            assert!(is_name(name), "{name}");
        }
        for text in ["", "a.b", "a b", "*", ">", "ü", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert!(!is_name(text), "{text}");
        }
    }

    #[test]
    fn credentials_are_found_in_both_kinds_of_files() {
        let creds = "-----BEGIN NATS USER JWT-----\neyJ0\n------END NATS USER JWT------\nSUAX\n";
        assert_eq!(Credentials::find(creds), Some(Credentials::Jwt(creds)));
        assert_eq!(Credentials::find("# of eu-1\n  SUAXY \n"), Some(Credentials::Seed("SUAXY")));
        assert_eq!(Credentials::find("UB3Q\nsomething else\n"), None);
    }
}
