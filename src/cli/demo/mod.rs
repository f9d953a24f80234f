//! `isochrone demo`: the newcomer's first minute. The real server on a real configuration; only the three regions are stand-ins,
//! which are real HTTP servers on loopback that can really be stopped.

mod standins;
mod tour;
mod watcher;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, anyhow};
use clap::Args;

use self::standins::StandIns;
use super::terminal::print;
use crate::{
    config::{self, Source},
    server::{self, ServeError},
    telemetry::logs::{self, LogFormat},
};

/// Try it: a server with three stand-in regions on this computer, and what to ask it
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  isochrone demo\n\nIt prints what to try, touches nothing outside this computer, and ends with Ctrl-C."
)]
pub struct DemoArgs {
    /// Where to answer DNS, over UDP and TCP
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5300")]
    listen: SocketAddr,
    /// Where to put the admin interface
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8053")]
    admin: SocketAddr,
    /// Print the configuration that the demo runs on, and end
    #[arg(long)]
    print_config: bool,
}

/// A region that the demo plays.
struct Site {
    /// Its name.
    region: &'static str,
    /// Its place in the gazetteer.
    location: &'static str,
    /// Where its stand-in listens.
    address: Ipv4Addr,
    /// The city there, and a network of clients near it.
    client: Client,
}

/// Clients to ask for.
struct Client {
    city: &'static str,
    network: &'static str,
}

/// The regions in the order of the file. The networks are real ones in those cities.
const SITES: [Site; 3] = [
    Site {
        region: "us",
        location: "aws:us-east-1",
        address: Ipv4Addr::new(127, 0, 1, 1),
        client: Client { city: "Ashburn", network: "3.80.0.0/24" },
    },
    Site {
        region: "eu",
        location: "aws:eu-central-1",
        address: Ipv4Addr::new(127, 0, 2, 1),
        client: Client { city: "Frankfurt", network: "18.184.0.0/24" },
    },
    Site {
        region: "ap",
        location: "aws:ap-southeast-1",
        address: Ipv4Addr::new(127, 0, 3, 1),
        client: Client { city: "Singapore", network: "165.21.0.0/24" },
    },
];

/// The name that the tour asks for.
const NAME: &str = "app.geo.example";

/// Serves until Ctrl-C.
pub fn run(args: &DemoArgs, format: LogFormat) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let stand_ins = runtime.block_on(StandIns::start()).context("cannot run the stand-in regions")?;
    let text = configuration(args.listen, args.admin, stand_ins.port());
    if args.print_config {
        print(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    logs::init(format)?;
    let control = runtime.block_on(standins::serve_control(stand_ins)).context("cannot run the demo's own controls")?;
    let source = Arc::new(Source { name: "demo".into(), text });
    let config = config::parse(source, Path::new(""))?;
    let served = server::serve_config(config, PathBuf::from("isochrone demo --print-config"), |ready| {
        let stage = tour::Stage { ready: ready.clone(), control: control.address, port: control.port };
        if let Err(error) = print(&tour::text(&stage)) {
            tracing::warn!(%error, "the tour could not be printed");
        }
        if let Some(admin) = ready.admin {
            runtime.spawn(watcher::watch(admin));
        }
    });
    runtime.shutdown_background(); // the stand-ins have nothing to finish
    match served {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(with_flag(error, args)),
    }
}

/// An address that is taken is no fault of a configuration here: the remedy is a flag.
fn with_flag(error: ServeError, args: &DemoArgs) -> anyhow::Error {
    let next = |address: SocketAddr| SocketAddr::new(address.ip(), address.port().saturating_add(1));
    match error {
        ServeError::Bind(errors) => {
            let taken: Vec<String> =
                errors.iter().map(|e| format!("{} {}: {}", e.protocol, e.address, e.reason)).collect();
            let remedy = next(args.listen);
            anyhow!("cannot listen on {}; choose another address, such as `--listen {remedy}`", taken.join(", on "))
        }
        ServeError::BindAdmin { address, reason } => {
            let remedy = next(address);
            anyhow!(
                "cannot listen on {address} for the admin interface: {reason}; choose another address, such as `--admin {remedy}`"
            )
        }
        error => error.into(),
    }
}

/// The configuration that the demo runs on, and that `--print-config` shows.
fn configuration(listen: SocketAddr, admin: SocketAddr, port: u16) -> String {
    let mut text = format!(
        r#"# What `isochrone demo` runs on: three regions, whose endpoints are stand-ins on loopback.

[server]
listen = ["{listen}"]

[admin]
listen = "{admin}"

[checks.web]
type = "http"
port = {port}
path = "/health"
interval = "1s"      # impatient, so that a failure shows within 4 seconds
fast-interval = "1s"
timeout = "500ms"
"#
    );
    for site in &SITES {
        let Site { region, location, address, .. } = site;
        text +=
            &format!("\n[regions.{region}]\nlocation = \"{location}\"\nendpoints = [\"{address}\"]\ncheck = \"web\"\n");
    }
    text += r#"
[zones."geo.example"]
nameservers = ["ns1.geo.example."]
addresses = { ns1 = ["127.0.0.1"] }
ttl = 5
negative-ttl = 5

[zones."geo.example".routes.app]     # every region, nearest first

[zones."geo.example".routes."*.app"]
"#;
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        answer::explain::{Explanation, Request, parse_client},
        server::World,
        wire::{Name, rtype},
    };

    fn world() -> World {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let source = Source { name: "demo".into(), text: configuration(any, any, 8081) };
        let config = config::parse(Arc::new(source), Path::new("")).unwrap_or_else(|report| panic!("{report}"));
        World::compile(config, Path::new("demo")).unwrap_or_else(|report| panic!("{report}"))
    }

    fn explain(world: &World, name: &str, network: &str) -> Explanation {
        let name = Name::parse(name, &Name::root()).unwrap();
        world.explain(&Request { name, qtype: rtype::A, client: Some(parse_client(network).unwrap()) })
    }

    #[test]
    fn each_city_is_answered_with_its_region() {
        let world = world();
        for site in &SITES {
            for name in [NAME, "anything.app.geo.example"] {
                let told = explain(&world, name, site.client.network);
                assert_eq!(told.chosen.as_deref(), Some(site.region), "{told:?}");
                assert_eq!(told.answer, [site.address.to_string()]);
                assert_eq!(told.ttl, Some(5));
            }
        }
    }

    #[test]
    fn without_eu_its_clients_go_where_the_tour_says() {
        let told = explain(&world(), NAME, tour::failing().client.network);
        let ranked: Vec<&str> = told.candidates.iter().map(|candidate| candidate.region.as_str()).collect();
        assert_eq!(ranked[..2], [tour::failing().region, tour::NEXT_REGION], "{told:?}");
    }

    #[test]
    fn the_configuration_is_what_the_tour_promises() {
        let check = &world().config.checks[0];
        assert_eq!((check.interval.as_millis(), check.fast_interval.as_millis()), (1000, 1000));
        assert_eq!((check.timeout.as_millis(), check.fall, check.rise), (500, 3, 2));
    }
}
