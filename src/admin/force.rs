//! Overrides as operators send them and as they are told. Knows nothing of what regions there are.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::http::Refusal;
use crate::config::{duration_ms, quote, suggest};

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 500;
/// Longest time that an override may be given, in seconds: ten years of 365 days. Without a time it holds until it is ended.
const LASTS_S_MAX: u64 = 10 * 365 * 86_400;

/// What may be decided.
pub const STATES: [&str; 4] = ["drain", "down", "up", "auto"];

/// The body of a request.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForceBody {
    /// One of [`STATES`].
    pub state: String,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// How long it holds, as `1h`; absent: until it is ended.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasts: Option<String>,
}

/// What an operator wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The region, by name or with stars.
    pub region: String,
    /// The endpoint, by name or with stars; `None`: the region itself.
    pub endpoint: Option<String>,
    /// One of [`STATES`].
    pub state: &'static str,
    /// Why, for people.
    pub reason: String,
    /// How long it holds, in seconds.
    pub lasts_s: Option<u64>,
    /// Who says so: address and program.
    pub by: String,
}

/// An override in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OverrideStatus {
    /// `region` or `region/endpoint`, by name or with stars.
    pub target: String,
    /// `drain`, `down` or `up`; `auto` as an exception to an older, wider one.
    pub state: String,
    /// Why, in the operator's words.
    pub reason: String,
    /// When it was made, Unix time in seconds.
    pub since: u64,
    /// When it ends by itself, Unix time in seconds.
    pub until: Option<u64>,
    /// Who made it.
    pub by: String,
    /// The server of the cluster on which it was made; `None`: this server stands alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Decisions on other servers that it overrode though nobody had told its operator of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<String>,
    /// The regions, or the endpoints as `region/endpoint`, that it is about; none when they have left the configuration.
    pub matches: Vec<String>,
}

/// What holds after a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forced {
    /// The decision.
    #[serde(flatten)]
    pub now: OverrideStatus,
    /// The targets of the overrides that it replaced or ended.
    pub replaced: Vec<String>,
    /// It will outlive this process.
    pub kept: bool,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reloaded {
    /// What is served now: `2 regions, 1 zone, 1 route`.
    pub summary: String,
}

/// Makes sense of a body; `region` and `endpoint` are from the path.
///
/// # Errors
/// 400, and what to send instead.
pub fn command(region: String, endpoint: Option<String>, body: &[u8], by: String) -> Result<Command, Refusal> {
    let bad = |error: String| Refusal::new(StatusCode::BAD_REQUEST, error);
    let body: ForceBody = serde_json::from_slice(body).map_err(|error| {
        bad(format!("{error}; send a body like {{\"state\": \"drain\", \"reason\": \"...\", \"for\": \"1h\"}}"))
    })?;
    let state = STATES
        .into_iter()
        .find(|state| *state == body.state)
        .ok_or_else(|| bad(format!("unknown state {}; {}", quote(&body.state), suggest(&body.state, &STATES, ""))))?;
    if body.reason.len() > REASON_BYTES_MAX || body.reason.contains(char::is_control) {
        return Err(bad(format!("`reason` must be one line of at most {REASON_BYTES_MAX} bytes")));
    }
    let lasts_s = body.lasts.filter(|text| !text.is_empty()).map(|text| lasts_s(&text).map_err(bad)).transpose()?;
    if state == "auto" && lasts_s.is_some() {
        return Err(bad("`auto` ends an override at once; leave out `for`".into()));
    }
    Ok(Command { region, endpoint, state, reason: body.reason, lasts_s, by })
}

/// Whole seconds, rounded up.
fn lasts_s(text: &str) -> Result<u64, String> {
    let ms =
        duration_ms(text).map_err(|fault| format!("`for`: {}; {}", fault.message, fault.help.unwrap_or_default()))?;
    match u64::try_from(ms).map(|ms| ms.div_ceil(1000)) {
        Ok(s @ 1..=LASTS_S_MAX) => Ok(s),
        _ => Err(format!("`for` is {}; it must be 1s to {}h", quote(text), LASTS_S_MAX / 3600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str) -> Result<Command, String> {
        command("eu".into(), None, body.as_bytes(), "me".into()).map_err(|refusal| {
            assert_eq!(refusal.status, StatusCode::BAD_REQUEST);
            refusal.error
        })
    }

    #[test]
    fn a_body_says_what_why_and_for_how_long() {
        for (body, state, reason, lasts_s) in [
            (r#"{"state":"down"}"#, "down", "", None),
            (r#"{"state":"up","reason":"näh"}"#, "up", "näh", None),
            (r#"{"state":"drain","reason":"x","for":"1h"}"#, "drain", "x", Some(3600)),
            (r#"{"state":"drain","for":"1500ms"}"#, "drain", "", Some(2)),
            (r#"{"state":"drain","for":""}"#, "drain", "", None),
            (r#"{"state":"auto","for":null}"#, "auto", "", None),
        ] {
            let command = of(body).unwrap();
            assert_eq!((command.state, &*command.reason, command.lasts_s), (state, reason, lasts_s), "{body}");
        }
    }

    #[test]
    fn a_bad_body_is_told_what_to_send_instead() {
        let long = format!(r#"{{"state":"up","reason":"{}"}}"#, "x".repeat(501));
        for (body, part) in [
            ("", "send a body like {\"state\": \"drain\""),
            ("down", "send a body like"),
            ("{}", "missing field `state`"),
            (r#"{"state":"dwn"}"#, "unknown state `dwn`; did you mean `down`?"),
            (r#"{"state":"off"}"#, "write one of `drain`, `down`, `up` or `auto`"),
            (r#"{"state":"up","resaon":"x"}"#, "unknown field `resaon`"),
            (r#"{"state":"up","for":"1"}"#, "`for`: `1` has no unit; write \"1s\""),
            (r#"{"state":"up","for":"0s"}"#, "`for` is `0s`; it must be 1s to 87600h"),
            (r#"{"state":"up","for":"-1h"}"#, "`for` is `-1h`; it must be"),
            (r#"{"state":"up","for":"999999h"}"#, "`for` is `999999h`; it must be"),
            (r#"{"state":"auto","for":"1h"}"#, "`auto` ends an override at once"),
            (r#"{"state":"up","reason":"a\nb"}"#, "`reason` must be one line of at most 500 bytes"),
            (&long, "`reason` must be one line of at most 500 bytes"),
        ] {
            let error = of(body).unwrap_err();
            assert!(error.contains(part), "{body}: {error}");
        }
    }
}
