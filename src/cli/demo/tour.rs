//! What the demo prints: what runs, and what to try, every line of it ready to be copied.

use std::{env, net::SocketAddr, path::Path};

use super::{NAME, SITES, Site};
use crate::server::Ready;

/// Where to everything is.
pub struct Stage {
    /// The server.
    pub ready: Ready,
    /// What stops and starts regions.
    pub control: SocketAddr,
    /// The stand-ins' port.
    pub port: u16,
}

/// Where the failing region's clients go.
pub const NEXT_REGION: &str = "us";

/// The region that the tour fails.
pub fn failing() -> &'static Site {
    SITES.iter().find(|site| site.region == "eu").expect("the demo has a region eu")
}

/// The whole tour; no line is longer than 80 columns unless the program's own path is long.
pub fn text(stage: &Stage) -> String {
    let dns = stage.ready.listen.first().copied().unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 5300)));
    let dig = format!("dig @{} -p {}", dns.ip(), dns.port());
    let program = program();
    let Site { region: eu, client, address: eu_address, .. } = failing();
    let mut out = "\nThree regions run on this computer; the zone geo.example knows them all.\n\n".to_string();
    for Site { region, location, address, client } in &SITES {
        let url = format!("http://{address}:{}/", stage.port);
        out += &format!("  {region}  {url:<24}  stands in for {location} ({})\n", client.city);
    }
    out += &format!(
        "\n1. Ask for the same name as clients in three cities; each gets its own region.\n   Any name below it works as well, such as shop.{NAME}.\n\n"
    );
    for Site { region, address, client, .. } in &SITES {
        out += &format!("   # {}: {address} ({region})\n", client.city);
        out += &format!("   {dig} {NAME} A +subnet={} +short\n", client.network);
    }
    out += &format!(
        "\n2. Why that answer?\n\n   {program} explain {NAME} --client {}{}\n",
        client.network,
        stage
            .ready
            .admin
            .filter(|admin| admin.to_string() != "127.0.0.1:8053")
            .map_or_else(String::new, |admin| { format!(" \\\n     --admin http://{admin}") })
    );
    out += &format!(
        "\n3. Fail {eu}: its stand-in stops listening. Three checks, a second apart, must\n   fail; within 4 seconds {}'s clients get {NEXT_REGION}, and a line here says so.\n   (A resolver in between may keep the old answer for its TTL, 5 seconds.)\n\n   curl -X POST http://{}/{eu}/stop\n",
        client.city, stage.control
    );
    out += &format!(
        "\n4. Bring it back: two checks must succeed, and within 4 seconds its clients\n   get {eu_address} again.\n\n   curl -X POST http://{}/{eu}/start\n",
        stage.control
    );
    if let Some(admin) = stage.ready.admin {
        out += &format!(
            "\nAdmin interface  http://{admin}/  (/metrics, /api/v1/status)\nOverview         {program} status{}\n",
            if admin.to_string() == "127.0.0.1:8053" { String::new() } else { format!(" --admin http://{admin}") }
        );
    }
    out += &format!("Configuration    {program} demo --print-config\n\nCtrl-C ends it.\n\n");
    out
}

/// The program as it was called, so that the lines of the tour can be copied; the bare name where that is simpler.
fn program() -> String {
    env::args()
        .next()
        .filter(|name| Path::new(name).components().count() > 1 && !name.contains(' '))
        .unwrap_or_else(|| "isochrone".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tour_is_ready_to_be_copied_and_fits_80_columns() {
        let stage = Stage {
            ready: Ready {
                listen: vec!["127.0.0.1:5300".parse().unwrap()],
                encrypted: Default::default(),
                admin: Some("127.0.0.1:8053".parse().unwrap()),
            },
            control: "127.0.0.1:8054".parse().unwrap(),
            port: 8081,
        };
        let shown = text(&stage).replace(&program(), "isochrone");
        let widest = shown.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(80), "{widest:?}: {shown}");
        insta::assert_snapshot!(shown, @r"
        Three regions run on this computer; the zone geo.example knows them all.

          us  http://127.0.1.1:8081/    stands in for aws:us-east-1 (Ashburn)
          eu  http://127.0.2.1:8081/    stands in for aws:eu-central-1 (Frankfurt)
          ap  http://127.0.3.1:8081/    stands in for aws:ap-southeast-1 (Singapore)

        1. Ask for the same name as clients in three cities; each gets its own region.
           Any name below it works as well, such as shop.app.geo.example.

           # Ashburn: 127.0.1.1 (us)
           dig @127.0.0.1 -p 5300 app.geo.example A +subnet=3.80.0.0/24 +short
           # Frankfurt: 127.0.2.1 (eu)
           dig @127.0.0.1 -p 5300 app.geo.example A +subnet=18.184.0.0/24 +short
           # Singapore: 127.0.3.1 (ap)
           dig @127.0.0.1 -p 5300 app.geo.example A +subnet=165.21.0.0/24 +short

        2. Why that answer?

           isochrone explain app.geo.example --client 18.184.0.0/24

        3. Fail eu: its stand-in stops listening. Three checks, a second apart, must
           fail; within 4 seconds Frankfurt's clients get us, and a line here says so.
           (A resolver in between may keep the old answer for its TTL, 5 seconds.)

           curl -X POST http://127.0.0.1:8054/eu/stop

        4. Bring it back: two checks must succeed, and within 4 seconds its clients
           get 127.0.2.1 again.

           curl -X POST http://127.0.0.1:8054/eu/start

        Admin interface  http://127.0.0.1:8053/  (/metrics, /api/v1/status)
        Overview         isochrone status
        Configuration    isochrone demo --print-config

        Ctrl-C ends it.
        ");
    }
}
