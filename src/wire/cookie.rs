//! Server cookies in the interoperable form of RFC 9018.

use std::{fmt, hash::Hasher, net::IpAddr};

use siphasher::sip::SipHasher24;

/// How long a cookie stays valid (RFC 9018 §4.3), and how far its time may lie ahead of ours.
const VALID_S: u32 = 3600;
const AHEAD_S: u32 = 300;

/// Secrets that server cookies are made and checked with: the newest makes, both check, so that a change of secret
/// invalidates nothing.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct CookieSecrets {
    /// Makes new cookies.
    pub current: [u8; 16],
    /// Still accepted.
    pub previous: [u8; 16],
}

/// Shows nothing, so that no log can.
impl fmt::Debug for CookieSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieSecrets").finish_non_exhaustive()
    }
}

impl CookieSecrets {
    /// The server cookie for a client at `now_s` (Unix time; only its low 32 bits travel).
    pub fn make(&self, client_cookie: [u8; 8], client: IpAddr, now_s: u64) -> [u8; 16] {
        seal(&self.current, client_cookie, client, (now_s as u32).to_be_bytes())
    }

    /// True when `server_cookie` is one of ours for this client and not out of date. Times are compared in serial number
    /// arithmetic (RFC 1982), as RFC 9018 §4.3 asks.
    pub fn is_valid(&self, client_cookie: [u8; 8], server_cookie: [u8; 16], client: IpAddr, now_s: u64) -> bool {
        let made = [server_cookie[4], server_cookie[5], server_cookie[6], server_cookie[7]];
        let age_s = (now_s as u32).wrapping_sub(u32::from_be_bytes(made));
        let in_time = age_s <= VALID_S || age_s.wrapping_neg() <= AHEAD_S;
        let sealed_by = |secret| seal(secret, client_cookie, client, made) == server_cookie;
        in_time && (sealed_by(&self.current) || sealed_by(&self.previous))
    }
}

/// Version 1, three reserved bytes, time, and SipHash-2-4 over client cookie, the eight bytes so far and the address.
fn seal(secret: &[u8; 16], client_cookie: [u8; 8], client: IpAddr, time: [u8; 4]) -> [u8; 16] {
    let mut cookie = [0; 16];
    cookie[0] = 1;
    cookie[4..8].copy_from_slice(&time);
    let mut hash = SipHasher24::new_with_key(secret);
    hash.write(&client_cookie);
    hash.write(&cookie[..8]);
    match client {
        IpAddr::V4(v4) => hash.write(&v4.octets()),
        IpAddr::V6(v6) => hash.write(&v6.octets()),
    }
    cookie[8..].copy_from_slice(&hash.finish().to_le_bytes());
    cookie
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
    }

    #[test]
    fn the_examples_of_rfc_9018_come_out() {
        // Appendix A.1 and A.4.
        let secret = hex("e5e973e5a6b2a43f48e7dc849e37bfcf");
        let secrets = CookieSecrets { current: secret, previous: secret };
        let v4: IpAddr = "198.51.100.100".parse().unwrap();
        assert_eq!(
            secrets.make(hex("2464c4abcf10c957"), v4, 1_559_731_985),
            hex::<16>("010000005cf79f111f8130c3eee29480")
        );
        let secret = hex("445536bcd2513298075a5d379663c962");
        let secrets = CookieSecrets { current: secret, previous: [0; 16] };
        let v6: IpAddr = "2001:db8:220:1:59de:d0f4:8769:82b8".parse().unwrap();
        assert_eq!(
            secrets.make(hex("22681ab97d52c298"), v6, 1_559_741_961),
            hex::<16>("010000005cf7c609a6bb79d16625507a")
        );
    }

    #[test]
    fn a_cookie_holds_for_an_hour_for_its_client_and_both_secrets() {
        let secrets = CookieSecrets { current: [1; 16], previous: [2; 16] };
        let older = CookieSecrets { current: [2; 16], previous: [3; 16] };
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let cookie = secrets.make([7; 8], client, 10_000);
        assert!(secrets.is_valid([7; 8], cookie, client, 10_000 + 3600));
        assert!(secrets.is_valid([7; 8], cookie, client, 10_000 - 300));
        assert!(secrets.is_valid([7; 8], older.make([7; 8], client, 10_000), client, 10_000));
        assert!(!secrets.is_valid([7; 8], cookie, client, 10_000 + 3601));
        assert!(!secrets.is_valid([7; 8], cookie, client, 10_000 - 301));
        assert!(!secrets.is_valid([8; 8], cookie, client, 10_000));
        assert!(!secrets.is_valid([7; 8], cookie, "192.0.2.2".parse().unwrap(), 10_000));
        assert!(!older.is_valid([7; 8], cookie, client, 10_000));
    }
}
