//! `isochrone latency`: how good the estimates are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{
    ConfigFile,
    scatter::scatter,
    table::{Align, Cell, Table},
    terminal::{Lines, Palette, Tone, print},
};
use crate::{
    config::{self, Config, Problem, Report},
    geo::{AsnTable, Coordinates, Locations},
    latency::{
        Prior, RegionSite,
        evaluate::{Evaluation, Method, Score, Trial, evaluate},
        measurement::Row,
    },
    server::measured::{self, GeoAtlas},
};

/// Work on measured round trips
#[derive(Debug, Args)]
pub struct LatencyArgs {
    #[command(subcommand)]
    command: LatencyCommand,
}

#[derive(Debug, Subcommand)]
enum LatencyCommand {
    Evaluate(EvaluateArgs),
}

/// Tell how often the lowest region is chosen, and what other choices cost
#[derive(Debug, Args)]
#[command(after_help = "Example:
  isochrone latency evaluate --measurements rtt.csv --svg rtt.svg

Each line of the file is network,region,rtt_ms[,samples]. The networks are dealt
into five parts, and each part is judged by what the other four tell, and by the
measurements of the configuration. A network counts when it was measured to two
regions or more. Beside the estimates stand what they choose once a network's two
or three best regions are measured, plain distance, and a map of continents.")]
struct EvaluateArgs {
    /// Measured round trips (CSV)
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    measurements: Vec<PathBuf>,
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Draw predicted against measured round trips
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Into how many parts the networks are dealt.
const FOLDS: usize = 5;

/// Runs a command on measured round trips.
pub fn run(args: &LatencyArgs) -> anyhow::Result<ExitCode> {
    let LatencyCommand::Evaluate(args) = &args.command;
    let config = config::load(&args.file.path()?)?;
    let found = judge(&config, &args.measurements)?;
    if found.networks == 0 {
        bail!(
            "no network of these measurements can be judged: each needs two regions or more, and a place that the location data \
             knows ({} were left out)",
            found.left_out
        );
    }
    if let Some(path) = &args.svg {
        fs::write(path, scatter(&found.points)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    match args.json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(&Told::new(&found))?))?,
        false => print(&shown(&found, Palette::of_stdout()))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn judge(config: &Config, files: &[PathBuf]) -> anyhow::Result<Evaluation> {
    let now = SystemTime::now();
    let rows = read(config, files, now)?;
    let known = measured::read(config, now).map_err(Report::new)?;
    let locations = Locations::open(&config.geo.databases)?;
    let asns = config.geo.asn_database.as_deref().map(AsnTable::open).transpose()?;
    let all: Vec<Row> = rows.iter().chain(&known.rows).copied().collect();
    let atlas = GeoAtlas::new(&locations, asns.as_ref(), &all)?;
    let coordinates: Vec<Coordinates> = config.regions.iter().map(|region| region.coordinates).collect();
    let sites: Vec<RegionSite> = coordinates.iter().map(|at| RegionSite::new(*at, 0.0)).collect();
    let trial = Trial {
        prior: &Prior::with(config.latency.detours),
        sites: &sites,
        coordinates: &coordinates,
        atlas: &atlas,
        known: &known.rows,
        rows: &rows,
    };
    Ok(evaluate(&trial, FOLDS))
}

/// The rows of the files; wrong lines are an error here unless the configuration leaves them out.
fn read(config: &Config, files: &[PathBuf], now: SystemTime) -> Result<Vec<Row>, Report> {
    let regions: Vec<&str> = config.regions.iter().map(|region| region.name.as_str()).collect();
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    for path in files {
        let (parsed, told) = measured::read_file(Path::new(path), &regions, now)?;
        rows.extend(parsed.rows);
        wrong.extend(told);
    }
    if config.latency.skip_bad_measurements {
        wrong.iter().for_each(|problem: &Problem| eprintln!("left out: {}", problem.brief()));
        wrong.clear();
    }
    if wrong.is_empty() { Ok(rows) } else { Err(Report::new(wrong)) }
}

fn shown(found: &Evaluation, palette: Palette) -> String {
    let mut head = Lines::new(palette);
    head.add("networks", &format!("{} judged, {} left out, in {} parts", found.networks, found.left_out, found.folds));
    let error = format!(
        "{:.1} ms mean, {:.1} ms median, over {} round trips",
        found.error_mean_ms(),
        found.error_median_ms(),
        found.points.len()
    );
    head.add("error", &error);
    let mut table = Table::new(&[
        ("CHOSEN BY", Align::Left),
        ("NETWORKS", Align::Right),
        ("RIGHT", Align::Right),
        ("NEAR", Align::Right),
        ("MEAN LOSS MS", Align::Right),
        ("95TH MS", Align::Right),
        ("OVER 20 MS", Align::Right),
    ]);
    for score in &found.scores {
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let tone = if score.method == Method::Estimates { Tone::Strong } else { Tone::Plain };
        table.row([
            Cell::new(in_words(score.method), tone),
            score.networks.to_string().into(),
            percent(score.right).into(),
            percent(score.near).into(),
            Cell::ms(Some(score.regret_mean_ms)),
            Cell::ms(Some(score.regret_p95_ms)),
            percent(score.over_20_ms).into(),
        ]);
    }
    format!("{}\n{}", head.text, table.render(palette))
}

fn in_words(method: Method) -> &'static str {
    match method {
        Method::Estimates => "estimates, network unseen",
        Method::TwoMeasured => "its two best measured",
        Method::ThreeMeasured => "its three best measured",
        Method::Distance => "distance",
        Method::ContinentMap => "continent map",
    }
}

/// The JSON.
#[derive(Serialize)]
struct Told {
    networks: usize,
    left_out: usize,
    folds: usize,
    round_trips: usize,
    error_mean_ms: f64,
    error_median_ms: f64,
    scores: Vec<ToldScore>,
}

#[derive(Serialize)]
struct ToldScore {
    method: &'static str,
    networks: usize,
    share_right: f64,
    share_near: f64,
    regret_mean_ms: f64,
    regret_p95_ms: f64,
    share_over_20_ms: f64,
}

impl Told {
    fn new(found: &Evaluation) -> Told {
        let score = |score: &Score| ToldScore {
            method: score.method.as_str(),
            networks: score.networks,
            share_right: score.right,
            share_near: score.near,
            regret_mean_ms: score.regret_mean_ms,
            regret_p95_ms: score.regret_p95_ms,
            share_over_20_ms: score.over_20_ms,
        };
        Told {
            networks: found.networks,
            left_out: found.left_out,
            folds: found.folds,
            round_trips: found.points.len(),
            error_mean_ms: found.error_mean_ms(),
            error_median_ms: found.error_median_ms(),
            scores: found.scores.iter().map(score).collect(),
        }
    }
}
