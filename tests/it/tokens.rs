//! Tokens and API keys: who is let in with which, what they see then, and that every refusal reads alike.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use evidence_gateway::http::viewer::Access;
use evidence_gateway::http::viewer::token::{TokenKeys, mint, read_token};
use evidence_gateway::model::viewer::{Grant, Holder, Role};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Database, Gateway, SECRET, execute, id_of, sample_url, secret};

const PREVIOUS: &str = "the secret before it, of 32 characters or more";
/// What a stranger may know.
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEVs/o5+uQbTjL3chynL4wXgUg2R9
q9UU8I5mEovUf86QZ7kOBIjJwqnzD1omageEHWwHdBO6B+dFabmdT9POxg==
-----END PUBLIC KEY-----
";

fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

fn claims() -> Value {
    json!({"iss": "evidence-gateway", "aud": "evidence-gateway", "sub": Uuid::nil(), "iat": now(),
        "exp": now() + 600, "role": "admin"})
}

/// The claims with one of them changed, or removed by null.
pub(crate) fn but(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => claims.as_object_mut().unwrap().remove(name),
        value => claims.as_object_mut().unwrap().insert(name.to_owned(), value),
    };
    claims
}

/// A token of any header and any payload, signed as HS256 says.
fn signed(header: &str, payload: &str, secret: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn with_header(header: &Value) -> String {
    signed(&header.to_string(), &claims().to_string(), SECRET)
}

pub(crate) fn with_claims(claims: &Value) -> String {
    signed(r#"{"alg":"HS256","typ":"JWT"}"#, &claims.to_string(), SECRET)
}

fn keys() -> TokenKeys {
    TokenKeys::new(&secret(), None)
}

fn for_user(id: Uuid, role: Role) -> String {
    mint(&keys(), &Grant { holder: Holder::User(id), role, projects: None }, 600).unwrap()
}

/// Asks who asks. The status, the headers that can tell something, and the body.
async fn ask(gateway: &Gateway, headers: &[(&str, &str)]) -> (u16, Vec<(String, String)>, String) {
    let mut request = gateway.client.post(format!("{}/graphql", gateway.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let document =
        "{ viewer { role allProjects userId agentId agent { name } } projects { nodes { slug } } }";
    let response = request.json(&json!({"query": document})).send().await.unwrap();
    let told = |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
        let chance = ["date", "x-request-id"].contains(&name.as_str());
        (!chance).then(|| (name.to_string(), value.to_str().unwrap().to_owned()))
    };
    let mut headers: Vec<_> = response.headers().iter().filter_map(told).collect();
    headers.sort();
    (response.status().as_u16(), headers, response.text().await.unwrap())
}

async fn bearing(gateway: &Gateway, credential: &str) -> (u16, Vec<(String, String)>, String) {
    ask(gateway, &[("authorization", &format!("Bearer {credential}"))]).await
}

/// The viewer and the slugs of the projects that somebody sees, who must be let in.
async fn seen(gateway: &Gateway, credential: &str) -> (Value, Vec<String>) {
    let (status, _, body) = bearing(gateway, credential).await;
    assert_eq!(status, 200, "{body}");
    let mut data = serde_json::from_str::<Value>(&body).unwrap()["data"].take();
    let nodes = data["projects"]["nodes"].as_array().unwrap();
    let mut slugs: Vec<_> = nodes.iter().map(|node| node["slug"].as_str().unwrap().to_owned()).collect();
    slugs.sort();
    (data["viewer"].take(), slugs)
}

/// Every way in which a token can be wrong.
fn wrong_tokens() -> Vec<String> {
    [wrong_headers(), wrong_claims(), wrong_texts()].concat()
}

/// Signed with the right secret, but to be read in another way.
fn wrong_headers() -> Vec<String> {
    let jwk = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET), "alg": "HS256"});
    let mut wrong = Vec::new();
    for alg in [
        "none", "None", "NONE", "nOnE", "none ", "", "hs256", "HS384", "HS512", "RS256", "ES256", "PS256",
        "EdDSA",
    ] {
        let token = with_header(&json!({"alg": alg, "typ": "JWT"}));
        let (message, _) = token.rsplit_once('.').unwrap();
        // Signed with the secret all the same, unsigned, and without the place for a signature.
        wrong.extend([token.clone(), format!("{message}."), message.to_owned()]);
    }
    for more in [
        json!({"jwk": jwk}),
        json!({"jku": "https://example.org/keys"}),
        json!({"x5u": "https://example.org/cert"}),
        json!({"x5c": ["MIIB"]}),
        json!({"x5t": "AAAA"}),
        json!({"crit": ["b64"], "b64": false}),
        json!({"crit": []}),
        json!({"b64": false}),
        json!({"zip": "DEF"}),
        json!({"cty": "JWT"}),
        json!({"typ": "JOSE"}),
        json!({"typ": 1}),
        json!({"alg": ["HS256"]}),
        json!({"alg": null}),
        json!({"kid": "unknown"}),
        json!({"kid": ""}),
        json!({"kid": "../../dev/null"}),
        json!({"kid": 1}),
    ] {
        let mut header = json!({"alg": "HS256", "typ": "JWT"});
        header.as_object_mut().unwrap().append(more.clone().as_object_mut().unwrap());
        wrong.push(with_header(&header));
    }
    let twice = r#"{"alg":"none","alg":"HS256"}"#;
    for header in [twice, "{}", "[]", r#"["HS256","JWT",null]"#, "null", "", "{", "\u{0}"] {
        wrong.push(signed(header, &claims().to_string(), SECRET));
    }
    wrong
}

/// Signed with the right secret, but not for us, not now, or not to be understood.
fn wrong_claims() -> Vec<String> {
    let mut wrong = Vec::new();
    let claim = claims();
    let in_order = ["iss", "aud", "sub", "exp", "iat", "iat", "role"].map(|name| &claim[name]);
    let list = json!([in_order.as_slice(), &[&json!([])]].concat()).to_string();
    for payload in ["", "{}", "[]", "null", "{", &list, &format!("{claim}x"), &"[".repeat(4_000)] {
        wrong.push(signed(r#"{"alg":"HS256"}"#, payload, SECRET));
    }
    for (name, values) in [
        ("iss", vec![json!("somebody"), json!("Evidence-Gateway"), json!(["evidence-gateway"]), json!(null)]),
        ("aud", vec![json!("somebody"), json!([]), json!(["somebody"]), json!({}), json!(null)]),
        ("exp", vec![json!(now() - 120), json!(0), json!(-1), json!((now() + 600).to_string()), json!(null)]),
        ("nbf", vec![json!(now() + 120), json!(1e300), json!("0")]),
        ("iat", vec![json!(now() + 120), json!("0")]),
        (
            "sub",
            vec![
                json!("somebody"),
                json!(""),
                json!("agent:"),
                json!(Uuid::max()),
                json!(1),
                json!(null),
                json!(format!("agent:{}", Uuid::max())),
            ],
        ),
        ("role", vec![json!("root"), json!("ADMIN"), json!(["admin"]), json!(null)]),
        (
            "projects",
            vec![json!("all"), json!(["x"]), json!([null]), json!(vec![Uuid::nil(); 101]), json!({})],
        ),
    ] {
        wrong.extend(values.into_iter().map(|value| with_claims(&but(name, value))));
    }
    for name in ["projects", "nbf", "iat"] {
        let mut claims = claims();
        claims[name] = Value::Null;
        wrong.push(with_claims(&claims));
    }
    wrong
}

/// Not signed with the right secret, or no token at all.
fn wrong_texts() -> Vec<String> {
    let good = with_claims(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let mut wrong = Vec::new();
    for secret in [PUBLIC_KEY, PUBLIC_KEY.trim(), "", "another secret of 32 characters or so", PREVIOUS] {
        wrong.push(signed(r#"{"alg":"HS256","typ":"JWT"}"#, &claims().to_string(), secret));
    }
    for length in [0, 1, parts[0].len(), parts[0].len() + 1, good.len() / 2, good.len() - 4, good.len() - 1] {
        wrong.push(good[..length].to_owned());
    }
    wrong.extend([
        "garbage".to_owned(),
        "...".to_owned(),
        format!("{good}."),
        format!("{good}="),
        format!("{good}.{good}"),
        format!(".{}.{}", parts[1], parts[2]),
        format!("{}..{}", parts[0], parts[2]),
        format!("{}.{}.{}", parts[1], parts[0], parts[2]),
        signed(r#"{"alg":"HS256"}"#, &but("padding", json!("x".repeat(8_192))).to_string(), SECRET),
        "x".repeat(100_000),
        format!("egk_{}", "x".repeat(52)),
        "egk_".to_owned(),
        format!("egk_{}", "x".repeat(10_000)),
    ]);
    wrong
}

#[tokio::test]
async fn every_refusal_reads_alike() {
    let gateway = Gateway::guarded(&sample_url()).await;
    let good = with_claims(&claims());
    assert_eq!(seen(&gateway, &good).await.0["role"], "ADMIN");
    let refusal = ask(&gateway, &[]).await;
    let (status, headers, body) = &refusal;
    assert_eq!(*status, 401);
    assert!(headers.contains(&("www-authenticate".to_owned(), "Bearer".to_owned())), "{headers:?}");
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["errors"][0]["extensions"], json!({"code": "UNAUTHENTICATED"}));
    let begun = Instant::now();
    let wrong = wrong_tokens();
    assert!(wrong.len() > 100);
    for token in &wrong {
        assert_eq!(bearing(&gateway, token).await, refusal, "{token}");
    }
    let each = begun.elapsed() / u32::try_from(wrong.len()).unwrap();
    assert!(each < Duration::from_millis(100), "{each:?}");
    let bearer = format!("Bearer {good}");
    for headers in [
        &[("authorization", good.as_str())][..],
        &[("authorization", "Bearer")],
        &[("authorization", "Bearer ")],
        &[("authorization", &format!("Basic {good}"))],
        &[("authorization", &bearer), ("authorization", &bearer)],
        &[("authorization", &bearer), ("x-api-key", "egk_x")],
        &[("x-api-key", &good)],
        &[("x-api-key", "")],
    ] {
        assert_eq!(ask(&gateway, headers).await, refusal, "{headers:?}");
    }
    assert_eq!(bearing(&gateway, &"x".repeat(1 << 20)).await, refusal, "a megabyte");
}

/// Clocks may differ by a minute, in either direction and for every claim.
#[test]
fn clocks_may_differ_by_a_minute() {
    let at = now();
    let accepted =
        |name: &str, value: Value| read_token(&keys(), &with_claims(&but(name, value)), at).is_some();
    for (name, late, accepts) in [
        ("exp", -61, false),
        ("exp", -59, true),
        ("exp", 59, true),
        ("nbf", -61, true),
        ("nbf", 59, true),
        ("nbf", 61, false),
        ("iat", -61, true),
        ("iat", 59, true),
        ("iat", 61, false),
    ] {
        assert_eq!(accepted(name, json!(at + late)), accepts, "{name} {late}");
        let fraction = serde_json::from_str(&format!("{}.5", at + late)).unwrap();
        assert_eq!(accepted(name, fraction), accepts, "{name} {late}.5");
    }
    // What need not be there, and what may be more than one.
    assert!(accepted("iat", Value::Null) && accepted("aud", json!(["somebody", "evidence-gateway"])));
    assert!(accepted("unknown", json!({"claims": "are", "passed": ["over"]})));
}

/// A new secret signs; the one before it opens until it is taken away.
#[tokio::test]
async fn secrets_can_be_changed_without_locking_anybody_out() {
    let grant = Grant { holder: Holder::Nobody, role: Role::Admin, projects: None };
    let old = mint(&TokenKeys::new(&PREVIOUS.parse().unwrap(), None), &grant, 600).unwrap();
    let new = mint(&keys(), &grant, 600).unwrap();
    let kid = |token: &str| -> Value {
        let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
        serde_json::from_slice::<Value>(&header).unwrap()["kid"].take()
    };
    assert!(kid(&old).is_string() && kid(&old) != kid(&new));
    // Signed by the one and claiming the other's name.
    let header = json!({"alg": "HS256", "kid": kid(&new)}).to_string();
    let crossed = signed(&header, &claims().to_string(), PREVIOUS);
    let unnamed = signed(r#"{"alg":"HS256"}"#, &claims().to_string(), PREVIOUS);
    let url = sample_url();
    let settings = ["--token-previous-secret", PREVIOUS];
    let both = Gateway::start(&url, &settings, Access::Tokens(secret())).await;
    let only = Gateway::guarded(&url).await;
    for (gateway, token, status) in [
        (&both, &new, 200),
        (&both, &old, 200),
        (&both, &crossed, 401),
        (&both, &unnamed, 401),
        (&only, &new, 200),
        (&only, &old, 401),
    ] {
        assert_eq!(bearing(gateway, token).await.0, status, "{token}");
    }
}

/// A token that names no projects leaves them to the database, and so does everything else that can change.
#[tokio::test]
async fn a_user_is_what_the_database_says() {
    let database = Database::sample().await;
    let url = &database.url;
    let lifetime = Duration::from_millis(300);
    let gateway = Gateway::start(url, &["--identity-cache-ms", "300"], Access::Tokens(secret())).await;
    let engineer = id_of(url, "users", "engineer-2").await;
    let router = id_of(url, "projects", "moe-router").await;
    let analyst = for_user(engineer, Role::Analyst);
    let admin = for_user(engineer, Role::Admin);
    let named = Grant { holder: Holder::User(engineer), role: Role::Viewer, projects: Some(vec![router]) };
    let named = mint(&keys(), &named, 600).unwrap();
    let (viewer, slugs) = seen(&gateway, &analyst).await;
    assert_eq!((&viewer["role"], &viewer["userId"]), (&json!("ANALYST"), &json!(engineer)));
    assert_eq!(slugs, ["agent-library", "frontend-ui"]);
    // No token raises a user above the user's own role, nor shows more than that.
    let (viewer, slugs) = seen(&gateway, &admin).await;
    assert_eq!((&viewer["role"], viewer["allProjects"].as_bool()), (&json!("ANALYST"), Some(false)));
    assert_eq!(slugs, ["agent-library", "frontend-ui"]);
    assert_eq!(seen(&gateway, &named).await.1, ["moe-router"]);

    let leave =
        "delete from project_members where project_id = (select id from projects where slug = 'frontend-ui')";
    execute(url, leave).await;
    tokio::time::sleep(lifetime).await;
    assert_eq!(seen(&gateway, &analyst).await.1, ["agent-library"]);
    execute(url, "update users set role = 'admin'").await;
    tokio::time::sleep(lifetime).await;
    assert_eq!(seen(&gateway, &admin).await.1.len(), 5);
    assert_eq!(seen(&gateway, &analyst).await.1, ["agent-library"]);
    execute(url, &format!("update users set deleted_at = now() where id = '{engineer}'")).await;
    tokio::time::sleep(lifetime).await;
    let refusal = ask(&gateway, &[]).await;
    for token in [&analyst, &admin, &named] {
        assert_eq!(bearing(&gateway, token).await, refusal);
    }
}

/// Without a list of projects an administrator sees all, and nobody in particular nothing.
#[tokio::test]
async fn nobody_in_particular_is_a_member_of_nothing() {
    let gateway = Gateway::guarded(&sample_url()).await;
    assert_eq!(seen(&gateway, &with_claims(&claims())).await.1.len(), 5);
    assert!(seen(&gateway, &with_claims(&but("role", json!("agent")))).await.1.is_empty());
    let none = with_claims(&but("projects", json!([])));
    assert_eq!(
        seen(&gateway, &none).await,
        (
            json!({"role": "ADMIN", "allProjects": false, "userId": null,
        "agentId": null, "agent": null}),
            vec![]
        )
    );
}

/// While nobody can be looked up nobody is let in, and it is said why.
#[tokio::test]
async fn without_the_database_users_are_told_to_come_back() {
    let settings = ["--pool-wait-ms", "200"];
    let gateway =
        Gateway::start("postgres://nobody@127.0.0.1:1/db", &settings, Access::Tokens(secret())).await;
    for credential in [for_user(Uuid::max(), Role::Admin), format!("egk_{}", "x".repeat(52))] {
        let (status, _, body) = bearing(&gateway, &credential).await;
        assert!(status == 503 && body.contains("\"UNAVAILABLE\""), "{status} {body}");
    }
    assert_eq!(bearing(&gateway, "garbage").await.0, 401);
}

/// `dev` asks nobody who they are, so it does not talk to pages that come under a name of the web.
#[tokio::test]
async fn dev_answers_to_names_of_this_machine_only() {
    let (open, guarded) = (Gateway::open(&sample_url()).await, Gateway::guarded(&sample_url()).await);
    let token = format!("Bearer {}", with_claims(&claims()));
    for (host, status) in
        [("localhost:8080", 200), ("[::1]", 200), ("example.org", 403), ("127.0.0.1.example.org:8080", 403)]
    {
        assert_eq!(ask(&open, &[("host", host)]).await.0, status, "{host}");
        assert_eq!(ask(&guarded, &[("host", host), ("authorization", &token)]).await.0, 200, "{host}");
    }
    let page = open.client.get(format!("{}/graphiql", open.url)).header("host", "example.org:8080");
    assert_eq!(page.send().await.unwrap().status(), 403);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~]{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| prop::collection::vec(inner, 0..4).prop_map(Value::from))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever changes one character of a good token has a bad one.
    #[test]
    fn a_changed_token_is_refused(place in any::<prop::sample::Index>(), to in "[ -~]{0,3}", grow in any::<bool>()) {
        let good = with_claims(&claims());
        let at = place.index(good.len());
        let rest = &good[at + usize::from(!grow)..];
        let changed = format!("{}{to}{rest}", &good[..at]);
        prop_assert_eq!(read_token(&keys(), &changed, now()).is_some(), changed == good);
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in any::<String>(), parts in "[A-Za-z0-9_.-]{0,200}", at in any::<i32>()) {
        prop_assert_eq!(read_token(&keys(), &text, at.into()), None);
        prop_assert_eq!(read_token(&keys(), &parts, at.into()), None);
    }

    /// Also what was signed with the secret is read with care.
    #[test]
    fn any_signed_claim_is_read_without_a_panic(
        name in prop::sample::select(vec!["iss", "aud", "sub", "exp", "nbf", "iat", "role", "projects"]),
        value in any_json(),
        at in any::<i32>(),
    ) {
        let mut claims = claims();
        claims[name] = value;
        if let Some(grant) = read_token(&keys(), &with_claims(&claims), at.into()) {
            prop_assert!(grant.projects.is_none_or(|ids| ids.len() <= 100));
        }
        prop_assert_eq!(read_token(&keys(), &with_header(&claims), at.into()), None);
    }
}
