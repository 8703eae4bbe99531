//! What the database says of its own tables: types, NULL or not, and comments. Read from `schema.rs`, which
//! diesel writes from the migrated database, so that nothing of it is declared twice; a test compares it with a
//! live database.

use std::collections::HashMap;
use std::sync::LazyLock;

/// One table.
#[derive(Debug, Default)]
pub struct TableInfo {
    /// The COMMENT of the table.
    pub doc: String,
    /// Its columns in the table's order.
    pub columns: Vec<ColumnInfo>,
}

/// One column.
#[derive(Debug, Clone)]
pub struct ColumnInfo {
    /// The name in SQL.
    pub name: String,
    /// The COMMENT of the column.
    pub doc: String,
    /// diesel's name of the SQL type, such as `Timestamptz`, without `Nullable`.
    pub sql_type: String,
    /// Whether it may be NULL.
    pub nullable: bool,
}

/// All tables by name.
pub fn catalog() -> &'static HashMap<String, TableInfo> {
    static CATALOG: LazyLock<HashMap<String, TableInfo>> =
        LazyLock::new(|| parse(include_str!("../schema.rs")));
    &CATALOG
}

fn parse(schema: &str) -> HashMap<String, TableInfo> {
    let mut tables = HashMap::new();
    let mut table: Option<(String, TableInfo)> = None;
    let mut doc: Vec<&str> = Vec::new();
    let mut sql_name: Option<&str> = None;
    for line in schema.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            doc.push(text.trim());
        } else if let Some(name) =
            line.strip_prefix("#[sql_name = \"").and_then(|rest| rest.strip_suffix("\"]"))
        {
            sql_name = Some(name);
        } else if let Some((name, _)) = line.split_once(" (").filter(|_| line.ends_with(") {")) {
            let info = TableInfo { doc: std::mem::take(&mut doc).join(" "), columns: Vec::new() };
            tables.extend(table.replace((name.to_owned(), info)));
        } else if line.starts_with("diesel::joinable!") {
            // It has an arrow too, and stands after the last table.
        } else if let (Some((name, ty)), Some((_, info))) = (line.split_once(" -> "), table.as_mut()) {
            let ty = ty.trim_end_matches(',');
            let inner = ty.strip_prefix("Nullable<").and_then(|rest| rest.strip_suffix('>'));
            info.columns.push(ColumnInfo {
                name: sql_name.take().unwrap_or(name).to_owned(),
                doc: std::mem::take(&mut doc).join(" "),
                sql_type: inner.unwrap_or(ty).to_owned(),
                nullable: inner.is_some(),
            });
        }
    }
    tables.extend(table);
    tables
}
