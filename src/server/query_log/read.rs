//! Reads lines of a query log back: who asked for what. What else stands in a line is for others.

use std::borrow::Cow;

use ipnet::IpNet;
use serde::Deserialize;

/// What a line tells of a query.
#[derive(Debug, PartialEq, Eq)]
pub struct Logged<'l> {
    /// The name asked for and the type, as text; `None`: there was no question that could be read.
    pub question: Option<(Cow<'l, str>, Cow<'l, str>)>,
    /// The network of its client.
    pub client: IpNet,
}

#[derive(Deserialize)]
struct Fields<'l> {
    #[serde(borrow)]
    client: Cow<'l, str>,
    #[serde(borrow)]
    name: Option<Cow<'l, str>>,
    #[serde(borrow, rename = "type")]
    qtype: Option<Cow<'l, str>>,
}

/// Reads one line.
///
/// # Errors
/// What is wrong with it, in a few words.
pub fn read(line: &[u8]) -> Result<Logged<'_>, String> {
    let fields: Fields<'_> = serde_json::from_slice(line).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => format!("is not of a query log: {error}"),
        _ => "is no JSON, or cut off".to_string(),
    })?;
    let client = fields.client.parse::<IpNet>().map_err(|_| format!("`{}` is no client network", fields.client))?;
    Ok(Logged { question: fields.name.zip(fields.qtype), client: client.trunc() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_broken_ones_told() {
        let line = br#"{"time":"x","client":"203.0.113.0/24","name":"a\\.b.example.","type":"AAAA","region":null}"#;
        let logged = read(line).unwrap();
        assert_eq!(logged.client.to_string(), "203.0.113.0/24");
        assert_eq!(logged.question, Some(("a\\.b.example.".into(), "AAAA".into())));
        assert_eq!(read(br#"{"client":"2001:db8::/56","name":null,"type":null}"#).unwrap().question, None);
        for (line, part) in [
            (&b"{\"client\":\"203.0.113.0/2"[..], "cut off"),
            (b"", "cut off"),
            (b"{\"name\":\"a.\"}", "missing field `client`"),
            (b"{\"client\":\"home\"}", "`home` is no client network"),
            (b"\xff\xfe", "no JSON"),
        ] {
            let why = read(line).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }
}
