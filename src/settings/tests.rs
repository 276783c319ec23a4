use super::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn parse(json: &str) -> Result<Settings, SettingsError> {
    parse_with(json, &|| Secret::new([0; 32]))
}

fn parse_with(json: &str, process_secret: &dyn Fn() -> Secret) -> Result<Settings, SettingsError> {
    let env = |name: &str| (name == "KEY").then(|| "0123456789abcdef0123456789abcdef".to_owned());
    Settings::parse(json.as_bytes(), &Surroundings { env: &env, process_secret })
}

#[test]
fn nothing_means_every_default() {
    for json in ["", "  ", "{}"] {
        let settings = parse(json).unwrap();
        assert!(matches!(settings.hubs, Hubs::Any), "{json:?}");
        assert!(settings.connection_token.issue && settings.connection_token.negotiate_v0);
        assert_eq!(settings.connection_cookie.unwrap().name, "signalr-affinity");
        assert!(settings.client_cookie.is_none());
        assert_eq!((settings.pin.header.as_str(), settings.pin.encoding), ("x-signalr-pin", PinEncoding::Base64));
    }
}

#[test]
fn the_documented_schema_is_accepted_in_full() {
    let settings = parse_with(
        r#"{"hubs": [{"path": "/chat", "name": "chat", "access_token": "header", "transports": ["long_polling", "web_sockets"],
                "unbuffered_events": true}, {"path": "/app/*/hub"}],
            "affinity": {
              "keys": [{"id": "2026-11", "secret": {"env": "KEY"}}],
              "connection_token": {"enabled": true, "ttl": "168h", "negotiate_v0": true},
              "connection_cookie": {"enabled": true, "name": "signalr-affinity", "max_age": "24h", "same_site": "lax",
                "secure": "auto", "http_only": true, "partitioned": false, "domain": null},
              "client_cookie": {"enabled": true, "name": "__Host-client", "max_age": "24h", "rebalance_after": null,
                "mark": "X-SignalR-Preferred", "paths": ["/"], "path": "/", "same_site": "none", "secure": true,
                "http_only": true, "partitioned": true, "domain": null},
              "pin": {"header": "X-SignalR-Pin", "encoding": "plain"}, "cluster_header": "x-signalr-cluster"},
            "explain": false}"#,
        &|| panic!("the process's secret is asked for although a key is configured"),
    )
    .unwrap();
    assert_eq!(settings.client_cookie.unwrap().attributes.secure, Some(true));
    let Hubs::Listed(hubs) = &settings.hubs else { panic!("no hubs") };
    let own: Vec<_> =
        hubs.iter().map(|hub| (hub.access_token, hub.transports.as_deref(), hub.unbuffered_events)).collect();
    let some = [Transport::LongPolling, Transport::WebSockets];
    assert_eq!(own, [(AccessToken::Header, Some(some.as_slice()), true), (AccessToken::Query, None, false)]);
    assert_eq!(
        (settings.pin.header.as_str(), settings.pin.mark.as_deref()),
        ("x-signalr-pin", Some("x-signalr-preferred"))
    );
}

/// A route may still read it.
#[test]
fn the_mark_is_taken_off_also_while_the_client_cookie_is_disabled() {
    let settings = parse(r#"{"affinity": {"client_cookie": {"mark": "x-mark"}}}"#).unwrap();
    assert!(settings.client_cookie.is_none());
    assert_eq!(crate::steer::own_headers(&settings.pin).collect::<Vec<_>>(), ["x-signalr-pin", "x-mark"]);
}

/// Every mistake has a file and the line it is refused with; Envoy and `check-config` are held to the same files.
#[cfg(not(target_family = "wasm"))] // no files there
#[test]
fn each_mistake_is_refused_with_its_line() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/configs/refused");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let expected = std::fs::read_to_string(path.with_extension("txt")).unwrap();
        let error = parse(&std::fs::read_to_string(&path).unwrap()).expect_err(&path.display().to_string());
        assert_eq!(error.to_string(), expected.trim_end(), "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 30, "only {seen} files in {folder}");
}
