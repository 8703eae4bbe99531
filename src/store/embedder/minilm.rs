//! Owns all-MiniLM-L6-v2: its files, its tokenizer, and how texts become jobs for the workers.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::try_join_all;
use tokenizers::{Tokenizer, TruncationParams};
use tokio::sync::OwnedSemaphorePermit;

use super::bert::{Bert, Shape};
use super::workers::{Tokens, Workers};
use crate::error::{Code, Error, Result};

/// The model's name, as its authors write it.
pub const NAME: &str = super::MINILM;
/// How many numbers a vector has.
pub const DIMENSION: usize = 384;
/// The model was trained on no more; what follows does not count.
pub const TOKENS_MAX: usize = 256;
/// Text beyond this cannot reach the window in any language that people write, so it is not even tokenized.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Tokens of one piece of a batch: it bounds how long a worker is busy.
const PIECE_TOKENS_MAX: usize = 256;
const SHAPE: Shape = Shape { layers: 6, heads: 12, layer_norm_eps: 1e-12 };

/// The loaded model.
#[derive(Debug)]
pub struct MiniLm {
    tokenizer: Arc<Tokenizer>,
    workers: Workers,
}

impl MiniLm {
    /// Reads `tokenizer.json` and `model.safetensors` in `dir` and starts the workers.
    pub fn load(dir: &Path) -> Result<Self> {
        let tokenizer = load(dir, "tokenizer.json", |path| {
            let mut tokenizer = Tokenizer::from_file(path)?;
            let truncation = TruncationParams { max_length: TOKENS_MAX, ..TruncationParams::default() };
            // The file pads to 128 tokens and cuts there; neither is what the model was trained with.
            tokenizer.with_padding(None).with_truncation(Some(truncation))?;
            Ok(tokenizer)
        })?;
        let bert = load(dir, "model.safetensors", |path| {
            let bert = Bert::load(path, SHAPE)?;
            let dimension = bert.dimension()?;
            if dimension == DIMENSION {
                Ok(bert)
            } else {
                Err(format!("vectors of {dimension} numbers").into())
            }
        })?;
        Ok(Self { tokenizer: Arc::new(tokenizer), workers: Workers::start(bert)? })
    }

    /// Embeds in the background, in order.
    pub(super) async fn embed(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>> {
        let tokenizer = Arc::clone(&self.tokenizer);
        let tokens = tokio::task::spawn_blocking(move || {
            texts.iter().map(|text| tokens(&tokenizer, text)).collect::<Result<Tokens>>()
        });
        let tokens = tokens.await.map_err(Error::internal)??;
        let (places, pieces) = pieces(tokens);
        let vectors = try_join_all(pieces.into_iter().map(|piece| self.workers.piece(piece))).await?;
        let vectors = vectors.concat();
        places
            .into_iter()
            .map(|place| vectors.get(place).cloned())
            .collect::<Option<_>>()
            .ok_or_else(|| Error::internal("the embedder answered fewer vectors than texts"))
    }

    /// Embeds ahead of all that [`Self::embed`] has not begun. The place among the questions is given back when the
    /// work is done or was skipped.
    pub(super) async fn embed_now(&self, text: &str, place: OwnedSemaphorePermit) -> Result<Vec<f32>> {
        self.workers.question(tokens(&self.tokenizer, text)?, place).await
    }
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

fn load<T>(dir: &Path, file: &str, read: impl FnOnce(&Path) -> Result<T, Cause>) -> Result<T> {
    let path = dir.join(file);
    if !path.is_file() {
        let text = format!("the model file {} is missing; get it with `make model`", path.display());
        return Err(Error::new(Code::Unavailable, text));
    }
    read(&path).map_err(|cause| {
        let text = format!("the model file {} cannot be used; get it anew with `make model`", path.display());
        Error::new(Code::Unavailable, text).because(cause)
    })
}

fn tokens(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
    // The fast way leaves out the offsets, which nobody asks for.
    let encoding = tokenizer.encode_fast(text, true).map_err(Error::internal)?;
    Ok(encoding.get_ids().to_vec())
}

/// Groups texts into pieces of bounded size, each different text once and the short ones first.
/// Answers where each text's vector will be in the pieces laid end to end.
fn pieces(texts: Tokens) -> (Vec<usize>, Vec<Tokens>) {
    let mut first: HashMap<Vec<u32>, Vec<usize>> = HashMap::new();
    let count = texts.len();
    for (index, text) in texts.into_iter().enumerate() {
        first.entry(text).or_default().push(index);
    }
    let mut unique: Vec<(Vec<u32>, Vec<usize>)> = first.into_iter().collect();
    unique.sort_by(|(a, at), (b, bt)| (a.len(), at).cmp(&(b.len(), bt)));
    let mut places = vec![0; count];
    let mut pieces: Vec<Tokens> = Vec::new();
    let mut room = 0;
    for (place, (text, indexes)) in unique.into_iter().enumerate() {
        for index in indexes {
            places[index] = place;
        }
        match pieces.last_mut() {
            Some(piece) if text.len() <= room => {
                room -= text.len();
                piece.push(text);
            }
            _ => {
                room = PIECE_TOKENS_MAX.saturating_sub(text.len());
                pieces.push(vec![text]);
            }
        }
    }
    (places, pieces)
}

#[cfg(test)]
mod tests;
