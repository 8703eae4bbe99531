//! The vector index in every place where it can be: in a folder, on the tests' Qdrant server, and on a real one if
//! `QDRANT_URL` names one (with `QDRANT_API_KEY`). The same table of cases runs on each.

mod answers;
mod drafts;
mod fencing;
mod folder;
mod recall;
mod server;

use std::path::Path;

use clap::Parser;
use evidence_gateway::config::{Config, VectorSettings};
use evidence_gateway::store::vectors::{Kind, Layout, Point, Question, Sparse, Vectors};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::qdrant::{API_KEY, TestQdrant};

const DIMENSION: usize = 8;

const KEYS: &[(&str, Kind)] = &[
    ("project_id", Kind::Tenant),
    ("task_id", Kind::Id),
    ("domain", Kind::Keyword),
    ("tags", Kind::Keyword),
    ("score", Kind::Number),
    ("verified", Kind::Flag),
    ("created_at", Kind::Time),
];

fn layout() -> Layout {
    Layout { model: "numbers".to_owned(), dimension: DIMENSION, keys: KEYS }
}

/// A place for an index, and what keeps it there.
struct Place {
    name: &'static str,
    settings: VectorSettings,
    dir: TempDir,
    server: Option<TestQdrant>,
}

impl Place {
    fn folder() -> Self {
        Self { name: "edge", settings: settings(&[]), dir: tempfile::tempdir().unwrap(), server: None }
    }

    async fn server() -> Self {
        let server = TestQdrant::start().await;
        let settings = settings(&["--qdrant-url", &server.url(), "--qdrant-api-key", API_KEY]);
        Self { name: "test server", settings, dir: tempfile::tempdir().unwrap(), server: Some(server) }
    }

    /// A collection of its own on the server that the environment names.
    #[allow(clippy::disallowed_methods, reason = "cargo hands no settings to tests")]
    fn real() -> Option<Self> {
        let url = std::env::var("QDRANT_URL").ok()?;
        let key = std::env::var("QDRANT_API_KEY").unwrap_or_default();
        let collection = format!("test_{}", Uuid::new_v4().simple());
        let arguments = ["--qdrant-url", &url, "--qdrant-api-key", &key, "--qdrant-collection", &collection];
        let settings = settings(&arguments);
        Some(Self { name: "real server", settings, dir: tempfile::tempdir().unwrap(), server: None })
    }

    async fn all() -> Vec<Self> {
        let mut all = vec![Self::folder(), Self::server().await];
        all.extend(Self::real());
        all
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    async fn open(&self) -> Vectors {
        self.open_as(layout()).await.unwrap()
    }

    async fn open_as(&self, layout: Layout) -> evidence_gateway::error::Result<Vectors> {
        Vectors::open(&self.settings, self.path(), layout).await
    }

    async fn draft(&self) -> Vectors {
        Vectors::draft(&self.settings, self.path(), layout()).await.unwrap()
    }

    fn server_mut(&mut self) -> &mut TestQdrant {
        self.server.as_mut().unwrap()
    }
}

/// The settings of the index, among all others' defaults.
fn settings(arguments: &[&str]) -> VectorSettings {
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        config: Config,
    }
    Line::parse_from(["tests"].iter().chain(arguments)).config.vectors
}

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    /// Of length 1.
    fn vector(&mut self, dimension: usize) -> Vec<f32> {
        unit((0..dimension).map(|_| self.number()).collect())
    }

    /// From -1 to 1.
    fn number(&mut self) -> f32 {
        f32::from(u16::try_from(self.next() >> 48).unwrap()) / 32_768.0 - 1.0
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 33) % end
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0
    }
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let norm = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|number| *number /= norm);
    vector
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn point(number: u128, version: i32, project: u128, dense: Vec<f32>) -> Point {
    let payload = json!({"project_id": id(project), "tags": ["a", "b"]});
    Point { id: id(number), version, dense, sparse: Sparse::default(), payload: object(payload) }
}

fn object(value: Value) -> serde_json::Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// A vector whose cosine with `east()` is `cosine`.
fn toward(cosine: f32) -> Vec<f32> {
    let mut vector = vec![0.0; DIMENSION];
    (vector[0], vector[1]) = (cosine, (1.0 - cosine * cosine).sqrt());
    vector
}

fn east() -> Vec<f32> {
    toward(1.0)
}

/// The ids of the points nearest to the east.
async fn nearest(vectors: &Vectors, limit: usize) -> Vec<u128> {
    let question = Question { dense: Some(east()), limit, ..Question::default() };
    let answers = vectors.ask(vec![question]).await.unwrap();
    answers[0].dense.iter().map(|hit| hit.id.as_u128()).collect()
}
