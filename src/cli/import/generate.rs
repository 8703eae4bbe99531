//! Any number of made-up tasks with evidence, the same for the same numbers: for measurements, not for reading.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};

use super::sample::people::{self, AGENTS, PROJECTS};
use crate::model::import::record::Record;
use crate::model::import::row::{Evidence, EvidenceRelation, Task};

/// Raise it when other rows come out for the same numbers.
pub(super) const REVISION: u32 = 1;

/// The largest number of tasks.
pub const MAX_TASKS: u64 = 10_000_000;
/// The largest number of pieces of evidence per task.
pub const MAX_EVIDENCE: u64 = 1_000;

/// How much to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// The number of tasks.
    pub tasks: u64,
    /// The number of pieces of evidence for each task.
    pub evidence: u64,
    /// Another seed makes other texts and numbers under the same names.
    pub seed: u64,
}

impl FromStr for Spec {
    type Err = String;

    /// Reads `tasks=20000,evidence=5,seed=1`, where evidence (5) and seed (1) may be left out.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut spec = Self { tasks: 0, evidence: 5, seed: 1 };
        for part in text.split(',') {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is not NAME=NUMBER"))?;
            let number: u64 = value.trim().parse().map_err(|_| format!("{value:?} is not a number"))?;
            match name.trim() {
                "tasks" if (1..=MAX_TASKS).contains(&number) => spec.tasks = number,
                "tasks" => return Err(format!("tasks: {number} is not between 1 and {MAX_TASKS}")),
                "evidence" if number <= MAX_EVIDENCE => spec.evidence = number,
                "evidence" => return Err(format!("evidence: {number} is not between 0 and {MAX_EVIDENCE}")),
                "seed" => spec.seed = number,
                other => return Err(format!("{other:?} is not one of tasks, evidence, seed")),
            }
        }
        if spec.tasks == 0 {
            Err("the number of tasks is missing, such as tasks=20000".to_owned())
        } else {
            Ok(spec)
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tasks={},evidence={},seed={}", self.tasks, self.evidence, self.seed)
    }
}

impl Spec {
    /// How many rows come out.
    pub(super) fn lines(self) -> u64 {
        people::records().len() as u64 + self.tasks * (1 + self.evidence + self.relations())
    }

    /// Each piece of evidence is supported by the next one of its task; one alone has none.
    const fn relations(self) -> u64 {
        if self.evidence < 2 { 0 } else { self.evidence }
    }
}

pub(super) fn records(spec: Spec) -> impl Iterator<Item = Record> + Send {
    people::records()
        .into_iter()
        .chain((0..spec.tasks).flat_map(move |number| task_with_evidence(spec, number)))
}

const WHAT: [&str; 16] = [
    "parser",
    "scheduler",
    "cache",
    "index",
    "router",
    "queue",
    "session store",
    "tokenizer",
    "planner",
    "gateway",
    "replica",
    "embedder",
    "migration",
    "rate limiter",
    "log reader",
    "image decoder",
];
const DOES: [&str; 12] = [
    "drops",
    "repeats",
    "delays",
    "rejects",
    "loses",
    "accepts",
    "reorders",
    "truncates",
    "leaks",
    "duplicates",
    "misreads",
    "retries",
];
const WHOM: [&str; 16] = [
    "large messages",
    "old cursors",
    "empty batches",
    "signed requests",
    "late events",
    "nested filters",
    "expired keys",
    "broken lines",
    "concurrent writes",
    "slow readers",
    "unknown fields",
    "long titles",
    "null values",
    "partial pages",
    "stale entries",
    "foreign rows",
];
const WHEN: [&str; 12] = [
    "after a restart",
    "under load",
    "when the disk is full",
    "on the first request",
    "during a migration",
    "with two processes",
    "when a replica lags",
    "after an upgrade",
    "on a slow network",
    "at midnight",
    "when memory is short",
    "while a backup runs",
];
const STATUSES: [&str; 10] = [
    "completed",
    "completed",
    "completed",
    "completed",
    "processing",
    "processing",
    "pending",
    "pending",
    "failed",
    "cancelled",
];
const CATEGORIES: [&str; 6] =
    ["correctness", "performance", "security", "availability", "usability", "maintenance"];
const SOURCES: [&str; 8] = [
    "code_analysis",
    "test_result",
    "ai_model_output",
    "documentation",
    "log",
    "metric",
    "user_feedback",
    "issue",
];
const DOMAINS: [&str; 8] =
    ["general", "general", "general", "general", "general", "financial", "legal", "social"];

fn task_with_evidence(spec: Spec, number: u64) -> Vec<Record> {
    let mut dice =
        Dice(spec.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number.wrapping_mul(0xd1b5_4a32_d192_ed03));
    let task = task(&mut dice, number);
    let (project, created_at) = (task.project.clone(), task.created_at);
    let mut records = Vec::with_capacity(usize::try_from(1 + 2 * spec.evidence).unwrap_or(0));
    let name = |index: u64| format!("gen-evidence-{number}-{index}");
    let task_name = task.external_id.clone();
    records.push(Record::Task(task));
    for index in 0..spec.evidence {
        let evidence = evidence(&mut dice, name(index));
        records.push(Record::Evidence(Evidence {
            project: project.clone(),
            task: Some(task_name.clone()),
            collected_at: created_at,
            created_at,
            ..evidence
        }));
    }
    for index in 0..spec.relations() {
        records.push(Record::EvidenceRelation(EvidenceRelation {
            from: name((index + 1) % spec.evidence),
            to: name(index),
            kind: "supports".to_owned(),
            strength: dice.share(),
            note: None,
            created_by_user: None,
            created_by_agent: Some(dice.pick(&AGENTS).0.to_owned()),
            created_at,
        }));
    }
    records
}

fn task(dice: &mut Dice, number: u64) -> Task {
    let status = *dice.pick(&STATUSES);
    let created_at = dice.time();
    let begun = status != "pending" && status != "cancelled";
    let mut metadata = Map::new();
    metadata.insert("component".to_owned(), Value::from(*dice.pick(&WHAT)));
    metadata.insert("points".to_owned(), Value::from(dice.below(13)));
    Task {
        external_id: format!("gen-task-{number}"),
        project: dice.pick(&PROJECTS).0.to_owned(),
        parent: None,
        title: sentence(dice),
        intent: "investigate".to_owned(),
        status: status.to_owned(),
        priority: i32::try_from(1 + dice.below(5)).unwrap_or(3),
        category: Some((*dice.pick(&CATEGORIES)).to_owned()),
        content: Map::new(),
        tags: vec![(*dice.pick(&CATEGORIES)).to_owned(), dice.pick(&WHAT).replace(' ', "-")],
        metadata,
        created_by_user: None,
        created_by_agent: Some("orchestrator".to_owned()),
        assigned_user: None,
        assigned_agent: Some(dice.pick(&AGENTS).0.to_owned()),
        retry_count: i32::from(status == "failed"),
        max_retries: 3,
        timeout_seconds: 300,
        error_message: (status == "failed").then(|| sentence(dice)),
        github_issue_number: None,
        github_pr_number: None,
        github_url: None,
        due_at: None,
        started_at: created_at.filter(|_| begun),
        completed_at: created_at.filter(|_| status == "completed"),
        failed_at: created_at.filter(|_| status == "failed"),
        created_at,
    }
}

/// Everything but what comes from the task.
fn evidence(dice: &mut Dice, external_id: String) -> Evidence {
    let mut content = String::with_capacity(480);
    while content.len() < 400 {
        content.push_str(&sentence(dice));
        content.push_str(". ");
    }
    Evidence {
        external_id,
        project: String::new(),
        task: None,
        agent: Some(dice.pick(&AGENTS).0.to_owned()),
        title: sentence(dice),
        content: content.trim_end().to_owned(),
        source_type: (*dice.pick(&SOURCES)).to_owned(),
        source_url: None,
        domain: (*dice.pick(&DOMAINS)).to_owned(),
        credibility_score: dice.share(),
        verified: false,
        verified_by_user: None,
        verified_at: None,
        verification_note: None,
        language: Some("en".to_owned()),
        tags: vec![(*dice.pick(&CATEGORIES)).to_owned()],
        metadata: Map::new(),
        collected_at: None,
        expires_at: None,
        created_at: None,
    }
}

/// About fifty letters.
fn sentence(dice: &mut Dice) -> String {
    format!("The {} {} {} {}", dice.pick(&WHAT), dice.pick(&DOES), dice.pick(&WHOM), dice.pick(&WHEN))
}

/// SplitMix64: small, fast, and the same on every machine.
struct Dice(u64);

impl Dice {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    const fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let index = self.below(from.len() as u64);
        &from[usize::try_from(index).unwrap_or(0)]
    }

    /// From 0.0 to 1.0 in steps of a hundredth, as people rate.
    fn share(&mut self) -> f64 {
        f64::from(u32::try_from(self.below(101)).unwrap_or(0)) / 100.0
    }

    /// Some second of the two years before the end of 2025.
    fn time(&mut self) -> Option<DateTime<Utc>> {
        let end = DateTime::from_timestamp(1_767_225_600, 0)?;
        let seconds = i64::try_from(self.below(2 * 365 * 86_400)).ok()?;
        Some(end - TimeDelta::seconds(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_is_read_and_written() {
        let spec: Spec = "tasks=20000,evidence=5".parse().unwrap();
        assert_eq!(spec, Spec { tasks: 20_000, evidence: 5, seed: 1 });
        assert_eq!(spec.to_string().parse::<Spec>().unwrap(), spec);
        for wrong in
            ["", "tasks", "tasks=x", "tasks=0", "evidence=5", "tasks=1,cats=2", "tasks=1,evidence=1001"]
        {
            assert!(wrong.parse::<Spec>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_same_numbers_make_the_same_rows() {
        let make = |text: &str| records(text.parse().unwrap()).collect::<Vec<_>>();
        let rows = make("tasks=50,evidence=3,seed=2");
        assert_eq!(rows, make("tasks=50,evidence=3,seed=2"));
        assert_ne!(rows, make("tasks=50,evidence=3,seed=3"));
        let spec = Spec { tasks: 50, evidence: 3, seed: 2 };
        assert_eq!(rows.len() as u64, spec.lines());
        for row in &rows {
            super::super::check::check(row).unwrap();
        }
    }
}
