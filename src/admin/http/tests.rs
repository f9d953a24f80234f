use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::{Body, to_bytes};
use tower::ServiceExt;

use super::*;
use crate::{
    admin::{
        Heard, Unheard,
        force::{Command, Forced, OverrideStatus, Reloaded},
        guard::Access,
        latency::Measurements,
        status::{History, LocationData, Queries, Reload, Status, Traffic},
    },
    answer::explain::{ClientView, Explanation},
};

#[derive(Default)]
struct Scripted {
    ready: AtomicBool,
    is_remote: bool,
}

impl Operations for Scripted {
    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    fn metrics(&self) -> String {
        "isochrone_up 1\n# EOF\n".into()
    }

    fn status(&self) -> Status {
        Status {
            version: "1.2.3".into(),
            ready: self.is_ready(),
            uptime_s: 7,
            generation: 1,
            config: "a.toml".into(),
            identity: String::new(),
            listen: vec!["127.0.0.1:5300".into()],
            location_data: LocationData { source: "x".into(), built: 0, networks_v4: 1, networks_v6: 1 },
            reload: Reload::default(),
            confinement: Default::default(),
            self_doubt: None,
            learning: None,
            cluster: None,
            regions: Vec::new(),
            overrides: Vec::new(),
            zones: Vec::new(),
            queries: Queries::default(),
        }
    }

    fn generation(&self) -> u64 {
        1
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    fn history(&self, region: &str, endpoint: Option<&str>) -> Option<History> {
        (region == "eu" && endpoint.is_none_or(|endpoint| endpoint == "::1")).then(|| History { endpoints: Vec::new() })
    }

    fn measurements(&self, client: Option<IpAddr>) -> Measurements {
        Measurements { region: client.map(|client| client.to_string()), networks: Vec::new() }
    }

    fn access(&self) -> Access {
        Access { is_loopback: !self.is_remote, token: None }
    }

    fn force(&self, command: &Command) -> Result<Forced, Refusal> {
        let endpoint = command.endpoint.as_ref().map(|endpoint| format!("/{endpoint}")).unwrap_or_default();
        let now = OverrideStatus {
            target: format!("{}{endpoint}", command.region),
            state: command.state.into(),
            reason: command.reason.clone(),
            since: 1,
            until: command.lasts_s,
            by: command.by.clone(),
            node: None,
            conflicts: Vec::new(),
            matches: Vec::new(),
        };
        Ok(Forced { now, replaced: Vec::new(), kept: true, warnings: Vec::new() })
    }

    fn reload(&self, by: &str) -> Result<Reloaded, Refusal> {
        Ok(Reloaded { summary: by.into() })
    }

    fn heartbeat(&self, check: &str, endpoint: &str, up: bool) -> Result<Heard, Unheard> {
        match (check, endpoint) {
            ("cron", "192.0.2.1" | "2001:db8::1") => Ok(Heard {
                check: check.into(),
                endpoint: endpoint.into(),
                state: if up { "up" } else { "down" }.into(),
                within_s: 60.0,
            }),
            ("cron", _) => Err(Unheard::NoSuchEndpoint),
            ("web", _) => Err(Unheard::NotPush),
            _ => Err(Unheard::NoSuchCheck),
        }
    }

    fn explain(&self, request: &explain::Request) -> Explanation {
        let client = request.client.map_or_else(|| "none".to_string(), |client| client.to_string());
        assert_ne!(client, "203.0.113.0/24", "a question that makes the server stumble");
        Explanation {
            name: request.name.to_string(),
            qtype: request.qtype.to_string(),
            client: ClientView {
                address: String::new(),
                prefix: client,
                country: None,
                asn: None,
                latitude: None,
                longitude: None,
                source: "none".into(),
            },
            zone: None,
            route: None,
            rule: None,
            policy: None,
            candidates: Vec::new(),
            chosen: None,
            next: None,
            answer: Vec::new(),
            ttl: None,
            scope: None,
            rcode: "REFUSED".into(),
        }
    }
}

fn ready() -> Router {
    router(Arc::new(Scripted { ready: AtomicBool::new(true), is_remote: false }))
}

async fn ask(router: Router, request: Request) -> (StatusCode, String, HeaderMap) {
    let response = router.oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap(), headers)
}

async fn get(router: Router, path: &str) -> (StatusCode, String, HeaderMap) {
    ask(router, Request::get(path).body(Body::empty()).unwrap()).await
}

fn error_in(body: &str) -> String {
    serde_json::from_str::<ErrorBody>(body).unwrap_or_else(|error| panic!("{error}: {body}")).error
}

#[tokio::test]
async fn it_is_alive_before_it_is_ready() {
    let operations = Arc::new(Scripted::default());
    let router = router(operations.clone());
    assert_eq!(get(router.clone(), "/livez").await.0, StatusCode::OK);
    let (status, body, _) = get(router.clone(), "/readyz").await;
    assert_eq!((status.as_u16(), body.as_str()), (503, "first probe round under way"));
    operations.ready.store(true, Ordering::Relaxed);
    let (status, body, _) = get(router, "/readyz").await;
    assert_eq!((status.as_u16(), body.as_str()), (200, "ready"));
}

#[tokio::test]
async fn every_path_has_its_type_and_is_never_kept() {
    for (path, content_type, part) in [
        ("/", "text/html; charset=utf-8", "IP Geolocation by DB-IP"),
        ("/livez", "text/plain; charset=utf-8", "ok"),
        ("/metrics", metrics::CONTENT_TYPE, "# EOF"),
        ("/api/v1/status", "application/json", "\"uptime_s\":7"),
        ("/api/v1/explain?name=a.example", "application/json", "\"name\":\"a.example.\""),
        ("/api/v1/history?region=eu", "application/json", "{\"endpoints\":[]}"),
        ("/api/v1/history?region=eu&endpoint=::1", "application/json", "{\"endpoints\":[]}"),
    ] {
        let (status, body, headers) = get(ready(), path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert_eq!(headers[header::CONTENT_TYPE], content_type, "{path}");
        assert_eq!(headers[header::CACHE_CONTROL], "no-store", "{path}");
        assert!(body.contains(part), "{path}: {body}");
    }
}

#[tokio::test]
async fn explain_takes_names_clients_and_types_as_people_write_them() {
    for (question, name, prefix, qtype) in [
        ("name=App.Example", "app.example.", "none", "1"),
        ("name=app.example.&client=&type=", "app.example.", "none", "1"),
        ("name=app.example&client=192.0.2.7&type=aaaa", "app.example.", "192.0.2.7/32", "28"),
        ("name=app.example&client=2001:db8::7%2F32&type=TYPE65", "app.example.", "2001:db8::/32", "65"),
    ] {
        let (status, body, _) = get(ready(), &format!("/api/v1/explain?{question}")).await;
        assert_eq!(status, StatusCode::OK, "{question}: {body}");
        let told: Explanation = serde_json::from_str(&body).unwrap();
        assert_eq!((&*told.name, &*told.client.prefix, &*told.qtype), (name, prefix, qtype), "{question}");
    }
}

#[tokio::test]
async fn bad_questions_are_told_what_to_ask_instead() {
    for (question, part) in [
        ("", "`name` is missing; ask like this: /api/v1/explain?name="),
        ("?name=a..b", "`a..b` is no domain name: empty label"),
        ("?name=a&client=nowhere", "`nowhere` is no client address; write an address like 203.0.113.7"),
        ("?name=a&type=B0", "`B0` is no record type; write A, AAAA, CNAME or TYPEnnn"),
        ("?name=a&clinet=192.0.2.1", "unknown field `clinet`"),
    ] {
        let (status, body, headers) = get(ready(), &format!("/api/v1/explain{question}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{question}");
        assert_eq!(headers[header::CONTENT_TYPE], "application/json");
        assert!(error_in(&body).contains(part), "{question}: {body}");
    }
}

#[tokio::test]
async fn the_history_of_nothing_is_told_what_to_ask_instead() {
    for (question, status, part) in [
        ("", 400, "`region` is missing; ask like this: /api/v1/history?region=eu"),
        ("?regoin=eu", 400, "unknown field `regoin`"),
        ("?region=us", 404, "there is no region `us`; /api/v1/status lists them"),
        ("?region=eu&endpoint=::2", 404, "there is no endpoint `eu/::2`; /api/v1/status lists them"),
    ] {
        let (told, body, _) = get(ready(), &format!("/api/v1/history{question}")).await;
        assert_eq!(told.as_u16(), status, "{question}");
        assert!(error_in(&body).contains(part), "{question}: {body}");
    }
}

#[tokio::test]
async fn a_panic_is_an_answer_and_the_next_question_is_answered() {
    let router = ready();
    for _ in 0..2 * EXPLAINING_MAX {
        let (status, body, _) = get(router.clone(), "/api/v1/explain?name=a&client=203.0.113.0/24").await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(error_in(&body).contains("its log tells why"));
    }
    assert_eq!(get(router, "/api/v1/explain?name=a").await.0, StatusCode::OK);
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_told_in_json() {
    let (status, body, _) = get(ready(), "/nowhere").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(error_in(&body), "nothing is at /nowhere; see / for what there is");
    for (path, expected) in [("/api/v1/regions/eu", 404), ("/api/v1/status", 405), ("/metrics", 405)] {
        let (status, body, _) = ask(ready(), Request::post(path).body(Body::empty()).unwrap()).await;
        assert_eq!(status, expected, "{path}");
        error_in(&body);
    }
}

fn change(path: &str, body: &str) -> Request {
    let request = Request::post(path).header(header::HOST, "localhost:8053").header(header::USER_AGENT, "test/1");
    request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string())).unwrap()
}

#[tokio::test]
async fn an_override_names_its_target_in_the_path_and_the_rest_in_json() {
    let body = r#"{"state":"drain","reason":"x","for":"1h"}"#;
    for (path, target) in [
        ("/api/v1/regions/eu/force", "eu"),
        ("/api/v1/regions/eu-*/force", "eu-*"),
        ("/api/v1/regions/eu%20west%2D%2A/force", "eu west-*"),
        ("/api/v1/regions/eu/endpoints/2001:db8::1/force", "eu/2001:db8::1"),
        ("/api/v1/regions/%2A/endpoints/192.0.2.%2A/force", "*/192.0.2.*"),
    ] {
        let (status, body, _) = ask(ready(), change(path, body)).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        let told: Forced = serde_json::from_str(&body).unwrap();
        let (now, by) = (told.now, "0.0.0.0 test/1");
        assert_eq!((&*now.target, &*now.state, now.until, &*now.by), (target, "drain", Some(3600), by), "{path}");
    }
    let (status, body, _) = ask(ready(), change("/api/v1/regions/eu/force", r#"{"state":"off"}"#)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(error_in(&body).contains("unknown state `off`"), "{body}");
    let (status, body, _) = get(ready(), "/api/v1/regions/eu/force").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(error_in(&body), "/api/v1/regions/eu/force takes POST, not GET");
}

#[tokio::test]
async fn a_reload_is_asked_for_by_post() {
    let (status, body, _) = ask(ready(), change("/api/v1/reload", "{}")).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(serde_json::from_str::<Reloaded>(&body).unwrap().summary, "0.0.0.0 test/1");
}

#[tokio::test]
async fn changes_pass_the_guard_and_say_that_they_are_json() {
    let remote = || router(Arc::new(Scripted { ready: AtomicBool::new(true), is_remote: true }));
    for path in ["/api/v1/regions/eu/force", "/api/v1/regions/eu/endpoints/x/force", "/api/v1/reload"] {
        let (status, body, _) = ask(remote(), change(path, "{}")).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
        assert!(error_in(&body).contains("set `token-file` in [admin]"), "{body}");
        let mut rebound = change(path, "{}");
        rebound.headers_mut().insert(header::HOST, HeaderValue::from_static("evil.example"));
        assert_eq!(ask(ready(), rebound).await.0, StatusCode::FORBIDDEN, "{path}");
        let mut form = change(path, "{}");
        form.headers_mut().remove(header::CONTENT_TYPE);
        assert_eq!(ask(ready(), form).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{path}");
    }
    assert_eq!(get(remote(), "/api/v1/status").await.0, StatusCode::OK);
}

#[tokio::test]
async fn foreign_pages_are_refused() {
    for (origin, host, is_refused) in [
        (None, "localhost:8053", false),
        (Some("http://localhost:8053"), "localhost:8053", false),
        (Some("http://127.0.0.1:8053"), "127.0.0.1:8053", false),
        (Some("http://[::1]:8053"), "[::1]:8053", false),
        (Some("http://localhost:3000"), "localhost:8053", true),
        (Some("https://evil.example"), "localhost:8053", true),
        (Some("http://evil.example:8053"), "evil.example:8053", true),
        (Some("null"), "localhost:8053", true),
    ] {
        let mut request = Request::post("/api/v1/status").header(header::HOST, host);
        if let Some(origin) = origin {
            request = request.header(header::ORIGIN, origin);
        }
        let (status, body, _) = ask(ready(), request.body(Body::empty()).unwrap()).await;
        assert_eq!(status.as_u16(), if is_refused { 403 } else { 405 }, "{origin:?} at {host}: {body}");
        error_in(&body);
    }
    let read = Request::get("/api/v1/status").header(header::ORIGIN, "https://evil.example");
    assert_eq!(ask(ready(), read.body(Body::empty()).unwrap()).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_heartbeat_is_taken_in_with_a_body_or_without_and_a_wrong_one_is_told_what_to_send() {
    let send = |path: &str, body: &str| {
        let request = Request::post(format!("/api/v1/checks/{path}/heartbeat")).header(header::HOST, "localhost");
        ask(ready(), request.body(Body::from(body.to_string())).unwrap())
    };
    for (path, body, status, part) in [
        ("cron/192.0.2.1", "", 200, r#""state":"up","within_s":60.0"#),
        ("cron/192.0.2.1", r#"{"state":"up"}"#, 200, r#""state":"up""#),
        ("cron/2001:db8::1", r#"{"state":"down"}"#, 200, r#""state":"down""#),
        ("cron/2001%3Adb8::1", "{}", 200, r#""state":"up""#),
        ("cron/192.0.2.2", "", 404, "192.0.2.2 is no endpoint under the check `cron`"),
        ("web/192.0.2.1", "", 404, "the check `web` is not of type `push`"),
        ("corn/192.0.2.1", "", 404, "no endpoint is under a check `corn`"),
        ("cron/192.0.2.1", r#"{"state":"sideways"}"#, 400, "unknown variant `sideways`"),
        ("cron/192.0.2.1", r#"{"status":"up"}"#, 400, "send no body, or {\"state\": \"up\"} or {\"state\": \"down\"}"),
        ("cron/192.0.2.1", "up", 400, "send no body"),
    ] {
        let (got, text, _) = send(path, body).await;
        assert_eq!(got.as_u16(), status, "{path} {body}: {text}");
        let text = if status == 200 { text } else { error_in(&text) };
        assert!(text.contains(part), "{path} {body}: {text}");
    }
    let (status, body, _) = get(ready(), "/api/v1/checks/cron/192.0.2.1/heartbeat").await;
    assert_eq!((status.as_u16(), error_in(&body).ends_with("takes POST, not GET")), (405, true), "{body}");
    let remote = router(Arc::new(Scripted { is_remote: true, ..Scripted::default() }));
    let request = Request::post("/api/v1/checks/cron/192.0.2.1/heartbeat").body(Body::empty()).unwrap();
    assert_eq!(ask(remote, request).await.0, StatusCode::FORBIDDEN, "anybody could keep an endpoint up");
}

#[tokio::test]
async fn a_large_body_is_refused_unread() {
    let request = Request::post("/api/v1/status").header(header::CONTENT_LENGTH, BODY_BYTES_MAX + 1);
    let (status, body, _) = ask(ready(), request.body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    error_in(&body);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_say_how_long_it_is_is_read_so_far_and_so_long() {
    use futures_util::stream;
    let send = |body: Body| {
        let (parts, _) = change("/api/v1/regions/eu/force", "{}").into_parts();
        ask(ready(), Request::from_parts(parts, body))
    };
    let kilobyte = || Ok::<_, std::io::Error>(vec![b' '; 1 << 10]);
    let long = stream::iter((0..=BODY_BYTES_MAX >> 10).map(move |_| kilobyte()));
    assert_eq!(send(Body::from_stream(long)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let begun = tokio::time::Instant::now();
    let (status, body, _) = send(Body::from_stream(stream::pending::<std::io::Result<Vec<u8>>>())).await;
    assert_eq!((status, begun.elapsed().as_secs()), (StatusCode::SERVICE_UNAVAILABLE, REQUEST_WITHIN.as_secs()));
    assert!(error_in(&body).contains("not answered within 10 s"), "{body}");
}

#[tokio::test]
async fn it_is_served_on_a_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let server = tokio::spawn(serve(listener, Arc::new(Scripted::default()), stopped));
    let client = reqwest_client();
    let response = client.get(format!("http://{address}/livez")).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "ok");
    stop.send_replace(true);
    timeout(Duration::from_secs(20), server).await.expect("it ends").unwrap();
}

fn reqwest_client() -> reqwest::Client {
    let tls = crate::health::probe::tls::TlsModes::new(crate::health::probe::tls::TrustedRoots::Host);
    reqwest::Client::builder().no_proxy().tls_backend_preconfigured((*tls.unverified()).clone()).build().unwrap()
}
