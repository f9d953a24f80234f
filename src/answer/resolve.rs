//! From a question to records: follows a name through its zone (RFC 1034 §4.3.2, RFC 4592, RFC 6672) and writes what it finds.

mod route;

use super::{Answered, CHAIN_MAX, Chain};
use crate::{
    routing::{Family, Snapshot, plan::RouteKind, policy::Client, rate_limit},
    wire::{
        Name, QName, Question, Rcode, Writer, class, rtype,
        writer::{POINTER_END, QNAME_AT, Section},
    },
    zone::{Cut, Found, Node, OwnedFragment, RrSet, Signed, Zone, sign::SortKey},
};

/// The reply has no room left: truncate it.
pub struct Full;

/// A reply while its records are found.
pub struct Reply<'r, 's> {
    /// Takes the records.
    pub writer: Writer<'r>,
    /// What to answer from.
    pub snapshot: &'s Snapshot,
    /// The zone of the question's name.
    pub zone: &'s Zone,
    /// Who asks.
    pub client: Client,
    /// The turn of rotating answers.
    pub turn: u32,
    /// Offset of the zone's apex in the message: the end of the question's name.
    pub apex_at: usize,
    /// The client wants DNSSEC records.
    pub dnssec_ok: bool,
    /// The signed side of the zone, if it has one and the client wants it.
    pub signed: Option<&'s Signed>,
    /// The narrowest scope of the route answers so far.
    pub scope_len: u8,
    /// The last route that answered.
    pub answered: Option<Answered>,
    /// Proofs that go into the authority section.
    pub proofs: Proofs<'s>,
    /// What the question's own name led to: the begin of the chain.
    pub matched: rate_limit::Owner,
}

/// The links of the NSEC chain that a reply shows, each once. They wait until the answer section is complete.
#[derive(Default)]
pub struct Proofs<'s> {
    list: [Option<&'s OwnedFragment>; PROOFS_MAX],
    len: usize,
}

/// One for each wildcard on the way, two for what the end of it lacks.
const PROOFS_MAX: usize = CHAIN_MAX + 3;

impl<'s> Proofs<'s> {
    fn add(&mut self, record: &'s OwnedFragment) {
        let is_new = !self.list[..self.len].iter().any(|noted| noted.is_some_and(|noted| std::ptr::eq(noted, record)));
        if is_new && self.len < PROOFS_MAX {
            self.list[self.len] = Some(record);
            self.len += 1;
        }
    }

    fn noted(&self) -> impl Iterator<Item = &'s OwnedFragment> {
        self.list[..self.len].iter().copied().flatten()
    }
}

/// Where the last name stands that a chain goes on from: all of its labels can be pointed to.
const TARGET_AT_MAX: usize = POINTER_END - 256;

/// Why a name has nothing of what is asked.
#[derive(Clone, Copy)]
enum Lack {
    /// The name does not exist; labels of its closest encloser.
    Name(usize),
    /// It exists without the type.
    Type,
    /// A wildcard stands for it, without the type; labels of the closest encloser.
    WildcardType(usize),
}

/// A name on its way through the zone, and where it stands in the message.
struct Owner<'n> {
    name: &'n QName,
    at: usize,
}

/// A name that a DNAME has been applied to.
#[derive(Clone, Copy)]
struct Renamed<'s> {
    by: &'s RrSet,
    /// Length of the name before.
    len: usize,
    /// Where the new name stands in the message, without compression.
    target_at: usize,
}

impl Renamed<'_> {
    /// True when the same DNAME would rename a name that has not become shorter: it would do so for ever.
    fn repeats(&self, rrset: &RrSet, name: &QName) -> bool {
        std::ptr::eq(self.by, rrset) && name.len() >= self.len
    }
}

/// Where the answer goes on.
#[derive(Clone, Copy)]
enum Step<'s> {
    /// Nowhere: this is the response code.
    Done(Rcode),
    /// At what this DNAME makes of the name; labels of the DNAME's owner.
    Rename(&'s RrSet, usize),
    /// At the target of a CNAME whose data stands at this offset.
    Follow(&'s Name, usize),
}

impl<'s> Reply<'_, 's> {
    /// Writes the answer to a question whose name lies in the zone.
    pub fn resolve(&mut self, question: &Question) -> Result<Rcode, Full> {
        let rcode = self.follow(question)?;
        if self.signed.is_some() {
            self.write_proofs()?;
        }
        Ok(rcode)
    }

    /// Most questions end where they begin: only a chain needs what [`Reply::chase`] keeps of its links.
    #[inline]
    fn follow(&mut self, question: &Question) -> Result<Rcode, Full> {
        self.writer.set_authoritative(true);
        let owner = Owner { name: question.name, at: QNAME_AT };
        let found = self.zone.find(owner.name);
        self.matched = self.owner_of(&found);
        match self.step(found, &owner, question.qtype, 0)? {
            Step::Done(rcode) => Ok(rcode),
            step => self.chase(question, step),
        }
    }

    /// Follows a chain of CNAME and DNAME records; `step` is what the question's own name led to. Ends after [`CHAIN_MAX`] links, at
    /// a loop, and where names are too far back in the message to be pointed to: the chain so far is the answer then.
    #[cold]
    fn chase(&mut self, question: &Question, mut step: Step<'s>) -> Result<Rcode, Full> {
        let mut chain: Chain<'s> = [None; CHAIN_MAX];
        let mut renamed: [Option<Renamed<'s>>; CHAIN_MAX] = [None; CHAIN_MAX];
        let mut storage;
        let mut owner = Owner { name: question.name, at: QNAME_AT };
        for hop in 0..=CHAIN_MAX {
            let (next, at) = match step {
                Step::Done(rcode) => return Ok(rcode),
                // The same DNAME again for a name that has not become shorter: a loop.
                Step::Rename(rrset, _) if renamed.iter().flatten().any(|r| r.repeats(rrset, owner.name)) => break,
                Step::Rename(rrset, labels) => {
                    let is_written = renamed.iter().flatten().any(|r| std::ptr::eq(r.by, rrset));
                    match self.dname(rrset, labels, &owner, is_written)? {
                        Err(rcode) => return Ok(rcode),
                        // A question for the CNAME has its answer, as with one that is written in the zone.
                        Ok(_) if question.qtype == rtype::CNAME => break,
                        Ok(renamed) => renamed,
                    }
                }
                Step::Follow(target, at) => (QName::from_name(target), at),
            };
            let leads_on = at <= TARGET_AT_MAX
                && self.is_here(&next, question.qtype)
                && !self.was_here(&next, question, &chain, &renamed);
            if hop == CHAIN_MAX || !leads_on {
                break;
            }
            match step {
                Step::Follow(target, _) => chain[hop] = Some(target),
                Step::Rename(by, _) => renamed[hop] = Some(Renamed { by, len: owner.name.len(), target_at: at }),
                Step::Done(_) => {}
            }
            storage = next;
            owner = Owner { name: &storage, at };
            step = self.step(self.zone.find(owner.name), &owner, question.qtype, hop + 1)?;
        }
        Ok(Rcode::NoError)
    }

    /// What a name of the zone leads to.
    #[inline]
    fn step(&mut self, found: Found<'s>, owner: &Owner, qtype: u16, hop: usize) -> Result<Step<'s>, Full> {
        match found {
            Found::Node(node) => self.node(node, owner, qtype, Lack::Type),
            Found::Wildcard { node, encloser } => {
                self.prove(owner.name, owner.name.label_count(), None);
                self.node(node, owner, qtype, Lack::WildcardType(encloser))
            }
            Found::Missing { encloser } => Ok(Step::Done(self.negative(owner, Lack::Name(encloser), u32::MAX)?)),
            Found::Cut { node, labels, .. } if labels == owner.name.label_count() && qtype == rtype::DS => {
                self.node(node, owner, qtype, Lack::Type)
            }
            Found::Cut { cut, labels, .. } => {
                self.writer.set_authoritative(hop > 0);
                self.referral(cut, owner, labels)?;
                Ok(Step::Done(Rcode::NoError))
            }
            Found::Dname { rrset, labels, .. } => Ok(Step::Rename(rrset, labels)),
        }
    }

    /// Whose replies this one is limited with.
    fn owner_of(&self, found: &Found<'_>) -> rate_limit::Owner {
        match found {
            Found::Node(node) | Found::Wildcard { node, .. } | Found::Cut { node, .. } | Found::Dname { node, .. } => {
                rate_limit::Owner::Node(node.key)
            }
            Found::Missing { .. } => rate_limit::Owner::Missing(self.zone.apex().key),
        }
    }

    /// True when such a question is for this zone to answer, and not for another one that is served here, too.
    fn is_here(&self, name: &QName, qtype: u16) -> bool {
        self.snapshot.zones.find(name, qtype).is_some_and(|zone| std::ptr::eq(zone, self.zone))
    }

    /// True when the answer has been at this name before.
    fn was_here(&self, name: &QName, question: &Question, chain: &Chain<'s>, renamed: &[Option<Renamed<'s>>]) -> bool {
        name.as_wire() == question.name.as_wire()
            || chain.iter().flatten().any(|seen| seen.as_wire() == name.as_wire())
            || renamed.iter().flatten().any(|seen| self.writer.holds(seen.target_at, name.as_wire()))
    }

    /// Where the last `labels` labels of a name stand in the message. Names written by us are literal down to the apex.
    fn suffix_at(&self, owner: &Owner, labels: usize) -> usize {
        match labels == self.zone.apex_labels {
            true => self.apex_at,
            false => owner.at + owner.name.offset_of_suffix(labels),
        }
    }

    fn node(&mut self, node: &'s Node, owner: &Owner, qtype: u16, lack: Lack) -> Result<Step<'s>, Full> {
        if !node.rrsets.is_empty()
            && let Some(step) = self.static_records(node, owner, qtype)?
        {
            return Ok(step);
        }
        if let Some(index) = node.route {
            let route = &self.snapshot.plan.routes[index as usize];
            let family = match (route.kind, qtype) {
                (RouteKind::Names, _) | (RouteKind::Addresses, rtype::A) => Some(Family::V4),
                (RouteKind::Addresses, rtype::AAAA) => Some(Family::V6),
                (RouteKind::Addresses, rtype::HTTPS) if route.https.is_some() => Some(Family::Either),
                (RouteKind::Addresses, rtype::ANY) => {
                    Some(if route.dependence(None, Family::V4).exists { Family::V4 } else { Family::V6 })
                }
                _ => None,
            };
            if let Some(family) = family {
                return self.route(index as usize, family, owner, qtype, lack);
            }
        }
        Ok(Step::Done(self.negative(owner, lack, u32::MAX)?))
    }

    /// What the records written in the zone have for a question, if anything.
    fn static_records(&mut self, node: &'s Node, owner: &Owner, qtype: u16) -> Result<Option<Step<'s>>, Full> {
        if let Some(rrset) = node.rrset(qtype) {
            self.put(rrset, owner)?;
            return Ok(Some(Step::Done(Rcode::NoError)));
        }
        if let Some(cname) = node.rrset(rtype::CNAME).filter(|_| !matches!(qtype, rtype::ANY | rtype::RRSIG)) {
            let target_at = self.writer.position() + 12;
            self.put(cname, owner)?;
            return Ok(Some(
                cname.target.as_ref().map_or(Step::Done(Rcode::NoError), |to| Step::Follow(to, target_at)),
            ));
        }
        // ANY gets one RRset (RFC 8482 §4.1): a static one if there is any.
        let any = node.rrsets.iter().filter(|rrset| qtype == rtype::ANY && rrset.rtype != rtype::NSEC);
        if let Some(rrset) = any.min_by_key(|rrset| rrset.records.wire_len()) {
            self.put(rrset, owner)?;
            return Ok(Some(Step::Done(Rcode::NoError)));
        }
        // RRSIG likewise (§7): the signatures of one RRset.
        let signed = node.rrsets.iter().filter(|rrset| qtype == rtype::RRSIG && rrset.rrsigs.records() > 0);
        if let Some(rrset) = signed.min_by_key(|rrset| rrset.rrsigs.wire_len()) {
            rrset.rrsigs.write(&mut self.writer, Section::Answer, owner.at, self.apex_at).ok_or(Full)?;
            return Ok(Some(Step::Done(Rcode::NoError)));
        }
        Ok(None)
    }

    fn put(&mut self, rrset: &RrSet, owner: &Owner) -> Result<(), Full> {
        rrset.records.write(&mut self.writer, Section::Answer, owner.at, self.apex_at).ok_or(Full)?;
        match self.signed {
            Some(_) => rrset.rrsigs.write(&mut self.writer, Section::Answer, owner.at, self.apex_at).ok_or(Full),
            None => Ok(()),
        }
    }

    /// NXDOMAIN or NODATA: the SOA with the negative TTL (RFC 2308), or a lower one, and the proof of what lacks.
    fn negative(&mut self, owner: &Owner, lack: Lack, ttl_s_max: u32) -> Result<Rcode, Full> {
        let ttl_s = self.zone.negative_ttl_s.min(ttl_s_max);
        let (section, apex_at) = (Section::Authority, self.apex_at);
        let rrsigs = self.signed.map(|signed| &signed.negative_soa_rrsigs);
        for part in std::iter::once(&self.zone.negative_soa).chain(rrsigs) {
            part.write_with_ttl(&mut self.writer, section, apex_at, apex_at, ttl_s).ok_or(Full)?;
        }
        let labels = owner.name.label_count();
        match lack {
            Lack::Type => self.prove(owner.name, labels, None),
            Lack::WildcardType(encloser) => self.prove(owner.name, encloser, Some(b"*")),
            Lack::Name(encloser) => {
                self.prove(owner.name, labels, None);
                self.prove(owner.name, encloser, Some(b"*"));
                return Ok(Rcode::NxDomain);
            }
        }
        Ok(Rcode::NoError)
    }

    /// Notes the link of the chain that matches or covers a name: the last `labels` labels of `name`, and below them `child`.
    fn prove(&mut self, name: &QName, labels: usize, child: Option<&[u8]>) {
        let Some(signed) = self.signed else { return };
        let mut key = SortKey::new(name, labels, self.zone.apex_labels);
        if let Some(label) = child {
            key.push(label);
        }
        self.proofs.add(signed.chain.find(&key));
    }

    fn write_proofs(&mut self) -> Result<(), Full> {
        for record in std::mem::take(&mut self.proofs).noted() {
            record.write(&mut self.writer, Section::Authority, self.apex_at).ok_or(Full)?;
        }
        Ok(())
    }

    /// The cut's name servers, and DS or the proof that there is none; glue below the cut must fit (RFC 9471), other addresses are
    /// left out where they do not.
    fn referral(&mut self, cut: &Cut, owner: &Owner, labels: usize) -> Result<(), Full> {
        let cut_at = self.suffix_at(owner, labels);
        cut.ns.write(&mut self.writer, Section::Authority, cut_at, self.apex_at).ok_or(Full)?;
        match &cut.ds {
            Some(ds) if self.dnssec_ok => {
                ds.write(&mut self.writer, Section::Authority, cut_at, self.apex_at).ok_or(Full)?;
            }
            Some(_) => {}
            None => self.prove(owner.name, labels, None),
        }
        self.write_proofs()?;
        if cut.glue.records() > 0 {
            cut.glue.write(&mut self.writer, Section::Additional, self.apex_at).ok_or(Full)?;
        }
        if cut.sibling_glue.records() > 0 {
            let _left_out_if_too_long = cut.sibling_glue.write(&mut self.writer, Section::Additional, self.apex_at);
        }
        Ok(())
    }

    /// The DNAME, unless it is written already, and the CNAME that it stands for (RFC 6672 §3.1); the target and where it
    /// stands, or YXDOMAIN.
    fn dname(
        &mut self,
        rrset: &RrSet,
        labels: usize,
        owner: &Owner,
        is_written: bool,
    ) -> Result<Result<(QName, usize), Rcode>, Full> {
        if !is_written {
            let dname_at = self.suffix_at(owner, labels);
            self.put(rrset, &Owner { name: owner.name, at: dname_at })?;
        }
        let Some(target) = rrset.target.as_ref().and_then(|to| owner.name.substitute(labels, to)) else {
            return Ok(Err(Rcode::YxDomain));
        };
        let at = self.cname(owner, target.as_wire(), rrset.ttl_s)?;
        Ok(Ok((target, at)))
    }

    /// A CNAME made for this reply; returns where its target stands.
    fn cname(&mut self, owner: &Owner, target: &[u8], ttl_s: u32) -> Result<usize, Full> {
        let head = record_head(owner.at, rtype::CNAME, ttl_s, target.len() as u16);
        let mut record = [0; 12 + 255];
        record[..12].copy_from_slice(&head);
        record[12..12 + target.len()].copy_from_slice(target);
        let at = self.writer.position() + 12;
        self.writer.put(&record[..12 + target.len()]).ok_or(Full)?;
        self.writer.count(Section::Answer, 1);
        Ok(at)
    }
}

/// Owner pointer, type, class, TTL and length of a record.
fn record_head(owner_at: usize, rtype: u16, ttl_s: u32, len: u16) -> [u8; 12] {
    let [o1, o2] = (0xc000 | owner_at as u16).to_be_bytes();
    let [t1, t2] = rtype.to_be_bytes();
    let [c1, c2] = class::IN.to_be_bytes();
    let [s1, s2, s3, s4] = ttl_s.to_be_bytes();
    let [l1, l2] = len.to_be_bytes();
    [o1, o2, t1, t2, c1, c2, s1, s2, s3, s4, l1, l2]
}
