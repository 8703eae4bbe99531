//! The metrics: one registry per gateway, because tests run many of them in one process. What is counted here is
//! bounded in number, whatever clients send: each label has a closed set of values, and the names of operations,
//! which clients choose, are only the first [`MAX_OPERATIONS`] seen.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder, proto,
};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use embedder::EmbedderMetrics;

mod embedder;
mod indexer;

pub use cache::CacheMetrics;
pub use changes::{Behind, ChangeMetrics};
pub use indexer::IndexerMetrics;
pub use live::{Counted, LiveMetrics};
pub use sockets::SocketMetrics;

mod cache;
mod changes;
mod live;
mod sockets;

/// Names of operations that are told apart; those that come later are counted together.
const MAX_OPERATIONS: usize = 200;
/// Bytes of a name that is told apart.
const MAX_NAME: usize = 64;
/// What stands for all the other names.
const OTHERS: &str = "other";

const SECONDS: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const STATEMENTS: &[f64] = &[0.0, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0];
const KEYS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1_000.0, 10_000.0];

/// Everything that is counted and measured since the start.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    request_statements: Histogram,
    /// Statements sent to PostgreSQL by GraphQL requests.
    pub statements: IntCounter,
    responses: IntCounterVec,
    refusals: IntCounterVec,
    panics: IntCounterVec,
    /// Keys per batch of a loader. Clones count into the same histogram.
    pub batch_keys: Histogram,
    /// Connections of clients that are open.
    pub connections: IntGauge,
    /// HTTP requests that are being answered.
    pub in_flight: IntGauge,
    /// Connections that stay.
    pub sockets: SocketMetrics,
    /// How the vector index stands.
    pub indexer: IndexerMetrics,
    /// What the embedder does.
    pub embedder: EmbedderMetrics,
    /// Times that the tail of the change log was waited for in vain.
    pub consistency_timeouts: IntCounter,
    /// The response cache.
    pub cache: CacheMetrics,
    /// What passes of the change log. Clones count into the same values.
    pub changes: ChangeMetrics,
    /// Streams of events. Clones count into the same values.
    pub live: LiveMetrics,
    /// What comes of changes.
    pub recorder: RecorderMetrics,
    operations: RwLock<HashSet<Box<str>>>,
}

/// One answered GraphQL request.
#[derive(Debug, Clone, Copy)]
pub struct Operation<'a> {
    /// The operation's name, if it has one.
    pub name: Option<&'a str>,
    /// `query`, `mutation` or `subscription`; empty when the request never came to be an operation.
    pub kind: &'static str,
    /// `ok`, or the code of the first error.
    pub outcome: &'static str,
    /// How long it took.
    pub took: Duration,
    /// Statements that it cost.
    pub statements: u32,
}

/// What is recorded of changes.
pub struct RecorderMetrics {
    /// Whether this process does it: 1 in one process of all.
    pub active: IntGauge,
    /// Seconds since the oldest change that this process knows of and has not recorded.
    pub lag: Gauge,
    /// How often changes were pruned before they were recorded.
    pub gaps: IntCounter,
    rows: IntCounterVec,
}

impl RecorderMetrics {
    fn register(all: &Registry) -> prometheus::Result<Self> {
        let lag = opts("recorder_lag_seconds", "Age of the oldest change that is not recorded.");
        let gaps = opts("recorder_gaps_total", "Times that changes were pruned before they were recorded.");
        Ok(Self {
            active: add(all, gauge("recorder_active", "Whether this process records changes."))?,
            lag: add(all, Gauge::with_opts(lag))?,
            gaps: add(all, IntCounter::with_opts(gaps))?,
            rows: counters(all, "recorder_rows_total", "Rows written of changes.", &["kind"])?,
        })
    }

    /// Counts rows that were written: of the kind `audit` or `activity`.
    pub fn wrote(&self, kind: &'static str, rows: usize) {
        self.rows.with_label_values(&[kind]).inc_by(u64::try_from(rows).unwrap_or_default());
    }
}

/// How a value develops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

impl Metrics {
    /// A registry with everything at zero.
    ///
    /// Fails when two metrics have one name, which is a fault of the program.
    pub fn new() -> Result<Self> {
        Self::register().map_err(Error::internal)
    }

    fn register() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let all = &registry;
        let metrics = Self {
            requests: counters(
                all,
                "requests_total",
                "GraphQL requests answered.",
                &["operation", "type", "outcome"],
            )?,
            request_seconds: add(
                all,
                HistogramVec::new(
                    buckets("request_seconds", "How long GraphQL requests took.", SECONDS),
                    &["type"],
                ),
            )?,
            request_statements: add(
                all,
                Histogram::with_opts(buckets(
                    "request_statements",
                    "Statements sent to PostgreSQL per GraphQL request.",
                    STATEMENTS,
                )),
            )?,
            statements: add(all, counter("statements_total", "Statements sent to PostgreSQL for requests."))?,
            responses: counters(
                all,
                "http_responses_total",
                "HTTP responses; 499 if the client hung up first.",
                &["route", "status"],
            )?,
            refusals: counters(
                all,
                "refusals_total",
                "What was refused for going beyond a limit.",
                &["limit"],
            )?,
            panics: counters(all, "panics_total", "Panics of what runs in the background.", &["part"])?,
            batch_keys: add(
                all,
                Histogram::with_opts(buckets("loader_batch_keys", "Keys per batch of a loader.", KEYS)),
            )?,
            connections: add(all, gauge("connections_open", "Connections of clients."))?,
            in_flight: add(all, gauge("requests_in_flight", "HTTP requests that are being answered."))?,
            sockets: SocketMetrics::register(all)?,
            indexer: IndexerMetrics::register(all)?,
            embedder: EmbedderMetrics::register(all)?,
            consistency_timeouts: add(
                all,
                counter(
                    "consistency_timeouts_total",
                    "Requests for which the change log was not read in time.",
                ),
            )?,
            cache: CacheMetrics::register(all)?,
            changes: ChangeMetrics::register(all)?,
            live: LiveMetrics::register(all)?,
            recorder: RecorderMetrics::register(all)?,
            operations: RwLock::default(),
            registry,
        };
        let build = IntGaugeVec::new(opts("build_info", "The running program; always 1."), &["version"]);
        add(&metrics.registry, build)?.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        // The name that every client library of Prometheus gives it.
        let start =
            Opts::new("process_start_time_seconds", "When the gateway started, in seconds since 1970.");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        add(&metrics.registry, Gauge::with_opts(start))?.set(now.as_secs_f64());
        Ok(metrics)
    }

    /// Adds a value that is asked for whenever the metrics are read.
    ///
    /// Fails when the name is taken, which is a fault of the program.
    pub fn pull(
        &self,
        name: &str,
        help: &str,
        kind: Kind,
        value: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Result<()> {
        let desc = Desc::new(full(name), help.to_owned(), Vec::new(), HashMap::new());
        let pulled = desc.map(|desc| Pulled { desc, kind, value: Box::new(value) });
        pulled.and_then(|pulled| self.registry.register(Box::new(pulled))).map_err(Error::internal)
    }

    /// Counts one answered GraphQL request.
    pub fn answered(&self, operation: &Operation<'_>) {
        let name = operation.name.map_or("", |name| self.bounded(name));
        self.requests.with_label_values(&[name, operation.kind, operation.outcome]).inc();
        self.request_seconds.with_label_values(&[operation.kind]).observe(operation.took.as_secs_f64());
        self.request_statements.observe(operation.statements.into());
        self.statements.inc_by(operation.statements.into());
    }

    /// Counts one HTTP response. The route is the pattern and never the path that the client sent.
    pub fn responded(&self, route: &str, status: u16) {
        self.responses.with_label_values(&[route, status.to_string().as_str()]).inc();
    }

    /// Counts something that was refused for going beyond a limit.
    pub fn refused(&self, limit: &'static str) {
        self.refusals.with_label_values(&[limit]).inc();
    }

    /// Panics of something that runs in the background; shown from now on, also while there are none.
    pub fn panics(&self, part: &'static str) -> IntCounter {
        self.panics.with_label_values(&[part])
    }

    /// The name itself while there are not too many.
    fn bounded<'a>(&self, name: &'a str) -> &'a str {
        if name.len() > MAX_NAME {
            return OTHERS;
        }
        if self.operations.read().unwrap_or_else(PoisonError::into_inner).contains(name) {
            return name;
        }
        let mut known = self.operations.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MAX_OPERATIONS || known.contains(name) {
            known.insert(name.into());
            return name;
        }
        OTHERS
    }

    /// Everything in the text format of Prometheus.
    pub fn text(&self) -> Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather()).map_err(Error::internal)
    }

    /// Everything as JSON; docs/metrics.md describes its shape.
    pub fn json(&self) -> Value {
        let families = self.registry.gather();
        let metrics = families.iter().map(|family| {
            let samples = family.get_metric().iter().map(|metric| sample(family.get_field_type(), metric));
            json!({
                "name": family.name(),
                "type": format!("{:?}", family.get_field_type()).to_lowercase(),
                "help": family.help(),
                "samples": samples.collect::<Vec<_>>(),
            })
        });
        json!({"metrics": metrics.collect::<Vec<_>>()})
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

fn full(name: &str) -> String {
    format!("evidence_gateway_{name}")
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(full(name), help)
}

fn buckets(name: &str, help: &str, bounds: &[f64]) -> HistogramOpts {
    HistogramOpts::new(full(name), help).buckets(bounds.to_vec())
}

fn counter(name: &str, help: &str) -> prometheus::Result<IntCounter> {
    IntCounter::with_opts(opts(name, help))
}

fn counters(all: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    add(all, IntCounterVec::new(opts(name, help), labels))
}

fn gauge(name: &str, help: &str) -> prometheus::Result<IntGauge> {
    IntGauge::with_opts(opts(name, help))
}

fn add<C>(registry: &Registry, collector: prometheus::Result<C>) -> prometheus::Result<C>
where
    C: Collector + Clone + 'static,
{
    let collector = collector?;
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn sample(kind: MetricType, metric: &Metric) -> Value {
    let labels = metric.get_label().iter().map(|label| (label.name().to_owned(), label.value().into()));
    let labels: Map<String, Value> = labels.collect();
    match kind {
        MetricType::HISTOGRAM => {
            let histogram = metric.get_histogram();
            let buckets = histogram.get_bucket().iter();
            let buckets = buckets.map(|it| json!({"le": it.upper_bound(), "count": it.cumulative_count()}));
            json!({
                "labels": labels,
                "count": histogram.get_sample_count(),
                "sum": histogram.get_sample_sum(),
                "buckets": buckets.collect::<Vec<_>>(),
            })
        }
        MetricType::COUNTER => json!({"labels": labels, "value": metric.get_counter().get_value()}),
        _ => json!({"labels": labels, "value": metric.get_gauge().get_value()}),
    }
}

/// A value that is kept elsewhere.
struct Pulled {
    desc: Desc,
    kind: Kind,
    value: Box<dyn Fn() -> f64 + Send + Sync>,
}

impl Collector for Pulled {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut metric = Metric::from_label(Vec::<LabelPair>::new());
        let mut family = MetricFamily::default();
        match self.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value((self.value)());
                metric.set_counter(counter);
                family.set_field_type(MetricType::COUNTER);
            }
            Kind::Gauge => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value((self.value)());
                metric.set_gauge(gauge);
                family.set_field_type(MetricType::GAUGE);
            }
        }
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_metric(vec![metric]);
        vec![family]
    }
}
