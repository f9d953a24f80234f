//! Routes: owners, regions, weights, endpoints, rules.

use std::collections::{BTreeMap, HashMap};

use super::{
    Context,
    zones::{in_zone, relative},
};
use crate::{
    config::{
        model::{ClientMatch, Endpoints, Policy, RegionId, Route, Rule, WhenAllDown},
        section::At,
        spec::{PolicyWord, RouteSpec, RuleSpec, ZoneSpec},
        value::{Fault, listed, quote},
    },
    wire::Name,
};

/// A route's own regions and their endpoints on this route; `None` where those are wrong.
struct Pools<'p> {
    list: Vec<(RegionId, Option<&'p Endpoints>)>,
}

impl Context<'_> {
    pub(super) fn build_routes(
        &self,
        zone: &ZoneSpec,
        origin: &Name,
        origins: &HashMap<Name, &At<String>>,
    ) -> Vec<Route> {
        let mut owners: HashMap<Name, &At<String>> = HashMap::new();
        let mut routes = Vec::with_capacity(zone.routes.len());
        for spec in &zone.routes {
            let owner = self.owner(&spec.owner, origin);
            if let Some(owner) = &owner {
                let first = *owners.entry(owner.clone()).or_insert(&spec.owner);
                if first.span != spec.owner.span {
                    let message = format!("the route {} is there already", quote(&spec.owner.value));
                    let help = format!("remove one of the two; the first is written {}", quote(&first.value));
                    self.problems.add(&spec.owner.span, message, help);
                }
                self.note_zone_below(spec, owner, origin, origins);
            }
            if !zone.dnssec_keys.is_empty() && spec.when_all_down.value == WhenAllDown::NoData {
                let message = "`when-all-down = \"nodata\"` cannot be in a signed zone";
                let help =
                    "the signed proof of what exists cannot change with health: write \"answer-all\" or \"servfail\"";
                self.problems.add(&spec.when_all_down.span, message, help);
            }
            routes.push(self.build_route(spec, owner, origin, zone.ttl_s));
        }
        routes
    }

    fn owner(&self, at: &At<String>, origin: &Name) -> Option<Name> {
        let read = in_zone(&at.value, origin).and_then(|name| {
            let stars = name.labels().skip(1).any(|label| label.contains(&b'*'));
            let mixed = name.labels().next().is_some_and(|label| label.contains(&b'*') && label != b"*");
            if stars || mixed {
                let message = format!("{} has a `*` that matches nothing", quote(&at.value));
                return Err(Fault::new(message, "a wildcard is `*` alone as the first label, for example \"*.app\""));
            }
            Ok(name)
        });
        read.map_err(|fault| self.problems.fault(&at.span, fault)).ok()
    }

    /// A route in a part of the zone that is a zone of its own here would never be asked.
    fn note_zone_below(&self, spec: &RouteSpec, owner: &Name, origin: &Name, origins: &HashMap<Name, &At<String>>) {
        let mut at = Some(owner.clone());
        while let Some(name) = at.filter(|name| name != origin) {
            if let Some(other) = origins.get(&name) {
                let message = format!("{} lies in the zone {}", quote(&spec.owner.value), quote(&other.value));
                let help = format!("write [zones.\"{}\".routes.\"{}\"]", other.value, relative(owner, &name));
                self.problems.add(&spec.owner.span, message, help);
                return;
            }
            at = name.parent();
        }
    }

    fn build_route(&self, spec: &RouteSpec, owner: Option<Name>, origin: &Name, zone_ttl_s: u32) -> Route {
        let regions = self.route_regions(spec);
        let pools = self.pools(spec, &regions);
        self.note_mixed_kinds(spec, &pools);
        self.note_unfit_names(spec, owner.as_ref(), origin, &pools);
        let rules = spec.rules.iter().map(|rule| self.build_rule(rule, &regions, &pools)).collect();
        let policy = self.policy(spec, &regions);
        let mut endpoints = BTreeMap::new();
        for (name, list) in &spec.endpoints {
            let Some(id) = self.region_named(name) else { continue };
            if !regions.contains(&id) && spec.regions.is_sound() {
                let message = format!("the region {} is not one of this route's", quote(&name.value));
                self.problems.add(&name.span, message, "remove it, or add the region to `regions`");
            }
            if let Some(list) = &list.value {
                endpoints.insert(id, list.clone());
            }
        }
        Route {
            owner: owner.unwrap_or(Name::root()),
            label: spec.owner.value.clone(),
            regions,
            policy,
            endpoints,
            check: self.check_named(&spec.check),
            ttl_s: spec.ttl_s.unwrap_or(zone_ttl_s),
            max_answers: spec.max_answers,
            when_all_down: spec.when_all_down.value,
            https: (!spec.https.value.is_empty())
                .then(|| (spec.https.value.clone(), self.problems.spot(spec.https.span.clone()))),
            rules,
            spot: self.problems.spot(spec.owner.span.clone()),
        }
    }

    fn route_regions(&self, spec: &RouteSpec) -> Vec<RegionId> {
        if !spec.regions.is_given() {
            if self.regions.is_empty() {
                let message = format!("the route {} has no region to answer with", quote(&spec.owner.value));
                self.problems.absent(&spec.owner.span, message, "add a section such as [regions.us]");
            }
            return self.all_regions();
        }
        if spec.regions.value.is_empty() {
            let help = "name at least one region, or remove the key: then every region serves the route";
            self.problems.add(&spec.regions.span, "`regions` is empty", help);
        }
        self.regions_named(&spec.regions.value)
    }

    fn pools<'p>(&'p self, spec: &'p RouteSpec, regions: &[RegionId]) -> Pools<'p> {
        let of = |id: RegionId| {
            let own = spec.endpoints.iter().find(|(name, _)| name.value == self.region_name(id));
            own.map_or(&self.regions[id.index()].endpoints, |(_, list)| list).value.as_ref()
        };
        Pools { list: regions.iter().map(|&id| (id, of(id))).collect() }
    }

    fn note_mixed_kinds(&self, spec: &RouteSpec, pools: &Pools<'_>) {
        let first = |wants_name: bool| {
            let is_kind = |e: &Endpoints| matches!(e, Endpoints::Name(_)) == wants_name;
            pools.list.iter().find(|(_, e)| e.is_some_and(is_kind)).map(|(id, _)| quote(self.region_name(*id)))
        };
        if let (Some(name), Some(addresses)) = (first(true), first(false)) {
            let place = if spec.regions.is_given() { &spec.regions.span } else { &spec.owner.span };
            let message = format!("the region {name} has a host name here and {addresses} has addresses");
            let help = "a route answers with names or with addresses: leave one out of `regions`, or give it other \
                        `endpoints` on this route";
            self.problems.add(place, message, help);
        }
    }

    /// A CNAME may stand neither beside SOA and NS (RFC 2181 §10.1) nor point to itself.
    fn note_unfit_names(&self, spec: &RouteSpec, owner: Option<&Name>, origin: &Name, pools: &Pools<'_>) {
        let Some(owner) = owner else { return };
        let names = pools.list.iter().filter_map(|(id, e)| match e {
            Some(Endpoints::Name(name)) => Some((*id, name)),
            _ => None,
        });
        let names: Vec<(RegionId, &Name)> = names.collect();
        if let (Some((id, name)), true) = (names.first(), owner == origin) {
            let region = quote(self.region_name(*id));
            let message =
                format!("the apex cannot be a CNAME to {}, the endpoint of {region}", quote(&name.to_string()));
            self.problems.add(
                &spec.owner.span,
                message,
                "give the regions of this route addresses, or route another name",
            );
        }
        if let Some((id, _)) = names.iter().find(|(_, name)| *name == owner) {
            let message = format!("the endpoint of {} is this route's own name", quote(self.region_name(*id)));
            self.problems.add(&spec.owner.span, message, "name the host that serves it");
        }
    }

    fn policy(&self, spec: &RouteSpec, regions: &[RegionId]) -> Policy {
        match spec.policy {
            Some(PolicyWord::Weighted) => return Policy::Weighted(self.weights(spec, regions)),
            Some(word) if spec.weights.is_given() && !spec.weights.value.is_empty() => {
                let word = if word == PolicyWord::Failover { "failover" } else { "latency" };
                let message = format!("`weights` means nothing to the policy `{word}`");
                self.problems.add(&spec.weights.span, message, "remove it, or write policy = \"weighted\"");
            }
            _ => {}
        }
        if spec.policy == Some(PolicyWord::Failover) { Policy::Failover } else { Policy::Latency }
    }

    /// One weight for each of `regions`; all 1 when none are given.
    fn weights(&self, spec: &RouteSpec, regions: &[RegionId]) -> Vec<u32> {
        if !spec.weights.is_given() || spec.weights.value.is_empty() {
            return vec![1; regions.len()];
        }
        let mut weights: Vec<Option<u32>> = vec![None; regions.len()];
        for (name, weight) in &spec.weights.value {
            let Some(id) = self.region_named(name) else { continue };
            match regions.iter().position(|r| *r == id) {
                Some(at) => weights[at] = Some(*weight),
                None if spec.regions.is_sound() => {
                    let message = format!("the region {} is not one of this route's", quote(&name.value));
                    self.problems.add(&name.span, message, "remove it, or add the region to `regions`");
                }
                None => {}
            }
        }
        let without = regions.iter().zip(&weights).filter(|(_, w)| w.is_none());
        let without: Vec<&str> = without.map(|(id, _)| self.region_name(*id)).collect();
        if let [first, ..] = without.as_slice() {
            let message = format!("`weights` says nothing of {}", listed(&without, "and"));
            let help =
                format!("add {first} = 1, or {first} = 0 for a region that serves only when the others are down");
            self.problems.add(&spec.weights.span, message, help);
        } else if !weights.is_empty() && weights.iter().all(|w| *w == Some(0)) {
            self.problems.add(
                &spec.weights.span,
                "every region has weight 0",
                "give at least one a weight from 1 to 1000",
            );
        }
        weights.into_iter().map(|w| w.unwrap_or(0)).collect()
    }

    fn build_rule(&self, spec: &RuleSpec, route_regions: &[RegionId], pools: &Pools<'_>) -> Rule {
        for client in &spec.clients {
            if matches!(client.value, ClientMatch::Asn(_)) && !self.has_asn_database {
                let help = "name one: [geo] asn-database = \"asn.mmdb\"";
                self.problems.add(&client.span, "a rule by autonomous system needs an ASN database", help);
            }
        }
        if spec.regions.is_given() && spec.regions.value.is_empty() {
            let help = "name at least one of the route's regions";
            self.problems.add(&spec.regions.span, "`regions` is empty", help);
        }
        let regions = self.regions_named(&spec.regions.value);
        let strangers: Vec<&str> =
            regions.iter().filter(|id| !route_regions.contains(id)).map(|id| self.region_name(*id)).collect();
        for at in spec.regions.value.iter().filter(|at| strangers.contains(&at.value.as_str())) {
            let message = format!("the region {} is not one of this route's", quote(&at.value));
            let known: Vec<&str> = route_regions.iter().map(|id| self.region_name(*id)).collect();
            self.problems.add(&at.span, message, format!("the route has {}", listed(&known, "and")));
        }
        if strangers.is_empty() {
            self.note_lost_family(spec, &regions, pools);
        }
        Rule { clients: spec.clients.iter().map(|c| c.value).collect(), regions }
    }

    /// The answer to such clients would be "no such record", which resolvers take to hold for everybody (RFC 7871 §7.4).
    fn note_lost_family(&self, spec: &RuleSpec, regions: &[RegionId], pools: &Pools<'_>) {
        let is_sound = |(_, endpoints): &(RegionId, Option<&Endpoints>)| endpoints.is_some();
        if regions.is_empty() || !pools.list.iter().all(is_sound) {
            return;
        }
        for (is_v6, family, record) in [(false, "IPv4", "A"), (true, "IPv6", "AAAA")] {
            let has = |endpoints: &Endpoints| match endpoints {
                Endpoints::Addresses(list) => list.iter().any(|e| e.address.is_ipv6() == is_v6),
                Endpoints::Name(_) => true,
            };
            let having: Vec<RegionId> =
                pools.list.iter().filter(|(_, e)| e.is_some_and(has)).map(|(id, _)| *id).collect();
            if !having.is_empty() && !regions.iter().any(|id| having.contains(id)) {
                let names: Vec<&str> = having.iter().map(|id| self.region_name(*id)).collect();
                let message =
                    format!("the route has {record} records, but no region of this rule has an {family} endpoint");
                let help = format!("give one of them an {family} endpoint, or add {}", listed(&names, "or"));
                self.problems.add(&spec.regions.span, message, help);
            }
        }
    }
}
