//! Zones compiled for answering: every RRset encoded, every name in a tree, cuts and wildcards marked.

mod signed;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::{
    content::{RrSet as PlainRrSet, ZoneContent},
    fragment::{Fragment, FragmentBuilder, OwnedFragment},
    sign::Signer,
    tree::{LabelTree, NodeId},
};
use crate::wire::{Name, QName, rtype};
pub use signed::Signed;

/// All zones of a configuration. A zone signed anew makes a new table, which shares everything else.
#[derive(Default)]
pub struct ZoneTable {
    apexes: Arc<Apexes>,
    zones: Vec<Arc<Zone>>,
}

#[derive(Default)]
struct Apexes {
    /// The labels that all apexes end in: compared as a whole, not looked up one by one.
    trunk: Option<Trunk>,
    tree: LabelTree,
    zone_at: Vec<Option<u32>>, // by node of `tree`
}

/// The longest name that all apexes are or lie below.
struct Trunk {
    wire: Box<[u8]>,
    labels: usize,
    node: NodeId,
}

impl Apexes {
    fn new<'c>(apexes: impl Iterator<Item = &'c Name> + Clone) -> Apexes {
        let (mut tree, mut zone_at) = (LabelTree::default(), Vec::new());
        for (n, apex) in apexes.clone().enumerate() {
            let node = tree.insert(apex, 0);
            zone_at.resize(tree.node_count(), None);
            zone_at[node.index()] = Some(n as u32);
        }
        let common = apexes.cloned().reduce(|mut common, apex| {
            while !apex.is_within(&common) {
                common = common.parent().expect("every name lies within the root");
            }
            common
        });
        let trunk = common.map(|common| Trunk {
            node: tree.insert(&common, 0),
            labels: common.label_count(),
            wire: common.as_wire().into(),
        });
        Apexes { trunk, tree, zone_at }
    }

    /// The zone with the longest apex; at the apex itself the enclosing one, if there is one and `above` asks for it.
    fn find(&self, name: &QName, above: bool) -> Option<u32> {
        let trunk = self.trunk.as_ref()?;
        let labels = name.label_count();
        if labels < trunk.labels || name.suffix(trunk.labels) != &*trunk.wire {
            return None;
        }
        let mut node = trunk.node;
        let mut found = self.zone_at[node.index()];
        for n in trunk.labels..labels {
            let Some(child) = self.tree.child(node, name.label_from_right(n)) else { break };
            node = child;
            let zone = self.zone_at[node.index()];
            if zone.is_some() && !(above && n + 1 == labels && found.is_some()) {
                found = zone;
            }
        }
        found
    }
}

/// One zone, ready to answer.
pub struct Zone {
    /// The apex.
    pub origin: Name,
    /// Labels of the apex.
    pub apex_labels: usize,
    /// The SOA with the TTL of negative answers.
    pub negative_soa: Fragment,
    /// That TTL in seconds: the lower of the SOA's own and its minimum (RFC 2308 §5).
    pub negative_ttl_s: u32,
    /// What DNSSEC adds; `None`: the zone is not signed.
    pub signed: Option<Signed>,
    tree: LabelTree,
    nodes: Vec<Node>, // by node of `tree`
}

/// What exists at a name. An empty non-terminal has nothing.
#[derive(Default)]
pub struct Node {
    /// Static RRsets by type, ascending.
    pub rrsets: Vec<RrSet>,
    /// The route at this owner, by its position among all routes of the configuration.
    pub route: Option<u32>,
    /// The zone cut that this name is.
    pub cut: Option<Box<Cut>>,
    /// Tells this node from all others of the table. The same for the same text: it outlives a reload.
    pub key: u64,
    wildcard: Option<NodeId>,
    has_dname: bool,
}

/// A static RRset.
pub struct RrSet {
    /// Type.
    pub rtype: u16,
    /// TTL in seconds.
    pub ttl_s: u32,
    /// Its records.
    pub records: Fragment,
    /// Their signatures; none in an unsigned zone, and where the data is not this zone's own.
    pub rrsigs: Fragment,
    /// Of a CNAME or DNAME: where it points.
    pub target: Option<Name>,
}

/// A delegation: what a referral carries (RFC 1034 §4.3.2 3b, RFC 9471).
pub struct Cut {
    /// Name servers.
    pub ns: Fragment,
    /// DS and its signatures, for a signed delegation.
    pub ds: Option<Fragment>,
    /// Addresses of name servers at or below the cut; a referral is useless without them.
    pub glue: OwnedFragment,
    /// Addresses of name servers elsewhere in this zone; left out where they do not fit.
    pub sibling_glue: OwnedFragment,
}

/// Where a name leads within a zone.
pub enum Found<'z> {
    /// The name exists.
    Node(&'z Node),
    /// The name does not exist, and the wildcard of its closest encloser covers it (RFC 4592 §3.3.1).
    Wildcard {
        /// The wildcard's node.
        node: &'z Node,
        /// Labels of the closest encloser.
        encloser: usize,
    },
    /// At or below a zone cut.
    Cut {
        /// The delegation.
        cut: &'z Cut,
        /// Its node, for questions that the parent answers at the cut itself.
        node: &'z Node,
        /// Labels of the cut's name.
        labels: usize,
    },
    /// Below a DNAME.
    Dname {
        /// The RRset.
        rrset: &'z RrSet,
        /// Its node.
        node: &'z Node,
        /// Labels of its owner.
        labels: usize,
    },
    /// No such name.
    Missing {
        /// Labels of the closest encloser.
        encloser: usize,
    },
}

impl ZoneTable {
    /// Compiles the zones, and signs those that have keys, at `now_s` (Unix time). Routes are numbered through: zone by zone, in
    /// the order of each zone's routes.
    pub fn compile(contents: &[ZoneContent], now_s: u64) -> ZoneTable {
        let apexes = Apexes::new(contents.iter().map(|content| &content.origin));
        let zones = contents
            .iter()
            .zip(first_routes(contents))
            .enumerate()
            .map(|(n, (content, first_route))| Arc::new(Zone::compile(content, n, first_route, now_s)))
            .collect();
        ZoneTable { apexes: Arc::new(apexes), zones }
    }

    /// The table with those zones signed anew whose signatures it is time for, compiled from the same `contents`; `None` when
    /// there is nothing to do.
    pub fn signed_anew(&self, contents: &[ZoneContent], now_s: u64) -> Option<ZoneTable> {
        if !self.is_due(now_s) {
            return None;
        }
        let compile = |(n, (zone, first_route)): (usize, (&Arc<Zone>, u32))| match zone.is_due(now_s) {
            true => Arc::new(Zone::compile(&contents[n], n, first_route, now_s)),
            false => zone.clone(),
        };
        let zones = self.zones.iter().zip(first_routes(contents)).enumerate().map(compile).collect();
        Some(ZoneTable { apexes: self.apexes.clone(), zones })
    }

    /// True when it is time for a zone's signatures.
    pub fn is_due(&self, now_s: u64) -> bool {
        self.zones.iter().any(|zone| zone.is_due(now_s))
    }

    /// The zones in the order of the configuration.
    pub fn zones(&self) -> &[Arc<Zone>] {
        &self.zones
    }

    /// The zone that answers for `name`: the one with the longest apex. A DS belongs to the parent's side of a cut, so a
    /// question for it at an apex goes to the enclosing zone if that is here, too (RFC 4035 §3.1.4.1).
    pub fn find(&self, name: &QName, qtype: u16) -> Option<&Zone> {
        self.apexes.find(name, qtype == rtype::DS).map(|zone| &*self.zones[zone as usize])
    }
}

impl Zone {
    /// `number` is the zone's position in the table.
    fn compile(content: &ZoneContent, number: usize, first_route: u32, now_s: u64) -> Zone {
        let apex = &content.origin;
        let apex_labels = apex.label_count();
        let signer = content.keys.as_ref().map(|keys| Arc::new(Signer::new(apex, keys.clone(), now_s)));
        let owned = Owned::of(content);
        let signer_of = |owner: &Name, rtype| signer.as_deref().filter(|_| owned.is_signed(owner, rtype));
        let mut tree = LabelTree::default();
        let mut nodes: Vec<Node> = Vec::new();
        let mut node_of = |nodes: &mut Vec<Node>, owner: &Name| {
            let node = tree.insert(owner, apex_labels);
            nodes.resize_with(tree.node_count(), Node::default);
            node.index()
        };
        node_of(&mut nodes, apex);
        for rrset in &content.rrsets {
            let node = node_of(&mut nodes, &rrset.owner);
            nodes[node].rrsets.push(RrSet::compile(apex, rrset, signer_of(&rrset.owner, rrset.rtype)));
        }
        for route in &content.routes {
            let node = node_of(&mut nodes, &route.owner);
            nodes[node].route = Some(first_route + route.route as u32);
        }
        let (negative_soa, negative_ttl_s) = negative_soa(content);
        let signed = signer.clone().map(|signer| {
            let (signed, nsecs) = Signed::new(content, &owned, negative_ttl_s, signer.clone());
            for nsec in &nsecs {
                let node = node_of(&mut nodes, &nsec.owner);
                nodes[node].rrsets.push(RrSet::compile(apex, nsec, Some(&signer)));
            }
            signed
        });
        link_wildcards(content, &tree, &mut nodes, apex_labels);
        for (n, node) in nodes.iter_mut().enumerate() {
            node.key = (number as u64) << 32 | n as u64;
            node.rrsets.sort_by_key(|rrset| rrset.rtype);
            node.has_dname = node.rrset(rtype::DNAME).is_some();
        }
        add_cuts(content, &tree, &mut nodes, apex_labels, signer.as_deref());
        Zone { negative_soa, negative_ttl_s, signed, origin: apex.clone(), apex_labels, tree, nodes }
    }

    fn is_due(&self, now_s: u64) -> bool {
        self.signed.as_ref().is_some_and(|signed| signed.signer.is_due(now_s))
    }

    /// The apex's node.
    pub fn apex(&self) -> &Node {
        &self.nodes[NodeId::TOP.index()]
    }

    /// Where `name`, which is within this zone, leads.
    pub fn find(&self, name: &QName) -> Found<'_> {
        let mut at = NodeId::TOP;
        let labels = name.label_count();
        for n in self.apex_labels..labels {
            let node = &self.nodes[at.index()];
            if node.has_dname
                && let Some(rrset) = node.rrset(rtype::DNAME)
            {
                return Found::Dname { rrset, node, labels: n };
            }
            match self.tree.child(at, name.label_from_right(n)) {
                Some(child) => at = child,
                None => {
                    let wildcard = |w: NodeId| Found::Wildcard { node: &self.nodes[w.index()], encloser: n };
                    return node.wildcard.map_or(Found::Missing { encloser: n }, wildcard);
                }
            }
            let node = &self.nodes[at.index()];
            if let Some(cut) = &node.cut {
                return Found::Cut { cut, node, labels: n + 1 };
            }
        }
        Found::Node(&self.nodes[at.index()])
    }
}

impl Node {
    /// The static RRset of a type.
    pub fn rrset(&self, rtype: u16) -> Option<&RrSet> {
        self.rrsets.iter().find(|rrset| rrset.rtype == rtype)
    }
}

impl RrSet {
    fn compile(apex: &Name, plain: &PlainRrSet, signer: Option<&Signer>) -> RrSet {
        let target = match plain.rtype {
            rtype::CNAME | rtype::DNAME => plain.rdatas.first().and_then(|rdata| Name::from_wire(rdata).ok()),
            _ => None,
        };
        let PlainRrSet { owner, rtype, ttl_s, rdatas } = plain;
        let rrsigs = signer.map(|signer| signer.fragment(owner, *rtype, *ttl_s, rdatas)).unwrap_or_default();
        RrSet { rtype: *rtype, ttl_s: *ttl_s, records: fragment(apex, plain, *ttl_s), rrsigs, target }
    }
}

/// The first route of each zone.
fn first_routes(contents: &[ZoneContent]) -> impl Iterator<Item = u32> + '_ {
    contents.iter().scan(0, |next, content| {
        let first = *next;
        *next += content.routes.len() as u32;
        Some(first)
    })
}

/// Which names of a zone hold data of its own, and which belong to a delegation or lie below a DNAME.
struct Owned<'c> {
    cuts: HashSet<&'c Name>,
    dnames: HashSet<&'c Name>,
    apex: &'c Name,
}

impl<'c> Owned<'c> {
    fn of(content: &'c ZoneContent) -> Self {
        let owners = |rtype| content.rrsets.iter().filter(move |r| r.rtype == rtype).map(|r| &r.owner);
        let apex = &content.origin;
        Owned {
            cuts: owners(rtype::NS).filter(|owner| *owner != apex).collect(),
            dnames: owners(rtype::DNAME).collect(),
            apex,
        }
    }

    fn is_cut(&self, owner: &Name) -> bool {
        self.cuts.contains(owner)
    }

    /// False below a cut or a DNAME: nobody can see what is there.
    fn is_visible(&self, owner: &Name) -> bool {
        if self.cuts.is_empty() && self.dnames.is_empty() {
            return true;
        }
        let above = std::iter::successors(owner.parent(), Name::parent).take_while(|name| name.is_within(self.apex));
        above.into_iter().all(|name| !self.cuts.contains(&name) && !self.dnames.contains(&name))
    }

    /// Signed is what the zone answers with authority: at a cut that is the DS alone (RFC 4035 §2.2).
    fn is_signed(&self, owner: &Name, rtype: u16) -> bool {
        self.is_visible(owner) && (!self.is_cut(owner) || rtype == rtype::DS)
    }
}

fn fragment(apex: &Name, plain: &PlainRrSet, ttl_s: u32) -> Fragment {
    let mut builder = FragmentBuilder::new(apex);
    for rdata in &plain.rdatas {
        builder.push(plain.rtype, ttl_s, rdata);
    }
    builder.finish()
}

/// An RRset with its signatures.
fn signed_fragment(apex: &Name, plain: &PlainRrSet, signer: Option<&Signer>) -> Fragment {
    let mut builder = FragmentBuilder::new(apex);
    let PlainRrSet { owner, rtype, ttl_s, rdatas } = plain;
    for rdata in rdatas {
        builder.push(*rtype, *ttl_s, rdata);
    }
    for rrsig in signer.into_iter().flat_map(|signer| signer.sign(owner, *rtype, *ttl_s, rdatas)) {
        builder.push(rtype::RRSIG, *ttl_s, &rrsig);
    }
    builder.finish()
}

fn negative_soa(content: &ZoneContent) -> (Fragment, u32) {
    let soa = content.rrsets.iter().find(|rrset| rrset.rtype == rtype::SOA && rrset.owner == content.origin);
    soa.map_or_else(Default::default, |soa| {
        let minimum_s = soa.rdatas.first().and_then(|rdata| rdata.last_chunk()).map_or(0, |b| u32::from_be_bytes(*b));
        let ttl_s = soa.ttl_s.min(minimum_s);
        (fragment(&content.origin, soa, ttl_s), ttl_s)
    })
}

/// Tells every name which of its children is its wildcard. `*` may stand anywhere in an owner (RFC 4592 §2.1.3).
fn link_wildcards(content: &ZoneContent, tree: &LabelTree, nodes: &mut [Node], apex_labels: usize) {
    let owners = content.rrsets.iter().map(|r| &r.owner).chain(content.routes.iter().map(|r| &r.owner));
    for owner in owners {
        let name = QName::from_name(owner);
        let mut at = NodeId::TOP;
        for n in apex_labels..name.label_count() {
            let label = name.label_from_right(n);
            let Some(child) = tree.child(at, label) else { break };
            if label == b"*" {
                nodes[at.index()].wildcard = Some(child);
            }
            at = child;
        }
    }
}

/// Turns every name below the apex that has NS records into a cut.
fn add_cuts(content: &ZoneContent, tree: &LabelTree, nodes: &mut [Node], apex_labels: usize, signer: Option<&Signer>) {
    let mut addresses: BTreeMap<&Name, Vec<&PlainRrSet>> = BTreeMap::new();
    for rrset in &content.rrsets {
        if matches!(rrset.rtype, rtype::A | rtype::AAAA) {
            addresses.entry(&rrset.owner).or_default().push(rrset);
        }
    }
    for ns in content.rrsets.iter().filter(|r| r.rtype == rtype::NS && r.owner != content.origin) {
        let ds = content.rrsets.binary_search_by(|r| (&r.owner, r.rtype).cmp(&(&ns.owner, rtype::DS)));
        let ds = ds.ok().map(|at| &content.rrsets[at]);
        let (mut inside, mut beside) = (Vec::new(), Vec::new());
        for server in ns.rdatas.iter().filter_map(|rdata| Name::from_wire(rdata).ok()) {
            let list = if server.is_within(&ns.owner) { &mut inside } else { &mut beside };
            list.extend(addresses.get(&server).into_iter().flatten().copied());
        }
        let node = tree.get(&QName::from_name(&ns.owner), apex_labels).expect("every owner was inserted");
        nodes[node.index()].cut = Some(Box::new(Cut {
            ns: fragment(&content.origin, ns, ns.ttl_s),
            ds: ds.map(|ds| signed_fragment(&content.origin, ds, signer)),
            glue: glue(&content.origin, &inside),
            sibling_glue: glue(&content.origin, &beside),
        }));
    }
}

fn glue(apex: &Name, rrsets: &[&PlainRrSet]) -> OwnedFragment {
    let mut builder = FragmentBuilder::new(apex);
    let mut records = 0;
    for rrset in rrsets {
        for rdata in &rrset.rdatas {
            builder.push_owned(&rrset.owner, rrset.rtype, rrset.ttl_s, rdata);
            records += 1;
        }
    }
    OwnedFragment::new(builder, records)
}
