//! Writing: rows and what was loaded for them become the JSON of the response, in one pass and without a tree in
//! between. Null propagation is a truncation: what was written of an object is taken back.

use async_graphql::Pos;
use uuid::Uuid;

use crate::error::{Code, Error};
use crate::graphql::level::{Child, Level, PageRows, Pages};
use crate::graphql::plan::{
    ConnectionField, ConnectionPlan, EdgeField, FieldPlan, ObjectPlan, PageInfoField, RelationPlan, Shape,
    Slot,
};
use crate::model::cursor::CursorKey;
use crate::model::entity::ColumnType;
use crate::store::db::rows::{RowRef, read_texts, read_time};

/// Errors listed in one answer at most; one failed relation can fail in each of a thousand rows.
pub(crate) const MAX_ERRORS: usize = 100;

/// An error with its place in the answer.
#[derive(Debug, Clone)]
pub(crate) struct FieldError {
    pub(crate) error: Error,
    pub(crate) path: Vec<PathSegment>,
    pub(crate) pos: Pos,
}

/// A step into the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PathSegment {
    Key(String),
    Index(usize),
}

/// A value that must not be null is: the nearest nullable place around it becomes null.
#[derive(Debug)]
pub(crate) struct Bubble;

pub(crate) type Written = Result<(), Bubble>;

#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// The answer under construction.
pub(crate) struct Writer<'a> {
    pub(crate) json: Vec<u8>,
    pub(crate) errors: Vec<FieldError>,
    cursors: &'a CursorKey,
    path: Vec<Step<'a>>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(cursors: &'a CursorKey) -> Self {
        Self { json: Vec::with_capacity(4096), errors: Vec::new(), cursors, path: Vec::new() }
    }

    /// Writes what stands under a key, for errors' paths.
    pub(crate) fn under(&mut self, key: &'a str, write: impl FnOnce(&mut Self) -> Written) -> Written {
        self.path.push(Step::Key(key));
        let written = write(self);
        self.path.pop();
        written
    }

    fn fail(&mut self, error: &Error, pos: Pos) {
        if self.errors.len() < MAX_ERRORS {
            let path = self.path.iter().map(|step| match step {
                Step::Key(key) => PathSegment::Key((*key).to_owned()),
                Step::Index(index) => PathSegment::Index(*index),
            });
            self.errors.push(FieldError { error: error.clone(), path: path.collect(), pos });
        }
    }

    /// Writes a nullable value: `null` if it bubbles.
    pub(crate) fn nullable(&mut self, write: impl FnOnce(&mut Self) -> Written) {
        let start = self.json.len();
        if write(self).is_err() {
            self.json.truncate(start);
            self.json.extend_from_slice(b"null");
        }
    }

    /// Writes `{...}` with one member per slot.
    pub(crate) fn members<T>(
        &mut self,
        slots: &'a [Slot<T>],
        mut write: impl FnMut(&mut Self, &'a Slot<T>) -> Written,
    ) -> Written {
        self.json.push(b'{');
        for (n, slot) in slots.iter().enumerate() {
            if n > 0 {
                self.json.push(b',');
            }
            self.json.extend_from_slice(&slot.json);
            self.path.push(Step::Key(&slot.key));
            let written = write(self, slot);
            self.path.pop();
            written?;
        }
        self.json.push(b'}');
        Ok(())
    }

    /// Writes `[...]` with `len` items.
    pub(crate) fn items(
        &mut self,
        len: usize,
        mut write: impl FnMut(&mut Self, usize) -> Written,
    ) -> Written {
        self.json.push(b'[');
        for index in 0..len {
            if index > 0 {
                self.json.push(b',');
            }
            self.path.push(Step::Index(index));
            let written = write(self, index);
            self.path.pop();
            written?;
        }
        self.json.push(b']');
        Ok(())
    }

    /// Writes the object that a row makes. `place` is the row's place in its level.
    pub(crate) fn object(
        &mut self,
        plan: &'a ObjectPlan,
        row: &RowRef,
        place: usize,
        children: &'a [Child],
    ) -> Written {
        self.fields(plan, plan.name, &plan.fields, row, (place, children))
    }

    fn fields(
        &mut self,
        plan: &'a ObjectPlan,
        name: &str,
        fields: &'a [Slot<FieldPlan>],
        row: &RowRef,
        (place, children): (usize, &'a [Child]),
    ) -> Written {
        self.members(fields, |out, slot| match &slot.value {
            FieldPlan::Typename => out.text(name),
            FieldPlan::Column { cell, ty, nullable } => match row.cell(*cell) {
                Some(bytes) => out.scalar(*ty, bytes),
                None if *nullable => out.raw(b"null"),
                None => {
                    out.fail(
                        &Error::internal(format!("{name}.{} is null in the database", slot.key)),
                        slot.pos,
                    );
                    Err(Bubble)
                }
            },
            FieldPlan::Wrong(error) => {
                out.fail(error, slot.pos);
                // Only fields that are never null take arguments.
                Err(Bubble)
            }
            FieldPlan::Nested(name, inner) => out.fields(plan, name, inner, row, (place, children)),
            FieldPlan::Relation(relation) => {
                out.relation(&plan.relations[*relation], &children[*relation], place, slot.pos)
            }
        })
    }

    /// Writes what a relation came to for the row at a place of its level.
    pub(crate) fn relation(
        &mut self,
        plan: &'a RelationPlan,
        child: &'a Child,
        place: usize,
        pos: Pos,
    ) -> Written {
        match (&plan.shape, child) {
            // Such a field is nullable, so its error stays here; a connection is not.
            (Shape::One { .. } | Shape::Hits { .. }, Child::Failed(error)) => {
                self.fail(error, pos);
                self.raw(b"null")
            }
            (_, Child::Failed(error)) => {
                self.fail(error, pos);
                Err(Bubble)
            }
            (Shape::Nodes { list, types, .. }, Child::Nodes { places, levels }) => {
                let node = |out: &mut Self, n: usize| {
                    match places[n] {
                        Some((ty, at)) => out.nullable(|out| out.level(&types[ty].1, &levels[ty], at)),
                        None => out.json.extend_from_slice(b"null"),
                    }
                    Ok(())
                };
                if *list { self.items(places.len(), node) } else { node(self, 0) }
            }
            (Shape::One { object, .. } | Shape::Made { object, .. }, Child::One { places, level }) => {
                match places.get(place).copied().flatten() {
                    Some(at) => {
                        self.nullable(|out| out.object(object, &level.rows[at], at, &level.children));
                        Ok(())
                    }
                    None => self.raw(b"null"),
                }
            }
            (
                Shape::Many { connection, .. } | Shape::Search { connection, .. },
                Child::Many { places, pages },
            ) => self.connection(connection, pages, &pages.pages[places[place]]),
            (Shape::Hits { connection, fields, .. }, Child::Many { places, pages }) => {
                let page = &pages.pages[places[place]];
                self.items(page.len, |out, n| out.edge(connection, fields, pages, page.start + n))
            }
            (Shape::List { object, .. }, Child::Many { places, pages }) => {
                let page = &pages.pages[places[place]];
                self.items(page.len, |out, n| {
                    let at = page.start + n;
                    out.object(object, &pages.rows[at], at, &pages.objects[0])
                })
            }
            _ => {
                self.fail(&Error::internal("a relation was loaded in another shape than planned"), pos);
                Err(Bubble)
            }
        }
    }

    /// Writes one row of a level that stands alone, such as a root field's.
    pub(crate) fn level(&mut self, plan: &'a ObjectPlan, level: &'a Level, place: usize) -> Written {
        self.object(plan, &level.rows[place], place, &level.children)
    }

    /// Writes a connection.
    pub(crate) fn connection(
        &mut self,
        plan: &'a ConnectionPlan,
        pages: &'a Pages,
        page: &'a PageRows,
    ) -> Written {
        let whole = page.len;
        let page = &self.fitting(plan, pages, page);
        self.members(&plan.fields, |out, slot| match &slot.value {
            ConnectionField::Typename => out.text(&plan.name),
            ConnectionField::TotalCount => out.count(page.count, slot.pos),
            ConnectionField::Nodes(object) => out.items(page.len, |out, n| {
                let at = page.start + n;
                out.object(&plan.objects[*object], &pages.rows[at], at, &pages.objects[*object])
            }),
            ConnectionField::Edges(fields) => {
                out.items(page.len, |out, n| out.edge(plan, fields, pages, page.start + n))
            }
            ConnectionField::PageInfo(fields) => {
                out.members(fields, |out, slot| out.page_info(plan, pages, page, &slot.value))
            }
            _ => out.found(plan, pages, (page, whole - page.len), slot),
        })
    }

    pub(crate) fn edge(
        &mut self,
        plan: &'a ConnectionPlan,
        fields: &'a [Slot<EdgeField>],
        pages: &'a Pages,
        at: usize,
    ) -> Written {
        self.members(fields, |out, slot| match &slot.value {
            EdgeField::Typename => out.text(&plan.edge_name),
            EdgeField::Cursor if pages.found.is_none() => out.cursor(plan, &pages.rows[at]),
            EdgeField::Node(object) => {
                out.object(&plan.objects[*object], &pages.rows[at], at, &pages.objects[*object])
            }
            field => match pages.found.as_ref().and_then(|found| found.hits.get(at)) {
                Some(hit) => out.hit(hit, field),
                None => out.raw(b"null"),
            },
        })
    }

    fn page_info(
        &mut self,
        plan: &ConnectionPlan,
        pages: &Pages,
        page: &PageRows,
        field: &PageInfoField,
    ) -> Written {
        if let Some(found) = &pages.found {
            return self.search_info(found, page, field);
        }
        let end = |place: Option<usize>| place.map(|place| &pages.rows[place]);
        match field {
            PageInfoField::Typename => self.text("PageInfo"),
            // Beyond the other end of the page stands at least the row of the cursor that the page began at.
            PageInfoField::HasNextPage => {
                self.json_of(&if plan.page.backward { plan.page.before.is_some() } else { page.more })
            }
            PageInfoField::HasPreviousPage => {
                self.json_of(&if plan.page.backward { page.more } else { plan.page.after.is_some() })
            }
            PageInfoField::StartCursor => match end((page.len > 0).then_some(page.start)) {
                Some(row) => self.cursor(plan, row),
                None => self.raw(b"null"),
            },
            PageInfoField::EndCursor => match end(page.len.checked_sub(1).map(|last| page.start + last)) {
                Some(row) => self.cursor(plan, row),
                None => self.raw(b"null"),
            },
        }
    }

    fn cursor(&mut self, plan: &ConnectionPlan, row: &RowRef) -> Written {
        let Some((fingerprint, cells)) = &plan.cursor else { return self.raw(b"null") };
        let cursor = self.cursors.encode(fingerprint, cells.iter().map(|cell| row.cell(*cell)));
        self.text(&cursor)
    }

    /// Writes a count as an Int, which has 32 bits; a greater one is an error and no wrong number.
    fn count(&mut self, count: i64, pos: Pos) -> Written {
        if i32::try_from(count).is_ok() {
            return self.json_of(&count);
        }
        self.fail(&Error::new(Code::BadUserInput, "the count does not fit an Int; narrow the filter"), pos);
        Err(Bubble)
    }

    pub(crate) fn raw(&mut self, json: &[u8]) -> Written {
        self.json.extend_from_slice(json);
        Ok(())
    }

    pub(crate) fn text(&mut self, text: &str) -> Written {
        self.json_of(text)
    }

    pub(crate) fn json_of(&mut self, value: &(impl serde::Serialize + ?Sized)) -> Written {
        serde_json::to_writer(&mut self.json, value).map_err(|_| Bubble)
    }

    /// Writes a cell that PostgreSQL sent in its binary format.
    fn scalar(&mut self, ty: ColumnType, bytes: &[u8]) -> Written {
        let done = match ty {
            ColumnType::Uuid => Uuid::from_slice(bytes).ok().map(|id| {
                let mut buffer = Uuid::encode_buffer();
                self.json.push(b'"');
                self.json.extend_from_slice(id.hyphenated().encode_lower(&mut buffer).as_bytes());
                self.json.push(b'"');
                Ok(())
            }),
            ColumnType::Text => std::str::from_utf8(bytes).ok().map(|text| self.text(text)),
            ColumnType::Enum(_) => {
                self.json.push(b'"');
                self.json.extend(bytes.iter().map(u8::to_ascii_uppercase));
                self.json.push(b'"');
                Some(Ok(()))
            }
            ColumnType::Int => bytes.try_into().ok().map(|bytes| self.json_of(&i32::from_be_bytes(bytes))),
            // As a string: a JSON number loses digits beyond 2^53 in most clients.
            ColumnType::BigInt => {
                bytes.try_into().ok().map(|b| self.text(&i64::from_be_bytes(b).to_string()))
            }
            ColumnType::Float => bytes.try_into().ok().map(|bytes| self.json_of(&f64::from_be_bytes(bytes))),
            ColumnType::Bool => Some(self.json_of(&(bytes == [1]))),
            ColumnType::Time => read_time(bytes).map(|time| {
                // As many digits of the fraction as there are, so that a value can be sent back unchanged.
                self.text(&time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true))
            }),
            // The first byte is the version of the format.
            ColumnType::Json => bytes.get(1..).map(|json| self.raw(json)),
            ColumnType::Texts => Some(self.json_of(&read_texts(bytes).collect::<Vec<_>>())),
        };
        done.unwrap_or(Err(Bubble))
    }
}
