//! `isochrone explain`: why a client gets its answer, from the running server or from a configuration file.

use std::{path::Path, process::ExitCode};

use clap::Args;
use ipnet::IpNet;

use super::{
    ConfigFile,
    remote::{AdminUrl, AskError, DEFAULT_ADMIN, Remote},
    table::{Align, Cell, Table},
    terminal::{Lines, Palette, Tone, print, span},
};
use crate::{
    answer::explain::{self, Candidate, ClientView, Explanation},
    server::World,
    wire::Name,
};

/// Tell why a client gets the answer that it gets
#[derive(Debug, Args)]
#[command(after_help = "Example:
  isochrone explain www.app.geo.example.com --client 203.0.113.0/24

Without --admin and --config it asks the server at http://127.0.0.1:8053. Where
there is none it reads the default configuration file; then nothing has been
probed, and every endpoint counts as up.")]
pub struct ExplainArgs {
    /// Name that the client asks for
    #[arg(value_parser = parse_name)]
    name: Name,
    /// Address or network of the client, as a resolver would tell it [default: this host]
    #[arg(long, value_name = "IP[/LEN]", value_parser = explain::parse_client)]
    client: Option<IpNet>,
    /// Record type
    #[arg(long = "type", value_name = "TYPE", default_value = "A", value_parser = explain::parse_qtype)]
    qtype: u16,
    /// Ask this running server
    #[arg(long, value_name = "URL", conflicts_with = "path")]
    admin: Option<AdminUrl>,
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn parse_name(text: &str) -> Result<Name, String> {
    Name::parse(text, &Name::root()).map_err(|error| error.to_string())
}

/// Explains one answer.
pub fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let explanation = match (&args.admin, &args.file.path) {
        (Some(url), _) => ask(args, url.clone())?,
        (None, Some(path)) => offline(args, path)?,
        (None, None) => wherever(args, DEFAULT_ADMIN.parse().expect("the default is a URL"))?,
    };
    match args.json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(&explanation)?))?,
        false => print(&shown(&explanation, Palette::of_stdout()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The server at `url`, or else the default configuration file.
fn wherever(args: &ExplainArgs, url: AdminUrl) -> anyhow::Result<Explanation> {
    match ask(args, url.clone()) {
        Ok(explanation) => {
            eprintln!("asked the server at {url}");
            Ok(explanation)
        }
        Err(error) => match error.downcast_ref::<AskError>() {
            Some(AskError::Unreachable { reason, .. }) => {
                eprintln!("no server at {url} ({reason})");
                offline(args, &args.file.path()?)
            }
            _ => Err(error),
        },
    }
}

fn ask(args: &ExplainArgs, url: AdminUrl) -> anyhow::Result<Explanation> {
    let (name, qtype) = (args.name.to_string(), format!("TYPE{}", args.qtype));
    let client = args.client.map(|client| client.to_string()).unwrap_or_default();
    let question = [("name", name.as_str()), ("client", &client), ("type", &qtype)];
    Remote::new(url)?.ask("/api/v1/explain", &question)
}

fn offline(args: &ExplainArgs, path: &Path) -> anyhow::Result<Explanation> {
    let world = World::load(path)?;
    eprintln!("explained from {}; nothing was probed, every endpoint counts as up", path.display());
    let request = explain::Request { name: args.name.clone(), qtype: args.qtype, client: args.client };
    Ok(world.explain(&request))
}

/// For people at three in the morning: who asked, what there was to choose from, what was chosen, what was answered.
fn shown(told: &Explanation, palette: Palette) -> String {
    let mut head = Lines::new(palette);
    head.add("question", &format!("{} {}", told.name, told.qtype));
    head.add("client", &client(&told.client));
    head.add("zone", told.zone.as_deref().unwrap_or("none: the name lies outside this server's zones"));
    if let Some(route) = &told.route {
        head.add("route", &format!("{route} (policy {})", told.policy.as_deref().unwrap_or("unknown")));
        head.add("rule", told.rule.as_deref().unwrap_or("none matches: any region of the route"));
    } else if told.zone.is_some() {
        head.add("route", "none: static records, or no such name");
    }
    let table = if told.candidates.is_empty() { String::new() } else { format!("\n{}\n", candidates(told, palette)) };
    let table = format!("{table}{}{}", detours(told) + &penalties(told), differences(told));
    let mut tail = Lines::new(palette);
    if told.route.is_some() {
        tail.add("chosen", told.chosen.as_deref().unwrap_or("none"));
    }
    tail.add("answer", told.answer.first().map_or("no records", String::as_str));
    for record in told.answer.iter().skip(1) {
        tail.add("", record);
    }
    tail.add("ttl", &told.ttl.map_or_else(|| "-".to_string(), |ttl| format!("{ttl} s")));
    tail.add("scope", &scope(told));
    tail.add("rcode", &told.rcode);
    if let Some(chosen) = &told.chosen {
        tail.add("next", &next(told, chosen));
    }
    format!("{}{table}{}", head.text, tail.text)
}

/// Who would answer if `chosen` failed.
fn next(told: &Explanation, chosen: &str) -> String {
    let Some(next) = &told.next else { return format!("none: no other region can answer if {chosen} fails") };
    let estimate = told.candidates.iter().find(|candidate| candidate.region == *next).and_then(|it| it.estimate_ms);
    let estimate = estimate.map_or_else(String::new, |ms| format!(" ({ms:.1} ms)"));
    format!("{next}{estimate}, if {chosen} fails")
}

fn client(client: &ClientView) -> String {
    let mut parts = vec![client.prefix.clone()];
    parts.extend(client.country.clone());
    parts.extend(client.asn.map(|asn| format!("AS{asn}")));
    match (client.latitude, client.longitude) {
        (Some(latitude), Some(longitude)) => {
            parts.push(format!("{} {}", degrees(latitude, 'N', 'S'), degrees(longitude, 'E', 'W')));
        }
        _ => parts.push("place unknown".into()),
    }
    let source = match client.source.as_str() {
        "none" => String::new(),
        "built-in" => " (built-in table)".into(),
        source => format!(" ({source})"),
    };
    format!("{}{source}", parts.join(", "))
}

fn degrees(value: f32, positive: char, negative: char) -> String {
    format!("{:.2} {}", value.abs(), if value < 0.0 { negative } else { positive })
}

fn scope(told: &Explanation) -> String {
    let network = |len: u8| {
        let address = told.client.address.parse().ok()?;
        Some(IpNet::new(address, len).ok()?.trunc().to_string())
    };
    match told.scope {
        None => "none: the query has no client subnet".into(),
        Some(0) => "/0: the same answer for every client".into(),
        Some(len) => match network(len) {
            Some(network) => format!("/{len}: a resolver may give this answer to all of {network}"),
            None => format!("/{len}"),
        },
    }
}

fn candidates(told: &Explanation, palette: Palette) -> String {
    let mut table = Table::new(&[
        ("RANK", Align::Right),
        ("REGION", Align::Left),
        ("EST. MS", Align::Right),
        ("+/-", Align::Right),
        ("MARGIN", Align::Right),
        ("SOURCE", Align::Left),
        ("KM", Align::Right),
        ("HEALTH", Align::Left),
        ("WHY", Align::Left),
    ]);
    for (n, candidate) in told.candidates.iter().enumerate() {
        let is_ranked = candidate.reason != explain::LEFT_OUT;
        let is_chosen = told.chosen.as_ref() == Some(&candidate.region);
        table.row([
            Cell::optional(is_ranked.then(|| (n + 1).to_string())),
            Cell::new(&candidate.region, if is_chosen { Tone::Strong } else { Tone::Plain }),
            Cell::ms(candidate.estimate_ms.map(f64::from)),
            Cell::ms(candidate.uncertainty_ms.map(f64::from)),
            Cell::ms(candidate.margin_ms.map(f64::from)),
            Cell::optional(source(candidate)),
            Cell::optional(candidate.distance_km.map(|km| format!("{km:.0}"))),
            health(candidate),
            candidate.reason.as_str().into(),
        ]);
    }
    table.render(palette)
}

/// Regions that the cables lead to by a long way round.
fn detours(told: &Explanation) -> String {
    let text: String = told
        .candidates
        .iter()
        .filter(|candidate| candidate.detour_ms >= 0.5 && candidate.estimate_ms.is_some())
        .map(|Candidate { region, detour_ms, .. }| {
            format!(
                "detour    {region}: {detour_ms:.0} ms of its estimate, since the cables lead there by a longer way\n"
            )
        })
        .collect();
    if text.is_empty() { text } else { format!("{text}\n") }
}

/// Regions that are harder to reach than usual.
fn penalties(told: &Explanation) -> String {
    let risen =
        told.candidates.iter().filter(|candidate| candidate.penalty_ms > 0.0 && candidate.estimate_ms.is_some());
    let text: String = risen
        .map(|candidate| {
            let (region, ms) = (&candidate.region, candidate.penalty_ms);
            format!("rise      {region}: {ms:.0} ms of its estimate, since connecting to it takes longer than usual\n")
        })
        .collect();
    if text.is_empty() { text } else { format!("{text}\n") }
}

/// Who sees what, where the servers of a cluster do not all see an endpoint up.
fn differences(told: &Explanation) -> String {
    let mut text = String::new();
    for candidate in &told.candidates {
        for seen in candidate.seen.iter().filter(|seen| seen.by.values().any(|state| state != "up")) {
            let by: Vec<String> = seen.by.iter().map(|(node, state)| format!("{node}: {state}")).collect();
            text += &format!("seen      {} {}: {}\n", candidate.region, seen.endpoint, by.join("; "));
        }
    }
    if text.is_empty() { text } else { format!("{text}\n") }
}

fn source(candidate: &Candidate) -> Option<String> {
    let source = candidate.source.as_ref()?;
    let samples = match candidate.samples {
        0 => return Some(source.clone()),
        1 => "1 sample".to_string(),
        n => format!("{n} samples"),
    };
    Some(match candidate.age_s {
        None => format!("{source} ({samples})"),
        Some(age_s) => format!("{source} ({samples}, {} old)", span(age_s)),
    })
}

fn health(candidate: &Candidate) -> Cell {
    let (word, tone) = if candidate.healthy { ("up", Tone::Good) } else { ("down", Tone::Bad) };
    match &candidate.forced {
        None => Cell::new(word, tone),
        Some(forced) => Cell::new(&format!("{word} (forced {forced})"), Tone::Warn),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(region: &str, ms: Option<f32>, km: Option<f64>, healthy: bool, reason: &str) -> Candidate {
        Candidate {
            region: region.into(),
            estimate_ms: ms,
            source: ms.map(|_| "model".into()),
            samples: 0,
            age_s: None,
            uncertainty_ms: ms.map(|ms| ms / 4.0),
            margin_ms: ms.map(|ms| ms - 4.2),
            penalty_ms: 0.0,
            detour_ms: 0.0,
            distance_km: km,
            healthy,
            forced: None,
            reason: reason.into(),
            seen: Vec::new(),
        }
    }

    fn failover() -> Explanation {
        Explanation {
            name: "www.app.geo.example.".into(),
            qtype: "A".into(),
            client: ClientView {
                address: "203.0.113.0".into(),
                prefix: "203.0.113.0/24".into(),
                country: Some("DE".into()),
                asn: Some(64500),
                latitude: Some(50.11),
                longitude: Some(-8.68),
                source: "database".into(),
            },
            zone: Some("geo.example.".into()),
            route: Some("*.app".into()),
            rule: Some("continent:EU".into()),
            policy: Some("latency".into()),
            candidates: vec![
                candidate("frankfurt", Some(4.2), Some(3.4), false, "down: 192.0.2.1: connection refused"),
                Candidate {
                    penalty_ms: 31.2,
                    detour_ms: 12.3,
                    ..candidate("us", Some(88.04), Some(6553.0), true, "chosen: those ranked before it are not usable")
                },
                Candidate {
                    samples: 12,
                    age_s: Some(7200),
                    ..candidate("sa", Some(180.0), Some(9900.4), true, "ranked after the chosen one")
                },
                candidate("ap", None, None, true, explain::LEFT_OUT),
            ],
            chosen: Some("us".into()),
            next: Some("sa".into()),
            answer: vec!["192.0.2.10".into(), "192.0.2.11".into()],
            ttl: Some(60),
            scope: Some(20),
            rcode: "NOERROR".into(),
        }
    }

    #[test]
    fn a_failover_is_told_with_its_reasons() {
        insta::assert_snapshot!(shown(&failover(), Palette::none()), @r"
        question  www.app.geo.example. A
        client    203.0.113.0/24, DE, AS64500, 50.11 N 8.68 W (database)
        zone      geo.example.
        route     *.app (policy latency)
        rule      continent:EU

        RANK  REGION     EST. MS   +/-  MARGIN  SOURCE                         KM  HEALTH  WHY
           1  frankfurt      4.2   1.0     0.0  model                           3  down    down: 192.0.2.1: connection refused
           2  us            88.0  22.0    83.8  model                        6553  up      chosen: those ranked before it are not usable
           3  sa           180.0  45.0   175.8  model (12 samples, 2 h old)  9900  up      ranked after the chosen one
           -  ap               -     -       -  -                               -  up      left out by the rule

        detour    us: 12 ms of its estimate, since the cables lead there by a longer way

        rise      us: 31 ms of its estimate, since connecting to it takes longer than usual

        chosen    us
        answer    192.0.2.10
                  192.0.2.11
        ttl       60 s
        scope     /20: a resolver may give this answer to all of 203.0.112.0/20
        rcode     NOERROR
        next      sa (180.0 ms), if us fails
        ");
    }

    #[test]
    fn a_name_outside_the_zones_has_little_to_tell() {
        let told = Explanation {
            zone: None,
            route: None,
            rule: None,
            policy: None,
            candidates: Vec::new(),
            chosen: None,
            next: None,
            answer: Vec::new(),
            ttl: None,
            scope: None,
            rcode: "REFUSED".into(),
            client: ClientView {
                address: "127.0.0.1".into(),
                prefix: "127.0.0.1/32".into(),
                country: None,
                asn: None,
                latitude: None,
                longitude: None,
                source: "none".into(),
            },
            ..failover()
        };
        insta::assert_snapshot!(shown(&told, Palette::none()), @r"
        question  www.app.geo.example. A
        client    127.0.0.1/32, place unknown
        zone      none: the name lies outside this server's zones
        answer    no records
        ttl       -
        scope     none: the query has no client subnet
        rcode     REFUSED
        ");
    }

    #[test]
    fn a_static_record_is_the_same_for_all() {
        let told = Explanation {
            route: None,
            rule: None,
            policy: None,
            candidates: Vec::new(),
            chosen: None,
            next: None,
            answer: vec!["\"v=spf1\u{1b}[2J\"".into()],
            scope: Some(0),
            ..failover()
        };
        insta::assert_snapshot!(shown(&told, Palette::none()), @r#"
        question  www.app.geo.example. A
        client    203.0.113.0/24, DE, AS64500, 50.11 N 8.68 W (database)
        zone      geo.example.
        route     none: static records, or no such name
        answer    "v=spf1\u{1b}[2J"
        ttl       60 s
        scope     /0: the same answer for every client
        rcode     NOERROR
        "#);
    }

    #[test]
    fn without_a_server_it_reads_the_default_configuration() {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let args = ExplainArgs {
            name: parse_name("status.geo.example.com").unwrap(),
            client: None,
            qtype: explain::parse_qtype("A").unwrap(),
            admin: None,
            file: ConfigFile { path: None },
            json: false,
        };
        let told = wherever(&args, gone.to_string().parse().unwrap()).unwrap();
        assert_eq!(told.answer, ["192.0.2.80"]); // config/isochrone.toml, from the package's folder
    }

    #[test]
    fn an_override_is_told_beside_the_health() {
        let forced = Candidate { forced: Some("drain".into()), ..candidate("eu", None, None, true, "usable") };
        assert_eq!(health(&forced), Cell::new("up (forced drain)", Tone::Warn));
    }

    #[test]
    fn who_sees_what_is_told_where_the_servers_differ() {
        let seen = |endpoint: &str, by: &[(&str, &str)]| explain::SeenEndpoint {
            endpoint: endpoint.into(),
            consensus: None,
            by: by.iter().map(|(node, state)| (node.to_string(), state.to_string())).collect(),
        };
        let mut told = failover();
        told.candidates[0].seen = vec![
            seen("192.0.2.1", &[("eu-1", "down"), ("us-1", "up"), ("ap-1", "down, does not count")]),
            seen("192.0.2.2", &[("eu-1", "up"), ("us-1", "up")]),
        ];
        assert_eq!(
            differences(&told),
            "seen      frankfurt 192.0.2.1: ap-1: down, does not count; eu-1: down; us-1: up\n\n"
        );
        assert_eq!(differences(&failover()), "");
    }
}
