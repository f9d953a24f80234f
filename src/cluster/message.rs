//! What servers say to each other, as it goes over the wire: JSON that people can read with `nats sub`, packed where it is long.
//! Knows nothing of NATS, and trusts nothing that it reads.
//!
//! **Versions.** Every message says in which schema it was written (`v`) and which is the oldest whose readers understand it
//! (`needs`). What a reader does not know in a message is left aside. So a new field raises `v` alone, and what would mislead
//! readers of the version before is sent only by the version after next.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::health::{
    consensus::{Sees, View},
    identity::Identity,
};

/// The schema that this version writes.
pub const SCHEMA: u32 = 3;
/// The oldest schema whose readers understand what this version writes.
const NEEDS: u32 = 1;
/// Longer messages are packed, in bytes.
const PACK_ABOVE: usize = 1024;
/// Most bytes of a message once it is unpacked.
const BYTES_MAX: usize = 2 << 20;
/// How a packed message begins (RFC 8878 §3.1.1).
const PACKED: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Most observations in one message: with long delays in all of them it stays below the megabyte that NATS allows.
pub const OBSERVATIONS_AT_ONCE: usize = 5_000;
/// Longest version of a program, in bytes.
const VERSION_BYTES_MAX: usize = 64;
/// Most regions of which a server says how hard they are to reach.
const RISES_MAX: usize = 256;
/// Networks in one message, and in one round of telling.
pub const NETWORKS_AT_ONCE: usize = 2_000;
/// Most decisions in one message.
pub const DECISIONS_AT_ONCE: usize = 500;
/// Most bytes of text in the decisions of one message.
pub const DECISION_BYTES_AT_ONCE: usize = 256 << 10;

/// Everything that can be said at once. Who says it stands in the subject, which NATS can hold the sender to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The sender is there, and stands by what it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beat: Option<Beat>,
    /// Views that have changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<Delta>,
    /// A part of all views.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Snapshot>,
    /// The sender wants to know something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask: Option<Ask>,
    /// What operators decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<Decision>,
    /// Round trips that the sender measured, or a part of them. Since schema 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cells: Option<Cells>,
}

/// Said every two seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    /// Another number for every start of the sender, and for every list of targets.
    pub run: u64,
    /// The number of the newest delta.
    pub seq: u64,
    /// Counts the beats of a run.
    pub beat: u64,
    /// Views that it has.
    #[serde(default)]
    pub targets: u64,
    /// A digest of the decisions that it knows.
    #[serde(default)]
    pub decisions: u64,
    /// Version of the program, for people.
    #[serde(default)]
    pub version: String,
    /// It distrusts itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub doubts: bool,
    /// Servers whose view counts with it, itself included: fewer than elsewhere where it does not hear all.
    #[serde(default)]
    pub hears: u32,
    /// By how much it takes longer than usual to connect to each region that it can tell of. Since schema 3.
    #[serde(default, skip_serializing_if = "Rises::is_empty")]
    pub rises: Rises,
}

/// By how much it takes longer than usual to connect to regions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rises {
    /// Milliseconds by the region's name, 0 where it takes as long as usual; regions that the sender cannot tell of are left out.
    pub ms: BTreeMap<String, u32>,
}

impl Rises {
    fn is_empty(&self) -> bool {
        self.ms.is_empty()
    }
}

/// Views that changed with the delta before.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// As in [`Beat::run`].
    pub run: u64,
    /// One more than that of the delta before; the first of a run is 1.
    pub seq: u64,
    /// The views.
    pub views: Vec<Observation>,
}

/// All views, in parts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// As in [`Beat::run`].
    pub run: u64,
    /// The newest delta that is in it.
    pub seq: u64,
    /// Which part, from 0 up.
    pub part: u32,
    /// How many there are.
    pub parts: u32,
    /// The views of this part.
    pub views: Vec<Observation>,
}

/// What somebody wants to know.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// Of whom; `None`: of everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// All views.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub views: bool,
    /// All decisions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub decisions: bool,
    /// All measured round trips. Since schema 2.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cells: bool,
}

/// Round trips that the sender measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cells {
    /// The region that it stands in, by name.
    pub region: String,
    /// The networks.
    pub networks: Vec<Cell>,
}

/// One network's round trip.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// An IPv4 /24 or an IPv6 /56.
    #[serde(rename = "n")]
    pub network: String,
    /// Milliseconds.
    #[serde(rename = "ms")]
    pub rtt_ms: f32,
    /// Samples behind it.
    #[serde(rename = "c")]
    pub samples: u32,
    /// The newest of them came so many seconds ago.
    #[serde(rename = "a", default, skip_serializing_if = "is_zero")]
    pub age_s: u64,
    /// Its resolvers send client subnets.
    #[serde(rename = "e", default, skip_serializing_if = "std::ops::Not::not")]
    pub sends_subnets: bool,
}

/// How the sender sees a target. Times are spans, so that no clock needs to be right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// The target.
    #[serde(rename = "k", with = "hex")]
    pub target: Identity,
    /// What is seen.
    #[serde(rename = "s", default, skip_serializing_if = "Seen::is_up")]
    pub seen: Seen,
    /// The sender abstains.
    #[serde(rename = "w", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_weak: bool,
    /// Since when it is so: so many seconds ago.
    #[serde(rename = "a", default, skip_serializing_if = "is_zero")]
    pub age_s: u64,
    /// Connect time of the newest probe that connected, in microseconds; 0: none did.
    #[serde(rename = "c", default, skip_serializing_if = "is_zero")]
    pub connect_us: u64,
    /// In doubt: it may be otherwise within so many milliseconds; 0: it is not.
    #[serde(rename = "d", default, skip_serializing_if = "is_zero")]
    pub doubt_ms: u64,
}

/// What is seen of a target, by one letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Seen {
    /// `u`
    #[default]
    Up,
    /// `h`
    Held,
    /// `d`
    Down,
    /// `-`, or what a later version says: no view.
    Nothing,
}

/// What an operator decided about regions or endpoints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// One more than the highest that the deciding server knew.
    pub counter: u64,
    /// The deciding server.
    pub node: String,
    /// `region` or `region/endpoint`, by name or with stars.
    pub target: String,
    /// `up`, `drain`, `down` or `auto`.
    pub state: String,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Who.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// When, Unix time in seconds by the deciding server's clock: for people.
    #[serde(default)]
    pub since: u64,
    /// It ends in so many seconds; `None`: not by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_s: Option<u64>,
    /// Its time is over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over: bool,
    /// What its server knew when it was made: of each other server the highest counter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub knows: Vec<(u64, String)>,
    /// Decisions that it overrode without its operator knowing, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<String>,
}

/// Why a message was not taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is no message.
    #[error("it is no message: {0}")]
    Garbage(String),
    /// It would be too large.
    #[error("it is larger than any that a server of this version writes")]
    TooLarge,
    /// It is from a version too far ahead.
    #[error(
        "it needs schema {needs}, and this version reads up to {SCHEMA}; bring the servers to versions next to each other"
    )]
    TooNew {
        /// The oldest schema that can read it.
        needs: u32,
    },
}

/// What says whether the rest can be read.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    needs: u32,
}

#[derive(Serialize)]
struct Written<'m> {
    v: u32,
    needs: u32,
    say: &'m Message,
}

#[derive(Deserialize)]
struct Read {
    say: Message,
}

impl Message {
    /// As it goes over the wire.
    pub fn encode(&self) -> Vec<u8> {
        let written = Written { v: SCHEMA, needs: NEEDS, say: self };
        let plain = serde_json::to_vec(&written).expect("a message has nothing that JSON cannot say");
        match plain.len() > PACK_ABOVE {
            true => zstd::bulk::compress(&plain, 1).unwrap_or(plain),
            false => plain,
        }
    }

    /// Reads what came over the wire.
    ///
    /// # Errors
    /// It is none of ours, or too new.
    pub fn decode(bytes: &[u8]) -> Result<Message, Unreadable> {
        if bytes.len() > BYTES_MAX {
            return Err(Unreadable::TooLarge);
        }
        let unpacked;
        let plain = match bytes.starts_with(&PACKED) {
            false => bytes,
            true => {
                unpacked = zstd::bulk::decompress(bytes, BYTES_MAX).map_err(|error| garbage(&error))?;
                &unpacked[..]
            }
        };
        let head: Head = serde_json::from_slice(plain).map_err(|error| garbage(&error))?;
        if head.needs > SCHEMA {
            return Err(Unreadable::TooNew { needs: head.needs });
        }
        let read: Read = serde_json::from_slice(plain).map_err(|error| garbage(&error))?;
        read.say.bounded()
    }
}

impl Message {
    /// The same, if it holds no more than any server of ours says at once.
    fn bounded(self) -> Result<Message, Unreadable> {
        let views = |views: Option<&Vec<Observation>>| views.map_or(0, Vec::len);
        let version = self.beat.as_ref().map_or("", |beat| &beat.version);
        let fits = views(self.delta.as_ref().map(|delta| &delta.views)) <= OBSERVATIONS_AT_ONCE
            && views(self.snapshot.as_ref().map(|part| &part.views)) <= OBSERVATIONS_AT_ONCE
            && self.decisions.len() <= DECISIONS_AT_ONCE
            && self.cells.as_ref().map_or(0, |cells| cells.networks.len()) <= NETWORKS_AT_ONCE
            && self.beat.as_ref().map_or(0, |beat| beat.rises.ms.len()) <= RISES_MAX
            && version.len() <= VERSION_BYTES_MAX
            && !version.contains(char::is_control);
        if fits { Ok(self) } else { Err(Unreadable::TooLarge) }
    }
}

fn garbage(error: &dyn std::fmt::Display) -> Unreadable {
    const SHOWN_MAX: usize = 200;
    Unreadable::Garbage(error.to_string().chars().filter(|c| !c.is_control()).take(SHOWN_MAX).collect())
}

impl Decision {
    /// Bytes of all its texts, in round figures.
    pub fn text_len(&self) -> usize {
        /// Names of fields and numbers.
        const FRAME: usize = 200;
        let lists = self.conflicts.iter().map(String::len).sum::<usize>()
            + self.knows.iter().map(|(_, node)| node.len() + 30).sum::<usize>();
        FRAME + self.node.len() + self.target.len() + self.reason.len() + self.by.len() + lists
    }
}

impl Observation {
    /// That there is no view of a target.
    pub fn nothing(target: Identity) -> Observation {
        Observation { target, seen: Seen::Nothing, is_weak: false, age_s: 0, connect_us: 0, doubt_ms: 0 }
    }

    /// What it means for a verdict; `None`: nothing.
    pub fn view(&self) -> Option<View> {
        let sees = match self.seen {
            Seen::Up => Sees::Up,
            Seen::Held => Sees::Held,
            Seen::Down => Sees::Down,
            Seen::Nothing => return None,
        };
        let may_turn = (self.doubt_ms > 0).then(|| Duration::from_millis(self.doubt_ms));
        Some(View { sees, is_firm: !self.is_weak, may_turn })
    }
}

impl Seen {
    fn is_up(&self) -> bool {
        *self == Seen::Up
    }
}

impl From<Sees> for Seen {
    fn from(sees: Sees) -> Seen {
        match sees {
            Sees::Up => Seen::Up,
            Sees::Held => Seen::Held,
            Sees::Down => Seen::Down,
        }
    }
}

impl Serialize for Seen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Seen::Up => "u",
            Seen::Held => "h",
            Seen::Down => "d",
            Seen::Nothing => "-",
        })
    }
}

impl<'de> Deserialize<'de> for Seen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Seen, D::Error> {
        Ok(match &*String::deserialize(deserializer)? {
            "u" => Seen::Up,
            "h" => Seen::Held,
            "d" => Seen::Down,
            _ => Seen::Nothing,
        })
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A number as sixteen digits: not every reader of JSON keeps all bits of a large one.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(n: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{n:016x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        u64::from_str_radix(&String::deserialize(deserializer)?, 16).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
