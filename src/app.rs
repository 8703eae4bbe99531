//! The wired handles. `App::connect` builds the one that main, `dev` and the tests all serve.

use std::sync::Arc;

use crate::config::{Config, EmbedderKind};
use crate::error::Result;
use crate::graphql::Graph;
use crate::graphql::search::Searcher;
use crate::http::viewer::{Access, Authenticator};
use crate::model::cursor::CursorKey;
use crate::store::db::Db;
use crate::store::embedder::Embedder;
use crate::store::vectors::Vectors;
use crate::telemetry::Metrics;

/// Everything a request needs, cheap to clone.
#[derive(Clone)]
pub struct App {
    /// The settings.
    pub config: Arc<Config>,
    /// PostgreSQL.
    pub db: Db,
    /// The schema.
    pub graph: Graph,
    /// Text to vectors to hits.
    pub searcher: Searcher,
    /// Who is let in.
    pub access: Authenticator,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl App {
    /// Wires the stores. PostgreSQL may still be down; the model and the index must be there.
    pub async fn connect(config: Config, database_url: &str, secret: &[u8], access: Access) -> Result<Self> {
        let db = Db::connect(database_url, &config.db_options()).await?;
        let embedder = match config.embedder {
            EmbedderKind::Minilm => Embedder::minilm(&config.model_dir())?,
            EmbedderKind::Off => Embedder::off(),
        };
        let vectors = if embedder.is_on() {
            Vectors::open(&config.vectors_dir(), embedder.model(), embedder.dimension()).await?
        } else {
            Vectors::Off
        };
        let searcher = Searcher { embedder, vectors };
        let graph = Graph::new(searcher.clone(), CursorKey::new(secret), config.limits.clone());
        let access = Authenticator::new(access, &config, db.clone());
        Ok(Self { config: Arc::new(config), db, graph, searcher, access, metrics: Arc::default() })
    }
}
