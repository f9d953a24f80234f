//! Who may change something: the token, the addresses that guess at it, and what a browser could be made to send. Knows nothing of
//! what is changed.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, StatusCode, header};

use super::http::{Refusal, is_own_name};
use crate::config::AdminToken;

/// Different wrong tokens that one address may show within [`WINDOW`]. Who guesses shows ever others; who has an old one, or the one
/// of another server, shows the same again and again.
const FAILURES_MAX: usize = 10;
/// How long wrong tokens are remembered.
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses remembered at a time. With more of them the longest remembered is forgotten: who has so many addresses is not
/// stopped by this, but by the length of the token.
const ADDRESSES_MAX: usize = 1024;

/// The address that a request came from; in the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// What changes need.
#[derive(Debug, Clone)]
pub struct Access {
    /// The interface listens on a loopback address: whoever reaches it may change things.
    pub is_loopback: bool,
    /// The token.
    pub token: Option<AdminToken>,
}

/// Lets those through who may change something.
#[derive(Debug, Default)]
pub struct Guard {
    failures: Mutex<HashMap<IpAddr, Failures>>,
    /// What the hashes of tokens are made with: nobody can foretell them, or go back from them.
    key: RandomState,
}

#[derive(Debug)]
struct Failures {
    since: Instant,
    /// Hashes of the wrong tokens, each once, [`FAILURES_MAX`] at most.
    tokens: Vec<u64>,
}

impl Failures {
    fn since(since: Instant) -> Failures {
        Failures { since, tokens: Vec::new() }
    }
}

impl Guard {
    /// Judges the head of a request that would change something.
    ///
    /// # Errors
    /// Why it is refused: 401 without the token, 403 where no token would do, 429 after too many different wrong ones: then for
    /// the right one as well, since who could see it pass would not have to stop guessing.
    pub fn admit(&self, access: &Access, peer: IpAddr, headers: &HeaderMap) -> Result<(), Refusal> {
        if access.is_loopback {
            // A page of any name that was made to point here (DNS rebinding) is the browser's own origin.
            return is_host_own(headers).then_some(()).ok_or_else(|| {
                let error = "changes are refused under this name; address the server as localhost or 127.0.0.1";
                Refusal::new(StatusCode::FORBIDDEN, error)
            });
        }
        let Some(token) = &access.token else {
            let error = "changes are refused: the admin interface is not on loopback and has no token; set `token-file` in [admin]";
            return Err(Refusal::new(StatusCode::FORBIDDEN, error));
        };
        let Some(given) = bearer(headers) else {
            let error = "changes need the token of this server: Authorization: Bearer TOKEN (--token-file FILE or ISOCHRONE_TOKEN)";
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, error));
        };
        let now = Instant::now();
        if let Some(wait) = self.has_to_wait(peer, now) {
            let wait_s = wait.as_millis().div_ceil(1000) as u64; // never too early
            let error = format!("too many wrong tokens from {peer}; wait {wait_s} s");
            return Err(Refusal { retry_after_s: Some(wait_s), ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, error) });
        }
        if token.is(given) {
            return Ok(());
        }
        self.note_failure(peer, given, now);
        let error = "this is not the token of this server; it is in the file that `token-file` in [admin] names";
        Err(Refusal::new(StatusCode::UNAUTHORIZED, error))
    }

    /// How long until this address may guess again; `None`: it may now.
    fn has_to_wait(&self, peer: IpAddr, now: Instant) -> Option<Duration> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = failures.get(&network(peer)).filter(|failures| failures.tokens.len() >= FAILURES_MAX)?;
        WINDOW.checked_sub(now.duration_since(of_peer.since)).filter(|wait| !wait.is_zero())
    }

    fn note_failure(&self, peer: IpAddr, given: &str, now: Instant) {
        let token = self.key.hash_one(given);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= ADDRESSES_MAX {
            failures.retain(|_, f| now.duration_since(f.since) < WINDOW);
        }
        if failures.len() >= ADDRESSES_MAX
            && let Some(oldest) = failures.iter().min_by_key(|(_, f)| f.since).map(|(address, _)| *address)
        {
            failures.remove(&oldest);
        }
        let of_peer = failures.entry(network(peer)).or_insert_with(|| Failures::since(now));
        if now.duration_since(of_peer.since) >= WINDOW {
            *of_peer = Failures::since(now);
        }
        // Many may have passed the look at the wait together.
        if of_peer.tokens.len() >= FAILURES_MAX || of_peer.tokens.contains(&token) {
            return;
        }
        of_peer.tokens.push(token);
        if of_peer.tokens.len() == FAILURES_MAX {
            tracing::warn!(%peer, "many different wrong tokens at the admin interface; this address has to wait a minute");
        }
    }
}

/// What one guesser has at hand: an IPv4 address, or a /64.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

/// The token of an `Authorization: Bearer` header (RFC 6750 §2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The server was addressed as an address or as `localhost`.
fn is_host_own(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse().ok());
    host.as_ref().is_some_and(is_own_name)
}

/// Only what scripts send on purpose is taken for JSON: a form of a web page cannot set this header.
///
/// # Errors
/// 415 for anything else.
pub fn require_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let error = "the body must be JSON and say so: send the header Content-Type: application/json";
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error))
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    const TOKEN: &str = "s3cret-s3cret-s3cret";

    fn access(is_loopback: bool, has_token: bool) -> Access {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), TOKEN).unwrap();
        let token = has_token.then(|| AdminToken::read(&folder.path().join("token")).unwrap());
        Access { is_loopback, token }
    }

    fn headers(list: &[(header::HeaderName, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn changes_need_the_token_unless_the_server_listens_on_loopback() {
        let right = format!("Bearer {TOKEN}");
        let lower = format!("bearer  {TOKEN} ");
        let longer = format!("Bearer {TOKEN}x");
        for (loopback, has_token, authorization, expected) in [
            (true, false, None, Ok(())),
            (true, true, None, Ok(())),
            (false, false, None, Err(403)),
            (false, false, Some(&*right), Err(403)),
            (false, true, None, Err(401)),
            (false, true, Some(&*right), Ok(())),
            (false, true, Some(&*lower), Ok(())),
            (false, true, Some(&*longer), Err(401)),
            (false, true, Some("Bearer "), Err(401)),
            (false, true, Some("Bearer"), Err(401)),
            (false, true, Some(TOKEN), Err(401)),
            (false, true, Some("Basic czNjcmV0"), Err(401)),
        ] {
            let mut list = vec![(header::HOST, "127.0.0.1:8053")];
            list.extend(authorization.map(|value| (header::AUTHORIZATION, value)));
            let admitted = Guard::default().admit(&access(loopback, has_token), peer("192.0.2.1"), &headers(&list));
            assert_eq!(admitted.map_err(|r| r.status.as_u16()), expected, "{loopback} {has_token} {authorization:?}");
        }
    }

    #[test]
    fn on_loopback_the_server_goes_by_no_name_but_localhost() {
        for (host, is_admitted) in [
            (Some("127.0.0.1:8053"), true),
            (Some("[::1]:8053"), true),
            (Some("localhost:8053"), true),
            (Some("LOCALHOST"), true),
            (Some("evil.example:8053"), false),
            (Some("localhost.evil.example"), false),
            (Some(""), false),
            (None, false),
        ] {
            let list: Vec<_> = host.map(|host| (header::HOST, host)).into_iter().collect();
            let admitted = Guard::default().admit(&access(true, false), peer("127.0.0.1"), &headers(&list));
            assert_eq!(admitted.is_ok(), is_admitted, "{host:?}");
        }
    }

    #[test]
    fn guessing_ends_after_ten_wrong_tokens_for_that_address_alone() {
        let (guard, access) = (Guard::default(), access(false, true));
        let try_with = |address: &str, token: &str| {
            let headers = headers(&[(header::AUTHORIZATION, &format!("Bearer {token}"))]);
            guard.admit(&access, peer(address), &headers).map_err(|refusal| refusal.status.as_u16())
        };
        for n in 0..FAILURES_MAX {
            assert_eq!(try_with("2001:db8::1", &format!("guess{n}")), Err(401));
        }
        assert_eq!(try_with("2001:db8::2", TOKEN), Err(429), "the same /64");
        let headers = headers(&[(header::AUTHORIZATION, &format!("Bearer {TOKEN}"))]);
        let refused = guard.admit(&access, peer("2001:db8::2"), &headers).unwrap_err().into_response();
        let wait_s: u64 = refused.headers()[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
        assert!((1..=WINDOW.as_secs()).contains(&wait_s), "{wait_s}");
        assert_eq!(try_with("2001:db8:0:1::1", TOKEN), Ok(()));
        assert_eq!(try_with("192.0.2.1", TOKEN), Ok(()));
    }

    #[test]
    fn an_old_token_shown_again_and_again_or_none_locks_nobody_out() {
        let (guard, access) = (Guard::default(), access(false, true));
        let status = |authorization: Option<String>| {
            let list: Vec<_> = authorization.iter().map(|value| (header::AUTHORIZATION, value.as_str())).collect();
            guard.admit(&access, peer("192.0.2.1"), &headers(&list)).map_err(|refusal| refusal.status.as_u16())
        };
        for _ in 0..5 * FAILURES_MAX {
            assert_eq!(status(None), Err(401));
            assert_eq!(status(Some("Bearer old-s3cret-old-s3cret".into())), Err(401));
        }
        assert_eq!(status(Some(format!("Bearer {TOKEN}"))), Ok(()));
        for n in 1..FAILURES_MAX {
            assert_eq!(status(Some(format!("Bearer guess{n}"))), Err(401), "with the old one {}", n + 1);
        }
        assert_eq!(status(Some("Bearer old-s3cret-old-s3cret".into())), Err(429));
        assert_eq!(status(None), Err(401), "it guesses nothing");
    }

    #[test]
    fn wrong_tokens_are_forgotten_after_a_minute_and_memory_is_bounded() {
        let (guard, begun) = (Guard::default(), Instant::now());
        for n in 0..2 * FAILURES_MAX {
            guard.note_failure(peer("192.0.2.1"), &n.to_string(), begun);
        }
        let second = Duration::from_secs(1);
        assert_eq!(guard.has_to_wait(peer("192.0.2.1"), begun + WINDOW - second), Some(second));
        assert_eq!(guard.has_to_wait(peer("192.0.2.1"), begun + WINDOW), None);
        assert_eq!(guard.failures.lock().unwrap()[&peer("192.0.2.1")].tokens.len(), FAILURES_MAX);
        guard.note_failure(peer("192.0.2.1"), "", begun + WINDOW);
        assert_eq!(guard.has_to_wait(peer("192.0.2.1"), begun + WINDOW), None);
        for n in 0..2 * ADDRESSES_MAX as u32 {
            guard.note_failure(IpAddr::from(n.to_be_bytes()), "", begun + WINDOW);
        }
        assert!(guard.failures.lock().unwrap().len() <= ADDRESSES_MAX);
    }

    #[test]
    fn only_json_that_says_so_is_json() {
        for (value, is_json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
            ("application/jsonp", false),
        ] {
            assert_eq!(require_json(&headers(&[(header::CONTENT_TYPE, value)])).is_ok(), is_json, "{value}");
        }
        assert_eq!(require_json(&HeaderMap::new()).unwrap_err().status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
}
