//! The five users, five projects and ten agents of the sample, which generated rows share.

use chrono::{DateTime, Utc};
use serde_json::Map;

use crate::model::import::record::Record;
use crate::model::import::row::{Agent, Project, ProjectMember, User};

/// Login, name, role.
const USERS: [(&str, &str, &str); 5] = [
    ("admin", "Administrator", "admin"),
    ("orchestrator-bot", "Orchestrator (service account)", "agent"),
    ("engineer-1", "Senior Engineer", "analyst"),
    ("engineer-2", "Staff Engineer", "analyst"),
    ("manager-1", "Engineering Manager", "viewer"),
];

/// Slug, name, description, owner.
pub(in crate::cli::import) const PROJECTS: [(&str, &str, &str, &str); 5] = [
    (
        "ai-engineering-platform",
        "AI Engineering Platform",
        "Memory safety of the platform's own crates.",
        "admin",
    ),
    (
        "moe-router",
        "MoE Router Service",
        "Availability of the service that routes requests to models.",
        "engineer-1",
    ),
    ("frontend-ui", "Frontend UI", "What the user interface parses, renders and serves.", "engineer-2"),
    ("agent-library", "Agent Library", "The health of the crates that agents are built from.", "engineer-2"),
    ("integration-hub", "Integration Hub", "Keys, privileges and the code of others.", "manager-1"),
];

/// Who may see what: nobody but the administrator and the service account is in every project.
const MEMBERS: [(&str, &str, &str); 14] = [
    ("ai-engineering-platform", "admin", "owner"),
    ("ai-engineering-platform", "engineer-1", "maintainer"),
    ("ai-engineering-platform", "manager-1", "viewer"),
    ("ai-engineering-platform", "orchestrator-bot", "member"),
    ("moe-router", "engineer-1", "owner"),
    ("moe-router", "orchestrator-bot", "member"),
    ("frontend-ui", "engineer-2", "owner"),
    ("frontend-ui", "orchestrator-bot", "member"),
    ("agent-library", "engineer-2", "owner"),
    ("agent-library", "engineer-1", "member"),
    ("agent-library", "orchestrator-bot", "member"),
    ("integration-hub", "manager-1", "owner"),
    ("integration-hub", "engineer-1", "member"),
    ("integration-hub", "orchestrator-bot", "member"),
];

/// Name, description, capabilities.
pub(in crate::cli::import) const AGENTS: [(&str, &str, &[&str]); 10] = [
    ("orchestrator", "Splits work into tasks and hands them out.", &["task_routing", "planning"]),
    ("architect", "Judges designs and concurrency.", &["design_review", "concurrency"]),
    ("planner", "Plans replacements and upgrades.", &["planning", "dependency_review"]),
    ("codegen", "Writes changes.", &["code_generation"]),
    ("reviewer", "Reviews code for soundness.", &["code_review", "soundness"]),
    ("tester", "Reproduces faults and measures limits.", &["test_execution", "fuzzing"]),
    ("security", "Judges vulnerabilities.", &["vulnerability_triage", "cryptography"]),
    ("deployer", "Rolls changes out.", &["deployment", "configuration"]),
    ("debugger", "Finds the cause of memory faults.", &["debugging", "memory_analysis"]),
    ("documentation", "Keeps notices and documents.", &["documentation"]),
];

/// Where the sample's time begins: the date of its first advisory.
const BEGINNING: &str = "2015-05-27T00:00:00Z";

/// People first, because everything else refers to them.
pub(in crate::cli::import) fn records() -> Vec<Record> {
    let created_at = BEGINNING.parse::<DateTime<Utc>>().ok();
    let users = USERS.into_iter().map(|(username, display_name, role)| {
        Record::User(User {
            external_id: username.to_owned(),
            username: username.to_owned(),
            display_name: display_name.to_owned(),
            email: Some(format!("{username}@example.com")),
            role: role.to_owned(),
            github_login: None,
            preferences: Map::new(),
            metadata: Map::new(),
            last_seen_at: None,
            created_at,
        })
    });
    let projects = PROJECTS.into_iter().map(|(slug, name, description, owner)| {
        Record::Project(Project {
            external_id: slug.to_owned(),
            slug: slug.to_owned(),
            name: name.to_owned(),
            description: Some(description.to_owned()),
            status: "active".to_owned(),
            repository_url: None,
            default_branch: Some("main".to_owned()),
            tech_stack: vec!["Rust".to_owned()],
            metrics: Map::new(),
            metadata: Map::new(),
            owner: Some(owner.to_owned()),
            created_at,
        })
    });
    let members = MEMBERS.into_iter().map(|(project, user, role)| {
        Record::ProjectMember(ProjectMember {
            project: project.to_owned(),
            user: user.to_owned(),
            role: role.to_owned(),
            created_at,
        })
    });
    users.chain(projects).chain(members).chain(AGENTS.into_iter().map(agent)).collect()
}

fn agent((name, description, capabilities): (&str, &str, &[&str])) -> Record {
    let created_at = BEGINNING.parse::<DateTime<Utc>>().ok();
    Record::Agent(Agent {
        external_id: name.to_owned(),
        name: name.to_owned(),
        agent_type: name.to_owned(),
        agent_version: "1.0.0".to_owned(),
        description: Some(description.to_owned()),
        status: if name == "deployer" { "maintenance" } else { "active" }.to_owned(),
        endpoint_url: None,
        health_check_url: None,
        capabilities: capabilities.iter().map(|capability| (*capability).to_owned()).collect(),
        configuration: Map::new(),
        last_heartbeat_at: None,
        registered_at: created_at,
        created_at,
    })
}
