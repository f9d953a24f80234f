//! Zones compiled for answering: every RRset encoded, every name in a tree, cuts and wildcards marked.

use std::collections::{BTreeMap, HashMap};

use super::{
    content::{RrSet as PlainRrSet, ZoneContent},
    fragment::{Fragment, FragmentBuilder, OwnedFragment},
    tree::{LabelTree, NodeId},
};
use crate::wire::{Name, QName, rtype};

/// All zones of a configuration.
#[derive(Default)]
pub struct ZoneTable {
    apexes: LabelTree,
    zone_at: Vec<Option<u32>>, // by node of `apexes`
    zones: Vec<Zone>,
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
    wildcard: Option<NodeId>,
}

/// A static RRset.
pub struct RrSet {
    /// Type.
    pub rtype: u16,
    /// TTL in seconds.
    pub ttl_s: u32,
    /// Its records.
    pub records: Fragment,
    /// Of a CNAME or DNAME: where it points.
    pub target: Option<Name>,
}

/// A delegation: what a referral carries (RFC 1034 §4.3.2 3b, RFC 9471).
pub struct Cut {
    /// Name servers.
    pub ns: Fragment,
    /// DS, for a signed delegation.
    pub ds: Option<Fragment>,
    /// Addresses of name servers at or below the cut; a referral is useless without them.
    pub glue: OwnedFragment,
    /// Addresses of name servers elsewhere in this zone; left out where they do not fit.
    pub sibling_glue: OwnedFragment,
}

/// Where a name leads within a zone.
pub enum Found<'z> {
    /// The name exists, or the wildcard of its closest encloser covers it (RFC 4592 §3.3.1).
    Node(&'z Node),
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
        /// Labels of its owner.
        labels: usize,
    },
    /// No such name.
    Missing,
}

impl ZoneTable {
    /// Compiles the zones. Routes are numbered through: zone by zone, in the order of each zone's routes.
    pub fn compile(contents: &[ZoneContent]) -> ZoneTable {
        let mut table = ZoneTable::default();
        let mut first_route = 0;
        let children = children(contents);
        for (content, children) in contents.iter().zip(&children) {
            let node = table.apexes.insert(&content.origin, 0);
            table.zone_at.resize(table.apexes.node_count(), None);
            table.zone_at[node.index()] = Some(table.zones.len() as u32);
            table.zones.push(Zone::compile(content, children, first_route));
            first_route += content.routes.len() as u32;
        }
        table.zone_at.resize(table.apexes.node_count(), None);
        table
    }

    /// The zones in the order of the configuration.
    pub fn zones(&self) -> &[Zone] {
        &self.zones
    }

    /// The zone that answers for `name`: the one with the longest apex. A DS belongs to the parent's side of a cut, so a
    /// question for it at an apex goes to the enclosing zone if that is here, too (RFC 4035 §3.1.4.1).
    pub fn find(&self, name: &QName, qtype: u16) -> Option<&Zone> {
        let mut found = self.zone_at.first().copied().flatten();
        let mut node = NodeId::TOP;
        for n in 0..name.label_count() {
            let Some(child) = self.apexes.child(node, name.label_from_right(n)) else { break };
            node = child;
            if let Some(zone) = self.zone_at[node.index()] {
                let is_apex = n + 1 == name.label_count();
                if !(is_apex && qtype == rtype::DS && found.is_some()) {
                    found = Some(zone);
                }
            }
        }
        found.map(|zone| &self.zones[zone as usize])
    }
}

impl Zone {
    /// `children` are the apexes of other zones below this one: the names exist here, too, though they are answered there (a DS
    /// for them is asked of this zone, and a name between the two is an empty non-terminal).
    fn compile(content: &ZoneContent, children: &[&Name], first_route: u32) -> Zone {
        let apex_labels = content.origin.label_count();
        let mut tree = LabelTree::default();
        let mut nodes: Vec<Node> = Vec::new();
        let mut node_of = |nodes: &mut Vec<Node>, owner: &Name| {
            let node = tree.insert(owner, apex_labels);
            nodes.resize_with(tree.node_count(), Node::default);
            node.index()
        };
        node_of(&mut nodes, &content.origin);
        for rrset in &content.rrsets {
            let node = node_of(&mut nodes, &rrset.owner);
            nodes[node].rrsets.push(RrSet::compile(&content.origin, rrset));
        }
        for route in &content.routes {
            let node = node_of(&mut nodes, &route.owner);
            nodes[node].route = Some(first_route + route.route as u32);
        }
        for child in children {
            node_of(&mut nodes, child);
        }
        link_wildcards(content, &tree, &mut nodes, apex_labels);
        for node in &mut nodes {
            node.rrsets.sort_by_key(|rrset| rrset.rtype);
        }
        add_cuts(content, &tree, &mut nodes, apex_labels);
        let (negative_soa, negative_ttl_s) = negative_soa(content);
        Zone { negative_soa, negative_ttl_s, origin: content.origin.clone(), apex_labels, tree, nodes }
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
            if let Some(rrset) = node.rrset(rtype::DNAME) {
                return Found::Dname { rrset, labels: n };
            }
            match self.tree.child(at, name.label_from_right(n)) {
                Some(child) => at = child,
                None => return node.wildcard.map_or(Found::Missing, |w| Found::Node(&self.nodes[w.index()])),
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
    fn compile(apex: &Name, plain: &PlainRrSet) -> RrSet {
        let target = match plain.rtype {
            rtype::CNAME | rtype::DNAME => plain.rdatas.first().and_then(|rdata| Name::from_wire(rdata).ok()),
            _ => None,
        };
        RrSet { rtype: plain.rtype, ttl_s: plain.ttl_s, records: fragment(apex, plain, plain.ttl_s), target }
    }
}

fn fragment(apex: &Name, plain: &PlainRrSet, ttl_s: u32) -> Fragment {
    let mut builder = FragmentBuilder::new(apex);
    for rdata in &plain.rdatas {
        builder.push(plain.rtype, ttl_s, rdata);
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

/// For each zone the apexes of the zones right below it: those that no third zone stands between.
fn children(contents: &[ZoneContent]) -> Vec<Vec<&Name>> {
    let at: HashMap<&Name, usize> = contents.iter().enumerate().map(|(n, content)| (&content.origin, n)).collect();
    let mut children = vec![Vec::new(); contents.len()];
    for content in contents {
        let mut above = std::iter::successors(content.origin.parent(), Name::parent);
        if let Some(parent) = above.find_map(|name| at.get(&name).copied()) {
            children[parent].push(&content.origin);
        }
    }
    children
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
fn add_cuts(content: &ZoneContent, tree: &LabelTree, nodes: &mut [Node], apex_labels: usize) {
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
            ds: ds.map(|ds| fragment(&content.origin, ds, ds.ttl_s)),
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
