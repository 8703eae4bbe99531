//! The statement that writes rows of one table: which columns there are and which field of a record fills each.

use std::fmt::Write as _;

use super::record::Kind;

/// Where a column gets its value from.
#[derive(Debug, Clone, Copy)]
enum From {
    /// The field of the same name.
    Value,
    /// The field of the same name when the row is new; an existing row keeps what it has.
    Once,
    /// The row of another table whose external id stands in this field.
    Reference { field: &'static str, table: &'static str },
    /// A field of another name.
    Field(&'static str),
}

#[derive(Debug, Clone, Copy)]
struct Column {
    name: &'static str,
    sql_type: &'static str,
    from: From,
}

/// One table as the import sees it.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// The columns by which a row is recognized.
    key: &'static [&'static str],
    columns: &'static [Column],
}

const fn value(name: &'static str, sql_type: &'static str) -> Column {
    Column { name, sql_type, from: From::Value }
}

const fn text(name: &'static str) -> Column {
    value(name, "text")
}

const fn time(name: &'static str) -> Column {
    value(name, "timestamptz")
}

const fn once(name: &'static str) -> Column {
    Column { name, sql_type: "timestamptz", from: From::Once }
}

const fn reference(name: &'static str, field: &'static str, table: &'static str) -> Column {
    Column { name, sql_type: "text", from: From::Reference { field, table } }
}

const fn by_user(name: &'static str, field: &'static str) -> Column {
    reference(name, field, "users")
}

const fn by_agent(name: &'static str, field: &'static str) -> Column {
    reference(name, field, "agents")
}

const EXTERNAL_ID: &[&str] = &["external_id"];
const METADATA: Column = value("metadata", "jsonb");
const PROJECT: Column = reference("project_id", "project", "projects");
const TASK: Column = reference("task_id", "task", "tasks");
const CREATED_AT: Column = once("created_at");

const USERS: Table = Table {
    name: "users",
    key: EXTERNAL_ID,
    columns: &[
        text("external_id"),
        text("username"),
        text("display_name"),
        text("email"),
        text("role"),
        text("github_login"),
        value("preferences", "jsonb"),
        METADATA,
        time("last_seen_at"),
        CREATED_AT,
    ],
};

const PROJECTS: Table = Table {
    name: "projects",
    key: EXTERNAL_ID,
    columns: &[
        text("external_id"),
        text("slug"),
        text("name"),
        text("description"),
        text("status"),
        text("repository_url"),
        text("default_branch"),
        value("tech_stack", "text[]"),
        value("metrics", "jsonb"),
        METADATA,
        by_user("owner_id", "owner"),
        CREATED_AT,
    ],
};

const PROJECT_MEMBERS: Table = Table {
    name: "project_members",
    key: &["project_id", "user_id"],
    columns: &[PROJECT, by_user("user_id", "user"), text("role"), CREATED_AT],
};

const AGENTS: Table = Table {
    name: "agents",
    key: EXTERNAL_ID,
    columns: &[
        text("external_id"),
        text("name"),
        Column { name: "type", sql_type: "text", from: From::Field("agentType") },
        text("agent_version"),
        text("description"),
        text("status"),
        text("endpoint_url"),
        text("health_check_url"),
        value("capabilities", "text[]"),
        value("configuration", "jsonb"),
        time("last_heartbeat_at"),
        once("registered_at"),
        CREATED_AT,
    ],
};

const TASKS: Table = Table {
    name: "tasks",
    key: EXTERNAL_ID,
    columns: &[
        text("external_id"),
        PROJECT,
        // Rows of one statement may refer to each other, and those that are new have no row yet.
        Column {
            name: "parent_id",
            sql_type: "text",
            from: From::Reference { field: "parent", table: "tasks" },
        },
        text("title"),
        text("intent"),
        text("status"),
        value("priority", "integer"),
        text("category"),
        value("content", "jsonb"),
        value("tags", "text[]"),
        METADATA,
        by_user("created_by_user_id", "createdByUser"),
        by_agent("created_by_agent_id", "createdByAgent"),
        by_user("assigned_user_id", "assignedUser"),
        by_agent("assigned_agent_id", "assignedAgent"),
        value("retry_count", "integer"),
        value("max_retries", "integer"),
        value("timeout_seconds", "integer"),
        text("error_message"),
        value("github_issue_number", "integer"),
        value("github_pr_number", "integer"),
        text("github_url"),
        time("due_at"),
        time("started_at"),
        time("completed_at"),
        time("failed_at"),
        CREATED_AT,
    ],
};

const TASK_RESULTS: Table = Table {
    name: "task_results",
    key: &["id"],
    columns: &[
        TASK,
        by_agent("agent_id", "agent"),
        text("result_type"),
        value("content", "jsonb"),
        METADATA,
        CREATED_AT,
    ],
};

const TASK_COMMENTS: Table = Table {
    name: "task_comments",
    key: &["id"],
    columns: &[
        TASK,
        by_user("author_user_id", "authorUser"),
        by_agent("author_agent_id", "authorAgent"),
        text("body"),
        value("github_comment_id", "bigint"),
        CREATED_AT,
    ],
};

const TASK_ATTACHMENTS: Table = Table {
    name: "task_attachments",
    key: &["id"],
    columns: &[
        TASK,
        reference("evidence_id", "evidence", "evidence"),
        by_user("uploaded_by_user_id", "uploadedByUser"),
        text("file_name"),
        text("media_type"),
        value("size_bytes", "bigint"),
        text("storage_path"),
        text("sha256"),
        CREATED_AT,
    ],
};

const EVIDENCE: Table = Table {
    name: "evidence",
    key: EXTERNAL_ID,
    columns: &[
        text("external_id"),
        PROJECT,
        TASK,
        by_agent("agent_id", "agent"),
        text("title"),
        text("content"),
        text("source_type"),
        text("source_url"),
        text("domain"),
        value("credibility_score", "double precision"),
        value("verified", "boolean"),
        by_user("verified_by_user_id", "verifiedByUser"),
        time("verified_at"),
        text("verification_note"),
        text("language"),
        value("tags", "text[]"),
        METADATA,
        once("collected_at"),
        time("expires_at"),
        CREATED_AT,
    ],
};

const EVIDENCE_RELATIONS: Table = Table {
    name: "evidence_relations",
    key: &["from_evidence_id", "to_evidence_id", "kind"],
    columns: &[
        reference("from_evidence_id", "from", "evidence"),
        reference("to_evidence_id", "to", "evidence"),
        text("kind"),
        value("strength", "double precision"),
        text("note"),
        by_user("created_by_user_id", "createdByUser"),
        by_agent("created_by_agent_id", "createdByAgent"),
        CREATED_AT,
    ],
};

const CHAINS: Table = Table {
    name: "evidence_chains",
    key: EXTERNAL_ID,
    columns: &[
        text("external_id"),
        PROJECT,
        TASK,
        text("claim"),
        text("conclusion"),
        text("status"),
        value("confidence", "double precision"),
        by_user("created_by_user_id", "createdByUser"),
        by_agent("created_by_agent_id", "createdByAgent"),
        time("concluded_at"),
        METADATA,
        CREATED_AT,
    ],
};

const CHAIN_LINKS: Table = Table {
    name: "evidence_chain_links",
    key: &["id"],
    columns: &[
        reference("chain_id", "chain", "evidence_chains"),
        reference("evidence_id", "evidence", "evidence"),
        Column { name: "parent_link_id", sql_type: "uuid", from: From::Field("parentId") },
        value("position", "integer"),
        text("role"),
        text("rationale"),
        CREATED_AT,
    ],
};

impl Kind {
    pub(super) const fn table(self) -> &'static Table {
        match self {
            Self::User => &USERS,
            Self::Project => &PROJECTS,
            Self::ProjectMember => &PROJECT_MEMBERS,
            Self::Agent => &AGENTS,
            Self::Task => &TASKS,
            Self::TaskResult => &TASK_RESULTS,
            Self::TaskComment => &TASK_COMMENTS,
            Self::TaskAttachment => &TASK_ATTACHMENTS,
            Self::Evidence => &EVIDENCE,
            Self::EvidenceRelation => &EVIDENCE_RELATIONS,
            Self::Chain => &CHAINS,
            Self::ChainLink => &CHAIN_LINKS,
        }
    }
}

impl Column {
    /// The field of a record that fills the column.
    fn field(&self) -> String {
        match self.from {
            From::Field(field) | From::Reference { field, .. } => field.to_owned(),
            From::Value | From::Once => camel_case(self.name),
        }
    }

    fn expression(&self, own_table: &str) -> String {
        let field = self.field();
        match self.from {
            From::Value | From::Field(_) => format!("r.\"{field}\""),
            From::Once => format!("coalesce(r.\"{field}\", now())"),
            From::Reference { table, .. } => {
                let existing = format!("(select id from {table} where external_id = r.\"{field}\")");
                if table == own_table {
                    let new = format!("(select s.id from r s where s.\"externalId\" = r.\"{field}\")");
                    format!("case when r.\"{field}\" is not null then coalesce({existing}, {new}) end")
                } else {
                    existing
                }
            }
        }
    }
}

impl Table {
    /// `insert … on conflict … do update … where` something differs.
    pub(super) fn upsert(&self) -> String {
        let mut fields = String::from("id uuid");
        let mut columns = String::from("id");
        let mut values = String::from("r.id");
        for column in self.columns {
            let written = write!(fields, ", \"{}\" {}", column.field(), column.sql_type)
                .and_then(|()| write!(columns, ", {}", column.name))
                .and_then(|()| write!(values, ", {}", column.expression(self.name)));
            debug_assert!(written.is_ok(), "a String takes everything");
        }
        let updated: Vec<&str> = self
            .columns
            .iter()
            .filter(|column| !matches!(column.from, From::Once) && !self.key.contains(&column.name))
            .map(|column| column.name)
            .collect();
        let old = prefixed("old.", &updated);
        let new = prefixed("excluded.", &updated);
        format!(
            "with r as materialized (select * from json_to_recordset($1::json) as r ({fields})) \
             insert into {} as old ({columns}) select {values} from r \
             on conflict ({}) do update set ({}) = row({new}) where row({old}) is distinct from row({new})",
            self.name,
            self.key.join(", "),
            updated.join(", "),
        )
    }
}

fn prefixed(prefix: &str, names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("{prefix}{name}")).collect();
    names.join(", ")
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_names_fields_and_columns() {
        let statement = PROJECT_MEMBERS.upsert();
        assert_eq!(
            statement,
            "with r as materialized (select * from json_to_recordset($1::json) as r \
             (id uuid, \"project\" text, \"user\" text, \"role\" text, \"createdAt\" timestamptz)) \
             insert into project_members as old (id, project_id, user_id, role, created_at) \
             select r.id, (select id from projects where external_id = r.\"project\"), \
             (select id from users where external_id = r.\"user\"), r.\"role\", coalesce(r.\"createdAt\", now()) from r \
             on conflict (project_id, user_id) do update set (role) = row(excluded.role) \
             where row(old.role) is distinct from row(excluded.role)"
        );
    }

    #[test]
    fn names_change_their_case() {
        assert_eq!(camel_case("github_pr_number"), "githubPrNumber");
        assert_eq!(camel_case("title"), "title");
    }

    /// A column without a field would silently become null.
    #[test]
    fn every_column_has_its_field_and_every_field_its_column() {
        for kind in Kind::ALL {
            let columns: std::collections::BTreeSet<String> = kind
                .table()
                .columns
                .iter()
                .map(
                    |column| {
                        if column.name == "parent_link_id" { "parent".to_owned() } else { column.field() }
                    },
                )
                .collect();
            let mut fields = crate::model::import::record::tests::fields_of(kind);
            if !kind.table().columns.iter().any(|column| column.name == "external_id") {
                fields.remove("externalId");
            }
            assert_eq!(columns, fields, "{}", kind.name());
        }
    }
}
