//! What DNSSEC adds to a compiled zone: the signer, the proofs of what does not exist, and the SOA's signature for them.

use std::{collections::BTreeMap, sync::Arc};

use super::Owned;
use crate::{
    wire::{Name, rtype},
    zone::{
        content::{RrSet, ZoneContent},
        fragment::{Fragment, FragmentBuilder},
        sign::{Chain, Signer, chain},
    },
};

/// The signed side of a zone.
pub struct Signed {
    /// Signs what routes answer with, too, as long as the zone's own signatures hold.
    pub signer: Arc<Signer>,
    /// The proofs of what does not exist.
    pub chain: Chain,
    /// Signatures of the SOA, with the TTL of negative answers as it has there.
    pub negative_soa_rrsigs: Fragment,
}

impl Signed {
    /// Also returns the NSEC RRsets, which may be asked for like any other.
    pub(super) fn new(
        content: &ZoneContent,
        owned: &Owned,
        negative_ttl_s: u32,
        signer: Arc<Signer>,
    ) -> (Signed, Vec<RrSet>) {
        let apex = &content.origin;
        let nsecs = chain::nsecs(apex, entries(content, owned));
        let chain = Chain::new(apex, &nsecs, negative_ttl_s, &signer);
        let negative_soa_rrsigs = negative_soa_rrsigs(content, negative_ttl_s, &signer);
        let rrset = |(owner, rdata)| RrSet { owner, rtype: rtype::NSEC, ttl_s: negative_ttl_s, rdatas: vec![rdata] };
        (Signed { signer, chain, negative_soa_rrsigs }, nsecs.into_iter().map(rrset).collect())
    }
}

/// The names with records of the zone's own and the types there. A route has the types that any of its regions can answer with,
/// whatever the health: what the chain says must stay true (RFC 4035 §3.1.3).
fn entries(content: &ZoneContent, owned: &Owned) -> Vec<chain::Entry> {
    let mut entries: BTreeMap<&Name, Vec<u16>> = BTreeMap::new();
    for rrset in content.rrsets.iter().filter(|rrset| owned.is_visible(&rrset.owner)) {
        if !owned.is_cut(&rrset.owner) || matches!(rrset.rtype, rtype::NS | rtype::DS) {
            entries.entry(&rrset.owner).or_default().push(rrset.rtype);
        }
    }
    for route in content.routes.iter().filter(|route| owned.is_visible(&route.owner)) {
        entries.entry(&route.owner).or_default().extend(&route.types);
    }
    entries.into_iter().map(|(owner, types)| (owner.clone(), types)).collect()
}

/// The signature is that of the SOA with its own TTL; only the record's TTL is lowered with the SOA's (RFC 4034 §3.1.4).
fn negative_soa_rrsigs(content: &ZoneContent, negative_ttl_s: u32, signer: &Signer) -> Fragment {
    let mut builder = FragmentBuilder::new(&content.origin);
    let soa = content.rrsets.iter().find(|rrset| rrset.rtype == rtype::SOA && rrset.owner == content.origin);
    for rrsig in soa.into_iter().flat_map(|soa| signer.sign(&soa.owner, rtype::SOA, soa.ttl_s, &soa.rdatas)) {
        builder.push(rtype::RRSIG, negative_ttl_s, &rrsig);
    }
    builder.finish()
}
