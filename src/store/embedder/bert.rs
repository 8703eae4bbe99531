//! Owns the arithmetic of a BERT encoder: token ids in, one L2-normalised mean vector per text out.
//!
//! Texts of a batch are laid end to end and not padded to one length: the dense layers see one long matrix of
//! tokens, only attention goes text by text. So no work is wasted, no mask is needed, and a vector does not
//! depend on the texts it was computed with.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{D, Device, Result, Tensor};
use candle_nn::ops::{layer_norm, softmax_last_dim};

/// The sizes that the weights do not say themselves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) layer_norm_eps: f32,
}

#[derive(Debug)]
pub(super) struct Bert {
    shape: Shape,
    words: Tensor,
    /// Position and token type 0 in one table: a text on its own has no other type.
    positions: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    query_key_value: Dense,
    attention: Dense,
    attention_norm: Norm,
    widen: Dense,
    narrow: Dense,
    norm: Norm,
}

#[derive(Debug)]
struct Dense {
    weight: Tensor,
    bias: Tensor,
}

#[derive(Debug)]
struct Norm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl Bert {
    /// Reads a safetensors file in the layout of `transformers`.
    pub(super) fn load(path: &Path, shape: Shape) -> Result<Self> {
        let weights = Weights { tensors: candle_core::safetensors::load(path, &Device::Cpu)?, shape };
        let words = weights.get("embeddings.word_embeddings.weight")?;
        let positions = weights.get("embeddings.position_embeddings.weight")?;
        let kind = weights.get("embeddings.token_type_embeddings.weight")?.narrow(0, 0, 1)?;
        let layers = (0..shape.layers)
            .map(|layer| {
                let name = |part: &str| format!("encoder.layer.{layer}.{part}");
                Ok(Layer {
                    query_key_value: weights.query_key_value(&name("attention.self"))?,
                    attention: weights.dense(&name("attention.output.dense"))?,
                    attention_norm: weights.norm(&name("attention.output.LayerNorm"))?,
                    widen: weights.dense(&name("intermediate.dense"))?,
                    narrow: weights.dense(&name("output.dense"))?,
                    norm: weights.norm(&name("output.LayerNorm"))?,
                })
            })
            .collect::<Result<_>>()?;
        let positions = positions.broadcast_add(&kind)?;
        Ok(Self { shape, words, positions, norm: weights.norm("embeddings.LayerNorm")?, layers })
    }

    /// How many numbers a vector has, by the weights.
    pub(super) fn dimension(&self) -> Result<usize> {
        self.words.dim(1)
    }

    /// One vector per text. No text may be empty of tokens: `[CLS]` and `[SEP]` are always there.
    pub(super) fn embed(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>> {
        let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
        let mut x = self.norm.forward(&self.tokens(texts)?)?;
        for layer in &self.layers {
            let attended = self.attend(&layer.query_key_value.forward(&x)?, &lengths)?;
            x = layer.attention_norm.forward(&(layer.attention.forward(&attended)? + &x)?)?;
            let wide = layer.widen.forward(&x)?.gelu_erf()?;
            x = layer.norm.forward(&(layer.narrow.forward(&wide)? + &x)?)?;
        }
        starts(&lengths)
            .zip(&lengths)
            .map(|(start, &length)| {
                let mean = x.narrow(0, start, length)?.mean(0)?;
                let norm = mean.sqr()?.sum_all()?.sqrt()?;
                mean.broadcast_div(&norm)?.to_vec1()
            })
            .collect()
    }

    fn tokens(&self, texts: &[Vec<u32>]) -> Result<Tensor> {
        let ids: Vec<u32> = texts.concat();
        let at: Vec<u32> = texts.iter().flat_map(|text| (0..).take(text.len())).collect();
        let words = self.words.index_select(&Tensor::new(ids, &Device::Cpu)?, 0)?;
        words + self.positions.index_select(&Tensor::new(at, &Device::Cpu)?, 0)?
    }

    /// Self-attention of each text over itself; `qkv` has the rows of all texts, `[tokens, 3 · hidden]`.
    fn attend(&self, qkv: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        let heads = self.shape.heads;
        let hidden = qkv.dim(1)? / 3;
        let texts: Vec<Tensor> = starts(lengths)
            .zip(lengths)
            .map(|(start, &length)| {
                // [length, 3, heads, size] → [3, heads, length, size]
                let qkv = qkv.narrow(0, start, length)?.reshape((length, 3, heads, hidden / heads))?;
                let qkv = qkv.permute((1, 2, 0, 3))?.contiguous()?;
                let (q, k, v) = (qkv.get(0)?, qkv.get(1)?, qkv.get(2)?);
                let scores = softmax_last_dim(&q.matmul(&k.t()?)?)?;
                scores.matmul(&v)?.transpose(0, 1)?.reshape((length, hidden))
            })
            .collect::<Result<_>>()?;
        if let [only] = texts.as_slice() { Ok(only.clone()) } else { Tensor::cat(&texts, 0) }
    }
}

fn starts(lengths: &[usize]) -> impl Iterator<Item = usize> {
    lengths.iter().scan(0, |next, length| Some(std::mem::replace(next, *next + length)))
}

impl Dense {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.weight)?.broadcast_add(&self.bias)
    }
}

impl Norm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}

/// The named tensors of a file.
struct Weights {
    tensors: HashMap<String, Tensor>,
    shape: Shape,
}

impl Weights {
    fn get(&self, name: &str) -> Result<Tensor> {
        let tensor = self.tensors.get(name).cloned();
        tensor.ok_or_else(|| candle_core::Error::Msg(format!("the weights have no tensor {name}")))
    }

    fn dense(&self, name: &str) -> Result<Dense> {
        let weight = self.get(&format!("{name}.weight"))?.t()?.contiguous()?;
        Ok(Dense { weight, bias: self.get(&format!("{name}.bias"))? })
    }

    /// The three projections as one matrix: one large multiplication is faster than three. The usual division of
    /// the scores by √size is moved into the query's weights, where it costs nothing.
    fn query_key_value(&self, name: &str) -> Result<Dense> {
        let [query, key, value] = ["query", "key", "value"].map(|part| self.dense(&format!("{name}.{part}")));
        let (query, key, value) = (query?, key?, value?);
        let size = query.weight.dim(D::Minus1)? / self.shape.heads;
        let scale = 1.0 / f64::from(u32::try_from(size).unwrap_or(u32::MAX)).sqrt();
        let weight = Tensor::cat(&[(query.weight * scale)?, key.weight, value.weight], 1)?;
        Ok(Dense { weight, bias: Tensor::cat(&[(query.bias * scale)?, key.bias, value.bias], 0)? })
    }

    fn norm(&self, name: &str) -> Result<Norm> {
        Ok(Norm {
            weight: self.get(&format!("{name}.weight"))?,
            bias: self.get(&format!("{name}.bias"))?,
            eps: self.shape.layer_norm_eps,
        })
    }
}
