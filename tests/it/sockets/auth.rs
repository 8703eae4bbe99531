//! Who may open a socket and for how long: every way to say who it is, and every way to be nobody any more.

use std::time::{Duration, Instant};

use evidence_gateway::http::viewer::Access;
use evidence_gateway::model::viewer::Viewer;
use serde_json::{Value, json};

use super::{Client, PATIENCE, PROTOCOL, until};
use crate::harness::{Database, Gateway, execute, id_of, member, sample_url, secret, token};
use crate::{keys, tokens};

const ROLE: &str = "{ viewer { role } }";
/// How long the gateways of these tests believe who somebody is.
const SETTINGS: &[&str] = &["--identity-cache-ms", "200"];

async fn gateway(url: &str) -> Gateway {
    Gateway::start(url, SETTINGS, Access::Tokens(secret())).await
}

async fn ticket(gateway: &Gateway, bearer: &str) -> Result<String, u16> {
    let request = gateway.client.post(format!("{}/graphql/ticket", gateway.url)).bearer_auth(bearer);
    let response = request.send().await.unwrap();
    if response.status() != 200 {
        return Err(response.status().as_u16());
    }
    assert_eq!(response.headers()["cache-control"], "no-store");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["expiresIn"], 30);
    Ok(body["ticket"].as_str().unwrap().to_owned())
}

/// Where credentials stand.
enum Place {
    Header(&'static str, String),
    Payload(Value),
    Query(String),
}

/// Ways to say who it is, and the role or the code that comes of each.
fn ways(token: &str, key: &str, tickets: &[String; 2]) -> Vec<(Vec<Place>, Result<&'static str, u16>)> {
    use Place::{Header, Payload, Query};
    let (bearer, other) = (format!("Bearer {token}"), format!("Bearer {key}"));
    let lie = "Bearer egk_00000000_0000000000000000000000000000000000000000000";
    vec![
        (vec![Header("authorization", bearer.clone())], Ok("VIEWER")),
        (vec![Header("authorization", other.clone())], Ok("AGENT")),
        (vec![Header("x-api-key", key.to_owned())], Ok("AGENT")),
        (vec![Payload(json!({"authorization": bearer}))], Ok("VIEWER")),
        (vec![Payload(json!({"Authorization": other, "more": [1]}))], Ok("AGENT")),
        (vec![Payload(json!({"x-api-key": key}))], Ok("AGENT")),
        (vec![Payload(json!({"apiKey": key}))], Ok("AGENT")),
        (vec![Payload(json!({"ticket": tickets[0]}))], Ok("VIEWER")),
        (vec![Query(tickets[0].clone())], Ok("VIEWER")),
        (vec![Query(tickets[1].clone()), Payload(json!({}))], Ok("AGENT")),
        (vec![], Err(4403)),
        (vec![Payload(json!({}))], Err(4403)),
        (vec![Payload(json!({"authorization": token}))], Err(4403)),
        (vec![Payload(json!({"authorization": lie}))], Err(4403)),
        (vec![Payload(json!({"authorization": 1}))], Err(4403)),
        (vec![Payload(json!({"authorization": bearer, "apiKey": key}))], Err(4403)),
        (vec![Payload(json!({"ticket": token}))], Err(4403)),
        (vec![Header("authorization", bearer.clone()), Payload(json!({"apiKey": key}))], Err(4403)),
        (
            vec![Header("authorization", "Bearer nobody".to_owned()), Payload(json!({"apiKey": key}))],
            Err(401),
        ),
        (vec![Header("authorization", bearer), Header("x-api-key", key.to_owned())], Err(401)),
        (vec![Query("egt_x.y".to_owned())], Err(401)),
        (vec![Query(token.to_owned())], Err(401)),
    ]
}

#[tokio::test]
async fn there_are_many_ways_to_say_who_it_is() {
    let database = Database::sample().await;
    let gateway = gateway(&database.url).await;
    let agent = id_of(&database.url, "agents", "reviewer").await.to_string();
    let key = keys::create(&database.url, &["--role", "agent", "--agent", &agent]);
    let token = token(&member(None, &[]));
    let tickets = [ticket(&gateway, &token).await.unwrap(), ticket(&gateway, &key).await.unwrap()];
    assert!(tickets.iter().all(|ticket| ticket.starts_with("egt_")));
    assert_eq!((ticket(&gateway, "nobody").await, ticket(&gateway, &tickets[0]).await), (Err(401), Err(401)));
    for (places, expected) in ways(&token, &key, &tickets) {
        let (mut path, mut headers, mut payload) = ("/graphql".to_owned(), Vec::new(), Value::Null);
        for place in places {
            match place {
                Place::Header(name, value) => headers.push((name, value)),
                Place::Payload(value) => payload = value,
                Place::Query(ticket) => path.push_str(&format!("?ticket={ticket}")),
            }
        }
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let opened = Client::try_open(&gateway.url, &path, Some(PROTOCOL), &headers).await;
        let mut client = match (opened, expected) {
            (Ok(client), _) => client,
            (Err((status, body)), expected) => {
                assert_eq!(Err(status), expected, "{path} {headers:?} {payload} {body}");
                assert!(body.contains("UNAUTHENTICATED"), "{body}");
                continue;
            }
        };
        client.say(json!({"type": "connection_init", "payload": payload})).await;
        match expected {
            Ok(role) => {
                assert_eq!(
                    client.message().await,
                    json!({"type": "connection_ack"}),
                    "{path} {headers:?} {payload}"
                );
                assert_eq!(client.ask("1", ROLE).await["data"]["viewer"]["role"], role);
            }
            Err(code) => assert_eq!(
                client.end().await,
                (
                    code,
                    "Forbidden".to_owned()
                        + if headers.is_empty() { "" } else { ": credentials came in the headers, too" }
                )
            ),
        }
    }
}

/// A page of any origin can open a WebSocket, whatever CORS says, so the handshake is where it is stopped.
#[tokio::test]
async fn pages_of_other_origins_are_stopped() {
    let open = Gateway::open(&sample_url()).await;
    let named = ["--cors-origins", "https://app.example"];
    let named = Gateway::start(&sample_url(), &named, Access::Everyone).await;
    let any = Gateway::start(&sample_url(), &["--cors-origins", "*"], Access::Everyone).await;
    let own = |gateway: &Gateway| gateway.url.clone();
    for (gateway, origin, host, expected) in [
        (&open, own(&open), None, Ok(())),
        (&open, own(&open).replace("http:", "https:"), None, Ok(())),
        (&open, "https://app.example".to_owned(), None, Err(403)),
        (&open, "null".to_owned(), None, Err(403)),
        (&open, own(&named), None, Err(403)),
        (&named, "https://app.example".to_owned(), None, Ok(())),
        (&named, "https://app.example.org".to_owned(), None, Err(403)),
        (&named, "http://app.example".to_owned(), None, Err(403)),
        (&any, "https://app.example".to_owned(), None, Ok(())),
        // A page that lets its own name point here (DNS rebinding).
        (&any, "http://rebound.example".to_owned(), Some("rebound.example"), Err(403)),
    ] {
        let mut headers = vec![("origin", origin.as_str())];
        headers.extend(host.map(|host| ("host", host)));
        let opened = Client::try_open(&gateway.url, "/graphql", Some(PROTOCOL), &headers).await;
        assert_eq!(opened.map(|_| ()).map_err(|(status, _)| status), expected, "{origin}");
    }
}

/// The end of a socket whose viewer is nobody any more, or somebody else.
#[tokio::test]
async fn sockets_end_with_what_they_were_opened_with() {
    let database = Database::sample().await;
    let url = &database.url;
    let gateway = gateway(url).await;
    let user = id_of(url, "users", "engineer-2").await;
    let key = keys::create(url, &["--role", "viewer", "--user", &user.to_string()]);
    let soon = json!(chrono::Utc::now().timestamp() - 58);
    let expiring = tokens::with_claims(&tokens::but("exp", soon));
    let of_user = {
        let claims = tokens::but("sub", json!(user));
        tokens::with_claims(&claims)
    };
    let steady = token(&Viewer::admin());
    let by = async |bearer: &str| {
        let payload = json!({"authorization": format!("Bearer {bearer}")});
        let mut client = Client::begin(&gateway.url, payload).await;
        client.subscribe("s", "subscription { taskChanged { id } }").await;
        client
    };
    let with_ticket = ticket(&gateway, &key).await.unwrap();
    let mut others = by(&steady).await;
    let ended = async |mut client: Client, reason: &str| {
        let (code, said) = client.end().await;
        assert_eq!((code, said.as_str()), (4403, reason));
    };
    let over = "Forbidden: the credential has expired or was revoked";
    let changed = "Forbidden: what you may see has changed; connect again";
    // A token that expires, clocks being as they are.
    ended(by(&expiring).await, over).await;
    // A membership that ends: with the same token one may come back.
    let (client, by_key) = (by(&of_user).await, by(&key).await);
    let path = format!("/graphql?ticket={with_ticket}");
    let mut ticketed = Client::try_open(&gateway.url, &path, Some(PROTOCOL), &[]).await.unwrap();
    ticketed.text(r#"{"type":"connection_init"}"#).await;
    let remove = format!(
        "delete from project_members where user_id = '{user}' and project_id = (select min(project_id::text)::uuid from project_members where user_id = '{user}')"
    );
    let begun = Instant::now();
    execute(url, &remove).await;
    ended(client, changed).await;
    ended(by_key, changed).await;
    ended(ticketed, changed).await;
    // A key that is withdrawn, a user who is deleted.
    let (client, by_key) = (by(&of_user).await, by(&key).await);
    execute(url, "update api_keys set revoked_at = now()").await;
    ended(by_key, over).await;
    execute(url, &format!("update users set deleted_at = now() where id = '{user}'")).await;
    ended(client, over).await;
    assert!(begun.elapsed() < PATIENCE);
    // Nobody else notices anything.
    assert_eq!(others.ask("q", ROLE).await["data"]["viewer"]["role"], "ADMIN");
}

/// Event streams say it by an event.
#[tokio::test]
async fn event_streams_end_with_what_they_were_opened_with() {
    let database = Database::sample().await;
    let gateway = gateway(&database.url).await;
    let user = id_of(&database.url, "users", "engineer-2").await.to_string();
    let key = keys::create(&database.url, &["--role", "viewer", "--user", &user]);
    let request = gateway.client.post(format!("{}/graphql/stream", gateway.url)).bearer_auth(&key);
    let request = request.header("accept", "text/event-stream");
    let response =
        request.json(&json!({"query": "subscription { taskChanged { id } }"})).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"text/event-stream; charset=utf-8".parse().unwrap())
    );
    tokio::time::sleep(Duration::from_millis(300)).await;
    execute(&database.url, "update api_keys set revoked_at = now()").await;
    let text = tokio::time::timeout(PATIENCE, response.text()).await.unwrap().unwrap();
    assert!(text.contains("event: next\ndata: {\"errors\":[{\"message\":\"Forbidden: the credential has expired or was revoked\""), "{text}");
    assert!(text.contains("UNAUTHENTICATED") && text.ends_with("event: complete\ndata:\n\n"), "{text}");
    until("it is counted", async || {
        super::metric(&gateway, "socket_closes_total{code=\"4403\",transport=\"events\"}").await == Some(1.0)
    })
    .await;
}
