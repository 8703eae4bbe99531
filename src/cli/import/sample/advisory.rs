//! One advisory and the rows that follow from it: a task, its evidence, and the chain that leads to its conclusion.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::rules;
use crate::cli::import::cvss;
use crate::model::import::record::Record;
use crate::model::import::row::{
    Chain, ChainLink, Evidence, EvidenceRelation, Task, TaskComment, TaskResult,
};

/// An advisory as it stands in sample/rustsec-advisories.jsonl.
#[derive(Debug, Deserialize)]
pub(super) struct Advisory {
    pub(super) id: String,
    pub(super) package: String,
    pub(super) collection: String,
    pub(super) title: String,
    pub(super) description: String,
    pub(super) date: NaiveDate,
    pub(super) withdrawn: Option<NaiveDate>,
    pub(super) url: Option<String>,
    pub(super) references: Vec<String>,
    pub(super) categories: Vec<String>,
    pub(super) keywords: Vec<String>,
    pub(super) informational: Option<String>,
    pub(super) cvss: Option<String>,
    pub(super) aliases: Vec<String>,
    pub(super) related: Vec<String>,
    pub(super) patched: Vec<String>,
    pub(super) unaffected: Vec<String>,
    pub(super) affected_functions: BTreeMap<String, Vec<String>>,
    /// Found once, because all evidence of the advisory shares it.
    #[serde(skip)]
    domain: OnceLock<&'static str>,
}

/// Evidence together with the part that it plays in the chain.
struct Step {
    evidence: Evidence,
    role: &'static str,
    /// How it relates to the text of the advisory.
    relation: Option<&'static str>,
    rationale: String,
}

impl Advisory {
    pub(super) fn category(&self) -> &str {
        self.categories.first().or(self.informational.as_ref()).map_or("uncategorized", String::as_str)
    }

    /// The external id of the evidence that holds the text.
    pub(super) fn text_id(&self) -> String {
        self.part("text")
    }

    pub(super) fn published(&self) -> Option<DateTime<Utc>> {
        Some(at_midnight(self.date))
    }

    /// Adds all rows but those that need other advisories.
    pub(super) fn records(&self, records: &mut Vec<Record>) {
        records.push(Record::Task(self.task()));
        records.extend(self.result().map(Record::TaskResult));
        records.extend(self.comment().map(Record::TaskComment));
        let steps = self.steps();
        let chain = Record::Chain(self.chain());
        let relations: Vec<Record> = steps.iter().filter_map(|step| self.relation(step)).collect();
        let links: Vec<Record> =
            steps.iter().zip(0..).map(|(step, position)| self.link(step, position)).collect();
        records.extend(steps.into_iter().map(|step| Record::Evidence(step.evidence)));
        records.extend(relations);
        records.push(chain);
        records.extend(links);
    }

    fn part(&self, name: &str) -> String {
        format!("{}#{name}", self.id)
    }

    fn project(&self) -> String {
        rules::place(self.category()).0.to_owned()
    }

    fn agent(&self) -> String {
        rules::place(self.category()).1.to_owned()
    }

    fn tags(&self) -> Vec<String> {
        let mut tags: Vec<String> = Vec::new();
        for tag in self.categories.iter().chain(&self.keywords).chain(&self.informational) {
            if !tags.contains(tag) {
                tags.push(tag.clone());
            }
        }
        tags
    }

    fn task(&self) -> Task {
        let status = rules::status(self);
        let urls = || self.url.iter().chain(&self.references);
        Task {
            external_id: self.id.clone(),
            project: self.project(),
            parent: None,
            title: format!("Triage {}: {}", self.id, self.title),
            intent: "triage_advisory".to_owned(),
            status: status.to_owned(),
            priority: rules::priority(self),
            category: Some(self.category().to_owned()),
            content: object(json!({
                "advisory": self.id,
                "package": self.package,
                "collection": self.collection,
                "cvss": self.cvss,
                "score": self.score(),
            })),
            tags: self.tags(),
            metadata: object(json!({ "aliases": self.aliases, "package": self.package })),
            created_by_user: None,
            created_by_agent: Some("orchestrator".to_owned()),
            // People decide about malice; everything else is an agent's work.
            assigned_user: (self.category() == "malicious").then(|| "engineer-1".to_owned()),
            assigned_agent: (self.category() != "malicious").then(|| self.agent()),
            retry_count: 0,
            max_retries: 3,
            timeout_seconds: 300,
            error_message: None,
            github_issue_number: urls().find_map(|url| rules::github_number(url, "issues")),
            github_pr_number: urls().find_map(|url| rules::github_number(url, "pull")),
            github_url: urls().find(|url| url.starts_with("https://github.com/")).cloned(),
            due_at: None,
            started_at: (status == "processing" || status == "completed").then(|| at_midnight(self.date)),
            completed_at: (status == "completed").then(|| at_midnight(self.date)),
            failed_at: None,
            created_at: self.published(),
        }
    }

    fn score(&self) -> Option<f64> {
        self.cvss.as_deref().and_then(cvss::base_score)
    }

    fn result(&self) -> Option<TaskResult> {
        (rules::status(self) == "completed").then(|| TaskResult {
            external_id: self.part("result"),
            task: self.id.clone(),
            agent: Some(self.agent()),
            result_type: "patched_versions".to_owned(),
            content: json!({ "package": self.package, "patched": self.patched, "unaffected": self.unaffected }),
            metadata: Map::new(),
            created_at: self.published(),
        })
    }

    fn comment(&self) -> Option<TaskComment> {
        let body = match (self.withdrawn, self.score()) {
            (Some(day), _) => format!("{} was withdrawn on {day}; nothing is left to do.", self.id),
            (None, Some(score)) if score >= 9.0 && self.patched.is_empty() => {
                format!(
                    "CVSS base score {score:.1}, and the advisory names no patched version of {}.",
                    self.package
                )
            }
            (None, _) if !self.related.is_empty() => format!("Compare {}.", self.related.join(", ")),
            _ => return None,
        };
        let person = self.withdrawn.is_some();
        Some(TaskComment {
            external_id: self.part("comment"),
            task: self.id.clone(),
            author_user: person.then(|| "manager-1".to_owned()),
            author_agent: (!person).then(|| "security".to_owned()),
            body,
            github_comment_id: None,
            created_at: Some(at_midnight(self.withdrawn.unwrap_or(self.date))),
        })
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = vec![self.text()];
        let mut urls: Vec<&String> = Vec::new();
        for url in self.url.iter().chain(&self.references) {
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        steps.extend(urls.into_iter().zip(1..).map(|(url, number)| self.reference(url, number)));
        steps.extend(self.functions());
        steps.extend(self.patch());
        steps.extend(self.withdrawal());
        steps
    }

    fn evidence(&self, part: &str, source_type: &str, credibility_score: f64) -> Evidence {
        Evidence {
            external_id: self.part(part),
            project: self.project(),
            task: Some(self.id.clone()),
            agent: Some(self.agent()),
            title: String::new(),
            content: String::new(),
            source_type: source_type.to_owned(),
            source_url: None,
            domain: (*self.domain.get_or_init(|| rules::domain(self))).to_owned(),
            credibility_score,
            verified: false,
            verified_by_user: None,
            verified_at: None,
            verification_note: None,
            language: Some("en".to_owned()),
            tags: self.tags(),
            metadata: object(json!({ "advisory": self.id, "package": self.package })),
            collected_at: self.published(),
            expires_at: None,
            created_at: self.published(),
        }
    }

    fn text(&self) -> Step {
        let credibility = if self.withdrawn.is_some() { 0.3 } else { 0.95 };
        // Another database that publishes the same has looked at it too.
        let verified = self.withdrawn.is_none() && !self.aliases.is_empty();
        let address = match self.collection.as_str() {
            "crates" => Some(format!("https://rustsec.org/advisories/{}.html", self.id)),
            _ => self.url.clone(),
        };
        let evidence = Evidence {
            title: self.title.clone(),
            content: self.description.clone(),
            source_url: address,
            verified,
            verified_by_user: verified.then(|| "admin".to_owned()),
            verified_at: verified.then(|| at_midnight(self.date)),
            verification_note: verified.then(|| format!("Also published as {}.", self.aliases.join(", "))),
            metadata: object(json!({
                "advisory": self.id,
                "package": self.package,
                "aliases": self.aliases,
                "cvss": self.cvss,
            })),
            ..self.evidence("text", "security_advisory", credibility)
        };
        let rationale = format!("The advisory {} about {}.", self.id, self.package);
        Step { evidence, role: "premise", relation: None, rationale }
    }

    fn reference(&self, url: &str, number: usize) -> Step {
        let (source_type, credibility) = rules::source_of(url);
        let what = source_type.replace('_', " ");
        let evidence = Evidence {
            title: format!("{} for {}: {}", capitalized(&what), self.id, short(url)),
            content: format!("The advisory {} ({}) refers to this {what}: {url}", self.id, self.title),
            source_url: Some(url.to_owned()),
            ..self.evidence(&format!("reference-{number}"), source_type, credibility)
        };
        let rationale = format!("{} refers to it.", self.id);
        Step { evidence, role: "support", relation: Some("supports"), rationale }
    }

    fn functions(&self) -> Option<Step> {
        if self.affected_functions.is_empty() {
            return None;
        }
        let lines: Vec<String> = self
            .affected_functions
            .iter()
            .map(|(function, versions)| format!("{function} ({})", versions.join(" or ")))
            .collect();
        let evidence = Evidence {
            title: format!("Functions of {} that {} affects", self.package, self.id),
            content: format!(
                "{} affects these functions of {}:\n{}",
                self.id,
                self.package,
                lines.join("\n")
            ),
            ..self.evidence("functions", "affected_functions", 0.85)
        };
        let rationale = "Where the fault can be reached.".to_owned();
        Some(Step { evidence, role: "context", relation: Some("derives_from"), rationale })
    }

    fn patch(&self) -> Option<Step> {
        if self.patched.is_empty() {
            return None;
        }
        let mut content = format!("{} is fixed in {} {}.", self.id, self.package, self.patched.join(" or "));
        if !self.unaffected.is_empty() {
            content.push_str(&format!(" Never affected: {}.", self.unaffected.join(" or ")));
        }
        let evidence = Evidence {
            title: format!("Patched versions of {} for {}", self.package, self.id),
            content,
            ..self.evidence("patch", "patch", 0.9)
        };
        let rationale = "The versions in which the fault is gone.".to_owned();
        Some(Step { evidence, role: "conclusion", relation: Some("supports"), rationale })
    }

    fn withdrawal(&self) -> Option<Step> {
        let day = self.withdrawn?;
        let evidence = Evidence {
            title: format!("Withdrawal of {}", self.id),
            content: format!("The advisory {} about {} was withdrawn on {day}.", self.id, self.package),
            collected_at: Some(at_midnight(day)),
            created_at: Some(at_midnight(day)),
            ..self.evidence("withdrawal", "security_advisory", 0.95)
        };
        let rationale = "Its own source no longer holds the claim.".to_owned();
        Some(Step { evidence, role: "contradiction", relation: Some("contradicts"), rationale })
    }

    fn relation(&self, step: &Step) -> Option<Record> {
        let kind = step.relation?;
        Some(Record::EvidenceRelation(EvidenceRelation {
            from: step.evidence.external_id.clone(),
            to: self.text_id(),
            kind: kind.to_owned(),
            strength: step.evidence.credibility_score,
            note: None,
            created_by_user: None,
            created_by_agent: Some(self.agent()),
            created_at: step.evidence.created_at,
        }))
    }

    fn chain(&self) -> Chain {
        let (status, conclusion, ended) = match (self.withdrawn, self.patched.is_empty()) {
            (Some(day), _) => ("rejected", Some(format!("Withdrawn on {day}.")), Some(day)),
            (None, false) => {
                let fixed = format!("Use {} {}.", self.package, self.patched.join(" or "));
                ("concluded", Some(fixed), Some(self.date))
            }
            (None, true) => ("open", None, None),
        };
        let confidence = if self.references.is_empty() && self.aliases.is_empty() { 0.85 } else { 0.95 };
        Chain {
            external_id: self.part("chain"),
            project: self.project(),
            task: Some(self.id.clone()),
            claim: self.title.clone(),
            confidence: conclusion.is_some().then_some(confidence),
            conclusion,
            status: status.to_owned(),
            created_by_user: None,
            created_by_agent: Some(self.agent()),
            concluded_at: ended.map(at_midnight),
            metadata: object(json!({ "advisory": self.id })),
            created_at: self.published(),
        }
    }

    fn link(&self, step: &Step, position: i32) -> Record {
        let name = |evidence: &str| format!("{evidence}@chain");
        Record::ChainLink(ChainLink {
            external_id: name(&step.evidence.external_id),
            chain: self.part("chain"),
            evidence: step.evidence.external_id.clone(),
            parent: step.relation.map(|_| name(&self.text_id())),
            position,
            role: step.role.to_owned(),
            rationale: Some(step.rationale.clone()),
            created_at: step.evidence.created_at,
        })
    }
}

const fn at_midnight(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// An address without what all addresses have.
fn short(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, rest)| rest)
}
