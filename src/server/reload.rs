//! A configuration that is taken up while the server runs, and what its author should know of it.

use std::{net::SocketAddr, sync::Arc};

use super::{
    eyes,
    live::Live,
    open_files::OpenFiles,
    parallel::{at_leisure, free},
    world::{Past, World},
};
use crate::{
    config::{
        self, AdminToken, Report,
        cookie_secrets::is_open_to_others,
        model::{Config, Encrypted},
    },
    health::Prober,
    transport::Serving,
};

/// Reads the configuration again; says what is served then. An error keeps what is running, and is told in full.
///
/// # Errors
/// All that is wrong with it, in words.
pub async fn reload(live: &Arc<Live>, prober: &Prober, serving: &Serving, why: &str) -> Result<String, String> {
    tracing::info!("reloading: {why}");
    let before = live.world();
    let running = before.clone();
    let live_then = live.clone();
    let load = move || {
        let config = at_leisure(|| config::load(&running.path))?;
        // Not at leisure: others wait for the locks of these.
        let (learnt, penalties_ms) = (eyes::rows(&live_then, &config), live_then.rises.penalties(&config));
        let past = Past { before: Some(&running), learnt, penalties_ms };
        at_leisure(|| {
            let world = World::compile_after(config, &running.path, past)?;
            Ok::<_, Report>(live_then.make_ready(world))
        })
    };
    let loaded = tokio::task::spawn_blocking(load).await;
    match loaded {
        Ok(Ok(ready)) => {
            let world = ready.world();
            tell_what_needs_a_restart(&before.config, &world.config);
            tell_of_secrets(&world);
            serving.set_limits(&world.config.server.limits);
            live.take_up(ready, prober);
            free(before);
            world.log_warnings();
            OpenFiles::of(&world.config.server).tell_if_short(world.targets());
            tracing::info!("reloaded: {}", world.summary());
            Ok(world.summary())
        }
        Ok(Err(report)) => {
            tracing::error!("reload refused, the running configuration stays:\n{report}");
            live.reload_failed(report.summary());
            Err(report.to_string())
        }
        Err(error) => {
            live.count_panic("reload");
            let why = format!("the reload panicked: {error}");
            live.reload_failed(why.clone());
            Err(why)
        }
    }
}

/// Who knows the cookie secrets can make valid cookies for every address; who knows a signing key can sign anything in its zone; who
/// knows the token can take regions down.
pub fn tell_of_secrets(world: &World) {
    let config = &world.config;
    let keys = config.zones.iter().flat_map(|zone| &zone.dnssec_keys).map(|key| ("signing key", &key.path));
    let cookies = config.server.cookie_secret_file.iter().map(|file| ("file of cookie secrets", file));
    let cluster = config.cluster.iter().flat_map(|cluster| &cluster.credentials);
    let cluster = cluster.map(|file| ("file of NATS credentials", file));
    let token = config.admin.token_file.iter().map(|file| ("token of the admin interface", file));
    for (what, file) in cookies.chain(token).chain(cluster).chain(keys).filter(|(_, file)| is_open_to_others(file)) {
        let file = file.display();
        tracing::warn!("every user of this host can read or change the {what}; run: chmod o= {file}");
    }
    match (&world.admin_token, config.admin.listen.filter(|address| !address.ip().is_loopback())) {
        (Some(token), Some(_)) if token.is_short() => {
            tracing::warn!(
                "the token of the admin interface is short enough to be guessed; {}",
                AdminToken::HOW_TO_MAKE
            );
        }
        (None, Some(address)) => tracing::warn!(
            "the admin interface on {address} refuses changes (drain, force, reload): set `token-file` in [admin]"
        ),
        _ => {}
    }
}

fn tell_what_needs_a_restart(before: &Config, after: &Config) {
    type List = fn(&Encrypted) -> &Vec<SocketAddr>;
    let addresses =
        |config: &Config, list: List| config.server.encrypted.as_ref().map(list).cloned().unwrap_or_default();
    let changed = |list: List| addresses(before, list) != addresses(after, list);
    let changes = [
        ("server.listen", before.server.listen != after.server.listen),
        ("server.encrypted.dot", changed(|encrypted| &encrypted.dot)),
        ("server.encrypted.doq", changed(|encrypted| &encrypted.doq)),
        ("server.encrypted.doh", changed(|encrypted| &encrypted.doh)),
        ("server.state-dir", before.server.state_dir != after.server.state_dir),
        ("server.user", before.server.user != after.server.user),
        ("server.sandbox", before.server.sandbox != after.server.sandbox),
        ("server.threads", before.server.threads != after.server.threads),
        ("admin.listen", before.admin.listen != after.admin.listen),
    ];
    for (key, _) in changes.iter().filter(|(_, changed)| *changed) {
        tracing::warn!("`{key}` has changed; it takes effect at the next start");
    }
}
