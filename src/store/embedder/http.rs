//! Owns the way to an endpoint that speaks OpenAI's API: `POST {base}/embeddings`. What comes back is believed only
//! when it is as many vectors as texts, each of the right length and of finite numbers.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::try_join_all;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::{Embedding, Secret};
use crate::error::{Code, Error, Result};
use crate::store::gate::Gate;

/// Text beyond this does not count: it is about what the window of 8,191 tokens of OpenAI's models holds.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Text of one batch: half a minute on a slow line.
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Batches of the index that are asked for at the same time, and questions. Neither waits for the other.
const BATCHES_AT_ONCE: usize = 2;
const QUESTIONS_AT_ONCE: usize = 16;
/// Attempts at most. Somebody waits for a question, and there is an answer without it; the index has time.
const BATCH_ATTEMPTS: u32 = 8;
const QUESTION_ATTEMPTS: u32 = 3;
/// Between attempts: twice as long each time, with a random part.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LAST_DELAY: Duration = Duration::from_secs(2);
/// How long questions are not sent to an endpoint that did not answer one, unless it says itself for how long.
const PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Bytes of a number in the answer at most, and of everything around the numbers of one text.
const NUMBER_BYTES: usize = 32;
const ENTRY_BYTES: usize = 4 * 1024;
/// Numbers of a vector whose length is not known yet.
const DIMENSION_MAX: usize = 65_536;

/// An endpoint.
pub(super) struct Http {
    client: Client,
    url: String,
    model: String,
    /// What the endpoint is told.
    dimensions: Option<u32>,
    /// What its vectors must have; None until it is known.
    dimension: Option<usize>,
    batch: usize,
    timeout: Duration,
    batches: Semaphore,
    questions: Semaphore,
    gate: Gate,
}

#[derive(Serialize)]
struct Question<'a> {
    model: &'a str,
    input: &'a [&'a str],
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
    encoding_format: &'static str,
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    index: usize,
    embedding: Vec<f32>,
}

/// What an endpoint says when it refuses.
#[derive(Deserialize)]
struct Refusal {
    error: RefusalError,
}

#[derive(Deserialize)]
struct RefusalError {
    code: Option<String>,
    r#type: Option<String>,
}

/// Why one attempt failed.
struct Failure {
    cause: String,
    /// Whether the next attempt may do better.
    again: bool,
    /// What the endpoint said about when.
    after: Option<Duration>,
}

impl Http {
    /// A client of the endpoint. Asks it only if the settings do not say how long its vectors are.
    pub(super) async fn open(settings: &Embedding) -> Result<Self> {
        let url = format!("{}/embeddings", settings.required_url()?);
        let dimensions = settings.embedder_dimensions;
        let mut http = Self {
            client: client(settings.embedder_key.as_ref())?,
            url,
            model: settings.required_model()?.to_owned(),
            dimensions,
            dimension: dimensions.and_then(|dimensions| usize::try_from(dimensions).ok()),
            batch: usize::try_from(settings.embedder_batch).unwrap_or(usize::MAX),
            timeout: settings.timeout(),
            batches: Semaphore::new(BATCHES_AT_ONCE),
            questions: Semaphore::new(QUESTIONS_AT_ONCE),
            gate: Gate::default(),
        };
        if http.dimension.is_none() {
            let deadline = Instant::now() + http.timeout;
            let vectors = http.ask(&["How long are vectors?"], deadline, QUESTION_ATTEMPTS).await;
            let vectors = vectors.map_err(|failure| {
                let text = "the embedding endpoint cannot be asked how long its vectors are; see to it, or set \
                    --embedder-dimensions (EVIDENCE_GATEWAY_EMBEDDER_DIMENSIONS)";
                Error::new(Code::Unavailable, text).because(failure.cause)
            })?;
            http.dimension = vectors.first().map(Vec::len);
        }
        Ok(http)
    }

    pub(super) fn name(&self) -> &str {
        &self.model
    }

    pub(super) fn dimension(&self) -> usize {
        self.dimension.unwrap_or_default()
    }

    /// Embeds for the index, in order.
    pub(super) async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut unique: Vec<&str> = Vec::new();
        let of_text: Vec<usize> = texts
            .iter()
            .map(|text| {
                *places.entry(window(text)).or_insert_with_key(|text| {
                    unique.push(*text);
                    unique.len() - 1
                })
            })
            .collect();
        let batches = batches(&unique, self.batch);
        let vectors = try_join_all(batches.into_iter().map(|batch| self.embed_batch(batch))).await?;
        let vectors = vectors.concat();
        let vectors = of_text.into_iter().map(|place| vectors.get(place).cloned());
        vectors.collect::<Option<_>>().ok_or_else(|| Error::internal("fewer vectors than texts"))
    }

    async fn embed_batch(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        let _turn = self.batches.acquire().await.map_err(Error::internal)?;
        self.ask(texts, Instant::now() + self.timeout, BATCH_ATTEMPTS).await.map_err(unavailable)
    }

    /// Embeds a question, unless the endpoint is known to be down.
    pub(super) async fn embed_now(&self, text: &str, _place: OwnedSemaphorePermit) -> Result<Vec<f32>> {
        let deadline = Instant::now() + self.timeout;
        let turn = timeout_at(deadline, self.questions.acquire()).await;
        let _turn = turn.map_err(|_| unavailable(late(self.timeout)))?.map_err(Error::internal)?;
        if !self.gate.pass(self.timeout) {
            return Err(unavailable(Failure::last("it did not answer a moment ago")));
        }
        match self.ask(&[window(text)], deadline, QUESTION_ATTEMPTS).await {
            Ok(vectors) => {
                self.gate.open();
                vectors.into_iter().next().ok_or_else(|| Error::internal("no vector"))
            }
            Err(failure) => {
                // One that refuses is there.
                if failure.again {
                    self.gate.shut(failure.after.unwrap_or(PAUSE).min(MAX_PAUSE));
                } else {
                    self.gate.open();
                }
                Err(unavailable(failure))
            }
        }
    }

    /// One vector per text, after as many attempts as it takes and may take.
    async fn ask(&self, texts: &[&str], deadline: Instant, attempts: u32) -> Result<Vec<Vec<f32>>, Failure> {
        let (model, dimensions) = (self.model.as_str(), self.dimensions);
        let question = Question { model, input: texts, dimensions, encoding_format: "float" };
        let body = serde_json::to_vec(&question).map_err(|error| Failure::last(error.to_string()))?;
        let body = bytes::Bytes::from(body);
        let mut attempt = 1;
        loop {
            let answer = timeout_at(deadline, self.attempt(body.clone(), texts.len())).await;
            let failure = match answer.unwrap_or_else(|_| Err(late(self.timeout))) {
                Ok(vectors) => return Ok(vectors),
                Err(failure) => failure,
            };
            let delay = failure.after.unwrap_or_else(|| backoff(attempt));
            if !failure.again || attempt == attempts || Instant::now() + delay >= deadline {
                return Err(failure);
            }
            let (cause, delay_ms) = (failure.cause.as_str(), delay.as_millis());
            tracing::debug!(cause, attempt, delay_ms, "the embedding endpoint is asked again");
            sleep(delay).await;
            attempt += 1;
        }
    }

    async fn attempt(&self, body: bytes::Bytes, count: usize) -> Result<Vec<Vec<f32>>, Failure> {
        let request = self.client.post(&self.url).header(CONTENT_TYPE, "application/json").body(body);
        let response = request.send().await.map_err(Failure::of_transport)?;
        let status = response.status();
        let after = response.headers().get(RETRY_AFTER).and_then(|after| wait(after, Utc::now()));
        let numbers = self.dimension.unwrap_or(DIMENSION_MAX);
        let bytes = read(response, count * (numbers * NUMBER_BYTES + ENTRY_BYTES)).await?;
        if !status.is_success() {
            let again = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
            let cause = format!("it answered {}{}", status.as_u16(), reason(&bytes));
            return Err(Failure { cause, again, after: after.filter(|_| again) });
        }
        // The parser's own words may repeat what came.
        let answer = serde_json::from_slice(&bytes);
        let answer = answer.map_err(|_| Failure::last("it answered something else than vectors"))?;
        self.check(answer, count).map_err(Failure::last)
    }

    /// The vectors in the order of the texts, each of length 1.
    fn check(&self, answer: Answer, count: usize) -> Result<Vec<Vec<f32>>, String> {
        let mut vectors = vec![Vec::new(); count];
        let found = answer.data.len();
        if found != count {
            return Err(format!("it answered {found} vectors to {count} texts"));
        }
        for Entry { index, mut embedding } in answer.data {
            let length = embedding.len();
            let wanted = self.dimension.unwrap_or(length);
            if length != wanted || length == 0 || length > DIMENSION_MAX {
                return Err(format!("it answered a vector of {length} numbers instead of {wanted}"));
            }
            let norm = embedding.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt();
            if !norm.is_finite() || norm == 0.0 {
                return Err("it answered a vector without a direction".to_owned());
            }
            #[allow(clippy::cast_possible_truncation, reason = "a number of a vector of length 1")]
            embedding.iter_mut().for_each(|number| *number = (f64::from(*number) / norm) as f32);
            match vectors.get_mut(index) {
                Some(place) if place.is_empty() => *place = embedding,
                _ => return Err(format!("it answered a vector for text {index} twice or of none")),
            }
        }
        Ok(vectors)
    }
}

impl Failure {
    fn last(cause: impl Into<String>) -> Self {
        Self { cause: cause.into(), again: false, after: None }
    }

    fn of_transport(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let mut cause = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(next) = source {
            cause = format!("{cause}: {next}");
            source = next.source();
        }
        Self { cause, again: !error.is_builder(), after: None }
    }
}

/// The environment's proxies are not asked, as the environment is read in one place only, and a redirect is an error:
/// the key is for this address.
fn client(key: Option<&Secret>) -> Result<Client> {
    let mut headers = HeaderMap::new();
    if let Some(key) = key {
        let bearer = HeaderValue::from_str(&format!("Bearer {}", key.expose()));
        let mut bearer = bearer.map_err(Error::internal)?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
    }
    let client = Client::builder().default_headers(headers).no_proxy().redirect(Policy::none()).build();
    client.map_err(|error| Error::unavailable("TLS", error))
}

fn unavailable(failure: Failure) -> Error {
    Error::unavailable("the embedding endpoint", failure.cause)
}

fn late(timeout: Duration) -> Failure {
    Failure { cause: format!("no answer within {} ms", timeout.as_millis()), again: true, after: None }
}

/// The part of a text that counts.
fn window(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

/// Cuts texts into batches of bounded number and size.
fn batches<'a, 'b>(texts: &'a [&'b str], count: usize) -> Vec<&'a [&'b str]> {
    let mut batches = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (at, text) in texts.iter().enumerate() {
        if at > start && (at - start == count || size + text.len() > BATCH_BYTES_MAX) {
            batches.push(&texts[start..at]);
            (start, size) = (at, 0);
        }
        size += text.len();
    }
    batches.push(&texts[start..]);
    batches
}

/// At least half of the delay and at most all of it: clients that failed together do not come back together.
fn backoff(attempt: u32) -> Duration {
    let delay = FIRST_DELAY.saturating_mul(1 << (attempt - 1).min(16)).min(LAST_DELAY);
    // The keys of hash maps are the standard library's random numbers.
    let random = RandomState::new().hash_one(attempt) % 1_000;
    delay / 2 + delay.mul_f64(random as f64 / 2_000.0)
}

/// What `Retry-After` says: seconds, or a moment.
fn wait(header: &HeaderValue, now: DateTime<Utc>) -> Option<Duration> {
    let text = header.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = DateTime::parse_from_rfc2822(text).ok()?;
    Some((at.to_utc() - now).to_std().unwrap_or_default())
}

/// Reads an answer, but no more than it can have.
async fn read(mut response: Response, most: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Failure::of_transport)? {
        if bytes.len() + chunk.len() > most {
            return Err(Failure::last(format!("it answered more than {most} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The name of what an endpoint refuses for, such as `, invalid_api_key`. Its sentences may repeat the key and the
/// texts, so they are nowhere shown.
fn reason(bytes: &[u8]) -> String {
    let refusal: Option<Refusal> = serde_json::from_slice(bytes).ok();
    let name = refusal.and_then(|refusal| refusal.error.code.or(refusal.error.r#type));
    let is_name = |name: &String| {
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        !name.is_empty() && name.len() <= 64 && name.bytes().all(letter)
    };
    name.filter(is_name).map(|name| format!(", {name}")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
