//! What an override is about: regions, or endpoints of regions, by name or with stars.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Regions, or endpoints of regions. A star stands for any letters, none too. Of two targets that both match, the narrower one
/// has no precedence: the newer override counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Target {
    region: String,
    /// `None`: the region itself.
    endpoint: Option<String>,
}

impl Target {
    /// A region, or one of its endpoints; each by name or with stars.
    pub fn new(region: &str, endpoint: Option<&str>) -> Target {
        Target { region: region.to_string(), endpoint: endpoint.map(endpoint_name) }
    }

    /// The region as written.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The endpoint in the form that endpoints are compared in.
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// It is about endpoints, not about regions.
    pub fn is_of_endpoints(&self) -> bool {
        self.endpoint.is_some()
    }

    /// It is about this region itself.
    pub fn is_region(&self, name: &str) -> bool {
        self.endpoint.is_none() && matches(&self.region, name)
    }

    /// It is about this endpoint of this region.
    pub fn is_endpoint(&self, region: &str, endpoint: &str) -> bool {
        self.endpoint.as_ref().is_some_and(|pattern| matches(&self.region, region) && matches(pattern, endpoint))
    }

    /// It is about everything that `other` is about.
    pub fn covers(&self, other: &Target) -> bool {
        // A star of `other` can only be matched by a star of ours: what is left of it is then matched, too.
        match (&self.endpoint, &other.endpoint) {
            (None, None) => matches(&self.region, &other.region),
            (Some(ours), Some(theirs)) => matches(&self.region, &other.region) && matches(ours, theirs),
            _ => false,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            None => f.write_str(&self.region),
            Some(endpoint) => write!(f, "{}/{endpoint}", self.region),
        }
    }
}

impl From<String> for Target {
    /// At the first slash, which no region's name holds.
    fn from(text: String) -> Self {
        match text.split_once('/') {
            Some((region, endpoint)) => Target::new(region, Some(endpoint)),
            None => Target::new(&text, None),
        }
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

/// Addresses in their shortest form, names in small letters and without the final dot: as the plan has them.
fn endpoint_name(text: &str) -> String {
    match text.parse::<std::net::IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => text.trim_end_matches('.').to_ascii_lowercase(),
    }
}

/// True when `text` is what `pattern` says, where a star stands for any letters. Takes time in the product of the lengths at most.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut from) = (0, 0);
    // The last star, and how much of the text it stands for so far.
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, from));
            at += 1;
        } else if pattern.get(at) == Some(&text[from]) {
            (at, from) = (at + 1, from + 1);
        } else if let Some((star_at, taken)) = star {
            star = Some((star_at, taken + 1));
            (at, from) = (star_at + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|&b| b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_letters() {
        for (pattern, text, expected) in [
            ("eu", "eu", true),
            ("eu", "eu-west", false),
            ("eu-*", "eu-west", true),
            ("eu-*", "eu-", true),
            ("eu-*", "eu", false),
            ("*", "", true),
            ("*-1", "a-1-1", true),
            ("*-1", "a-1-2", false),
            ("a*b*c", "axxbyybzc", true),
            ("a*b*c", "axxbyybz", false),
            ("**", "x", true),
            ("", "", true),
            ("", "x", false),
            ("EU", "eu", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_target_is_about_regions_or_about_endpoints() {
        let target = |text: &str| Target::from(text.to_string());
        for (text, region, endpoint) in [
            ("eu", true, false),
            ("e*", true, false),
            ("us", false, false),
            ("eu/192.0.2.10", false, true),
            ("*/192.0.2.*", false, true),
            ("eu/*", false, true),
            ("us/*", false, false),
            ("eu/192.0.2.1", false, false),
        ] {
            assert_eq!(target(text).is_region("eu"), region, "{text}");
            assert_eq!(target(text).is_endpoint("eu", "192.0.2.10"), endpoint, "{text}");
            assert_eq!(target(text).to_string(), text);
        }
        assert!(target("eu/2001:DB8:0::1").is_endpoint("eu", "2001:db8::1"));
        assert!(target("eu/WWW.Example.Net.").is_endpoint("eu", "www.example.net"));
    }

    #[test]
    fn a_target_covers_another_when_it_matches_whatever_that_matches() {
        for (wide, narrow, expected) in [
            ("eu-*", "eu-west", true),
            ("eu-*", "eu-*", true),
            ("*", "eu-*", true),
            ("eu-*", "*", false),
            ("eu-*-1", "eu-*", false),
            ("eu", "eu/192.0.2.1", false),
            ("eu/*", "eu/192.0.2.1", true),
            ("eu/*", "eu", false),
            ("*/192.0.2.*", "eu/192.0.2.1", true),
            ("*/192.0.2.*", "eu/192.0.*", false),
        ] {
            let [wide, narrow] = [wide, narrow].map(|text| Target::from(text.to_string()));
            assert_eq!(wide.covers(&narrow), expected, "{wide} {narrow}");
        }
    }
}
