//! Documents that came before: a repeated one is neither parsed again nor, with the same variables, validated again.
//! Only what was found good is kept, and the memory for it is bounded.

use std::sync::Arc;

use async_graphql::async_trait::async_trait;
use async_graphql::extensions::{Extension, ExtensionContext, ExtensionFactory, NextValidation};
use async_graphql::parser::types::ExecutableDocument;
use async_graphql::{CacheControl, ServerError, ValidationResult};
use sha2::{Digest, Sha256};

use crate::telemetry::CacheMetrics;

/// Bytes of the texts of all parsed documents. What is parsed takes about ten times as much.
const BYTES: u64 = 4 << 20;
/// About how many documents that are.
const ITEMS: usize = 4_096;
/// Operations that are known to be valid.
const VALID: usize = 65_536;

/// The documents. All clones are the same.
#[derive(Clone)]
pub(super) struct Known(Arc<Shared>);

struct Shared {
    parsed: quick_cache::sync::Cache<Hash, Arc<Parsed>, Weigh>,
    valid: quick_cache::sync::Cache<Hash, ()>,
    metrics: CacheMetrics,
}

type Hash = [u8; 32];

/// A document with the length of its text.
struct Parsed {
    document: ExecutableDocument,
    bytes: usize,
}

/// Weighs documents by their texts.
#[derive(Clone, Copy)]
struct Weigh;

impl quick_cache::Weighter<Hash, Arc<Parsed>> for Weigh {
    fn weight(&self, _: &Hash, parsed: &Arc<Parsed>) -> u64 {
        parsed.bytes as u64 + 128
    }
}

/// What is asked, as a hash; it goes with the request to where it is validated.
pub(super) struct Identity(Hash);

impl Identity {
    /// Of all that is asked, in one form.
    pub(super) fn of(asked: &[u8]) -> Self {
        Self(Sha256::digest(asked).into())
    }
}

impl Known {
    /// None yet.
    pub(super) fn new(metrics: CacheMetrics) -> Self {
        Self(Arc::new(Shared {
            parsed: quick_cache::sync::Cache::with_weighter(ITEMS, BYTES, Weigh),
            valid: quick_cache::sync::Cache::new(VALID),
            metrics,
        }))
    }

    /// The document of a text that came before.
    pub(super) fn find(&self, text: &str) -> Option<ExecutableDocument> {
        self.0.parsed.get(&Self::hash(text)).map(|parsed| parsed.document.clone())
    }

    /// Keeps a document that keeps all limits.
    pub(super) fn keep(&self, text: &str, document: &ExecutableDocument) {
        self.0.metrics.parsed.inc();
        let parsed = Parsed { document: document.clone(), bytes: text.len() };
        self.0.parsed.insert(Self::hash(text), Arc::new(parsed));
    }

    fn hash(text: &str) -> Hash {
        Sha256::digest(text.as_bytes()).into()
    }
}

impl ExtensionFactory for Known {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(self.clone())
    }
}

#[async_trait]
impl Extension for Known {
    async fn validation(
        &self,
        ctx: &ExtensionContext<'_>,
        next: NextValidation<'_>,
    ) -> Result<ValidationResult, Vec<ServerError>> {
        // Variables are validated with the document, so they are a part of what is known.
        let asked = ctx.data_opt::<Identity>().map(|identity| identity.0);
        if asked.is_some_and(|asked| self.0.valid.get(&asked).is_some()) {
            let cache_control = CacheControl::default();
            return Ok(ValidationResult { cache_control, complexity: 0, depth: 0 });
        }
        self.0.metrics.validated.inc();
        let result = next.run(ctx).await?;
        if let Some(asked) = asked {
            self.0.valid.insert(asked, ());
        }
        Ok(result)
    }
}
