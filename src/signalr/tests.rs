use super::*;
use crate::settings::Surroundings;
use crate::store::Secret;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn settings(json: &str) -> Settings {
    Settings::parse(json.as_bytes(), &Surroundings { env: &|_| None, process_secret: &|| Secret::new([0; 32]) })
        .unwrap()
}

fn head(request: &str) -> Head {
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let pseudo = [(":method", method), (":path", target)];
    let fields: Vec<_> = pseudo.into_iter().chain(words.map(|word| word.split_once('=').unwrap())).collect();
    http::head_of(&fields)
}

/// `step hub [id]`, or `-` for a request that is none of SignalR's.
fn describe(request: &str, settings: &Settings) -> String {
    let is_hub = |path: &[u8]| path == b"/known" || path == b"/known/refresh";
    let Some(Exchange { step, hub, id }) = classify(&head(request), settings, is_hub) else { return "-".to_owned() };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let id = match id {
        Id::Absent => String::new(),
        Id::One(id) => format!(" {}", text(&id.value)),
        Id::Several => " (several)".to_owned(),
    };
    format!("{step:?} {}{id}", text(&hub))
}

#[test]
fn every_step_of_the_protocol_is_recognised() {
    let any = settings("");
    for (request, expected) in [
        ("POST /chat/negotiate?negotiateVersion=1", "Negotiate(V1) /chat"),
        ("POST /chat/negotiate", "Negotiate(V0) /chat"),
        ("POST /chat/negotiate?negotiateVersion=0", "Negotiate(V0) /chat"),
        ("POST /chat/negotiate?useStatefulReconnect=true&NEGOTIATEVERSION=1", "Negotiate(V1) /chat"),
        ("POST /HUB/Negotiate/?negotiateVersion=1", "Negotiate(V1) /HUB"),
        ("POST /negotiate?negotiateVersion=1", "Negotiate(V1) /"),
        ("POST /app/v2/hub/negotiate?negotiateVersion=1", "Negotiate(V1) /app/v2/hub"),
        ("POST /chat/n%65gotiate?negotiateVersion=1", "Negotiate(V1) /chat"),
        ("POST /chat/negotiate?id=stale", "Negotiate(V0) /chat stale"),
        ("GET /chat?id=a upgrade=websocket connection=Upgrade", "WebSocket /chat a"),
        ("GET /chat upgrade=WebSocket", "WebSocket /chat"),
        ("GET /?x=1&id=a&access_token=t upgrade=websocket", "WebSocket / a"),
        ("GET /chat?id= upgrade=websocket", "WebSocket /chat"),
        ("GET /chat?id=a sec-websocket-key=k", "UpgradeLost /chat a"),
        ("GET /chat?id=a&id=b sec-websocket-version=13 accept=*/*", "UpgradeLost /chat (several)"),
        ("GET /chat?id=a upgrade=h2c sec-websocket-version=13", "UpgradeLost /chat a"),
        ("GET /known sec-websocket-key=k", "UpgradeLost /known"),
        ("GET /chat?id=a upgrade=websocket sec-websocket-key=k sec-websocket-version=13", "WebSocket /chat a"),
        ("POST /chat?id=a sec-websocket-key=k", "Send /chat a"),
        ("GET /chat?ID=a accept=text/event-stream", "ServerSentEvents /chat a"),
        ("GET /chat?id=a&_=1700000000000 accept=*/*", "Poll /chat a"),
        ("GET /chat/?%69D=a%2Eb", "Poll /chat/ a.b"),
        ("POST /chat?id=a", "Send /chat a"),
        ("DELETE /chat?id=a", "Delete /chat a"),
        ("POST /chat/refresh?id=a", "Other /chat a"),
        ("OPTIONS /chat?id=a", "Other /chat a"),
        ("POST /_blazor?id=a", "Send /_blazor a"),
    ] {
        assert_eq!(describe(request, &any), expected, "{request}");
        let websocket = request.contains("upgrade=") || request.starts_with("GET /known");
        assert!(websocket || may_concern(head(request).get(":path").unwrap(), &any), "{request} is not looked at");
    }
}

/// What a request is does not hang on what else a client writes, where a hub does not care either. Each row but the last was
/// tried on ASP.NET Core 10: see `tests/recognition.rs`.
#[test]
fn requests_are_read_as_hubs_read_them() {
    let any = settings("");
    for (request, expected) in [
        ("POST /chat/negotiate?negotiateVersion=1&id&id", "Negotiate(V1) /chat"),
        ("POST /chat/negotiate?id=a&id=b", "Negotiate(V0) /chat (several)"),
        ("GET /chat?id=&id=a upgrade=websocket", "WebSocket /chat a"),
        ("GET /chat?id=&id=a accept=text/event-stream", "ServerSentEvents /chat a"),
        ("GET /chat?id=a&Id=b upgrade=websocket", "WebSocket /chat (several)"),
        ("GET /chat?id=a&id=b", "Poll /chat (several)"),
        ("post /chat/negotiate", "Negotiate(V0) /chat"),
        ("get /chat?id=a upgrade=websocket", "WebSocket /chat a"),
        ("Get /chat?id=a", "Poll /chat a"),
        ("post /chat?id=a", "Send /chat a"),
        ("delete /chat?id=a", "Delete /chat a"),
        ("POST /chat?id=a upgrade=websocket", "Send /chat a"),
        ("GET /chat?id=a accept=*/*,text/event-stream", "ServerSentEvents /chat a"),
        ("GET /chat?id=a accept=TEXT/Event-Stream", "ServerSentEvents /chat a"),
        ("GET /chat?id=a accept=text/event-stream;x=1", "Poll /chat a"),
        ("GET /chat?id=a+b%2B", "Poll /chat a b+"),
        ("POST /known/refresh?id=a", "Send /known/refresh a"),
    ] {
        assert_eq!(describe(request, &any), expected, "{request}");
        let websocket = request.contains("upgrade=");
        assert!(websocket || may_concern(head(request).get(":path").unwrap(), &any), "{request} is not looked at");
    }
}

#[test]
fn the_path_of_a_known_hub_is_never_a_page() {
    let pages = settings(r#"{"affinity": {"client_cookie": {"enabled": true, "paths": ["/*"]}}}"#);
    for (request, expected) in [
        ("GET /known?id=a accept=text/html", "Poll /known a"),
        ("GET /other?id=a accept=text/html", "Page /other"),
        ("GET /known accept=text/html", "-"),
    ] {
        assert_eq!(describe(request, &pages), expected, "{request}");
    }
}

#[test]
fn lookalikes_pass() {
    let any = settings("");
    for request in [
        "GET /signalr/negotiate?clientProtocol=2.1&connectionData=x",
        "GET /chat/negotiate",
        "OPTIONS /chat/negotiate?negotiateVersion=1",
        "POST /chat/negotiations",
        "GET /chat?id=",
        "GET /chat?id=&id",
        "GET /chat?uid=a",
        "GET /chat",
        "POST /_blazor/disconnect",
        "GET /chat upgrade=h2c",
        "GET /chat sec-websocket-key=k",
    ] {
        assert_eq!(describe(request, &any), "-", "{request}");
    }
}

#[test]
fn listed_hubs_are_the_only_ones() {
    let listed = settings(r#"{"hubs": [{"path": "/chat"}, {"path": "/app/*/hub"}]}"#);
    for (request, expected) in [
        ("POST /Chat/negotiate", "Negotiate(V0) /Chat"),
        ("GET /app/v2/hub?id=a", "Poll /app/v2/hub a"),
        ("POST /other/negotiate", "-"),
        ("GET /chat/more?id=a", "-"),
        ("GET /other upgrade=websocket", "-"),
    ] {
        assert_eq!(describe(request, &listed), expected, "{request}");
    }
}

#[test]
fn the_client_cookie_brings_its_companions() {
    let blazor = settings(r#"{"affinity": {"client_cookie": {"enabled": true, "paths": ["/", "/counter"]}}}"#);
    for (request, expected) in [
        ("POST /_blazor/disconnect/", "BlazorDisconnect /_blazor"),
        ("POST /app/_blazor/disconnect", "BlazorDisconnect /app/_blazor"),
        ("GET /_blazor/disconnect", "-"),
        ("GET /Counter?x=1", "Page /Counter"),
        ("GET /", "Page /"),
        ("GET /counter?id=7 accept=text/html,*/*", "Page /counter"),
        ("GET /counter?id=7 accept=*/*", "Poll /counter 7"),
        ("GET /counter?id=7 accept=text/htmlx", "Poll /counter 7"),
        ("HEAD /", "-"),
        ("GET /css/site.css", "-"),
    ] {
        assert_eq!(describe(request, &blazor), expected, "{request}");
    }
}
