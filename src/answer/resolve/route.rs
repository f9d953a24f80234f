//! What a route answers: the region that its policy chooses, and the records of that region's endpoints.

use super::{Full, Lack, Owner, Proofs, Reply, Step, record_head};
use crate::{
    config::model::RegionId,
    routing::{
        Family,
        plan::{Pool, PoolId, Ring, Route},
        policy::{self, Decision, Outcome, Reason},
    },
    wire::{Rcode, rtype, writer::Section},
};

/// The endpoints that answer for a route, and why.
struct Chosen<'s> {
    /// The route's number in the plan.
    index: usize,
    route: &'s Route,
    family: Family,
    region: RegionId,
    pool: PoolId,
    reason: Reason,
    decision: Decision,
}

impl<'s> Reply<'_, 's> {
    /// Writes what a route answers. `index`: its number in the plan; `lack`: what to say if it has no such record.
    pub(super) fn route(
        &mut self,
        index: usize,
        family: Family,
        owner: &Owner,
        qtype: u16,
        lack: Lack,
    ) -> Result<Step<'s>, Full> {
        let snapshot = self.snapshot;
        let route = &snapshot.plan.routes[index];
        let decision = policy::decide(&snapshot.plan, &snapshot.health, route, family, self.client);
        let (region, pool, reason) = match decision.outcome {
            Outcome::NoData => return Ok(Step::Done(self.negative(owner, lack, decision.negative_ttl_s)?)),
            Outcome::ServFail => return Ok(Step::Done(self.give_up())),
            Outcome::Region { region, pool, reason } => (region, pool, reason),
        };
        self.scope_len = self.scope_len.max(decision.scope_len);
        self.answered = Some((index, region, reason));
        let chosen = Chosen { index, route, family, region, pool, reason, decision };
        let members = &snapshot.plan.pools[pool.0 as usize];
        if let Some(name) = &members.name {
            let at = self.cname(owner, name.as_wire(), chosen.decision.ttl_s)?;
            self.route_rrsigs(&chosen, owner)?;
            let step = match qtype {
                rtype::CNAME | rtype::ANY => Step::Done(Rcode::NoError),
                _ => Step::Follow(name, at),
            };
            return Ok(step);
        }
        match family {
            Family::V4 => self.addresses(&chosen, &members.v4, rtype::A, owner)?,
            Family::V6 => self.addresses(&chosen, &members.v6, rtype::AAAA, owner)?,
            Family::Either => self.https(&chosen, members, owner)?,
        }
        self.route_rrsigs(&chosen, owner)?;
        Ok(Step::Done(Rcode::NoError))
    }

    /// Takes back what has been written: no region may answer.
    fn give_up(&mut self) -> Rcode {
        self.writer.clear();
        self.writer.set_authoritative(false);
        self.scope_len = 0;
        self.answered = None;
        self.proofs = Proofs::default();
        Rcode::ServFail
    }

    /// The route's HTTPS record with the addresses of the answering region as hints (RFC 9460 §7.3). Their order is fixed: it is
    /// part of the data that is signed.
    fn https(&mut self, chosen: &Chosen, members: &Pool, owner: &Owner) -> Result<(), Full> {
        let &Chosen { route, pool, reason, ref decision, .. } = chosen;
        let Some(https) = &route.https else { return Ok(()) };
        let up = policy::members_up(&self.snapshot.health, pool, reason);
        let v4 = policy::answers(&members.v4, up, route.max_answers, decision.network_hash);
        let v6 = policy::answers(&members.v6, up, route.max_answers, decision.network_hash);
        let len = https.len_with(v4.clone().count(), v6.clone().count());
        self.writer.put(&record_head(owner.at, rtype::HTTPS, decision.ttl_s, len as u16)).ok_or(Full)?;
        for piece in https.pieces(v4, v6) {
            self.writer.put(piece.as_bytes()).ok_or(Full)?;
        }
        self.writer.count(Section::Answer, 1);
        Ok(())
    }

    /// The signatures of a route's answer, with the answer's TTL.
    fn route_rrsigs(&mut self, chosen: &Chosen, owner: &Owner) -> Result<(), Full> {
        if self.signed.is_none() {
            return Ok(());
        }
        let &Chosen { index, route, region, family, reason, ref decision, .. } = chosen;
        let rrsigs = self.snapshot.signed.rrsigs(index, route, region, family, reason, decision.network_hash);
        let rrsigs = rrsigs.ok_or(Full)?;
        let (section, apex_at) = (Section::Answer, self.apex_at);
        rrsigs.write_with_ttl(&mut self.writer, section, owner.at, apex_at, decision.ttl_s).ok_or(Full)
    }

    fn addresses<A: AsRef<[u8]>>(
        &mut self,
        chosen: &Chosen,
        ring: &Ring<A>,
        rtype: u16,
        owner: &Owner,
    ) -> Result<(), Full> {
        let &Chosen { route, pool, reason, ref decision, .. } = chosen;
        // The one address of a region that answers: it is up, or nothing is.
        if let [only] = &*ring.slots {
            self.address(&only.address, rtype, decision.ttl_s, owner)?;
            self.writer.count(Section::Answer, 1);
            return Ok(());
        }
        let up = policy::members_up(&self.snapshot.health, pool, reason);
        let up = policy::answers(ring, up, route.max_answers, decision.network_hash);
        let count = up.clone().count();
        let first = if count > 1 { self.turn as usize % count } else { 0 };
        for address in up.clone().skip(first).chain(up.take(first)) {
            self.address(address, rtype, decision.ttl_s, owner)?;
        }
        self.writer.count(Section::Answer, count as u16);
        Ok(())
    }

    #[inline]
    fn address<A: AsRef<[u8]>>(&mut self, address: &A, rtype: u16, ttl_s: u32, owner: &Owner) -> Result<(), Full> {
        let data = address.as_ref();
        let mut record = [0; 12 + 16];
        record[..12].copy_from_slice(&record_head(owner.at, rtype, ttl_s, data.len() as u16));
        record[12..12 + data.len()].copy_from_slice(data);
        self.writer.put(&record[..12 + data.len()]).ok_or(Full).map(drop)
    }
}
