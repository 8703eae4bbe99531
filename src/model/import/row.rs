//! The rows that an import brings, as they stand in its file: fields in camelCase, other rows by external id.
//! What may be absent has the default of its column, or none.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

type Time = Option<DateTime<Utc>>;
type Object = Map<String, Value>;

macro_rules! record {
    ($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub(crate) struct $name { $($(#[$attribute])* pub(crate) $field: $type),* }
    };
}

record!(User {
    external_id: String,
    username: String,
    display_name: String,
    #[serde(default)]
    email: Option<String>,
    #[serde(default = "viewer")]
    role: String,
    #[serde(default)]
    github_login: Option<String>,
    #[serde(default)]
    preferences: Object,
    #[serde(default)]
    metadata: Object,
    #[serde(default)]
    last_seen_at: Time,
    #[serde(default)]
    created_at: Time,
});

record!(Project {
    external_id: String,
    slug: String,
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default = "active")]
    status: String,
    #[serde(default)]
    repository_url: Option<String>,
    #[serde(default)]
    default_branch: Option<String>,
    #[serde(default)]
    tech_stack: Vec<String>,
    #[serde(default)]
    metrics: Object,
    #[serde(default)]
    metadata: Object,
    #[serde(default)]
    owner: Option<String>,
    #[serde(default)]
    created_at: Time,
});

record!(ProjectMember {
    project: String,
    user: String,
    #[serde(default = "member")]
    role: String,
    #[serde(default)]
    created_at: Time,
});

record!(Agent {
    external_id: String,
    name: String,
    agent_type: String,
    agent_version: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default = "inactive")]
    status: String,
    #[serde(default)]
    endpoint_url: Option<String>,
    #[serde(default)]
    health_check_url: Option<String>,
    #[serde(default)]
    capabilities: Vec<String>,
    #[serde(default)]
    configuration: Object,
    #[serde(default)]
    last_heartbeat_at: Time,
    #[serde(default)]
    registered_at: Time,
    #[serde(default)]
    created_at: Time,
});

record!(Task {
    external_id: String,
    project: String,
    #[serde(default)]
    parent: Option<String>,
    title: String,
    intent: String,
    #[serde(default = "pending")]
    status: String,
    #[serde(default = "three")]
    priority: i32,
    #[serde(default)]
    category: Option<String>,
    #[serde(default)]
    content: Object,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    metadata: Object,
    #[serde(default)]
    created_by_user: Option<String>,
    #[serde(default)]
    created_by_agent: Option<String>,
    #[serde(default)]
    assigned_user: Option<String>,
    #[serde(default)]
    assigned_agent: Option<String>,
    #[serde(default)]
    retry_count: i32,
    #[serde(default = "three")]
    max_retries: i32,
    #[serde(default = "five_minutes")]
    timeout_seconds: i32,
    #[serde(default)]
    error_message: Option<String>,
    #[serde(default)]
    github_issue_number: Option<i32>,
    #[serde(default)]
    github_pr_number: Option<i32>,
    #[serde(default)]
    github_url: Option<String>,
    #[serde(default)]
    due_at: Time,
    #[serde(default)]
    started_at: Time,
    #[serde(default)]
    completed_at: Time,
    #[serde(default)]
    failed_at: Time,
    #[serde(default)]
    created_at: Time,
});

record!(TaskResult {
    external_id: String,
    task: String,
    #[serde(default)]
    agent: Option<String>,
    result_type: String,
    content: Value,
    #[serde(default)]
    metadata: Object,
    #[serde(default)]
    created_at: Time,
});

record!(TaskComment {
    external_id: String,
    task: String,
    #[serde(default)]
    author_user: Option<String>,
    #[serde(default)]
    author_agent: Option<String>,
    body: String,
    #[serde(default)]
    github_comment_id: Option<i64>,
    #[serde(default)]
    created_at: Time,
});

record!(TaskAttachment {
    external_id: String,
    task: String,
    #[serde(default)]
    evidence: Option<String>,
    #[serde(default)]
    uploaded_by_user: Option<String>,
    file_name: String,
    media_type: String,
    size_bytes: i64,
    storage_path: String,
    #[serde(default)]
    sha256: Option<String>,
    #[serde(default)]
    created_at: Time,
});

record!(Evidence {
    external_id: String,
    project: String,
    #[serde(default)]
    task: Option<String>,
    #[serde(default)]
    agent: Option<String>,
    title: String,
    content: String,
    source_type: String,
    #[serde(default)]
    source_url: Option<String>,
    #[serde(default = "general")]
    domain: String,
    #[serde(default = "half")]
    credibility_score: f64,
    #[serde(default)]
    verified: bool,
    #[serde(default)]
    verified_by_user: Option<String>,
    #[serde(default)]
    verified_at: Time,
    #[serde(default)]
    verification_note: Option<String>,
    #[serde(default)]
    language: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    metadata: Object,
    #[serde(default)]
    collected_at: Time,
    #[serde(default)]
    expires_at: Time,
    #[serde(default)]
    created_at: Time,
});

record!(EvidenceRelation {
    from: String,
    to: String,
    kind: String,
    #[serde(default = "one")]
    strength: f64,
    #[serde(default)]
    note: Option<String>,
    #[serde(default)]
    created_by_user: Option<String>,
    #[serde(default)]
    created_by_agent: Option<String>,
    #[serde(default)]
    created_at: Time,
});

record!(Chain {
    external_id: String,
    project: String,
    #[serde(default)]
    task: Option<String>,
    claim: String,
    #[serde(default)]
    conclusion: Option<String>,
    #[serde(default = "open")]
    status: String,
    #[serde(default)]
    confidence: Option<f64>,
    #[serde(default)]
    created_by_user: Option<String>,
    #[serde(default)]
    created_by_agent: Option<String>,
    #[serde(default)]
    concluded_at: Time,
    #[serde(default)]
    metadata: Object,
    #[serde(default)]
    created_at: Time,
});

record!(ChainLink {
    external_id: String,
    chain: String,
    evidence: String,
    #[serde(default)]
    parent: Option<String>,
    position: i32,
    role: String,
    #[serde(default)]
    rationale: Option<String>,
    #[serde(default)]
    created_at: Time,
});

fn viewer() -> String {
    "viewer".to_owned()
}

fn active() -> String {
    "active".to_owned()
}

fn inactive() -> String {
    "inactive".to_owned()
}

fn member() -> String {
    "member".to_owned()
}

fn pending() -> String {
    "pending".to_owned()
}

fn general() -> String {
    "general".to_owned()
}

fn open() -> String {
    "open".to_owned()
}

const fn three() -> i32 {
    3
}

const fn five_minutes() -> i32 {
    300
}

const fn half() -> f64 {
    0.5
}

const fn one() -> f64 {
    1.0
}
