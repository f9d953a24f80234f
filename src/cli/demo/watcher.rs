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

/// Says where they go now, and why: what is wrong with where they went before, or else what is right with the new one.
fn tell(city: &str, before: Option<&str>, told: &Explanation) {
    let candidate = |region: Option<&str>| told.candidates.iter().find(|c| Some(c.region.as_str()) == region);
    let now = told.chosen.as_deref();
    let why = match (candidate(before), candidate(now)) {
        (Some(left), _) if !left.healthy => format!("{} is {}", left.region, left.reason),
        (_, Some(taken)) => taken.reason.clone(),
        _ => "nothing to choose from".into(),
    };
    tracing::info!("clients in {city}: {} -> {} ({why})", before.unwrap_or("none"), now.unwrap_or("none"));
}
