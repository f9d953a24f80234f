//! The counters as text for Prometheus (OpenMetrics 1.0), with what the rooms above add at scrape time. Knows no more of a
//! metric than its name and labels.

use std::{borrow::Cow, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry,
};

use super::{
    classes::{DropReason, QtypeClass, TransportKind, rcode_label},
    counters::Totals,
    process::Process,
};

/// What to say in the `Content-Type` header of the exposition.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Metrics of other rooms, gathered for one scrape: `families.gauge("region_usable", "…").sample([("region", "eu")], 1.0)`.
#[derive(Debug, Default)]
pub struct Families(Vec<Family>);

/// One metric with its samples.
#[derive(Debug)]
pub struct Family {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    samples: Vec<(Labels, f64)>,
    histograms: Vec<(Labels, Buckets)>,
}

/// One histogram: the sum of all values; upper bounds, the last of them infinite, with what lies between each and the one before.
#[derive(Debug)]
struct Buckets {
    sum: f64,
    counts: Vec<(f64, u64)>,
}

type Labels = Vec<(Cow<'static, str>, Cow<'static, str>)>;

#[derive(Debug, Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Response codes that are shown before the first one happens, so that a rate can be taken from its first moment.
const USUAL_RCODES: [usize; 6] = [0, 1, 2, 3, 4, 5];

impl Families {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A value that goes up and down. `name` without the `isochrone_` prefix, `help` a whole sentence.
    pub fn gauge(&mut self, name: &'static str, help: &'static str) -> &mut Family {
        self.add(name, help, Kind::Gauge)
    }

    /// A value that only grows. `name` without the `isochrone_` prefix and without `_total`.
    pub fn counter(&mut self, name: &'static str, help: &'static str) -> &mut Family {
        self.add(name, help, Kind::Counter)
    }

    /// How values are spread. `name` without the `isochrone_` prefix, `help` a whole sentence.
    pub fn histogram(&mut self, name: &'static str, help: &'static str) -> &mut Family {
        self.add(name, help, Kind::Histogram)
    }

    fn add(&mut self, name: &'static str, help: &'static str, kind: Kind) -> &mut Family {
        self.0.push(Family { name, help, kind, samples: Vec::new(), histograms: Vec::new() });
        self.0.last_mut().expect("one was pushed just now")
    }
}

impl Family {
    /// Adds a value under these labels.
    pub fn sample<K, V>(&mut self, labels: impl IntoIterator<Item = (K, V)>, value: f64) -> &mut Self
    where
        K: Into<Cow<'static, str>>,
        V: Into<Cow<'static, str>>,
    {
        self.samples.push((labels.into_iter().map(|(k, v)| (k.into(), v.into())).collect(), value));
        self
    }

    /// Adds a histogram under these labels: the sum of all values, and each bucket's upper bound (the last is infinite) with the
    /// number of values above the bound before.
    pub fn buckets<K, V>(
        &mut self,
        labels: impl IntoIterator<Item = (K, V)>,
        sum: f64,
        counts: Vec<(f64, u64)>,
    ) -> &mut Self
    where
        K: Into<Cow<'static, str>>,
        V: Into<Cow<'static, str>>,
    {
        let labels = labels.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        self.histograms.push((labels, Buckets { sum, counts }));
        self
    }

    /// Adds the one value of a metric without labels.
    pub fn value(&mut self, value: f64) -> &mut Self {
        self.samples.push((Vec::new(), value));
        self
    }
}

/// The exposition: `totals` and `others` under the prefix `isochrone_`, and the figures of this process.
pub fn expose(totals: &Totals, others: Families) -> String {
    let mut ours = registry::Registry::with_prefix("isochrone");
    let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    ours.register("build", "The program", version);
    ours.register_collector(Box::new(query_families(totals)));
    ours.register_collector(Box::new(others));
    let mut plain = registry::Registry::default();
    plain.register_collector(Box::new(process_families(&Process::read())));
    let mut page = String::new();
    let written = text::encode_registry(&mut page, &ours)
        .and_then(|()| text::encode_registry(&mut page, &plain))
        .and_then(|()| text::encode_eof(&mut page));
    written.expect("writing into a string does not fail");
    page
}

fn query_families(totals: &Totals) -> Families {
    let mut families = Families::new();
    let queries = families.counter("queries", "Messages read, by transport and type of the question.");
    for (transport, counts) in TransportKind::ALL.iter().zip(&totals.queries) {
        for (class, count) in QtypeClass::ALL.iter().zip(counts) {
            queries.sample([("transport", transport.label()), ("qtype_class", class.label())], *count as f64);
        }
    }
    let responses = families.counter("responses", "Responses, by response code.");
    for (rcode, &count) in totals.responses.iter().enumerate() {
        if count > 0 || USUAL_RCODES.contains(&rcode) {
            responses.sample([("rcode", rcode_label(rcode))], count as f64);
        }
    }
    let dropped = families.counter("dropped", "Messages read that got no response.");
    for (reason, count) in DropReason::ALL.iter().zip(&totals.dropped) {
        dropped.sample([("reason", reason.label())], *count as f64);
    }
    let answers = families.counter("answers", "Answers out of routes, by the region that was answered.");
    for (labels, count) in &totals.answers {
        let route = labels.route.as_ref().map(|route| ("route", route.to_string()));
        let fixed = [("region", labels.region.to_string()), ("reason", labels.reason.to_string())];
        let zone = ("zone", labels.zone.to_string());
        answers.sample(std::iter::once(zone).chain(route).chain(fixed), *count as f64);
    }
    families.counter("ecs_queries", "Queries with a client subnet option.").value(totals.ecs as f64);
    families.counter("truncated", "Responses with TC set.").value(totals.truncated as f64);
    families.counter("unsent", "Responses that the kernel would not send.").value(totals.unsent as f64);
    families.gauge("tcp_connections", "TCP connections open now.").value(totals.tcp_connections as f64);
    let help =
        "How long this server took to answer, from having read a query to handing over the reply; some are timed.";
    let family = families.histogram("answer_seconds", help);
    for (transport, times) in TransportKind::ALL.iter().zip(&totals.answer_times) {
        if times.count() > 0 || !transport.is_encrypted() {
            family.buckets([("transport", transport.label())], times.sum_s(), times.buckets().collect());
        }
    }
    families
}

/// Names as the Prometheus client guidelines have them.
fn process_families(process: &Process) -> Families {
    let mut families = Families::new();
    let mut add = |kind, name, help, value: Option<f64>| {
        if let Some(value) = value {
            families.add(name, help, kind).value(value);
        }
    };
    let whole = |value: Option<u64>| value.map(|value| value as f64);
    add(Kind::Counter, "process_cpu_seconds", "User and system CPU time, in seconds.", process.cpu_seconds);
    add(Kind::Gauge, "process_resident_memory_bytes", "Memory in RAM.", whole(process.resident_bytes));
    add(Kind::Gauge, "process_virtual_memory_bytes", "Address space.", whole(process.virtual_bytes));
    add(Kind::Gauge, "process_open_fds", "Open file descriptors.", whole(process.open_fds));
    add(Kind::Gauge, "process_max_fds", "Most open file descriptors.", whole(process.max_fds));
    add(Kind::Gauge, "process_start_time_seconds", "Start, in seconds since 1970.", process.start_seconds);
    families
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let has_any = |family: &&Family| !family.samples.is_empty() || !family.histograms.is_empty();
        self.0.iter().filter(has_any).try_for_each(|family| family.encode(&mut encoder))
    }
}

impl Family {
    fn encode(&self, encoder: &mut DescriptorEncoder) -> Result<(), fmt::Error> {
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        };
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        for (labels, Buckets { sum, counts }) in &self.histograms {
            let count = counts.iter().map(|(_, count)| count).sum();
            metric.encode_family(labels)?.encode_histogram::<NoLabelSet>(*sum, count, counts, None)?;
        }
        if let [(labels, value)] = self.samples.as_slice()
            && labels.is_empty()
        {
            return self.encode_value(*value, metric);
        }
        for (labels, value) in &self.samples {
            self.encode_value(*value, metric.encode_family(labels)?)?;
        }
        Ok(())
    }

    /// Whole numbers are written as such: as floats they would gain ".0".
    fn encode_value(&self, value: f64, metric: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let is_whole = value.fract() == 0.0 && value.abs() < 9e15;
        match self.kind {
            Kind::Counter if is_whole => ConstCounter::new(value as u64).encode(metric),
            Kind::Counter => ConstCounter::new(value).encode(metric),
            Kind::Gauge if is_whole => ConstGauge::new(value as i64).encode(metric),
            Kind::Gauge => ConstGauge::new(value).encode(metric),
            Kind::Histogram => Ok(()), // has no such values
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{AnswerLabels, Registry};

    fn page() -> String {
        let registry = Registry::new();
        let worker = registry.register();
        worker.query(TransportKind::Udp, QtypeClass::Aaaa);
        worker.response(0);
        worker.query(TransportKind::Tcp, QtypeClass::None);
        worker.dropped(DropReason::Short);
        worker.response(16);
        worker.ecs();
        worker.truncated();
        worker.set_tcp_connections(3);
        worker.answer_times().record(TransportKind::Dot, std::time::Duration::from_millis(1), 4);
        let labels = |route: Option<&str>| AnswerLabels {
            zone: "example.com".into(),
            route: route.map(Into::into),
            region: "eu \"west\"".into(),
            reason: "nearest",
        };
        let slots = worker.use_keys(&registry.answer_keys(vec![labels(Some("*.app")), labels(None)]));
        slots.answered(0);
        slots.answered(1);
        let mut others = Families::new();
        others.gauge("region_usable", "Whether a region answers.").sample([("region", "eu")], 1.0);
        others.counter("probes", "Probes.").sample([("check", "web".to_string()), ("result", "ok".to_string())], 7.0);
        others.gauge("nothing", "Never seen.");
        let counts = vec![(0.5, 2), (1.0, 0), (f64::INFINITY, 1)];
        others.histogram("wait_seconds", "Waits.").buckets([("phase", "tls")], 2.25, counts);
        expose(&registry.totals(), others)
    }

    #[test]
    fn names_and_labels_are_those_of_the_contract() {
        let page = page();
        for line in [
            r#"isochrone_queries_total{transport="udp",qtype_class="aaaa"} 1"#,
            r#"isochrone_queries_total{transport="tcp",qtype_class="none"} 1"#,
            r#"isochrone_queries_total{transport="tcp",qtype_class="a"} 0"#,
            r#"isochrone_responses_total{rcode="NOERROR"} 1"#,
            r#"isochrone_responses_total{rcode="BADVERS"} 1"#,
            r#"isochrone_responses_total{rcode="REFUSED"} 0"#,
            r#"isochrone_dropped_total{reason="short"} 1"#,
            r#"isochrone_answers_total{zone="example.com",route="*.app",region="eu \"west\"",reason="nearest"} 1"#,
            r#"isochrone_answers_total{zone="example.com",region="eu \"west\"",reason="nearest"} 1"#,
            "isochrone_ecs_queries_total 1",
            "isochrone_truncated_total 1",
            "isochrone_unsent_total 0",
            "isochrone_tcp_connections 3",
            r#"isochrone_answer_seconds_bucket{le="0.0005",transport="dot"} 0"#,
            r#"isochrone_answer_seconds_bucket{le="0.001",transport="dot"} 4"#,
            r#"isochrone_answer_seconds_sum{transport="dot"} 0.004"#,
            r#"isochrone_answer_seconds_count{transport="udp"} 0"#,
            concat!(r#"isochrone_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
            r#"isochrone_region_usable{region="eu"} 1"#,
            r#"isochrone_probes_total{check="web",result="ok"} 7"#,
            "# TYPE isochrone_wait_seconds histogram",
            r#"isochrone_wait_seconds_sum{phase="tls"} 2.25"#,
            r#"isochrone_wait_seconds_count{phase="tls"} 3"#,
            r#"isochrone_wait_seconds_bucket{le="0.5",phase="tls"} 2"#,
            r#"isochrone_wait_seconds_bucket{le="1.0",phase="tls"} 2"#,
            r#"isochrone_wait_seconds_bucket{le="+Inf",phase="tls"} 3"#,
        ] {
            assert!(page.lines().any(|l| l == line), "missing: {line}\n{page}");
        }
        for name in ["process_cpu_seconds_total ", "process_resident_memory_bytes ", "process_open_fds "] {
            assert!(page.lines().any(|l| l.starts_with(name)), "missing: {name}\n{page}");
        }
    }

    #[test]
    fn the_page_is_whole_and_every_metric_is_described_once() {
        let page = page();
        assert!(page.ends_with("# EOF\n"));
        assert!(!page.contains("isochrone_nothing"), "a metric without samples is left out");
        let mut described: Vec<_> = page.lines().filter(|l| l.starts_with("# TYPE")).collect();
        let count = described.len();
        described.sort_unstable();
        described.dedup();
        assert_eq!(described.len(), count);
    }
}
