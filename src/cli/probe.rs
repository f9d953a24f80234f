//! `isochrone probe`: every check once, now, from here.

use std::{process::ExitCode, sync::Arc, time::SystemTime};

use clap::Args;
use serde::Serialize;

use super::{
    ConfigFile, FAILED,
    table::{Align, Cell, Table},
    terminal::{Palette, Tone, print},
};
use crate::{
    config::model::RegionId,
    health::{
        NetProbe, ProbeError, ProbeResult, calculated::result_of, measured::certificate_warning,
        probe::tls::TrustedRoots, probe_once,
    },
    server::{World, endpoints},
    sys::names::addresses_of,
};

/// Run each check once and tell what came of it; exit status 1 when one fails
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isochrone probe --config isochrone.toml")]
pub struct ProbeArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What came of probing one endpoint of a region.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Row {
    region: String,
    endpoint: String,
    /// `None`: nothing to probe it with.
    check: Option<String>,
    verdict: Verdict,
    connect_ms: Option<f64>,
    tls_ms: Option<f64>,
    total_ms: Option<f64>,
    status: Option<u16>,
    error: Option<String>,
    /// From the request to the first byte of the answer.
    first_byte_ms: Option<f64>,
    /// Unix time in seconds.
    certificate_expires: Option<i64>,
    /// What is not wrong yet and will be.
    warning: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Up,
    Down,
    /// This host could not probe.
    Unknown,
    /// No check: counts as up.
    Unchecked,
    /// A running server waits for its heartbeats: nothing to probe.
    Push,
}

impl Verdict {
    fn shown(self) -> (&'static str, Tone) {
        match self {
            Verdict::Up => ("up", Tone::Good),
            Verdict::Down => ("down", Tone::Bad),
            Verdict::Unknown => ("unknown", Tone::Warn),
            Verdict::Unchecked => ("unchecked", Tone::Dim),
            Verdict::Push => ("push", Tone::Dim),
        }
    }

    fn is_failure(self) -> bool {
        matches!(self, Verdict::Down | Verdict::Unknown)
    }
}

/// Files that the command itself has open at most: the rest is for probes.
const OWN_FILES: u64 = 64;

/// Probes once.
pub fn run(args: &ProbeArgs) -> anyhow::Result<ExitCode> {
    let world = World::load(&args.file.path()?)?;
    let left = crate::sys::limits::raise_open_files().saturating_sub(OWN_FILES);
    let open_max = usize::try_from(left).unwrap_or(usize::MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let net = NetProbe::new(TrustedRoots::Host, Arc::new(addresses_of));
    let results = runtime.block_on(probe_once(world.targets(), Arc::new(net), open_max));
    runtime.shutdown_background(); // a name that the system is still resolving holds up nobody
    let rows = rows(&world, &results);
    match args.json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(&rows)?))?,
        false => print(&shown(&rows, Palette::of_stdout()))?,
    }
    let has_failed = rows.iter().any(|row| row.verdict.is_failure());
    Ok(if has_failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

/// Each region's endpoints with their checks, once each, regions in file order; parts of calculated checks are rows, too.
fn rows(world: &World, results: &[ProbeResult]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (n, region) in world.config.regions.iter().enumerate() {
        for row in endpoints::rows(world, RegionId(n as u8)) {
            let result = row.source.as_ref().map(|source| result_of(source, results));
            let result = result.as_ref();
            let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
            let verdict = verdict(result);
            let error = result.and_then(|result| result.outcome.as_ref().err()).filter(|_| verdict != Verdict::Push);
            let certificate_expires = result.and_then(|result| result.certificate_expires_s);
            rows.push(Row {
                region: region.name.clone(),
                endpoint: row.endpoint.to_string(),
                check: row.check.clone(),
                verdict,
                connect_ms: result.and_then(|result| result.connect).map(ms),
                tls_ms: result.and_then(|result| result.tls).map(ms),
                total_ms: result.filter(|_| verdict != Verdict::Push).map(|result| ms(result.total)),
                status: result.and_then(|result| result.status),
                error: error.map(ProbeError::to_string),
                first_byte_ms: result.and_then(|result| result.first_byte).map(ms),
                certificate_expires,
                warning: certificate_expires.and_then(|at| certificate_warning(at, SystemTime::now())),
            });
        }
    }
    rows
}

fn verdict(result: Option<&ProbeResult>) -> Verdict {
    match result.map(|result| &result.outcome) {
        None => Verdict::Unchecked,
        Some(Ok(())) => Verdict::Up,
        Some(Err(ProbeError::NotProbed)) => Verdict::Push,
        Some(Err(error)) if error.is_inconclusive() => Verdict::Unknown,
        Some(Err(_)) => Verdict::Down,
    }
}

fn shown(rows: &[Row], palette: Palette) -> String {
    if rows.is_empty() {
        return "nothing to probe: no zone has a route\n".into();
    }
    let mut table = Table::new(&[
        ("REGION", Align::Left),
        ("ENDPOINT", Align::Left),
        ("CHECK", Align::Left),
        ("VERDICT", Align::Left),
        ("CONNECT MS", Align::Right),
        ("TOTAL MS", Align::Right),
        ("ERROR", Align::Left),
    ]);
    for row in rows {
        let (word, tone) = row.verdict.shown();
        table.row([
            row.region.as_str().into(),
            row.endpoint.as_str().into(),
            Cell::optional(row.check.as_ref()),
            Cell::new(word, tone),
            Cell::ms(row.connect_ms),
            Cell::ms(row.total_ms),
            told(row).as_str().into(),
        ]);
    }
    table.render(palette)
}

/// What is wrong, or will be.
fn told(row: &Row) -> String {
    let warning = row.warning.as_ref().map(|warning| format!("warning: {warning}"));
    row.error.iter().cloned().chain(warning).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(region: &str, verdict: Verdict, connect_ms: Option<f64>, error: Option<&str>) -> Row {
        Row {
            region: region.into(),
            endpoint: "192.0.2.10".into(),
            check: (verdict != Verdict::Unchecked).then(|| "web".into()),
            verdict,
            connect_ms,
            tls_ms: None,
            total_ms: connect_ms.map(|ms| ms * 2.0),
            status: connect_ms.map(|_| 200),
            error: error.map(Into::into),
            first_byte_ms: None,
            certificate_expires: None,
            warning: None,
        }
    }

    #[test]
    fn the_table_tells_what_failed_and_why() {
        let rows = [
            row("us", Verdict::Up, Some(12.34), None),
            row("europe", Verdict::Down, None, Some("connection refused")),
            row("ap", Verdict::Unknown, None, Some("this host could not probe")),
            row("sa", Verdict::Unchecked, None, None),
            row("af", Verdict::Push, None, None),
            Row {
                warning: Some("the certificate expires in 2 days".into()),
                ..row("oc", Verdict::Up, Some(1.0), None)
            },
        ];
        insta::assert_snapshot!(shown(&rows, Palette::none()), @r"
        REGION  ENDPOINT    CHECK  VERDICT    CONNECT MS  TOTAL MS  ERROR
        us      192.0.2.10  web    up               12.3      24.7
        europe  192.0.2.10  web    down                -         -  connection refused
        ap      192.0.2.10  web    unknown             -         -  this host could not probe
        sa      192.0.2.10  -      unchecked           -         -
        af      192.0.2.10  web    push                -         -
        oc      192.0.2.10  web    up                1.0       2.0  warning: the certificate expires in 2 days
        ");
        assert_eq!(rows.map(|row| row.verdict.is_failure()), [false, true, true, false, false, false]);
    }

    #[test]
    fn the_json_has_stable_names() {
        let json =
            serde_json::to_string(&row("us", Verdict::Down, Some(1.5), Some("status 500 is not expected"))).unwrap();
        assert_eq!(
            json,
            "{\"region\":\"us\",\"endpoint\":\"192.0.2.10\",\"check\":\"web\",\"verdict\":\"down\",\"connect_ms\":1.5,\
             \"tls_ms\":null,\"total_ms\":3.0,\"status\":200,\"error\":\"status 500 is not expected\",\
             \"first_byte_ms\":null,\"certificate_expires\":null,\"warning\":null}"
        );
    }
}
