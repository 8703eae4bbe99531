//! The cache of several processes: what one has executed the others need not, what holds is judged by each for
//! itself, and without Redis each goes on alone.

use std::time::{Duration, Instant};

use evidence_gateway::http::viewer::Access;
use futures_util::future::{join, join_all};

use crate::cache::{CACHED, catch_up, post};
use crate::harness::{Database, Gateway, execute};
use crate::redis::RedisServer;

const LIST: &str = "{ tasks(first: 20) { nodes { id title content } } agents { totalCount } }";

async fn two(url: &str, redis: &RedisServer) -> [Gateway; 2] {
    let address = redis.url();
    let settings = [&CACHED[..], &["--redis-url", &address, "--max-connections", "2000"]].concat();
    let one = Gateway::start(url, &settings, Access::Everyone).await;
    let other = Gateway::start(url, &settings, Access::Everyone).await;
    catch_up(&one).await;
    catch_up(&other).await;
    [one, other]
}

/// What is put aside is not waited for by the one who has its answer.
async fn kept(redis: &RedisServer, entries: usize) {
    let count = || redis.ask(&["--scan", "--pattern", "evidence-gateway:answer:*"]).lines().count();
    let begun = Instant::now();
    while count() < entries {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_one_process_has_executed_another_need_not() {
    let database = Database::sample().await;
    let mut redis = RedisServer::start().await;
    let [one, other] = two(&database.url, &redis).await;
    let first = post(&one, LIST, &[]).await;
    assert_eq!(first.came(), "absent");
    kept(&redis, 1).await;
    let second = post(&other, LIST, &[]).await;
    assert_eq!((second.came(), &second.text, other.statements().await), ("redis", &first.text, 0));
    assert_eq!(second.header("etag"), first.header("etag"));
    assert_eq!(post(&other, LIST, &[]).await.came(), "hit");
    // Each judges for itself.
    execute(&database.url, "update tasks set title = title || '!'").await;
    catch_up(&other).await;
    let third = post(&other, LIST, &[]).await;
    assert_eq!((third.came(), third.text == first.text), ("changed", false));
    kept(&redis, 1).await;
    catch_up(&one).await;
    let fourth = post(&one, LIST, &[]).await;
    assert!(["redis", "changed"].contains(&fourth.came()), "{}", fourth.came());
    assert_eq!(fourth.text, third.text);
    // A process that comes later knows nothing of what was before it, and does not believe it.
    let address = redis.url();
    let settings = [&CACHED[..], &["--redis-url", &address]].concat();
    let late = Gateway::start(&database.url, &settings, Access::Everyone).await;
    catch_up(&late).await;
    let got = post(&late, LIST, &[]).await;
    assert_eq!(got.text, third.text);
    // Down: everybody goes on alone, and is not kept waiting.
    redis.kill();
    let begun = Instant::now();
    for n in 0..50 {
        let document = format!("{{ tasks(first: {}) {{ nodes {{ id }} }} }}", n + 1);
        assert_eq!(post(&one, &document, &[]).await.came(), "absent");
        assert_eq!(post(&one, &document, &[]).await.came(), "hit");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let metrics = one.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("evidence_gateway_redis_up 0\n"), "{metrics}");
    redis.restart().await;
    let begun = Instant::now();
    let mut n = 100;
    while redis.ask(&["dbsize"]) == "0" {
        assert!(begun.elapsed() < Duration::from_secs(20));
        n += 1;
        post(&one, &format!("{{ tasks(first: {n}) {{ nodes {{ id }} }} }}"), &[]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_crowd_over_two_processes_costs_one_execution() {
    let database = Database::sample().await;
    let redis = RedisServer::start().await;
    let [one, other] = two(&database.url, &redis).await;
    let mut costs = Vec::new();
    // A Redis that does not answer in time is not waited for, and then each of them executes. That is seldom.
    for first in [100, 99, 98, 97] {
        let document = format!(
            "{{ tasks(first: {first}) {{ nodes {{ title evidences(first: 5) {{ nodes {{ title supporting {{ totalCount }} }} }} }} }} }}"
        );
        let crowd = |gateway| join_all((0..500).map(|_| post(gateway, &document, &[])));
        let before = one.statements().await + other.statements().await;
        let (left, right) = join(crowd(&one), crowd(&other)).await;
        let odd = left.iter().chain(&right).find(|got| got.status != 200 || got.text != left[0].text);
        assert!(odd.is_none(), "{:?} and not {}", odd.map(|got| (got.status, &got.text)), left[0].text);
        costs.push(one.statements().await + other.statements().await - before);
        if costs.ends_with(&[3]) {
            break;
        }
    }
    assert!(costs.iter().all(|cost| [3, 6].contains(cost)) && costs.ends_with(&[3]), "{costs:?}");
}

#[tokio::test]
async fn a_password_is_needed_where_one_is_set() {
    let database = Database::sample().await;
    let redis = RedisServer::start().await;
    redis.ask(&["config", "set", "requirepass", "secret"]);
    for (query, entries, up) in [("?pass=wrong", "0", "0"), ("?pass=secret", "1", "1")] {
        let address = format!("{}{query}", redis.url());
        let settings = [&CACHED[..], &["--redis-url", &address]].concat();
        let gateway = Gateway::start(&database.url, &settings, Access::Everyone).await;
        catch_up(&gateway).await;
        assert_eq!(post(&gateway, LIST, &[]).await.came(), "absent");
        assert_eq!(post(&gateway, LIST, &[]).await.came(), "hit");
        tokio::time::sleep(Duration::from_millis(200)).await;
        let found = redis.ask(&["-a", "secret", "--no-auth-warning", "dbsize"]);
        let metrics = gateway.get("/metrics").await.text().await.unwrap();
        assert_eq!(found, entries);
        assert!(metrics.contains(&format!("evidence_gateway_redis_up {up}\n")), "{metrics}");
    }
}
