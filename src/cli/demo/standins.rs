//! The demo's regions: real HTTP servers on loopback, and a control server that stops and starts them. A stopped one has no
//! socket any more, so that probes and clients find what they would find at a dead region.

use std::{
    collections::BTreeMap,
    future, io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    middleware,
    routing::{get, post},
};
use tokio::{
    net::TcpListener,
    sync::Mutex,
    task::{self, JoinHandle},
};

use super::{SITES, Site};
use crate::admin::{
    connections::{self, Limits},
    http::{Refusal, screen},
};

/// The stand-ins' port, where it is free.
const PORT: u16 = 8081;
/// The port of the controls, where it is free.
const CONTROL_PORT: u16 = 8054;
/// How many other ports are tried when the usual one is taken on one of the addresses.
const ATTEMPTS: usize = 20;

/// The running stand-ins. Dropping it stops them.
pub struct StandIns {
    port: u16,
    regions: BTreeMap<&'static str, Mutex<Option<Running>>>,
}

/// A stand-in that runs. Dropping it closes its listener and all its connections.
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where the demo's own servers are.
#[derive(Debug, Clone, Copy)]
pub struct Control {
    /// Stops and starts regions.
    pub address: SocketAddr,
    /// The stand-ins' port.
    pub port: u16,
}

impl StandIns {
    /// Starts one for each region, all on the same port.
    ///
    /// # Errors
    /// When no port is free on all the addresses.
    pub async fn start() -> io::Result<Self> {
        let mut last = None;
        for attempt in 0..ATTEMPTS {
            match listen_all(if attempt == 0 { PORT } else { 0 }).await {
                Ok((port, listeners)) => {
                    let run = |(site, listener)| (Site::region(site), Mutex::new(Some(run(site, listener))));
                    return Ok(StandIns { port, regions: SITES.iter().zip(listeners).map(run).collect() });
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("at least one attempt was made"))
    }

    /// The port of all of them.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Site {
    fn region(site: &'static Site) -> &'static str {
        site.region
    }
}

/// Binds all stand-ins to one port; 0: to any that is free on the first address, if the others have it, too.
async fn listen_all(port: u16) -> io::Result<(u16, Vec<TcpListener>)> {
    let mut port = port;
    let mut listeners = Vec::with_capacity(SITES.len());
    for site in &SITES {
        let listener = TcpListener::bind((site.address, port)).await?;
        port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok((port, listeners))
}

fn run(site: &'static Site, listener: TcpListener) -> Running {
    let hello = format!("hello from {}\n", site.region);
    let router = Router::new()
        .route("/", get(|| async move { hello }))
        .route("/health", get(|| async { "ok\n" }))
        .route("/{*any}", get(|| async { StatusCode::NOT_FOUND }));
    Running(task::spawn(connections::serve(listener, router, Limits::default(), future::pending())))
}

/// Serves the controls: `POST /{region}/stop` and `POST /{region}/start`.
///
/// # Errors
/// When no port is free.
pub async fn serve_control(stand_ins: StandIns) -> io::Result<Control> {
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, CONTROL_PORT)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
    };
    let control = Control { address: listener.local_addr()?, port: stand_ins.port };
    let router = Router::new()
        .route("/{region}/stop", post(stop))
        .route("/{region}/start", post(start))
        .fallback(|| async { unknown() })
        .method_not_allowed_fallback(|| async { unknown() })
        .layer(middleware::from_fn(screen))
        .with_state(Arc::new(stand_ins));
    task::spawn(connections::serve(listener, router, Limits::default(), future::pending()));
    Ok(control)
}

fn unknown() -> Refusal {
    let regions: Vec<&str> = SITES.iter().map(|site| site.region).collect();
    let error = format!("POST to /REGION/stop or /REGION/start, where REGION is one of {}", regions.join(", "));
    Refusal::new(StatusCode::NOT_FOUND, error)
}

fn find<'s>(stand_ins: &'s StandIns, region: &str) -> Result<(&'static Site, &'s Mutex<Option<Running>>), Refusal> {
    let site = SITES.iter().find(|site| site.region == region).ok_or_else(unknown)?;
    Ok((site, stand_ins.regions.get(site.region).ok_or_else(unknown)?))
}

async fn stop(State(stand_ins): State<Arc<StandIns>>, Path(region): Path<String>) -> Result<String, Refusal> {
    let (_, running) = find(&stand_ins, &region)?;
    let Some(mut ending) = running.lock().await.take() else {
        return Ok(format!("{region} is stopped already\n"));
    };
    ending.0.abort();
    let _cancelled = (&mut ending.0).await; // only then is the socket closed
    tracing::info!(region, "stand-in stopped: connections to it are refused");
    Ok(format!("{region} is stopped: connections to it are refused\n"))
}

async fn start(State(stand_ins): State<Arc<StandIns>>, Path(region): Path<String>) -> Result<String, Refusal> {
    let (site, running) = find(&stand_ins, &region)?;
    let mut running = running.lock().await;
    if running.is_some() {
        return Ok(format!("{region} runs already\n"));
    }
    let listener = TcpListener::bind((site.address, stand_ins.port)).await.map_err(|error| {
        let error = format!("cannot listen on {}:{}: {error}; try again", site.address, stand_ins.port);
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error)
    })?;
    *running = Some(run(site, listener));
    tracing::info!(region, "stand-in started");
    Ok(format!("{region} runs again\n"))
}
