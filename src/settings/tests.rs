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

/// Every field there is, each with a value.
const FULL: &str = r#"{
    "hubs": [{"path": "/chat", "name": "chat", "access_token": "header", "transports": ["long_polling"], "unbuffered_events": true}],
    "affinity": {
        "keys": [{"id": "1", "secret": {"env": "KEY"}}],
        "connection_token": {"enabled": true, "ttl": "168h", "negotiate_v0": true},
        "connection_cookie": {"enabled": true, "name": "signalr-affinity", "max_age": "24h", "same_site": "none", "secure": true,
            "http_only": true, "partitioned": true, "domain": "example.com"},
        "client_cookie": {"enabled": true, "name": "signalr-client", "max_age": "24h", "rebalance_after": "1h", "mark": "x-mark",
            "paths": ["/app"], "path": "/", "same_site": "none", "secure": true, "http_only": true, "partitioned": true,
            "domain": "example.com"},
        "pin": {"header": "x-pin", "encoding": "plain"},
        "cluster_header": "x-cluster"},
    "limits": {
        "mode": "shadow",
        "client": {"key": {"header": "x-user", "as": "address"}, "absent": "refuse", "ipv4_prefix": 24, "ipv6_prefix": 56,
            "exempt": ["10.0.0.0/8"]},
        "connections": {"per_client": 20, "per_hub": 5000, "total": 10000},
        "negotiate_rate": {"requests": 10, "per": "1s", "burst": 20},
        "connect_rate": {"requests": 10, "per": "1s", "burst": 20},
        "reject": {"status": 429, "retry_after": "5s", "negotiate": "status", "allow_origins": ["https://example.com"]},
        "long_polling_idle": "15s",
        "on_error": "deny",
        "shared": {"redis": {"cluster": "redis", "namespace": "production", "username": "gateway",
          "password": {"env": "KEY"}, "timeout": "250ms", "on_error": "local"}}},
    "metrics": {"detail": "messages", "per_upstream": true},
    "explain": true}"#;

/// The path and the value of every field of `value`, and of every element of its lists.
fn fields(path: String, value: &serde_json::Value, found: &mut Vec<(String, serde_json::Value)>) {
    match value {
        serde_json::Value::Object(members) => {
            for (name, member) in members {
                fields(format!("{path}/{name}"), member, found);
            }
        }
        serde_json::Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                fields(format!("{path}/{index}"), item, found);
            }
        }
        _ => {}
    }
    found.push((path, value.clone()));
}

fn all_fields() -> (serde_json::Value, Vec<(String, serde_json::Value)>) {
    let full = serde_json::from_str(FULL).unwrap();
    let mut found = Vec::new();
    fields(String::new(), &full, &mut found);
    assert!(parse(FULL).is_ok());
    (full, found)
}

/// The refusal of the full configuration with another value at `pointer`.
fn refusal_of(full: &serde_json::Value, pointer: &str, value: &serde_json::Value) -> Option<SettingsError> {
    let mut changed = full.clone();
    *changed.pointer_mut(pointer).unwrap() = value.clone();
    parse(&changed.to_string()).err()
}

/// `/hubs/0/path` as a refusal names it.
fn named(pointer: &str) -> String {
    let mut name = String::new();
    for part in pointer.split('/').skip(1) {
        match part.parse::<usize>() {
            Ok(index) => name.push_str(&format!("[{index}]")),
            Err(_) if name.is_empty() => name.push_str(part),
            Err(_) => name.push_str(&format!(".{part}")),
        }
    }
    if name.is_empty() { "configuration".to_owned() } else { name }
}

#[test]
fn a_value_of_another_type_is_refused_by_its_field_in_words_of_json() {
    const WORDS_OF_RUST: [&str; 19] = [
        "struct", "enum", "variant", "tuple", "sequence", "map", "unit", "newtype", "option", "floating", "u8", "u16",
        "u32", "u64", "i64", "f64", "usize", "IpAddr", "IpNet",
    ];
    let (full, fields) = all_fields();
    let others = [r#""no""#, "5", "-1", "1.5", "true", "null", "[]", "[5]", r#"["no"]"#, "{}", r#"{"no": 5}"#];
    let others = others.map(|json| serde_json::from_str::<serde_json::Value>(json).unwrap());
    for (pointer, value) in &fields {
        for other in &others {
            // A secret is judged as a whole.
            let field = named(pointer.trim_end_matches("/env"));
            // Null may stand for a field that is left out.
            let is_other_type = std::mem::discriminant(value) != std::mem::discriminant(other) && !other.is_null();
            let Some(refusal) = refusal_of(&full, pointer, other).map(|error| error.to_string()) else {
                assert!(!is_other_type, "{field} may be {other}");
                continue;
            };
            let says_what_is_expected = refusal.starts_with(&format!("{field}: ")) && refusal.contains("expected ");
            assert!(says_what_is_expected || !is_other_type, "{field} = {other}: {refusal}");
            let mut words = refusal.split(|c: char| !c.is_ascii_alphanumeric());
            assert!(!words.any(|word| WORDS_OF_RUST.contains(&word)), "{field} = {other}: {refusal}");
            assert!(!refusal.contains("not JSON"), "{field} = {other}: {refusal}");
        }
    }
}

/// Else a new field would be left out above.
#[test]
fn the_full_configuration_has_every_field() {
    let (full, fields) = all_fields();
    for (pointer, value) in fields {
        let Some(members) = value.as_object() else { continue };
        // Read by hand: one of two, of which one stands there.
        if pointer.ends_with("/secret") || pointer.ends_with("/password") || pointer.ends_with("/key") {
            continue;
        }
        let mut more = members.clone();
        more.insert("zzz".to_owned(), true.into());
        let refusal = refusal_of(&full, &pointer, &more.into()).unwrap().to_string();
        let (_, known) = refusal.split_once(", expected ").unwrap();
        for name in known.split('`').skip(1).step_by(2) {
            assert!(members.contains_key(name), "{pointer} lacks {name}");
        }
    }
}

/// A secret in the wrong place must not reach a log.
#[test]
fn what_stands_in_the_place_of_a_key_is_not_repeated() {
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    let (full, fields) = all_fields();
    let in_keys = |pointer: &str| {
        let holds_secret =
            pointer.starts_with("/affinity/keys") || pointer.starts_with("/limits/shared/redis/password");
        holds_secret && !pointer.ends_with("/env")
    };
    for (pointer, _) in fields.iter().filter(|(pointer, _)| in_keys(pointer)) {
        for secret in [serde_json::json!(SECRET), serde_json::json!([SECRET]), serde_json::json!({ "text": SECRET })] {
            let Some(refusal) = refusal_of(&full, pointer, &secret) else { continue };
            assert!(!refusal.to_string().contains(SECRET), "{pointer} = {secret}: {refusal}");
        }
    }
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
