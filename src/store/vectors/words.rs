//! Owns text → the words that BM25 compares, in English: lower case, without accents and stop
//! words, stemmed. The engine in
//! process makes the weights for every back end, so that they agree. A program without that engine (feature `edge`)
//! knows no words: every text is empty.

use std::ops::Range;
#[cfg(feature = "edge")]
use std::sync::Arc;

#[cfg(feature = "edge")]
use qdrant_edge::SparseVector;
#[cfg(feature = "edge")]
use qdrant_edge::bm25_embed::{EdgeBm25, EdgeBm25Config};

use super::Sparse;
#[cfg(feature = "edge")]
use crate::error::Error;
use crate::error::Result;

/// Turns text into weighted words. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Words {
    #[cfg(feature = "edge")]
    bm25: Arc<EdgeBm25>,
}

#[cfg_attr(
    not(feature = "edge"),
    allow(unused_variables, clippy::unused_self, reason = "there are no words")
)]
impl Words {
    /// With the customary weights: k1 = 1.2, b = 0.75, texts of 256 words on average.
    pub fn new() -> Result<Self> {
        Ok(Self {
            #[cfg(feature = "edge")]
            bm25: {
                let config = EdgeBm25Config { ascii_folding: Some(true), ..EdgeBm25Config::default() };
                Arc::new(EdgeBm25::new(config).map_err(Error::internal)?)
            },
        })
    }

    /// What a text is found by. Empty if there are only stop words.
    pub fn document(&self, text: &str) -> Sparse {
        #[cfg(feature = "edge")]
        return sparse(self.bm25.embed_document(text));
        #[cfg(not(feature = "edge"))]
        Sparse::default()
    }

    /// What a question looks for. Empty if there are only stop words.
    pub fn question(&self, text: &str) -> Sparse {
        #[cfg(feature = "edge")]
        return sparse(self.bm25.embed_query(text));
        #[cfg(not(feature = "edge"))]
        Sparse::default()
    }

    /// Where in `text` words of the question stand, in the form in which they stand there: the bytes of each, in order.
    pub fn matches(&self, question: &Sparse, text: &str) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        let mut end = 0;
        for word in text.split(|c: char| !c.is_alphanumeric()) {
            let start = end;
            end += word.len();
            if !word.is_empty() && self.is_in(question, word) {
                found.push(start..end);
            }
            end += text[end..].chars().next().map_or(0, char::len_utf8);
        }
        found
    }

    fn is_in(&self, question: &Sparse, word: &str) -> bool {
        self.question(word).indices.iter().any(|index| question.indices.contains(index))
    }
}

#[cfg(feature = "edge")]
fn sparse(vector: SparseVector) -> Sparse {
    Sparse { indices: vector.indices, values: vector.values }
}
