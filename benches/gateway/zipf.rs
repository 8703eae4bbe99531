//! What precise invalidation is worth: readers ask for the pages of tasks, popular ones more often (Zipf), and one
//! request of a hundred changes a task. The gateway forgets what the change touched; its rival, the same gateway, is
//! told to forget all answers that show tasks, as caches do that know a write by its type only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use evidence_gateway::app::App;
use evidence_gateway::config::Config;
use evidence_gateway::http::router;
use evidence_gateway::http::viewer::Access;

use crate::{Ask, CLIENTS, Client, serve, spread};

/// Different pages that are asked for; one of ten is a list of pending tasks, the others show one task each.
const PAGES: usize = 2_000;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(5);
/// One request of so many writes.
const WRITES: u64 = 100;

struct World {
    pages: Vec<Ask>,
    ids: Vec<String>,
    /// The share of requests up to each page.
    ranks: Vec<f64>,
    random: AtomicU64,
}

impl World {
    /// A number below one that looks like chance (splitmix64).
    fn chance(&self) -> f64 {
        let mut z = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn popular(&self) -> usize {
        let chance = self.chance();
        self.ranks.partition_point(|up_to| *up_to < chance).min(PAGES - 1)
    }
}

fn post(query: &str) -> Ask {
    Ask::post(&serde_json::json!({"query": query}).to_string())
}

async fn world(gateway: SocketAddr) -> World {
    let mut ids = Vec::new();
    let mut after = "null".to_owned();
    while ids.len() < PAGES {
        let query =
            format!("{{ tasks(first: 100, after: {after}) {{ nodes {{ id }} pageInfo {{ endCursor }} }} }}");
        let (_, answer) = Client::open(gateway).await.send(&post(&query)).await;
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        let tasks = &answer["data"]["tasks"];
        ids.extend(
            tasks["nodes"].as_array().unwrap().iter().map(|node| node["id"].as_str().unwrap().to_owned()),
        );
        after = tasks["pageInfo"]["endCursor"].to_string();
    }
    let pages = ids.iter().take(PAGES).enumerate().map(|(n, id)| match n % 10 {
        0 => post(&format!(
            "{{ tasks(first: 20, filter: {{status: {{eq: PENDING}}, priority: {{eq: {}}}}}) {{ nodes {{ id title }} }} \
             p{n}: __typename }}",
            n / 10 % 5 + 1
        )),
        _ => post(&format!(
            "{{ task(id: \"{id}\") {{ id title status priority assignedAgent {{ name }} evidences(first: 5) {{ nodes {{ \
             id title credibilityScore }} }} }} }}"
        )),
    });
    let weights: Vec<f64> = (1..=PAGES).map(|rank| 1.0 / rank as f64).collect();
    let sum: f64 = weights.iter().sum();
    let ranks = weights.iter().scan(0.0, |total, weight| {
        *total += weight / sum;
        Some(*total)
    });
    World { pages: pages.collect(), ranks: ranks.collect(), ids, random: AtomicU64::new(7) }
}

/// Requests a second, and the share of reads that the cache answered.
async fn run(app: &App, gateway: SocketAddr, world: &Arc<World>, by_type: bool) -> (f64, f64) {
    app.cache.purge(None);
    let begun = Instant::now();
    let work: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (world, app) = (world.clone(), app.clone());
            tokio::spawn(async move {
                let mut client = Client::open(gateway).await;
                let (mut done, mut reads, mut hits) = (0_u64, 0_u64, 0_u64);
                while begun.elapsed() < ROUND {
                    let page = world.popular();
                    done += 1;
                    if world.chance() * (WRITES as f64) < 1.0 {
                        let id = &world.ids[page];
                        client
                            .send(&post(&format!(
                                "mutation {{ updateTask(input: {{id: \"{id}\", title: \"Title {done}\"}}) {{ id }} }}"
                            )))
                            .await;
                        if by_type {
                            app.cache.purge(None);
                        }
                        continue;
                    }
                    let (head, _) = client.send(&world.pages[page]).await;
                    reads += 1;
                    hits += u64::from(head.contains("evidence-gateway; hit"));
                }
                (done, reads, hits)
            })
        })
        .collect();
    let (mut done, mut reads, mut hits) = (0, 0, 0);
    for task in work {
        let of_one = task.await.unwrap();
        done += of_one.0;
        reads += of_one.1;
        hits += of_one.2;
    }
    (done as f64 / begun.elapsed().as_secs_f64(), hits as f64 / reads as f64)
}

/// Runs both in turns and prints the table.
pub(crate) async fn compare(config: Config, url: &str) {
    let app = App::connect(config, url, b"bench", Access::Everyone).await.unwrap();
    let following = tokio::spawn(app.changes.clone().run());
    app.changes.catch_up(Duration::from_secs(5)).await.unwrap();
    let gateway = serve(router(app.clone())).await;
    let world = Arc::new(world(gateway).await);
    let (mut ours, mut theirs) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    for _ in 0..ROUNDS {
        for (by_type, figures) in [(false, &mut ours), (true, &mut theirs)] {
            let (rate, hits) = run(&app, gateway, &world, by_type).await;
            figures.0.push(rate);
            figures.1.push(hits * 100.0);
        }
    }
    println!("\n{PAGES} pages by Zipf, 1 % writes: requests a second and hits in percent");
    println!("  what the change touched    {}, {}", spread(&mut ours.0, 0), spread(&mut ours.1, 1));
    println!("  all answers of the type    {}, {}", spread(&mut theirs.0, 0), spread(&mut theirs.1, 1));
    following.abort();
}
