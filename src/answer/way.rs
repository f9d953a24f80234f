//! Which route a question leads to, without its being answered: for explanations and forecasts.

use super::CHAIN_MAX;
use crate::{
    routing::{
        Family, Plan,
        plan::{Route, RouteKind},
    },
    wire::{Name, QName, rtype},
    zone::{Found, ZoneTable},
};

/// The route at the end of a name's way, following the zone's CNAMEs, with its number in the plan.
pub fn find_route<'p>(zones: &ZoneTable, plan: &'p Plan, name: &Name, qtype: u16) -> Option<(usize, &'p Route)> {
    let mut name = name.clone();
    for _ in 0..CHAIN_MAX {
        let qname = QName::from_name(&name);
        let (Found::Node(node) | Found::Wildcard { node, .. }) = zones.find(&qname, qtype)?.find(&qname) else {
            return None;
        };
        if let Some(target) = node.rrset(rtype::CNAME).and_then(|cname| cname.target.as_ref()) {
            name = target.clone();
            continue;
        }
        let index = node.route? as usize;
        let route = &plan.routes[index];
        let answers = match qtype {
            rtype::A | rtype::AAAA => true,
            rtype::HTTPS => route.https.is_some() || route.kind == RouteKind::Names,
            rtype::ANY => node.rrsets.iter().all(|rrset| rrset.rtype == rtype::NSEC),
            _ => route.kind == RouteKind::Names,
        };
        return answers.then_some((index, route));
    }
    None
}

/// The family that a question asks a route for.
pub fn family_asked(route: &Route, qtype: u16) -> Family {
    let only_v6 = qtype == rtype::ANY && !route.dependence(None, Family::V4).exists;
    match qtype {
        rtype::AAAA => Family::V6,
        rtype::HTTPS if route.kind == RouteKind::Addresses => Family::Either,
        _ if only_v6 => Family::V6,
        _ => Family::V4,
    }
}
