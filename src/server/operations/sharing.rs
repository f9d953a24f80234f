//! The cluster as the admin interface tells of it.

use crate::{
    admin::status::{ClusterStatus, NodeStatus, RememberedStatus, SeenBy},
    answer::explain::SeenEndpoint,
    cluster,
    health::{Check, CheckKind, TargetStatus, consensus::Sees},
    server::world::unix_s,
    telemetry::metrics::Families,
};

/// The cluster in the status.
pub fn status(view: &cluster::View) -> ClusterStatus {
    let node = |node: &cluster::NodeView| NodeStatus {
        name: node.name.clone(),
        version: node.version.clone(),
        counts: node.counts,
        heard_s: node.heard.as_secs_f64(),
        targets: node.targets as u64,
        self_doubt: node.doubts,
        hears: node.hears,
        region: node.measured.as_ref().map(|(region, _)| region.clone()),
        networks: node.measured.as_ref().map_or(0, |(_, networks)| *networks as u64),
        problem: node.problem.clone(),
    };
    ClusterStatus {
        node: view.config.node.clone(),
        connected: view.link.server.is_some(),
        server: view.link.server.clone(),
        since: view.link.since.map(unix_s),
        error: view.link.error.clone(),
        problem: view.problem.clone(),
        round_trip_ms: view.round_trip.map(|time| time.as_secs_f64() * 1e3),
        quorum: view.config.quorum,
        nodes: view.nodes.iter().map(node).collect(),
        remembered: view.remembered.iter().map(remembered).collect(),
    }
}

fn remembered((name, region, networks): &(String, String, usize)) -> RememberedStatus {
    RememberedStatus { name: name.clone(), region: region.clone(), networks: *networks as u64 }
}

/// How each server sees a target, this one first; `doubts`: it distrusts itself.
pub fn seen(node: &str, own: &TargetStatus, doubts: bool, others: Vec<cluster::SeenBy>) -> Vec<SeenBy> {
    let ours = SeenBy {
        node: node.to_string(),
        state: if own.decided { own.own_view().as_str() } else { "untried" }.into(),
        since: own.decided.then(|| unix_s(own.since)),
        connect_ms: own.connect_ms(),
        counts: own.decided && !doubts && !own.lacks_heartbeat(),
    };
    let other = |by: cluster::SeenBy| SeenBy {
        node: by.node,
        state: Sees::as_str(by.seen.view.sees).into(),
        since: Some(unix_s(by.seen.since)),
        connect_ms: by.seen.connect.map(|connect| connect.as_secs_f64() * 1e3),
        counts: by.counts && by.seen.view.is_firm,
    };
    std::iter::once(ours).chain(others.into_iter().map(other)).collect()
}

/// The same for an explanation. Parts of a calculated check are named.
pub fn seen_endpoint(status: &TargetStatus, check: Option<&Check>, seen: &[SeenBy]) -> SeenEndpoint {
    let target = &status.target;
    let is_part = check.is_some_and(|check| matches!(check.kind, CheckKind::Calculated(_)));
    let part = if is_part { format!(" ({})", target.check_names.join(", ")) } else { String::new() };
    let note = |by: &SeenBy| if by.counts || by.state == "untried" { "" } else { ", does not count" };
    SeenEndpoint {
        endpoint: format!("{}{part}", target.endpoint()),
        consensus: status.consensus.map(|consensus| consensus.summary()),
        by: seen.iter().map(|by| (by.node.clone(), format!("{}{}", by.state, note(by)))).collect(),
    }
}

/// Metrics that there are only in a cluster.
pub fn metrics(view: &cluster::View, families: &mut Families) {
    let gauge = |families: &mut Families, name, help, value: f64| {
        families.gauge(name, help).value(value);
    };
    let counting = view.nodes.iter().filter(|node| node.counts).count();
    let connected = f64::from(u8::from(view.link.server.is_some()));
    gauge(families, "cluster_connected", "1 while there is a connection to NATS.", connected);
    let help = "Servers whose views count, this one included.";
    gauge(families, "cluster_nodes", help, 1.0 + counting as f64);
    if let Some(time) = view.round_trip {
        let help = "How long a message takes to NATS and back.";
        gauge(families, "cluster_round_trip_seconds", help, time.as_secs_f64());
    }
    let family = families.gauge("cluster_node_heard_seconds", "Time since another server was heard.");
    for node in &view.nodes {
        family.sample([("node", node.name.clone())], node.heard.as_secs_f64());
    }
    let family = families.gauge("cluster_node_networks", "Networks whose round trip another server measured.");
    for node in &view.nodes {
        family.sample(
            [("node", node.name.clone())],
            node.measured.as_ref().map_or(0.0, |(_, networks)| *networks as f64),
        );
    }
    for (name, _, networks) in &view.remembered {
        family.sample([("node", name.clone())], *networks as f64);
    }
    let help = "Round trips that other servers told and that were left out: they cannot be, or there was no room.";
    families.counter("cluster_networks_left_out", help).value(view.left_out as f64);
    families.counter("cluster_connections", "Connections to NATS that were made.").value(view.link.connects as f64);
    let ways = [("sent", view.traffic.sent), ("received", view.traffic.received)];
    let family = families.counter("cluster_messages", "Messages between the servers.");
    for (way, [messages, _]) in ways {
        family.sample([("direction", way)], messages as f64);
    }
    let family = families.counter("cluster_bytes", "Bytes of messages between the servers.");
    for (way, [_, bytes]) in ways {
        family.sample([("direction", way)], bytes as f64);
    }
    let help = "Messages that came or were to be sent faster than this server and NATS could take them.";
    families.counter("cluster_dropped_messages", help).value(view.traffic.dropped as f64);
    let help = "Messages that could not be read.";
    families.counter("cluster_rejected_messages", help).value(view.rejected as f64);
}
