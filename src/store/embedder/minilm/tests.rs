//! Against the real model: `make model` puts it where these tests look.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use super::*;
use crate::store::embedder::{Embedder, Model};
use crate::store::redis::Redis;
use crate::telemetry::Metrics;

/// Read once for most tests.
static EMBEDDER: LazyLock<Embedder> = LazyLock::new(|| {
    let model = MiniLm::load(&dir()).unwrap_or_else(|error| panic!("{error:?}"));
    over(model, 256)
});

#[allow(clippy::disallowed_methods, reason = "a test has no configuration")]
fn dir() -> PathBuf {
    std::env::var_os("EVIDENCE_GATEWAY_MODEL_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".evidence-gateway/models").join(NAME),
        PathBuf::from,
    )
}

fn over(model: MiniLm, queue: usize) -> Embedder {
    Embedder::over(Model::MiniLm(model), queue, Redis::Off, Arc::new(Metrics::new().unwrap())).unwrap()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A text, how often it is said in a row, the first numbers of its vector, and the sum of all.
type Reference = (&'static str, usize, [f32; 8], f32);

/// Computed from the same files in double precision by a separate program (NumPy); the first two agree with what
/// users of sentence-transformers publish for these sentences. The last one is longer than the window.
const REFERENCE: [Reference; 5] = [
    (
        "This is an example sentence",
        1,
        [0.0676569, 0.0634959, 0.0487131, 0.079305, 0.0374481, 0.0026528, 0.039375, -0.0070985],
        0.271751,
    ),
    (
        "Each sentence is converted",
        1,
        [0.0864386, 0.1027626, 0.0053945, 0.0020444, -0.0099634, 0.0253855, 0.0492876, -0.0306266],
        -0.004967,
    ),
    (
        "",
        1,
        [-0.1188384, 0.0482987, -0.0025481, -0.0110112, 0.0519508, 0.0102917, 0.1154332, 0.0007008],
        0.629072,
    ),
    (
        "The gateway's answer was stale: p99 latency rose to 480 ms after the Redis failover on 2024-03-07 \
         (naïve retry).",
        1,
        [-0.0022777, -0.1076064, -0.0065473, 0.0614783, 0.00398, -0.0512621, -0.0465688, 0.0314695],
        0.288427,
    ),
    (
        "evidence supports the claim that latency grew",
        60,
        [-0.0053579, -0.0346646, 0.0568526, 0.0643855, 0.1481385, 0.079679, -0.0066204, -0.0259497],
        0.313876,
    ),
];

#[tokio::test]
async fn vectors_equal_the_reference() {
    let texts = REFERENCE.iter().map(|(text, times, ..)| vec![*text; *times].join(" ")).collect();
    let vectors = EMBEDDER.embed(texts).await.unwrap();
    for ((text, _, first, sum), vector) in REFERENCE.iter().zip(&vectors) {
        assert_eq!(vector.len(), DIMENSION);
        for (is, should) in vector.iter().zip(first) {
            assert!((is - should).abs() < 2e-6, "{text}: {:?}", &vector[..8]);
        }
        assert!((vector.iter().sum::<f32>() - sum).abs() < 1e-4, "{text}");
        assert!((cosine(vector, vector) - 1.0).abs() < 1e-5, "{text}");
    }
}

#[tokio::test]
async fn a_paraphrase_is_nearer_than_anything_else() {
    let asked = EMBEDDER.embed_query("Why did response times go up?").await.unwrap();
    let texts = [
        "Latency increased because the cache was cold after the deployment.",
        "The quarterly report was signed by both directors.",
        "Bananas ripen faster in a paper bag.",
    ];
    let vectors = EMBEDDER.embed(texts.map(str::to_owned).to_vec()).await.unwrap();
    let scores: Vec<f32> = vectors.iter().map(|vector| cosine(vector, &asked)).collect();
    assert!(scores[0] > 0.3 && scores[0] > scores[1] + 0.2 && scores[0] > scores[2] + 0.2, "{scores:?}");
}

#[tokio::test]
async fn a_vector_does_not_depend_on_its_company() {
    let texts: Vec<String> = (1..40).map(|words| vec!["evidence"; words % 9].join(" ")).collect();
    let together = EMBEDDER.embed(texts.clone()).await.unwrap();
    assert_eq!(together.len(), texts.len());
    for (text, vector) in texts.iter().zip(&together) {
        let alone = EMBEDDER.embed_query(text).await.unwrap();
        assert!(cosine(&alone, vector) > 0.999_999, "{text}");
    }
    assert!(EMBEDDER.embed(Vec::new()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_question_again_comes_from_memory() {
    let first = EMBEDDER.embed_query("the same question").await.unwrap();
    let again = EMBEDDER.embed_query("the same question").await.unwrap();
    assert!(Arc::ptr_eq(&first, &again));
}

/// A question overtakes a long batch, and a batch that nobody waits for any more is not computed.
#[tokio::test]
async fn a_question_does_not_wait_for_the_index() {
    let text = |number: usize| format!("{number} {}", ["evidence supports the claim"; 40].join(" "));
    let batch = tokio::spawn(EMBEDDER.clone().embed_owned((0..400).map(text).collect()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    for asked in ["one question", "another question"] {
        EMBEDDER.embed_query(asked).await.unwrap();
    }
    assert!(!batch.is_finished());
    batch.abort();
    assert!(batch.await.unwrap_err().is_cancelled());
    EMBEDDER.embed(vec!["the next batch".into()]).await.unwrap();
}

#[tokio::test]
async fn one_question_too_many_is_told_so() {
    let embedder = over(MiniLm::load(&dir()).unwrap(), 1);
    let mut first = std::pin::pin!(embedder.embed_query("the first"));
    assert!(futures_util::poll!(&mut first).is_pending());
    let error = embedder.embed_query("one too many").await.unwrap_err();
    assert!(error.message().starts_with("too many questions"), "{error}");
    first.await.unwrap();
    embedder.embed_query("one too many").await.unwrap();
}

impl Embedder {
    async fn embed_owned(self, texts: Vec<String>) -> Result<Vec<Vec<f32>>> {
        self.embed(texts).await
    }
}

#[test]
fn a_missing_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = MiniLm::load(dir.path()).unwrap_err();
    assert!(error.message().contains("tokenizer.json is missing; get it with `make model`"), "{error}");
    std::fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    let error = MiniLm::load(dir.path()).unwrap_err();
    assert!(error.message().contains("tokenizer.json cannot be used"), "{error}");
}

#[test]
fn pieces_are_bounded_and_equal_texts_are_one() {
    let text = |length: usize, word: u32| vec![word; length];
    let (places, pieces) =
        pieces(vec![text(200, 1), text(3, 2), text(100, 3), text(3, 2), text(TOKENS_MAX, 4), text(100, 5)]);
    assert_eq!(pieces.concat(), [text(3, 2), text(100, 3), text(100, 5), text(200, 1), text(TOKENS_MAX, 4)]);
    assert_eq!(places, [3, 0, 1, 0, 4, 2]);
    let sizes: Vec<usize> = pieces.iter().map(|piece| piece.iter().map(Vec::len).sum()).collect();
    assert_eq!(sizes, [203, 200, 256]);
}
