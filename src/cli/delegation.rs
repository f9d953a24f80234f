//! `isochrone delegation`: what to give to the zone above, or to the registrar, so that the world asks these servers.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    process::ExitCode,
};

use anyhow::anyhow;
use clap::Args;

use super::{ConfigFile, terminal::print};
use crate::{
    config::{self, model::Config},
    wire::{Name, rtype},
    zone::content::{self, RrSet, ZoneContent},
};

/// Print the records that delegate a zone: for the zone above it, or for the registrar
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isochrone delegation geo.example.com")]
pub struct DelegationArgs {
    /// The zone
    #[arg(value_parser = parse_zone)]
    zone: Name,
    #[command(flatten)]
    file: ConfigFile,
}

fn parse_zone(text: &str) -> Result<Name, String> {
    Name::parse(text, &Name::root()).map_err(|error| error.to_string())
}

/// Prints a zone's delegation.
pub fn run(args: &DelegationArgs) -> anyhow::Result<ExitCode> {
    let path = args.file.path()?;
    let config = config::load(&path)?;
    let zones = content::gather(&config)?;
    let zone = zones
        .iter()
        .find(|zone| zone.origin == args.zone)
        .ok_or_else(|| unknown(&args.zone, &path, zones.iter().map(|zone| &zone.origin)))?;
    print(&shown(zone, &config))?;
    Ok(ExitCode::SUCCESS)
}

fn unknown<'z>(asked: &Name, path: &Path, known: impl Iterator<Item = &'z Name>) -> anyhow::Error {
    let known: Vec<String> = known.map(|name| format!("  {name}")).collect();
    anyhow!("{} has no zone `{asked}`; its zones are\n{}", path.display(), known.join("\n"))
}

/// A name server as the zone above must know it.
struct Server {
    name: Name,
    is_inside: bool,
    addresses: Vec<IpAddr>,
}

fn servers(zone: &ZoneContent, ns: &RrSet) -> Vec<Server> {
    let server = |rdata: &Vec<u8>| {
        let name = Name::from_wire(rdata).expect("NS data is one name");
        Server { is_inside: name.is_within(&zone.origin), addresses: addresses(zone, &name), name }
    };
    ns.rdatas.iter().map(server).collect()
}

fn find<'z>(zone: &'z ZoneContent, owner: &Name, rtype: u16) -> Option<&'z RrSet> {
    zone.rrsets.iter().find(|set| set.rtype == rtype && set.owner == *owner)
}

/// The addresses that stand at exactly this name.
fn addresses(zone: &ZoneContent, name: &Name) -> Vec<IpAddr> {
    let rdatas = |rtype| find(zone, name, rtype).map_or(&[][..], |set| &set.rdatas);
    let v4 =
        rdatas(rtype::A).iter().filter_map(|data| Some(Ipv4Addr::from(<[u8; 4]>::try_from(&data[..]).ok()?).into()));
    let v6 = rdatas(rtype::AAAA)
        .iter()
        .filter_map(|data| Some(Ipv6Addr::from(<[u8; 16]>::try_from(&data[..]).ok()?).into()));
    v4.chain(v6).collect()
}

fn shown(zone: &ZoneContent, config: &Config) -> String {
    let ns = find(zone, &zone.origin, rtype::NS).expect("a zone has NS records: the loader sees to it");
    let servers = servers(zone, ns);
    let (origin, ttl_s) = (&zone.origin, ns.ttl_s);
    let glue: Vec<(&Name, IpAddr)> = servers
        .iter()
        .filter(|server| server.is_inside)
        .flat_map(|server| server.addresses.iter().map(|address| (&server.name, *address)))
        .collect();
    let width =
        glue.iter().map(|(name, _)| *name).chain([origin]).map(|name| name.to_string().len()).max().unwrap_or(0);
    let mut out = format!(
        "; Delegation of {origin}\n\
         ; Put these lines into the zone above it. Where a registrar keeps that, enter\n\
         ; the name servers in its form, and their addresses where lines for them follow.\n\n"
    );
    let mut record = |owner: &Name, rtype: &str, data: &str| {
        let owner = owner.to_string();
        let _ = writeln!(out, "{owner:<width$}  {ttl_s}  IN  {rtype:<4}  {data}"); // writing into a String cannot fail
    };
    for server in &servers {
        record(origin, "NS", &server.name.to_string());
    }
    for (name, address) in &glue {
        record(name, if address.is_ipv4() { "A" } else { "AAAA" }, &address.to_string());
    }
    if let Some(keys) = &zone.keys {
        record(origin, "DS", &keys.main().ds_text(origin));
    }
    out.push('\n');
    for note in notes(zone, &servers, config) {
        let _ = writeln!(out, "; {note}");
    }
    out
}

/// What to see to, and how to see that it works.
fn notes(zone: &ZoneContent, servers: &[Server], config: &Config) -> Vec<String> {
    let origin = &zone.origin;
    let mut notes = Vec::new();
    if let [only] = servers {
        notes.push(format!("WARNING: {} is the only name server. When it is away, so is", only.name));
        notes.push("         every name of the zone; run a second one, in another place.".into());
    }
    for server in servers.iter().filter(|server| server.is_inside && server.addresses.is_empty()) {
        notes.push(format!("WARNING: {} lies inside the zone and has no address of its", server.name));
        notes.push("         own, so nobody can find it: give it one with `addresses`.".into());
    }
    for address in servers.iter().flat_map(|server| &server.addresses) {
        if crate::geo::special::is_special(*address) {
            notes.push(format!("WARNING: {address} is not an address of the public Internet."));
        }
    }
    for server in servers.iter().filter(|server| !server.is_inside) {
        notes.push(format!("{} must have its addresses in the zone it belongs to.", server.name));
    }
    match &zone.keys {
        None => {
            notes.push("DS: none, the zone is not signed. Should the zone above hold a DS record for".into());
            notes.push("it, have it removed: validating resolvers would refuse every answer.".into());
        }
        Some(keys) => {
            notes.push("DS: hand it in when every server of the zone answers with signatures, and no".into());
            notes.push("sooner.".into());
            if keys.is_announced() {
                notes.push("A zone above that looks for it by itself (RFC 8078) finds here:".into());
                notes.push(format!("  {origin} CDS {}", keys.main().ds_text(origin)));
                notes.push(format!("  {origin} CDNSKEY {}", keys.main().dnskey_text()));
            }
        }
    }
    notes.push("When all is done, each name server must answer, and so must the world:".into());
    for server in servers {
        let at = server.addresses.first().map_or_else(|| server.name.to_string(), ToString::to_string);
        notes.push(format!("  dig @{at} {origin} SOA +norecurse"));
    }
    let routes = config.zones.iter().find(|zone| zone.origin == *origin).map_or(&[][..], |zone| &zone.routes);
    let asked =
        routes.first().map_or_else(|| origin.to_string(), |route| route.owner.to_string().replacen('*', "www", 1));
    notes.push(format!("  dig {asked} +trace"));
    notes
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Source;

    fn delegation(zone: &str) -> String {
        let text = format!(
            "[regions.us]\nlocation = \"IAD\"\nendpoints = [\"192.0.2.1\"]\n[zones.\"geo.example.com\"]\n{zone}\n\
             [zones.\"geo.example.com\".routes.\"*.app\"]\n"
        );
        let config = config::parse(Arc::new(Source { name: "a.toml".into(), text }), Path::new("")).unwrap();
        let zones = content::gather(&config).unwrap();
        shown(&zones[0], &config)
    }

    #[test]
    fn glue_is_given_for_name_servers_inside_the_zone() {
        let zone = "nameservers = [\"ns1.geo.example.com.\", \"ns2.geo.example.com.\"]\n\
                    addresses = { ns1 = [\"9.9.9.9\", \"2620:fe::fe\"], ns2 = [\"149.112.112.112\"] }";
        insta::assert_snapshot!(delegation(zone), @r"
        ; Delegation of geo.example.com.
        ; Put these lines into the zone above it. Where a registrar keeps that, enter
        ; the name servers in its form, and their addresses where lines for them follow.

        geo.example.com.      3600  IN  NS    ns1.geo.example.com.
        geo.example.com.      3600  IN  NS    ns2.geo.example.com.
        ns1.geo.example.com.  3600  IN  A     9.9.9.9
        ns1.geo.example.com.  3600  IN  AAAA  2620:fe::fe
        ns2.geo.example.com.  3600  IN  A     149.112.112.112

        ; DS: none, the zone is not signed. Should the zone above hold a DS record for
        ; it, have it removed: validating resolvers would refuse every answer.
        ; When all is done, each name server must answer, and so must the world:
        ;   dig @9.9.9.9 geo.example.com. SOA +norecurse
        ;   dig @149.112.112.112 geo.example.com. SOA +norecurse
        ;   dig www.app.geo.example.com. +trace
        ");
    }

    #[test]
    fn name_servers_elsewhere_need_no_glue_and_one_is_not_enough() {
        insta::assert_snapshot!(delegation("nameservers = [\"ns1.example.net.\"]"), @r"
        ; Delegation of geo.example.com.
        ; Put these lines into the zone above it. Where a registrar keeps that, enter
        ; the name servers in its form, and their addresses where lines for them follow.

        geo.example.com.  3600  IN  NS    ns1.example.net.

        ; WARNING: ns1.example.net. is the only name server. When it is away, so is
        ;          every name of the zone; run a second one, in another place.
        ; ns1.example.net. must have its addresses in the zone it belongs to.
        ; DS: none, the zone is not signed. Should the zone above hold a DS record for
        ; it, have it removed: validating resolvers would refuse every answer.
        ; When all is done, each name server must answer, and so must the world:
        ;   dig @ns1.example.net. geo.example.com. SOA +norecurse
        ;   dig www.app.geo.example.com. +trace
        ");
    }

    #[test]
    fn written_name_servers_count() {
        let zone = "records = \"\"\"\n@ 300 SOA ns1 hostmaster 1 3600 600 86400 60\n@ 300 NS ns1\n@ 300 NS a.b.app\n\
                    ns1 A 10.0.0.1\n\"\"\"";
        insta::assert_snapshot!(delegation(zone), @r"
        ; Delegation of geo.example.com.
        ; Put these lines into the zone above it. Where a registrar keeps that, enter
        ; the name servers in its form, and their addresses where lines for them follow.

        geo.example.com.      300  IN  NS    a.b.app.geo.example.com.
        geo.example.com.      300  IN  NS    ns1.geo.example.com.
        ns1.geo.example.com.  300  IN  A     10.0.0.1

        ; WARNING: a.b.app.geo.example.com. lies inside the zone and has no address of its
        ;          own, so nobody can find it: give it one with `addresses`.
        ; WARNING: 10.0.0.1 is not an address of the public Internet.
        ; DS: none, the zone is not signed. Should the zone above hold a DS record for
        ; it, have it removed: validating resolvers would refuse every answer.
        ; When all is done, each name server must answer, and so must the world:
        ;   dig @a.b.app.geo.example.com. geo.example.com. SOA +norecurse
        ;   dig @10.0.0.1 geo.example.com. SOA +norecurse
        ;   dig www.app.geo.example.com. +trace
        ");
    }
}
