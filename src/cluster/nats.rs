//! NATS as the carrier of messages: connects, and connects again with growing pauses for as long as it takes. One connection is used until
//! it ends, however it ends; nothing of it outlives it. Knows nothing of what is said.

use std::{path::Path, time::Duration};

use async_nats::{ConnectOptions, Event as NatsEvent, ServerAddr, Subscriber, client::PublishErrorKind};
use futures_util::{StreamExt, stream::select_all};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{
    exchange::{Carrier, Event, Link, Outgoing, random},
    subject,
};
use crate::config::{model::Cluster, nats::Credentials};

/// The first pause after a connection that failed, and the longest: servers that lost NATS together are back together, not one by one.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// A connection that held for so long was a good one: the next pause is the shortest again.
const HELD: Duration = Duration::from_secs(10);
/// A server must take a connection, and whatever is sent, within this time.
const PATIENCE: Duration = Duration::from_secs(5);
/// The connection is tried so often; it has ended when two tries were not answered.
const PING_EVERY: Duration = Duration::from_secs(2);
/// Messages of one subscription that wait to be read.
const WAITING_MAX: usize = 1024;
/// Events of the connection that wait to be looked at.
const EVENTS_MAX: usize = 64;

/// Carries messages for ever.
pub async fn carry(config: &Cluster, link: &Link, mut carrier: Carrier) {
    let mut pause = PAUSE_MIN;
    loop {
        let begun = Instant::now();
        let why = connection(config, link, &mut carrier).await;
        link.failed(why);
        pause = if begun.elapsed() >= HELD { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
        // Not all at the very same moment.
        let share = 0.75 + 0.5 * (random() % 1000) as f64 / 1000.0;
        let waited = sleep(pause.mul_f64(share));
        tokio::pin!(waited);
        loop {
            tokio::select! {
                () = &mut waited => break,
                // What was to be said meanwhile is old when there is a connection again.
                dropped = carrier.outgoing.recv() => match dropped {
                    Some(_) => link.count_dropped(1),
                    None => return,
                }
            }
        }
    }
}

/// One connection, from its beginning to its end; why it ended, or never began.
async fn connection(config: &Cluster, link: &Link, carrier: &mut Carrier) -> String {
    let (events, mut happened) = mpsc::channel(EVENTS_MAX);
    let options = match options(config, events) {
        Ok(options) => options,
        Err(why) => return why,
    };
    let addresses: Vec<ServerAddr> = config.nats.iter().filter_map(|url| url.parse().ok()).collect();
    let client = match timeout(PATIENCE * 2, options.connect(addresses)).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return in_words(&error),
        Err(_) => return "no server answers in time".into(),
    };
    let mut subscribers: Vec<Subscriber> = Vec::new();
    for subject in subject::subscriptions(&config.prefix, &config.node) {
        match client.subscribe(subject).await {
            Ok(subscriber) => subscribers.push(subscriber),
            Err(error) => return format!("cannot subscribe: {error}"),
        }
    }
    let info = client.server_info();
    let name = if info.server_name.is_empty() { info.server_id } else { info.server_name };
    link.connected(name);
    if carrier.incoming.send(Event::Connected).await.is_err() {
        return "stopped".into();
    }
    let mut messages = select_all(subscribers);
    loop {
        tokio::select! {
            event = happened.recv() => match event {
                Some(NatsEvent::Disconnected | NatsEvent::Closed) | None => return "the connection ended".into(),
                Some(NatsEvent::ServerError(error)) => link.refused(error.to_string()),
                Some(NatsEvent::SlowConsumer(_)) => link.count_dropped(1),
                Some(_) => {}
            },
            message = messages.next() => {
                let Some(message) = message else { return "the server ended the subscriptions".into() };
                link.count_received(message.payload.len());
                let Some((from, topic)) = subject::parse(&config.prefix, &message.subject) else { continue };
                let said = Event::Said { from, topic, bytes: message.payload.into() };
                if carrier.incoming.send(said).await.is_err() {
                    return "stopped".into();
                }
            }
            outgoing = carrier.outgoing.recv() => {
                let Some(Outgoing { topic, bytes }) = outgoing else { return "stopped".into() };
                let (subject, len) = (subject::subject(&config.prefix, &config.node, &topic), bytes.len());
                match timeout(PATIENCE, client.publish(subject, bytes.into())).await {
                    Ok(Ok(())) => link.count_sent(len),
                    // It costs itself alone: the connection is fine.
                    Ok(Err(error)) if error.kind() == PublishErrorKind::MaxPayloadExceeded => link.count_dropped(1),
                    Ok(Err(error)) => return format!("cannot send: {error}"),
                    Err(_) => return "the server takes nothing more".into(),
                }
            }
        }
    }
}

fn options(config: &Cluster, events: mpsc::Sender<NatsEvent>) -> Result<ConnectOptions, String> {
    let options = match &config.credentials {
        None => ConnectOptions::new(),
        Some(path) => with_credentials(path)?,
    };
    // With a file of authorities those of the host are not even looked for: it may have none.
    let options = match &config.ca {
        None => options,
        Some(path) => options.add_root_certificates(path.clone()),
    };
    let servers = config.nats.len();
    Ok(options
        .name(format!("isochrone {}", config.node))
        .connection_timeout(PATIENCE)
        .ping_interval(PING_EVERY)
        .subscription_capacity(WAITING_MAX)
        .ignore_discovered_servers()
        .max_reconnects(None)
        // One look at each server; pauses between the rounds are made here.
        .reconnect_delay_callback(move |attempts| if attempts <= servers { Duration::ZERO } else { PAUSE_MAX })
        .event_callback(move |event| {
            let events = events.clone();
            async move {
                let _full_or_gone = events.try_send(event);
            }
        }))
}

/// Read anew for every connection, so that a file that was replaced is taken up.
fn with_credentials(path: &Path) -> Result<ConnectOptions, String> {
    let shown = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("the credentials {shown} cannot be read: {error}"))?;
    match Credentials::find(&text) {
        Some(Credentials::Jwt(text)) => ConnectOptions::with_credentials(text)
            .map_err(|error| format!("the credentials {shown} are broken: {error}")),
        Some(Credentials::Seed(seed)) => Ok(ConnectOptions::with_nkey(seed.to_string())),
        None => Err(format!("the credentials {shown} hold neither a JWT nor the seed of a user")),
    }
}

/// Why there is no connection, for people.
fn in_words(error: &async_nats::ConnectError) -> String {
    use async_nats::ConnectErrorKind as Kind;
    match error.kind() {
        Kind::Authentication | Kind::AuthorizationViolation => {
            "the server refuses the credentials; see `credentials` of [cluster], and the users of the server".into()
        }
        Kind::TimedOut => "no server answers in time".into(),
        _ => chain(error),
    }
}

/// An error with its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
