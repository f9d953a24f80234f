//! Another server as the judge of our answers: the in-memory zone of hickory-server, loaded with the very records that our core was
//! compiled from and driven in-process, must give the same response code, AA, answer section, SOA and referral.
//!
//! Where the two differ on purpose, the RFC decides, and hickory's reply is corrected before it is compared ([`Difference`] lists
//! and names every one). What is left out of the comparison:
//!
//! * the additional section, and the NS records that hickory adds to the authority section of an answer to SOA: both are optional
//!   (RFC 1034 §4.3.2 step 6);
//! * names below a DNAME, which hickory's zone does not know (RFC 6672); such an answer must carry the DNAME;
//! * ANY: we give one RRset (RFC 8482 §4.1), so it is not asked for;
//! * CNAME chains over 8 links: hickory gives up there, we at 16; no RFC sets a number.

#[path = "support/fixture.rs"]
mod fixture;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, OnceLock},
};

use fixture::Fixture;
use hickory_proto::{
    op::Message,
    rr::{Name, RData, Record, RecordType},
    serialize::binary::{BinDecodable, BinDecoder},
};
use hickory_server::{
    net::{BufDnsStreamHandle, runtime::TokioTime, xfer::Protocol},
    server::{Request, RequestHandler, ResponseHandle},
    store::in_memory::InMemoryZoneHandler,
    zone_handler::{AxfrPolicy, Catalog, ZoneType},
};
use isochrone::{
    config::{Source, Spot, model::ZoneText},
    server::World,
    telemetry::TransportKind,
    zone::{ZoneContent, ZoneTable, content},
};
use proptest::prelude::*;

/// What hickory answers otherwise, and why we do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// A negative answer's SOA keeps its own TTL there; it is the lower of that and the minimum field (RFC 2308 §3).
    NegativeTtl,
    /// A referral has AA set there; the data is not the zone's own (RFC 1034 §4.3.2 step 3b, RFC 1035 §4.1.1).
    ReferralAa,
    /// A question for NS at or below a cut gets the NS records as an answer there; the child alone is authoritative for them, so
    /// it gets a referral (RFC 1034 §4.2.1 and §4.3.2 step 3b).
    NsAtCut,
    /// A wildcard answers there for a name that exists without the type asked for; it never covers an existing name, nor one with
    /// names below it (RFC 4592 §2.2.1 and §2.2.2).
    WildcardOverExisting,
    /// A wildcard above the closest encloser answers there; only that encloser's own wildcard may (RFC 4592 §3.3.1).
    WildcardAboveEncloser,
    /// A wildcard without the type asked for is NXDOMAIN there, or gives way to a higher one; it is NODATA (RFC 4592 §2.2.1).
    WildcardNoData,
    /// A name that begins with `*` is never covered by a wildcard there; the label is not special in a question (RFC 4592 §2.3).
    WildcardForStar,
    /// A chain that ends inside the zone without the data asked for says NOERROR there, without SOA; the last name decides on the
    /// response code and the SOA (RFC 2308 §2.1 and §2.2, RFC 6604 §3).
    ChainToNothing,
    /// A chain that runs into a cut ends with NS records in the answer section there; they are a referral (RFC 1034 §4.3.2).
    ChainToCut,
}

type Rr = (String, u16, u32, String); // owner in lower case, type, TTL, data

/// What is compared.
#[derive(Debug, Clone, Default, PartialEq)]
struct Reply {
    rcode: u16,
    aa: bool,
    answers: BTreeSet<Rr>,
    soa: Option<Rr>,
    referral: BTreeSet<Rr>,
}

/// The zone in the other server, and what is to be known of the zone to correct it.
struct Oracle {
    catalog: Catalog,
    runtime: tokio::runtime::Runtime,
    apex: Name,
    negative_soa: Rr,
    names: BTreeMap<Name, BTreeSet<u16>>, // with empty non-terminals
    differences: BTreeMap<Difference, usize>,
}

/// Where a name stands.
enum Stand {
    Outside,
    Cut,
    BelowDname,
    Exists(BTreeSet<u16>),
    Covered(Name, BTreeSet<u16>),
    Missing,
}

const CNAME: u16 = 5;
const NS: u16 = 2;
const DS: u16 = 43;
const DNAME: u16 = 39;
/// A, AAAA, TXT, MX, SRV, NS, SOA, CNAME, DS, and a type that nobody knows.
const QTYPES: [u16; 10] = [1, 28, 16, 15, 33, NS, 6, CNAME, DS, 1000];

impl Reply {
    fn read(bytes: &[u8], apex: &Name) -> Reply {
        let message = Message::from_bytes(bytes).unwrap_or_else(|error| panic!("{error}: {bytes:02x?}"));
        let set = |records: &[Record], of: &dyn Fn(&Record) -> bool| -> BTreeSet<Rr> {
            let rrs: Vec<Rr> = records.iter().filter(|r| of(r)).map(rr).collect();
            let set: BTreeSet<Rr> = rrs.iter().cloned().collect();
            assert_eq!(set.len(), rrs.len(), "a record stands twice: {rrs:?}");
            set
        };
        Reply {
            rcode: message.metadata.response_code.into(),
            aa: message.metadata.authoritative,
            answers: set(&message.answers, &|_| true),
            soa: message.authorities.iter().find(|r| r.record_type() == RecordType::SOA).map(rr),
            referral: set(&message.authorities, &|r| r.record_type() == RecordType::NS && r.name != *apex),
        }
    }

    fn alias_of(&self, owner: &Name) -> Option<Name> {
        let alias = self.answers.iter().find(|rr| rr.0 == text(owner) && rr.1 == CNAME)?;
        Some(Name::from_ascii(&alias.3).unwrap())
    }
}

fn rr(record: &Record) -> Rr {
    // The letters of names in data follow the question's where they are compressed into it.
    let data = match &record.data {
        RData::TXT(_) => record.data.to_string(),
        data => data.to_string().to_lowercase(),
    };
    (text(&record.name), record.record_type().into(), record.ttl, data)
}

fn text(name: &Name) -> String {
    name.to_lowercase().to_ascii()
}

impl Oracle {
    fn load(content: &ZoneContent) -> Oracle {
        let apex = Name::from_ascii(content.origin.to_string()).unwrap();
        let mut handler: InMemoryZoneHandler =
            InMemoryZoneHandler::empty(apex.clone(), ZoneType::Primary, AxfrPolicy::Deny, None);
        let mut names = BTreeMap::<Name, BTreeSet<u16>>::new();
        let mut negative_soa = None;
        for rrset in &content.rrsets {
            for rdata in &rrset.rdatas {
                let mut wire = rrset.owner.as_wire().to_vec();
                wire.extend(rrset.rtype.to_be_bytes());
                wire.extend([0, 1]);
                wire.extend(rrset.ttl_s.to_be_bytes());
                wire.extend((rdata.len() as u16).to_be_bytes());
                wire.extend(rdata);
                let mut record = Record::read(&mut BinDecoder::new(&wire)).unwrap();
                assert!(handler.upsert_mut(record.clone(), 0), "{record} is refused");
                names.entry(record.name.clone()).or_default().insert(rrset.rtype);
                if let RData::SOA(soa) = &record.data {
                    record.ttl = record.ttl.min(soa.minimum);
                    negative_soa = Some(rr(&record));
                }
            }
        }
        for owner in names.keys().cloned().collect::<Vec<_>>() {
            let ancestors = std::iter::successors(Some(owner), |name| Some(name.base_name()));
            for name in ancestors.take_while(|name| apex.zone_of(name)) {
                names.entry(name).or_default();
            }
        }
        let mut catalog = Catalog::new();
        catalog.upsert(apex.clone().into(), vec![Arc::new(handler)]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let negative_soa = negative_soa.expect("a SOA");
        Oracle { catalog, runtime, apex, negative_soa, names, differences: BTreeMap::new() }
    }

    /// What hickory says.
    fn ask(&self, name: &Name, qtype: u16) -> Reply {
        let client = SocketAddr::from((Ipv4Addr::LOCALHOST, 5300));
        let (handle, mut replies) = BufDnsStreamHandle::new(client);
        let request = Request::from_bytes(query(name, qtype), client, Protocol::Tcp).unwrap();
        let handle = ResponseHandle::new(client, handle, Protocol::Tcp);
        self.runtime.block_on(self.catalog.handle_request::<_, TokioTime>(&request, handle));
        let message = replies.get_mut().get_mut().try_recv().expect("a reply");
        Reply::read(message.bytes(), &self.apex)
    }

    fn stand(&self, name: &Name, qtype: u16) -> Stand {
        if !self.apex.zone_of(name) {
            return Stand::Outside;
        }
        let has = |name: &Name, rtype| self.names.get(name).is_some_and(|types| types.contains(&rtype));
        let mut ancestors: Vec<Name> = std::iter::successors(Some(name.clone()), |name| Some(name.base_name()))
            .take_while(|name| self.apex.zone_of(name))
            .collect();
        ancestors.reverse();
        for at in &ancestors {
            if at != name && has(at, DNAME) {
                return Stand::BelowDname;
            }
            if *at != self.apex && has(at, NS) && !(at == name && qtype == DS) {
                return Stand::Cut;
            }
        }
        if let Some(types) = self.names.get(name) {
            return Stand::Exists(types.clone());
        }
        let encloser = ancestors.iter().rfind(|at| self.names.contains_key(at)).expect("the apex exists");
        let wildcard = encloser.prepend_label("*").unwrap();
        match self.names.get(&wildcard) {
            Some(types) => Stand::Covered(wildcard, types.clone()),
            None => Stand::Missing,
        }
    }

    fn differs(&mut self, difference: Difference) {
        *self.differences.entry(difference).or_default() += 1;
    }

    fn negative(&self, rcode: u16) -> Reply {
        Reply { rcode, aa: true, soa: Some(self.negative_soa.clone()), ..Reply::default() }
    }

    /// What hickory says of this one name, corrected; chains end after the first link. `None`: not comparable.
    fn one(&mut self, name: &Name, qtype: u16) -> Option<Reply> {
        let mut reply = self.ask(name, qtype);
        let answers = |types: &BTreeSet<u16>| types.contains(&qtype) || types.contains(&CNAME);
        match self.stand(name, qtype) {
            Stand::BelowDname => return None,
            Stand::Outside => {}
            Stand::Cut => {
                if qtype == NS {
                    self.differs(Difference::NsAtCut);
                    reply.referral = std::mem::take(&mut reply.answers);
                }
                self.differs(Difference::ReferralAa);
                reply.aa = false;
            }
            Stand::Exists(types) if answers(&types) => {}
            Stand::Exists(_) => {
                if !reply.answers.is_empty() {
                    self.differs(Difference::WildcardOverExisting);
                    reply = self.negative(0);
                }
            }
            Stand::Covered(wildcard, types) if answers(&types) => {
                if name.is_wildcard() {
                    assert_eq!((reply.rcode, reply.answers.len()), (3, 0), "{name} is covered after all");
                    self.differs(Difference::WildcardForStar);
                    reply = self.ask(&wildcard, qtype);
                    let renamed = |rr: Rr| if rr.0 == text(&wildcard) { (text(name), rr.1, rr.2, rr.3) } else { rr };
                    reply.answers = reply.answers.into_iter().map(renamed).collect();
                }
            }
            Stand::Covered(..) => {
                assert!(reply.rcode == 3 || !reply.answers.is_empty(), "{name}: a wildcard's NODATA after all");
                self.differs(Difference::WildcardNoData);
                reply = self.negative(0);
            }
            Stand::Missing => {
                if !reply.answers.is_empty() {
                    self.differs(Difference::WildcardAboveEncloser);
                    reply = self.negative(3);
                }
            }
        }
        if let Some(soa) = reply.soa.as_mut().filter(|soa| soa.2 != self.negative_soa.2) {
            soa.2 = self.negative_soa.2;
            self.differs(Difference::NegativeTtl);
        }
        if qtype != CNAME && reply.alias_of(name).is_some() {
            reply.answers.retain(|rr| rr.0 == text(name));
        }
        Some(reply)
    }

    /// What hickory says, corrected, with the chain put together from its answers for each link.
    fn expected(&mut self, asked: &Name, qtype: u16) -> Option<Reply> {
        let differences: usize = self.differences.values().sum();
        let negative_ttls = self.differences.get(&Difference::NegativeTtl).copied();
        let mut reply = self.one(asked, qtype)?;
        let mut seen = vec![asked.clone()];
        while let Some(target) = reply.alias_of(seen.last().unwrap()).filter(|_| qtype != CNAME) {
            if !self.apex.zone_of(&target) || seen.contains(&target) {
                break;
            }
            let next = self.one(&target, qtype)?;
            if next.soa.is_some() {
                self.differs(Difference::ChainToNothing);
            } else if next.answers.is_empty() {
                self.differs(Difference::ChainToCut);
            }
            reply.answers.extend(next.answers);
            reply = Reply { rcode: next.rcode, soa: next.soa, referral: next.referral, ..reply };
            seen.push(target);
        }
        let ttls_now = self.differences.get(&Difference::NegativeTtl).copied();
        let is_untouched = self.differences.values().sum::<usize>() - differences
            == ttls_now.unwrap_or(0) - negative_ttls.unwrap_or(0);
        if is_untouched && reply.answers.len() < 8 {
            assert_eq!(self.ask(asked, qtype).answers, reply.answers, "{asked} {qtype}: the chain put together");
        }
        Some(reply)
    }

    /// Every name that exists, what stands around it, and names outside.
    fn questions(&self) -> BTreeSet<Name> {
        let mut all = BTreeSet::from([Name::from_ascii("www.example.org.").unwrap(), self.apex.base_name()]);
        for name in self.names.keys() {
            all.extend([name.clone(), name.base_name()]);
            for prefix in ["zz", "*", "a", "a.zz", "*.zz"] {
                let around = |parent: &Name| Name::from_ascii(prefix).unwrap().append_domain(parent).ok();
                all.extend(around(name));
                all.extend(around(&name.base_name()));
            }
        }
        all
    }
}

fn query(name: &Name, qtype: u16) -> Vec<u8> {
    let mut query = vec![0xab, 0xcd, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.iter() {
        query.push(label.len() as u8);
        query.extend(label);
    }
    query.push(0);
    query.extend(qtype.to_be_bytes());
    query.extend([0, 1]);
    query
}

/// The same name with some of its letters in upper case.
fn mixed(name: &Name, seed: u64) -> Name {
    let flip = |(n, label): (usize, &[u8])| -> Vec<u8> {
        let upper =
            |(i, b): (usize, &u8)| if seed >> ((7 * n + i) % 64) & 1 == 1 { b.to_ascii_uppercase() } else { *b };
        label.iter().enumerate().map(upper).collect()
    };
    let mut mixed = Name::from_labels(name.iter().enumerate().map(flip).collect::<Vec<_>>()).unwrap();
    mixed.set_fqdn(true);
    mixed
}

const CONFIG: &str = r#"
[regions.eu]
location = "FRA"
endpoints = ["192.0.2.1"]
[zones."example.com"]
nameservers = ["ns1.example.com.", "ns2.example.net."]
addresses = { "ns1" = ["192.0.2.53", "2001:db8::53"] }
"#;

fn contents(zone: &str) -> Vec<ZoneContent> {
    let mut config = fixture().world.config.clone();
    let source = Arc::new(Source { name: "zone".into(), text: zone.into() });
    config.zones[0].texts = vec![ZoneText { spot: Spot { span: 0..zone.len(), source }, folder: None }];
    content::gather(&config).unwrap_or_else(|report| panic!("{report}\n{zone}"))
}

fn fixture() -> Fixture {
    static WORLD: OnceLock<Arc<World>> = OnceLock::new();
    Fixture::of(WORLD.get_or_init(|| Fixture::new(CONFIG).world).clone())
}

/// Asks both for everything; returns how often each difference was met.
fn compare(zone: &str, seed: u64) -> BTreeMap<Difference, usize> {
    let contents = contents(zone);
    let mut oracle = Oracle::load(&contents[0]);
    let mut fixture = fixture();
    fixture.snapshot.zones = Arc::new(ZoneTable::compile(&contents, 0));
    for (n, name) in oracle.questions().into_iter().enumerate() {
        for qtype in QTYPES {
            let asked = mixed(&name, seed.rotate_left(n as u32));
            let ours = fixture.ask_bytes(&query(&asked, qtype), TransportKind::Tcp).expect("a reply");
            let ours = Reply::read(&ours, &oracle.apex);
            match oracle.expected(&name, qtype) {
                Some(theirs) => assert_eq!(ours, theirs, "ours, then theirs: {asked} {qtype} in\n{zone}"),
                None => assert!(ours.answers.iter().any(|rr| rr.1 == DNAME), "{asked} {qtype}: {ours:?}"),
            }
        }
    }
    oracle.differences
}

#[test]
fn hand_written_names_are_answered_as_by_another_server() {
    let met = compare(
        r#"
@ 300 MX 10 mail
mail 300 A 192.0.2.25
www 300 A 192.0.2.80
alias 300 CNAME www
alias2 300 CNAME alias
alias-geo 300 CNAME geo
ext 300 CNAME www.example.net.
loop1 300 CNAME loop2
loop2 300 CNAME loop1
dangling 300 CNAME nothing
*.wild 300 TXT "wild"
b.*.wild 300 A 192.0.2.81
x.y.ent 300 A 192.0.2.82
sub 300 NS ns.sub
sub 300 NS ns.other.example.
sub 300 DS 1 13 2 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
ns.sub 300 A 192.0.2.90
sib 300 NS mail
moved 300 DNAME www
txts 300 TXT "a" "b"
geo 300 TXT "beside a route"
*.deep 300 TXT "above"
x.deep 300 A 192.0.2.83
to-cut 300 CNAME x.sub
to-wild 300 CNAME foo.wild
_sip._tcp 300 SRV 10 20 5060 www
unknown 300 TYPE1000 \# 4 0a000001
"#,
        0x5555_3333_0f0f_00ff,
    );
    let all = [
        Difference::NegativeTtl,
        Difference::ReferralAa,
        Difference::NsAtCut,
        Difference::WildcardOverExisting,
        Difference::WildcardAboveEncloser,
        Difference::WildcardNoData,
        Difference::WildcardForStar,
        Difference::ChainToNothing,
        Difference::ChainToCut,
    ];
    assert_eq!(met.keys().copied().collect::<Vec<_>>(), all, "a difference that is gone need not be corrected");
}

/// The zone that the black-box checks ask for, where it lies beside the source tree.
#[test]
fn the_standard_zone_is_answered_as_by_another_server() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance/zones/example.com.zone");
    if let Ok(zone) = fs::read_to_string(path) {
        compare(&zone, 0x1234_5678_9abc_def0);
    }
}

/// A record of a generated zone: its owner, what it is, what it points to, and a number for its data.
type Item = (Vec<&'static str>, usize, Vec<&'static str>, u8);

fn items() -> impl Strategy<Value = Vec<Item>> {
    let labels = |len| prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "*", "_d"]), len);
    prop::collection::vec((labels(1..5), 0..12usize, labels(0..4), any::<u8>()), 1..16)
}

/// Zone-file text without what the checks of zones refuse: data under cuts, data beside aliases, wildcard cuts.
fn zone_text(items: &[Item]) -> String {
    let is_cut = |(labels, kind, ..): &&Item| (9..12).contains(kind) && labels[0] != "*";
    let below = |owner: &str, cut: &str| owner.ends_with(&format!(".{cut}"));
    let all_cuts: BTreeSet<String> = items.iter().filter(is_cut).map(|item| item.0.join(".")).collect();
    let is_covered = |owner: &str| all_cuts.iter().any(|cut| below(owner, cut));
    let mut taken = BTreeMap::<String, bool>::new(); // owners, and whether by an alias
    let mut text = String::new();
    for item in items {
        let (owner, target, n) = (item.0.join("."), [&item.2[..], &["example.com."]].concat().join("."), item.3);
        let is_cut_itself = all_cuts.contains(&owner);
        let record = match item.1 {
            0 | 1 => format!("A 192.0.2.{n}"),
            2 => format!("AAAA 2001:db8::{n:x}"),
            _ if is_covered(&owner) => continue,
            9 if is_cut(&item) => format!("NS ns.{owner}\nns.{owner} {} A 192.0.2.{n}", 60 * (1 + u32::from(n % 3))),
            10 if is_cut(&item) => "NS ns1".into(),
            11 if is_cut(&item) => "NS ns.elsewhere.example.".into(),
            _ if is_cut_itself => continue,
            3 | 4 => format!("TXT \"Text {n}\""),
            5 => format!("MX {n} {target}"),
            6 => format!("SRV 1 2 {n} {target}"),
            7 => format!("CNAME {target}"),
            8 if n % 4 == 0 => "CNAME www.example.net.".into(),
            8 => format!("CNAME {target}"),
            _ => format!("TYPE1000 \\# 1 {n:02x}"),
        };
        let is_alias = record.starts_with("CNAME");
        if taken.get(&owner).is_some_and(|by_alias| *by_alias || is_alias) {
            continue;
        }
        taken.insert(owner.clone(), is_alias);
        text += &format!("{owner} {} {record}\n", 60 * (1 + u32::from(n % 5)));
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, max_shrink_iters: 300, ..ProptestConfig::default() })]
    #[test]
    fn random_zones_are_answered_as_by_another_server(items in items(), seed in any::<u64>()) {
        compare(&zone_text(&items), seed);
    }
}
