//! The database: migrations, its own rules, and that what the program believes of it is so.

use std::collections::BTreeMap;
use std::fmt::Write;

use evidence_gateway::http::viewer::Access;
use evidence_gateway::model::catalog::catalog;
use evidence_gateway::model::entity::{RelationKind, screaming_case};
use evidence_gateway::model::{enums, graph};
use evidence_gateway::store::db::migrations::{migrate, pending, revert_all};
use serde_json::Value;

use crate::harness::{Database, Gateway, column, id_of, member, sample_url, texts};

/// Everything that a schema consists of, one thing per line.
const EVERYTHING: &str = "
    select 'relation ' || relname || ' ' || relkind::text from pg_class where relnamespace = 'public'::regnamespace
    union all select 'column ' || table_name || '.' || column_name || ' ' || udt_name || ' ' || is_nullable || ' '
        || coalesce(column_default, '') from information_schema.columns where table_schema = 'public'
    union all select 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
        from pg_constraint where connamespace = 'public'::regnamespace
    union all select 'index ' || indexdef from pg_indexes where schemaname = 'public'
    union all select 'function ' || pg_get_functiondef(oid) from pg_proc where pronamespace = 'public'::regnamespace
    union all select 'trigger ' || pg_get_triggerdef(t.oid) from pg_trigger t join pg_class c on c.oid = tgrelid
        where c.relnamespace = 'public'::regnamespace and not tgisinternal
    union all select 'type ' || typname from pg_type where typnamespace = 'public'::regnamespace
    union all select 'extension ' || extname from pg_extension
    union all select 'comment ' || classoid::regclass || ' ' || objsubid || ' ' || description from pg_description d
        where exists (select from pg_class c where c.oid = d.objoid and c.relnamespace = 'public'::regnamespace)
    order by 1";

#[tokio::test]
async fn migrations_go_up_down_and_up_without_a_trace() {
    let database = Database::bare().await;
    let before = column(&database.url, EVERYTHING).await;
    let waiting = pending(&database.url).await.unwrap();
    let up = migrate(&database.url).await.unwrap();
    assert!(up.len() == waiting.len() && up.len() >= 9, "{up:?}");
    let there = column(&database.url, EVERYTHING).await;
    assert!(there.len() > 500);
    assert_eq!(migrate(&database.url).await.unwrap(), Vec::<String>::new());

    let mut down = revert_all(&database.url).await.unwrap();
    down.reverse();
    assert_eq!(down, up);
    let mut after = column(&database.url, EVERYTHING).await;
    after.retain(|line| !line.contains("__diesel_schema_migrations"));
    assert_eq!(after, before);

    migrate(&database.url).await.unwrap();
    assert_eq!(column(&database.url, EVERYTHING).await, there);
}

/// Every check of `database.sql` must find nothing.
#[tokio::test]
async fn the_tables_keep_the_house_rules() {
    let url = sample_url();
    let mut wrong = String::new();
    let mut checks = 0;
    for check in include_str!("database.sql").split("-- name: ").skip(1) {
        let (name, query) = check.split_once('\n').unwrap();
        checks += 1;
        for row in texts(&url, query.trim().trim_end_matches(';')).await {
            writeln!(wrong, "{name}: {row:?}").unwrap();
        }
    }
    assert!(checks >= 9);
    assert_eq!(wrong, "");
}

/// diesel's name of a type, from PostgreSQL's.
fn diesel_name(udt: &str) -> String {
    if let Some(item) = udt.strip_prefix('_') {
        return format!("Array<{}>", diesel_name(item));
    }
    let (first, rest) = udt.split_at(1);
    first.to_uppercase() + rest
}

/// `schema.rs`, from which the graph is built, says what the database says.
#[tokio::test]
async fn the_catalog_is_true() {
    let query = "select c.relname, obj_description(c.oid, 'pg_class'), a.attname, t.typname,
            (not a.attnotnull)::text, col_description(c.oid, a.attnum)
        from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        join pg_type t on t.oid = a.atttypid
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and c.relname !~ '^__diesel'
        order by c.relname, a.attnum";
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut live: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in texts(&sample_url(), query).await {
        let [table, doc, name, ty, nullable, comment] =
            <[_; 6]>::try_from(row).unwrap().map(|cell| cell.unwrap());
        let columns = live.entry(format!("{table}: {}", words(&doc))).or_default();
        columns.push(format!("{name} {} {nullable}: {}", diesel_name(&ty), words(&comment)));
    }
    let mut believed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (table, info) in catalog() {
        let line = |column: &evidence_gateway::model::catalog::ColumnInfo| {
            format!("{} {} {}: {}", column.name, column.sql_type, column.nullable, words(&column.doc))
        };
        believed.insert(format!("{table}: {}", words(&info.doc)), info.columns.iter().map(line).collect());
    }
    assert_eq!(believed, live);
}

/// The enums of the schema are the CHECK constraints of the tables, in the same order.
#[tokio::test]
async fn enums_are_the_checks() {
    let query = "select conrelid::regclass::text, attname, pg_get_constraintdef(k.oid) from pg_constraint k
        join pg_attribute a on attrelid = conrelid and conkey = array[attnum]
        where contype = 'c' and connamespace = 'public'::regnamespace and pg_get_constraintdef(k.oid) like '%= ANY (ARRAY[%'";
    let mut checks: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for row in texts(&sample_url(), query).await {
        let [table, column, definition] = <[_; 3]>::try_from(row).unwrap().map(|cell| cell.unwrap());
        let values = definition.split('\'').skip(1).step_by(2).map(str::to_owned);
        checks.insert((table, column), values.collect());
    }
    for (table, column, values) in enums() {
        let check = checks.get(&(table.to_owned(), column.to_owned()));
        assert_eq!(
            check,
            Some(&values.values.iter().map(|value| (*value).to_owned()).collect()),
            "{table}.{column}"
        );
    }
    // And every column of an entity that has such a CHECK is an enum of the schema.
    for (_, _, table) in graph().entities() {
        for (_, column) in checks.keys().filter(|(name, _)| name == table.name) {
            assert!(
                enums().any(|(t, c, _)| t == table.name && c == column),
                "{}.{column} has no enum",
                table.name
            );
        }
    }
}

/// Every field, every relation, every order, every filter and every group of every entity, once.
fn everything() -> Vec<String> {
    let mut documents = Vec::new();
    for (_, ty, table) in graph().entities() {
        let (many, mut fields, mut orders) = (table.many, String::new(), String::new());
        for column in &ty.columns {
            write!(fields, "{} ", column.name).unwrap();
            if !column.stored {
                continue;
            }
            let filter = format!("filter: {{ {}: {{ isNull: false }} }}", column.name);
            let order = if column.ordered {
                format!(
                    ", orderBy: [{{ field: {} }}, {{ field: ID, direction: DESC }}]",
                    screaming_case(&column.name)
                )
            } else {
                String::new()
            };
            let page = "edges { cursor } nodes { id } totalCount pageInfo { hasNextPage }";
            write!(orders, "f_{}: {many}(first: 1, {filter}{order}) {{ {page} }} ", column.name).unwrap();
        }
        for relation in &ty.relations {
            let name = relation.name;
            match relation.kind {
                RelationKind::One { .. } => {
                    write!(fields, "{name} {{ id }} ").unwrap();
                    write!(
                        orders,
                        "r_{name}: {many}(filter: {{ not: {{ {name}: {{}} }} }}) {{ totalCount }} "
                    )
                    .unwrap();
                }
                RelationKind::Many { .. } => {
                    write!(fields, "{name}(first: 2) {{ totalCount edges {{ cursor node {{ id }} }} }} ")
                        .unwrap();
                    write!(
                        fields,
                        "last_{name}: {name}(last: 1) {{ nodes {{ id }} pageInfo {{ hasPreviousPage }} }} "
                    )
                    .unwrap();
                    let all = format!("{name}: {{ some: {{}}, none: {{ or: [] }}, every: {{}} }}");
                    write!(orders, "r_{name}: {many}(filter: {{ {all} }}) {{ totalCount }} ").unwrap();
                }
                RelationKind::Lineage => {
                    write!(fields, "{name}(direction: BOTH, kinds: [SUPPORTS, DERIVES_FROM]) {{ depth kind direction evidenceId \
                        relationId evidence {{ id }} relation {{ id }} }} ").unwrap();
                }
                RelationKind::Hits { .. } => {}
                RelationKind::Groups => {}
            }
        }
        documents.push(format!("{{ {many}(first: 3) {{ nodes {{ {fields} }} }} }}"));
        documents.push(format!("{{ {orders} }}"));
        if let Some(aggregate) = &table.aggregate {
            let mut inner = "count ".to_owned();
            for nested in &graph().types[aggregate.totals].nested {
                let columns: Vec<_> =
                    graph().types[nested.ty].columns.iter().map(|c| c.name.as_str()).collect();
                write!(inner, "{} {{ {} }} ", nested.name, columns.join(" ")).unwrap();
            }
            let key = &graph().types[aggregate.key];
            let mut keys: Vec<_> = key.columns.iter().map(|column| column.name.clone()).collect();
            keys.extend(key.relations.iter().map(|relation| format!("{} {{ id }}", relation.name)));
            for (by, _) in &aggregate.by {
                let groups = format!("groups(first: 2) {{ {inner} key {{ {} }} }}", keys.join(" "));
                documents
                    .push(format!("{{ {}Aggregate(groupBy: [{by}]) {{ {inner} {groups} }} }}", table.one));
            }
        }
    }
    documents
}

/// No piece of SQL in a declaration is wrong: not for an administrator, whose statements are shorter, and not for
/// anybody else.
#[tokio::test]
async fn everything_that_can_be_asked_is_answered() {
    let url = sample_url();
    let settings = ["--max-root-fields", "1000", "--max-aliases", "1000", "--max-fields", "20000"];
    let gateway = Gateway::start(&url, &settings, Access::Everyone).await;
    let project = id_of(&url, "projects", "moe-router").await;
    let member = gateway.viewed_by(&member(None, &[project]));
    for document in everything() {
        for gateway in [&gateway, &member] {
            assert!(gateway.ask(&document).await.is_object());
        }
    }
    // Rows that have something of everything: values come back as what the schema says they are.
    let node = gateway.ask("{ tasks(first: 1) { nodes { id priority tags content createdAt } } }").await["tasks"]["nodes"][0].take();
    assert!(node["priority"].is_i64() && node["tags"].is_array() && node["content"].is_object());
    assert!(matches!(&node["createdAt"], Value::String(time) if time.ends_with('Z')));
}
