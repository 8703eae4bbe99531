//! The audit trail: nobody changes it, and who does all the same is found.

use std::time::{Duration, Instant};

use diesel_async::SimpleAsyncConnection;
use serde_json::{Value, json};

use crate::harness::{Database, Gateway, column, execute, member};

const VERIFY: &str = "query ($from: BigInt, $to: BigInt) { verifyAuditLog(from: $from, to: $to) {
    valid checked to sealed brokenSeal fault brokenId broken { seal eventType } } }";

/// So many entries, written in transactions that commit in another order than they began, and sealed.
async fn sealed(entries: i64) -> (Database, Gateway) {
    let database = Database::empty().await;
    let insert = "insert into audit_logs (event_type, action, resource_type, old_values, data, user_agent)
        select 'task.updated', 'update', 'task', jsonb_build_object('n', n, 'none', null), '{\"a\": [1, 2.50]}', 'ü'
        from generate_series(1, 10) n";
    let (mut first, mut second) = (database.connect().await, database.connect().await);
    first.batch_execute(&format!("begin; {insert}")).await.unwrap();
    second.batch_execute(insert).await.unwrap();
    let gateway = Gateway::guarded(&database.url).await;
    wait_until_sealed(&database, 10).await;
    first.batch_execute("commit").await.unwrap();
    execute(&database.url, &insert.replace("10) n", &format!("{}) n", entries - 20))).await;
    wait_until_sealed(&database, entries).await;
    (database, gateway)
}

async fn wait_until_sealed(database: &Database, entries: i64) {
    let begun = Instant::now();
    let query = "select count(*)::text from audit_logs where seal is not null and hash is not null";
    while column(&database.url, query).await[0] != entries.to_string() {
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody seals");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn verify(gateway: &Gateway, range: Value) -> Value {
    gateway.ask_with(VERIFY, range).await["verifyAuditLog"].take()
}

#[tokio::test]
async fn the_trail_cannot_be_changed() {
    let (database, gateway) = sealed(25).await;
    for change in [
        "update audit_logs set event_type = 'x'",
        "update audit_logs set hash = repeat('0', 64)",
        "update audit_logs set seal = seal + 100",
        "update audit_logs set hash = null, prev_hash = null, seal = null",
        "delete from audit_logs",
        "truncate audit_logs",
        "delete from audit_seals",
        "update audit_seals set hash = repeat('0', 64)",
        "set session_replication_role = replica; delete from audit_logs",
    ] {
        let refused = database.connect().await.batch_execute(change).await.unwrap_err();
        assert_eq!(refused.to_string(), "entries of the audit log are immutable", "{change}");
    }
    let found = verify(&gateway, json!({})).await;
    let fine = json!({"valid": true, "checked": "25", "to": "25", "sealed": "25", "brokenSeal": null, "fault": null,
        "brokenId": null, "broken": null});
    assert_eq!(found, fine);
    // Sealed in the order in which they were committed, whatever the order of seq.
    let order =
        "select (lag(seq) over (order by seal) > seq)::text from audit_logs order by seal offset 10 limit 1";
    assert_eq!(column(&database.url, order).await, ["true"]);
}

/// As the owner, who can switch the triggers off.
#[tokio::test]
async fn whatever_the_owner_changes_is_found_and_named() {
    let (database, gateway) = sealed(40).await;
    let reseal = "update audit_logs a set hash = audit_digest(a) where seal = 7";
    for (change, seal, fault) in [
        ("update audit_logs set event_type = 'task.created' where seal = 7", 7, "CHANGED"),
        (
            "update audit_logs set old_values = jsonb_set(old_values, '{none}', '1') where seal = 40",
            40,
            "CHANGED",
        ),
        ("update audit_logs set old_values = old_values - 'none' where seal = 1", 1, "CHANGED"),
        (
            "update audit_logs set created_at = created_at - interval '1 microsecond' where seal = 9",
            9,
            "CHANGED",
        ),
        ("update audit_logs set actor_user_id = gen_random_uuid() where seal = 3", 3, "CHANGED"),
        ("update audit_logs set hash = repeat('0', 64) where seal = 20", 20, "CHANGED"),
        ("delete from audit_logs where seal = 1", 1, "MISSING"),
        ("delete from audit_logs where seal = 12", 12, "MISSING"),
        ("delete from audit_logs where seal = 40", 40, "MISSING"),
        ("delete from audit_logs where seal > 35", 36, "MISSING"),
        ("update audit_logs set user_agent = 'x' where seal = 7; RESEAL", 8, "MOVED"),
        ("update audit_logs set seal = null, hash = null, prev_hash = null where seal = 15", 15, "MISSING"),
    ] {
        let change = change.replace("RESEAL", reseal);
        let switched = |how| {
            format!(
                "alter table audit_logs {how} trigger audit_logs_immutable; alter table audit_seals {how} trigger audit_seals_immutable;"
            )
        };
        let keep = "create table kept as table audit_logs";
        execute(
            &database.url,
            &format!("{keep}; {} {change}; {}", switched("disable"), switched("enable always")),
        )
        .await;
        let found = verify(&gateway, json!({})).await;
        assert_eq!((&found["valid"], &found["fault"]), (&json!(false), &json!(fault)), "{change}: {found}");
        assert_eq!(found["brokenSeal"], seal.to_string(), "{change}: {found}");
        assert_eq!(found["broken"]["seal"].is_null(), fault == "MISSING", "{change}: {found}");
        // Outside of the range it is nobody's business.
        let before = verify(&gateway, json!({"from": 2, "to": seal - 1})).await;
        assert!(before["valid"] == true || seal < 3, "{change}: {before}");
        let restore = format!(
            "{} delete from audit_logs; insert into audit_logs select * from kept; drop table kept; {}",
            switched("disable"),
            switched("enable always")
        );
        execute(&database.url, &restore).await;
        assert_eq!(verify(&gateway, json!({})).await["valid"], true, "{change}");
    }
}

#[tokio::test]
async fn the_trail_is_for_administrators() {
    let (_database, gateway) = sealed(21).await;
    let data = gateway
        .ask("{ auditLogs(first: 2) { totalCount nodes { seal eventType action resourceType } } }")
        .await;
    assert_eq!(data["auditLogs"]["totalCount"], 21);
    assert_eq!(data["auditLogs"]["nodes"][0]["action"], "UPDATE");
    let other = gateway.viewed_by(&member(None, &[]));
    assert_eq!(other.ask("{ auditLogs { totalCount } }").await["auditLogs"]["totalCount"], 0);
    let (code, _) = other.error(VERIFY, json!({})).await;
    assert_eq!(code, "FORBIDDEN");
    for (range, field) in [(json!({"from": "one"}), "from"), (json!({"to": 1.5}), "to")] {
        let (code, message) = gateway.error(VERIFY, range).await;
        assert!(code == "BAD_USER_INPUT" && message.starts_with(field), "{message}");
    }
    let far = verify(&gateway, json!({"from": -5, "to": 9_223_372_036_854_775_807_i64})).await;
    assert_eq!((&far["valid"], &far["checked"]), (&json!(true), &json!("21")));
    let beyond = verify(&gateway, json!({"from": 9_223_372_036_854_775_807_i64})).await;
    assert_eq!((&beyond["valid"], &beyond["checked"]), (&json!(true), &json!("0")));
}
