//! Measurements as people write them down: lines of `network,region,rtt_ms[,samples]`. Turns text into rows and says what is wrong
//! with which line; what the rows mean for each other is for `intake` to say.

use std::{borrow::Cow, collections::HashMap, net::IpAddr, ops::Range};

use ipnet::IpNet;

use crate::{
    config::model::RegionId,
    geo::{Continent, Coordinates, CountryCode},
};

/// Samples of a line that does not say how many it sums up.
pub const SAMPLES_DEFAULT: u32 = 10;
/// Longest round trip that a line may tell, in milliseconds.
pub const RTT_MS_MAX: f32 = 10_000.0;
/// Most samples that a line may tell.
const SAMPLES_MAX: u32 = 1_000_000_000;
/// So many wrong lines of a file are told one by one; the others are counted.
pub const FAULTS_TOLD_MAX: usize = 20;

/// Whose round trip was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Network {
    /// Addresses; bits beyond the length are 0.
    Prefix(IpNet),
    /// An autonomous system.
    Asn(u32),
    /// A country.
    Country(CountryCode),
    /// A continent.
    Continent(Continent),
    /// A place.
    Point(Coordinates),
}

/// One measurement, or the sum of several.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Whose.
    pub network: Network,
    /// To which region.
    pub region: RegionId,
    /// Round trip in milliseconds, above 0.
    pub rtt_ms: f32,
    /// How many measurements it stands for, at least 1.
    pub samples: u32,
    /// How old the newest of them is, in seconds.
    pub age_s: u64,
    /// It tells of the network alone, and nothing of the country and the autonomous system around it: so do handshakes of resolvers
    /// that ask on behalf of clients elsewhere.
    pub is_alone: bool,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Bytes of the text that are meant.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

/// A file's rows and faults.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parsed {
    /// The rows of all sound lines, in file order.
    pub rows: Vec<Row>,
    /// The first faults, in file order.
    pub faults: Vec<Fault>,
    /// How many lines are wrong.
    pub faulty_lines: usize,
}

/// Hardly any line is shorter, its end included: room for so many rows is asked for, and never moved.
const LINE_BYTES: usize = 16;

/// Reads a file's text. `regions` are the names of the configured regions, in file order; every row is `age_s` old.
///
/// Empty lines and lines that begin with `#` say nothing. The first line may be a header, which begins with the word `network`.
pub fn parse(text: &str, regions: &[&str], age_s: u64) -> Parsed {
    let known: HashMap<&str, RegionId> =
        regions.iter().enumerate().map(|(n, name)| (*name, RegionId(n as u8))).collect();
    let mut parsed = Parsed { rows: Vec::with_capacity(text.len() / LINE_BYTES), ..Parsed::default() };
    let mut may_be_header = true;
    let mut start = text.len() - text.trim_start_matches('\u{feff}').len();
    while start < text.len() {
        let len = text[start..].find('\n').unwrap_or(text.len() - start);
        let line = &text[start..start + len];
        let is_blank = line.trim().is_empty() || line.trim_start().starts_with('#');
        if !is_blank {
            let is_header = may_be_header && field(line.split(',').next().unwrap_or_default()) == "network";
            may_be_header = false;
            if !is_header {
                match row(line, &known, age_s) {
                    Ok(row) => parsed.rows.push(row),
                    Err(fault) => parsed.note(start, fault),
                }
            }
        }
        start += len + 1;
    }
    parsed
}

impl Parsed {
    fn note(&mut self, line_start: usize, fault: Fault) {
        self.faulty_lines += 1;
        if self.faults.len() < FAULTS_TOLD_MAX {
            let span = line_start + fault.span.start..line_start + fault.span.end;
            self.faults.push(Fault { span, ..fault });
        }
    }
}

/// A line's row, or its fault with a span counted from the line's start.
fn row(line: &str, known: &HashMap<&str, RegionId>, age_s: u64) -> Result<Row, Fault> {
    let mut parts = line.split(',');
    let mut next = || parts.next();
    let (Some(network), Some(region), Some(rtt)) = (next(), next(), next()) else {
        return Err(fault(line, line.trim(), "a line with fewer than three fields".into(), SHAPE.into()));
    };
    let samples = next();
    if let Some(beyond) = next() {
        return Err(fault(line, beyond, "a line with more than four fields".into(), SHAPE.into()));
    }
    let wrong = |part: &str, (message, help): (String, Cow<'static, str>)| fault(line, part, message, help);
    let row = Row {
        network: network_of(field(network)).map_err(|why| wrong(network, why))?,
        region: region_of(field(region), known).map_err(|why| wrong(region, why))?,
        rtt_ms: rtt_of(field(rtt)).map_err(|why| wrong(rtt, why))?,
        samples: samples.map_or(Ok(SAMPLES_DEFAULT), |part| samples_of(field(part)).map_err(|why| wrong(part, why)))?,
        age_s,
        is_alone: false,
    };
    Ok(row)
}

const SHAPE: &str =
    "write network,region,rtt_ms or network,region,rtt_ms,samples, for example 203.0.113.0/24,eu,23.5,12";

/// A field without the blanks and the quotes around it.
fn field(part: &str) -> &str {
    let part = part.trim();
    part.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(part)
}

fn fault(line: &str, part: &str, message: String, help: Cow<'static, str>) -> Fault {
    let part = part.trim();
    // `part` is a piece of `line`: where it begins follows from their addresses.
    let start = part.as_ptr() as usize - line.as_ptr() as usize;
    Fault { span: start..start + part.len(), message, help: help.into_owned() }
}

type Why = (String, Cow<'static, str>);

fn network_of(text: &str) -> Result<Network, Why> {
    if let Ok(prefix) = text.parse::<IpNet>() {
        return Ok(Network::Prefix(prefix.trunc()));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Network::Prefix(IpNet::from(address)));
    }
    let unknown = || {
        let help =
            "write a prefix (203.0.113.0/24), asn:64500, country:CH, continent:EU or latitude:longitude (47.4:8.5)";
        (format!("`{text}` is no network"), help.into())
    };
    let (kind, rest) = text.split_once(':').ok_or_else(unknown)?;
    let found = match kind {
        "asn" => rest.parse().ok().map(Network::Asn),
        "country" => {
            CountryCode::new(rest).filter(|code| crate::geo::country::find(*code).is_some()).map(Network::Country)
        }
        "continent" => Continent::from_code(rest).map(Network::Continent),
        _ => point_of(kind, rest).map(Network::Point),
    };
    found.ok_or_else(unknown)
}

fn point_of(latitude: &str, longitude: &str) -> Option<Coordinates> {
    let (latitude, longitude): (f32, f32) = (latitude.trim().parse().ok()?, longitude.trim().parse().ok()?);
    let is_on_globe = latitude.abs() <= 90.0 && longitude.abs() <= 180.0;
    is_on_globe.then_some(Coordinates { latitude, longitude })
}

fn region_of(text: &str, known: &HashMap<&str, RegionId>) -> Result<RegionId, Why> {
    known.get(text).copied().ok_or_else(|| {
        let mut names: Vec<&str> = known.keys().copied().collect();
        names.sort_unstable();
        let nearest = names.iter().map(|name| (strsim::damerau_levenshtein(text, name), *name)).min();
        let help = match nearest {
            Some((changes, name)) if changes <= text.len().max(3) / 3 => format!("did you mean `{name}`?"),
            _ => "write the name of a region of the configuration".into(),
        };
        (format!("unknown region `{text}`"), help.into())
    })
}

fn rtt_of(text: &str) -> Result<f32, Why> {
    match text.parse::<f32>() {
        Ok(ms) if ms > 0.0 && ms <= RTT_MS_MAX => Ok(ms),
        _ => {
            let help = format!("write milliseconds above 0 and at most {RTT_MS_MAX}, for example 23.5");
            Err((format!("`{text}` is no round trip"), help.into()))
        }
    }
}

fn samples_of(text: &str) -> Result<u32, Why> {
    match text.parse::<u32>() {
        Ok(samples @ 1..=SAMPLES_MAX) => Ok(samples),
        _ => {
            let help = "write a whole number from 1, or leave the field and its comma out";
            Err((format!("`{text}` is no number of samples"), help.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(text: &str) -> Vec<Row> {
        let parsed = parse(text, &["us", "eu"], 7);
        assert_eq!(parsed.faults, []);
        parsed.rows
    }

    fn told(text: &str) -> Vec<(String, String)> {
        let parsed = parse(text, &["us-east", "eu"], 0);
        assert_eq!(parsed.faults.len(), parsed.faulty_lines.min(FAULTS_TOLD_MAX));
        parsed.faults.iter().map(|fault| (text[fault.span.clone()].into(), fault.message.clone())).collect()
    }

    #[test]
    fn every_kind_of_network_is_read() {
        let text = "network,region,rtt_ms,samples\n203.0.113.77/24,eu,23.5,12\n2001:db8::/48,us,80\nasn:64500,eu,9,1\n\
                    country:ch,eu,5\ncontinent:EU,us,90\n47.4:-8.5,eu,1.25\n192.0.2.1,us,3\n";
        let networks: Vec<Network> = rows(text).iter().map(|row| row.network).collect();
        let expected = [
            Network::Prefix("203.0.113.0/24".parse().unwrap()),
            Network::Prefix("2001:db8::/48".parse().unwrap()),
            Network::Asn(64500),
            Network::Country(CountryCode(*b"CH")),
            Network::Continent(Continent::Europe),
            Network::Point(Coordinates { latitude: 47.4, longitude: -8.5 }),
            Network::Prefix("192.0.2.1/32".parse().unwrap()),
        ];
        assert_eq!(networks, expected);
        let first = rows(text)[0];
        assert_eq!((first.region, first.rtt_ms, first.samples, first.age_s), (RegionId(1), 23.5, 12, 7));
        assert_eq!(rows(text)[1].samples, SAMPLES_DEFAULT);
    }

    #[test]
    fn blanks_quotes_comments_and_foreign_line_ends_do_no_harm() {
        let text = "\u{feff}# from the lab\r\n\r\n network , region , rtt_ms \r\n \"192.0.2.0/24\" , \"eu\" , 5.5 , 3 \r\n  # end";
        let found = rows(text);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].rtt_ms, found[0].samples), (5.5, 3));
        assert_eq!(rows(""), []);
    }

    #[test]
    fn a_wrong_line_is_told_with_the_part_that_is_wrong() {
        let text = "192.0.2.0/24,eu\n192.0.2.0/33,eu,5\n192.0.2.0/24,us-eats,5\n192.0.2.0/24,eu,-5\n192.0.2.0/24,eu,5,0\n\
                    192.0.2.0/24,eu,5,1,x\ncountry:QQ,eu,5\nnetwork,region,rtt_ms\n91:0,eu,5\n";
        let expected = [
            ("192.0.2.0/24,eu", "a line with fewer than three fields"),
            ("192.0.2.0/33", "`192.0.2.0/33` is no network"),
            ("us-eats", "unknown region `us-eats`"),
            ("-5", "`-5` is no round trip"),
            ("0", "`0` is no number of samples"),
            ("x", "a line with more than four fields"),
            ("country:QQ", "`country:QQ` is no network"),
            ("network", "`network` is no network"),
            ("91:0", "`91:0` is no network"),
        ];
        assert_eq!(told(text), expected.map(|(part, message)| (part.to_string(), message.to_string())));
        let help = &parse(text, &["us-east"], 0).faults[2].help;
        assert_eq!(help, "did you mean `us-east`?");
    }

    #[test]
    fn of_many_wrong_lines_some_are_told_and_all_are_counted() {
        let parsed = parse(&"x\n".repeat(1000), &["eu"], 0);
        assert_eq!((parsed.faults.len(), parsed.faulty_lines), (FAULTS_TOLD_MAX, 1000));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_told_and_spans_lie_inside(text in "[a-z0-9:/., \n\r\"#é-]{0,80}") {
            let parsed = parse(&text, &["eu"], 0);
            for fault in &parsed.faults {
                prop_assert!(text.get(fault.span.clone()).is_some(), "{:?}", fault.span);
            }
        }
    }
}
