//! Freshness against a plain list of everything that ever happened: never fresh when it should not be, fresh when
//! nothing touched it, whatever is forgotten meanwhile.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::store::db::reads::{Condition, List, Noted, Scalar};

const TABLES: [&str; 2] = ["tasks", "evidence"];
const TEXTS: [&str; 3] = ["pending", "processing", "completed"];

fn id(n: u8) -> Uuid {
    Uuid::from_u128(u128::from(n) + 1)
}

/// A row as the log tells of it.
fn keys(parent: u8, status: usize) -> Map<String, Value> {
    json!({"parent_id": id(parent).to_string(), "status": TEXTS[status]}).as_object().unwrap().clone()
}

fn change(table: usize, row: u8, op: Op, new: (u8, usize), old: (u8, usize)) -> Change {
    let (mut all, before) = (keys(new.0, new.1), keys(old.0, old.1));
    if op == Op::Update {
        let differs = |name: &&str| all[*name] != before[*name];
        let names: Vec<&str> = ["parent_id", "status"].into_iter().filter(differs).collect();
        let former: Map<String, Value> =
            names.iter().map(|name| ((*name).to_owned(), before[*name].clone())).collect();
        let title = names.is_empty().then_some("title");
        all.insert("changed".to_owned(), names.iter().copied().chain(title).collect::<Vec<_>>().into());
        all.insert("old".to_owned(), former.into());
    }
    Change {
        xid: 1,
        seq: 1,
        entity: TABLES[table].into(),
        id: (op != Op::Truncate).then(|| id(row)),
        op,
        project_id: None,
        old_project_id: None,
        keys: all,
        at: chrono::DateTime::UNIX_EPOCH,
    }
}

/// What an entry read: rows, and lists of a table by parent, status, and whether they are ordered by a title.
#[derive(Debug, Clone)]
struct Read {
    rows: Vec<u8>,
    lists: Vec<(usize, Option<u8>, Option<usize>, bool)>,
}

impl Read {
    fn sources(&self) -> Sources {
        let list = |(table, parent, status, by_title): &(usize, Option<u8>, Option<usize>, bool)| {
            let status = status
                .map(|status| Condition::In("status".into(), vec![Scalar::Text(TEXTS[status].to_owned())]));
            let mut watched: Vec<_> = vec!["parent_id".into(), "status".into()];
            watched.extend(by_title.then(|| "title".into()));
            let list = List {
                condition: Condition::All(status.into_iter().collect()),
                parent: parent.map(|_| "parent_id".into()),
                watched: Some(watched),
                ..List::all(TABLES[*table])
            };
            (list, parent.map(id).into_iter().collect())
        };
        Sources::new(Noted {
            rows: self.rows.iter().map(|row| id(*row)).collect(),
            lists: self.lists.iter().map(list).collect(),
            ..Noted::default()
        })
    }

    /// The truth, from how a change was made and not from how it is told.
    fn is_touched(&self, made: &Made) -> bool {
        let (table, row, op, new, old) = *made;
        let fits = |(of, parent, status, _): &(usize, Option<u8>, Option<usize>, bool),
                    image: (u8, usize)| {
            *of == table
                && parent.is_none_or(|parent| parent == image.0)
                && status.is_none_or(|status| status == image.1)
        };
        op == Op::Truncate
            || self.rows.contains(&row)
            || self.lists.iter().any(|list| match op {
                Op::Update => (new != old || list.3) && (fits(list, new) || fits(list, old)),
                _ => fits(list, new),
            })
    }
}

/// Table, row, what was done, the row's parent and status after and before.
type Made = (usize, u8, Op, (u8, usize), (u8, usize));

fn made() -> impl Strategy<Value = Made> {
    let op = prop_oneof![4 => Just(Op::Update), 2 => Just(Op::Insert), 2 => Just(Op::Delete), 1 => Just(Op::Truncate)];
    let image = || (0..3_u8, 0..3_usize);
    (0..2_usize, 0..40_u8, op, image(), image())
}

fn read() -> impl Strategy<Value = Read> {
    let list = (0..2_usize, proptest::option::of(0..3_u8), proptest::option::of(0..3_usize), any::<bool>());
    let read = (proptest::collection::vec(0..40_u8, 0..3), proptest::collection::vec(list, 0..3));
    read.prop_map(|(rows, lists)| Read { rows, lists })
}

fn with_limits(rows: usize, changes: usize, snapshots: usize) -> Freshness {
    let freshness = Freshness::default();
    freshness.0.marks.write().unwrap().limits = (rows, changes, snapshots);
    freshness
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn an_entry_is_fresh_if_and_only_if_nothing_touched_it(
        batches in proptest::collection::vec(proptest::collection::vec(made(), 0..4), 1..30),
        read in read(),
        begun in 0..30_u64,
        small in any::<bool>(),
    ) {
        let freshness = if small { with_limits(5, 4, 4) } else { Freshness::default() };
        let sources = read.sources();
        let mut checked = begun;
        for (batch, changes) in (1..).zip(&batches) {
            let told: Vec<Change> = changes.iter().map(|(table, row, op, new, old)| change(*table, *row, *op, *new, *old)).collect();
            freshness.pass(batch, &told);
            if batch <= begun {
                continue;
            }
            let after = usize::try_from(begun).unwrap();
            let touched = batches[after..usize::try_from(batch).unwrap()].iter().flatten().any(|made| read.is_touched(made));
            let verdict = freshness.judge(|| Some(&sources), begun);
            if touched {
                prop_assert!(!matches!(verdict, Verdict::Fresh(_)), "{verdict:?}");
            } else if !small {
                prop_assert_eq!(verdict, Verdict::Fresh(batch));
            }
            // An entry that was found fresh goes on from there, and comes to the same.
            match freshness.judge(|| Some(&sources), checked) {
                Verdict::Fresh(batch) => {
                    prop_assert!(!touched);
                    checked = batch;
                }
                _ => prop_assert!(touched || small),
            }
            if touched {
                break;
            }
        }
    }

    /// Transactions commit in any order; what one process has seen is judged by another one's batches.
    #[test]
    fn the_entry_of_another_process_is_never_taken_for_newer_than_it_is(
        order in Just((1..=12_u64).collect::<Vec<_>>()).prop_shuffle(),
        ours in proptest::collection::btree_set(0..=12_usize, 1..6),
        theirs in 0..=12_usize,
    ) {
        // The snapshot of a reader who comes when so many have committed: all later ones have begun.
        let snapshot = |committed: usize| {
            let done = &order[..committed];
            let end = done.iter().max().map_or(1, |last| last + 1);
            let running: Vec<String> = (1..end).filter(|xid| !done.contains(xid)).map(|xid| xid.to_string()).collect();
            let first = running.first().map_or(end.to_string(), Clone::clone);
            Arc::new(format!("{first}:{end}:{}", running.join(",")).parse::<Snapshot>().unwrap())
        };
        let freshness = Freshness::default();
        for (batch, committed) in (0..).zip(&ours) {
            freshness.arrive(batch, &snapshot(*committed));
        }
        let expected = (0..).zip(&ours).filter(|(_, committed)| **committed <= theirs).last().map(|(batch, _)| batch);
        prop_assert_eq!(freshness.batch_of(&snapshot(theirs)), expected);
    }
}

#[test]
fn what_is_not_known_is_not_fresh() {
    let freshness = Freshness::default();
    let nothing = Sources::default();
    freshness.arrive(0, &Arc::new(Snapshot::up_to(5)));
    assert_eq!(freshness.judge(|| Some(&nothing), 0), Verdict::Fresh(0));
    assert_eq!(freshness.batch_of(&Snapshot::up_to(4)), None);
    // A table that nobody here knows.
    let mut strange = change(0, 1, Op::Insert, (0, 0), (0, 0));
    strange.entity = "of_the_future".into();
    freshness.pass(1, &[strange]);
    assert_eq!(freshness.judge(|| Some(&nothing), 0), Verdict::Forgotten);
    assert_eq!(freshness.judge(|| Some(&nothing), 1), Verdict::Fresh(1));
    freshness.pass_unknown(2);
    assert_eq!(freshness.judge(|| Some(&nothing), 1), Verdict::Forgotten);
    assert_eq!(freshness.batch_of(&Snapshot::up_to(9)), None);
    assert_eq!(Freshness::default().age(), Duration::MAX);
}
