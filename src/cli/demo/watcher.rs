//! Tells in the demo's log where the clients of each city go, as soon as that changes: asked of the running server, as anybody
//! could.

use std::{net::SocketAddr, time::Duration};

use super::{NAME, SITES};
use crate::{
    answer::explain::Explanation,
    cli::remote::{AdminUrl, Remote},
};

/// How often it asks.
const EVERY: Duration = Duration::from_millis(250);

/// Watches for as long as the runtime lives.
pub async fn watch(admin: SocketAddr) {
    let url: AdminUrl = match format!("http://{admin}").parse() {
        Ok(url) => url,
        Err(error) => return tracing::debug!(%error, "the demo cannot watch itself"),
    };
    let remote = match Remote::new(url) {
        Ok(remote) => remote,
        Err(error) => return tracing::debug!(%error, "the demo cannot watch itself"),
    };
    let mut last: [Option<String>; SITES.len()] = SITES.map(|site| Some(site.region.to_string()));
    loop {
        for (site, last) in SITES.iter().zip(&mut last) {
            let question = [("name", NAME), ("client", site.client.network), ("type", "A")];
            // An error means that the server is stopping, or too busy for the moment.
            let Ok(told) = remote.get::<Explanation>("/api/v1/explain", &question).await else { continue };
            if told.chosen != *last {
                tell(site.client.city, last.as_deref(), &told);
                *last = told.chosen;
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn tell(city: &str, before: Option<&str>, told: &Explanation) {
    let now = told.chosen.as_deref().unwrap_or("none");
    let before = before.unwrap_or("none");
    let why = told.candidates.iter().find(|candidate| candidate.region == now).map_or("", |c| c.reason.as_str());
    tracing::info!("clients in {city}: {before} -> {now} ({why})");
}
