//! What is compared: filter chains of one Envoy, each behind a listener of its own, and proxies with affinity of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use testbed::envoy::{
    Envoy, EnvoyOptions, Filter, Hosts, connection_manager, http_filters, module_that_does_nothing,
    restrict_to_hub_routes,
};
use testbed::process::{free_port, wait_for};
use testbed::proxy::Proxy;

/// Ratios are to these.
pub(super) const ENVOY: &str = "Envoy alone";
pub(super) const EMPTY: &str = "an empty module";
pub(super) const OURS: &str = "this filter";
pub(super) const OTHER: &str = "the other module";

pub(super) struct Sides {
    pub(super) all: Vec<Side>,
    _envoy: Envoy,
    _others: [Proxy; 2],
}

#[derive(Clone)]
pub(super) struct Side {
    pub(super) name: &'static str,
    pub(super) url: String,
    /// The file with the CPU time of its one worker thread.
    schedule: PathBuf,
}

impl Sides {
    /// Starts everything that is compared. The processes live as long as the sides.
    pub(super) fn start(hub: &str, against: Option<&Path>) -> Result<Self> {
        let (envoy, mut all) = envoy(hub, chains(against)?)?;
        let [(haproxy, first), (nginx, second)] = [haproxy(hub)?, nginx(hub)?];
        all.extend([first, second]);
        Ok(Self { all, _envoy: envoy, _others: [haproxy, nginx] })
    }
}

impl Side {
    /// What its worker thread has used up to now.
    pub(super) fn cpu_time(&self) -> Result<Duration> {
        let text = fs::read_to_string(&self.schedule)?;
        let nanoseconds = text.split(' ').next().and_then(|text| text.parse().ok());
        Ok(Duration::from_nanos(nanoseconds.with_context(|| self.schedule.display().to_string())?))
    }
}

/// The file with the CPU time of a thread of this process.
fn schedule(pid: u32, thread: &str) -> Result<PathBuf> {
    let mut found = None;
    wait_for("a worker thread", || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let named = |path: &PathBuf| fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == thread);
        found = tasks.map(|task| task.path()).find(named);
        found.is_some()
    })?;
    Ok(found.context("a worker thread")?.join("schedstat"))
}

/// A side of Envoy.
pub(super) enum Chain {
    Alone,
    /// Envoy's own session filter with a cookie.
    CookieSession,
    /// A script that keeps the pod in a cookie, and the session filter with a header.
    Lua,
    /// Another module, and the session filter with a header.
    Module(PathBuf),
    /// The filter with these settings, and the session filter with a header.
    Ours(Value),
    /// The same on the routes of hubs alone.
    OursOnHubRoutes,
}

fn chains(against: Option<&Path>) -> Result<Vec<(&'static str, Chain)>> {
    let detail = |detail: &str| json!({ "metrics": { "detail": detail } });
    let limits = json!({
        "limits": {
            "connections": { "per_client": 4_000, "per_hub": 1_000_000, "total": 1_000_000 },
            "negotiate_rate": { "requests": 1_000_000, "per": "1s", "burst": 1_000_000 },
        },
    });
    let disabled = json!({ "enabled": false });
    let nothing_sealed = json!({ "affinity": { "connection_token": disabled, "connection_cookie": disabled } });
    let mut chains = vec![
        (ENVOY, Chain::Alone),
        ("Envoy's cookie session", Chain::CookieSession),
        ("a Lua script with a cookie", Chain::Lua),
        (EMPTY, Chain::Module(module_that_does_nothing()?)),
        (OURS, Chain::Ours(json!({}))),
        ("this filter, detail `connections`", Chain::Ours(detail("connections"))),
        ("this filter, with limits", Chain::Ours(limits)),
        // What is left of a negotiate without the seal, the answer's new body and the cookie.
        ("this filter, sealing nothing", Chain::Ours(nothing_sealed)),
        ("this filter, on hub routes", Chain::OursOnHubRoutes),
    ];
    chains.extend(against.map(|module| (OTHER, Chain::Module(module.to_owned()))));
    Ok(chains)
}

const LUA: &str = r#"
function envoy_on_request(handle)
  local pod = (handle:headers():get("cookie") or ""):match("pod=([^;]+)")
  handle:headers():remove("x-signalr-pin")
  if pod then handle:headers():add("x-signalr-pin", pod) end
end
function envoy_on_response(handle)
  local pod = handle:headers():get("x-signalr-pin")
  if pod then
    handle:headers():remove("x-signalr-pin")
    handle:headers():add("set-cookie", "pod=" .. pod .. "; Path=/; HttpOnly")
  end
end
"#;

/// One of them.
pub(super) fn named(name: &str) -> Result<Vec<(&'static str, Chain)>> {
    Ok(chains(None)?.into_iter().filter(|(side, _)| *side == name).collect())
}

/// Starts an Envoy with one worker thread and a listener for each chain.
pub(super) fn envoy(hub: &str, chains: Vec<(&'static str, Chain)>) -> Result<(Envoy, Vec<Side>)> {
    let ports = chains.iter().map(|_| free_port()).collect::<Result<Vec<_>>>()?;
    let names: Vec<_> = chains.iter().map(|(name, _)| *name).collect();
    let listeners = ports.clone();
    let envoy = Envoy::start(&EnvoyOptions {
        filter: Filter::With(json!({})),
        hosts: Hosts::Fixed(vec![hub.to_owned()]),
        concurrency: 1,
        log_level: "warning".into(),
        patch: Some(Box::new(move |bootstrap| {
            testbed::envoy::remove_health_checks(bootstrap);
            let sides: Vec<_> =
                chains.iter().zip(&listeners).map(|(side, port)| listener(bootstrap, side, *port)).collect();
            bootstrap["static_resources"]["listeners"].as_array_mut().expect("envoy.yaml has listeners").extend(sides);
        })),
        ..EnvoyOptions::default()
    })?;
    let schedule = schedule(envoy.pid(), "wrk:worker_0")?;
    let side = |(name, port)| Side { name, url: format!("http://127.0.0.1:{port}"), schedule: schedule.clone() };
    let sides = names.into_iter().zip(ports).map(side).collect();
    Ok((envoy, sides))
}

/// The shipped listener without its access log, with this chain.
fn listener(bootstrap: &Value, (name, chain): &(&str, Chain), port: u16) -> Value {
    let mut bootstrap = bootstrap.clone();
    let shipped = http_filters(&mut bootstrap).clone();
    let [ours, session, router] = shipped.as_slice() else { panic!("envoy.yaml has three filters") };
    let ours = |settings: &Value| {
        let mut ours = ours.clone();
        let config = &mut ours["typed_config"]["config"];
        config["vm_config"]["vm_id"] = (*name).into();
        config["configuration"]["value"] = settings.to_string().into();
        ours
    };
    let mut filters = match chain {
        Chain::Alone => vec![],
        Chain::CookieSession => {
            let mut session = session.clone();
            session["typed_config"]["session_state"] = json!({
                "name": "envoy.http.stateful_session.cookie",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState",
                    "cookie": { "name": "pod", "path": "/", "ttl": "3600s" },
                },
            });
            vec![session]
        }
        Chain::Lua => {
            let lua = json!({
                "name": "lua",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
                    "default_source_code": { "inline_string": LUA },
                },
            });
            vec![lua, session.clone()]
        }
        Chain::Module(file) => {
            let mut other = ours(&json!({}));
            other["typed_config"]["config"]["vm_config"]["code"] = json!({ "local": { "filename": file } });
            vec![other, session.clone()]
        }
        Chain::Ours(settings) => vec![ours(settings), session.clone()],
        Chain::OursOnHubRoutes => vec![ours(&json!({})), session.clone()],
    };
    filters.push(router.clone());
    *http_filters(&mut bootstrap) = filters;
    if matches!(chain, Chain::OursOnHubRoutes) {
        restrict_to_hub_routes(&mut bootstrap);
    }
    connection_manager(&mut bootstrap).as_object_mut().expect("a map").remove("access_log");
    let mut listener = bootstrap["static_resources"]["listeners"][0].take();
    listener["name"] = (*name).into();
    listener["address"]["socket_address"]["address"] = "127.0.0.1".into();
    listener["address"]["socket_address"]["port_value"] = port.into();
    listener
}

/// HAProxy with one thread, which inserts a cookie.
fn haproxy(hub: &str) -> Result<(Proxy, Side)> {
    let configuration = format!(
        "global\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n  \
         timeout tunnel 1h\nfrontend gateway\n  bind 127.0.0.1:PORT\n  default_backend hubs\nbackend hubs\n  \
         cookie pod insert indirect nocache\n  server hub {hub} cookie hub\n"
    );
    side("HAProxy with a cookie", "haproxy", Proxy::haproxy(&configuration)?)
}

/// nginx with one thread, which chooses by the hash of a cookie.
fn nginx(hub: &str) -> Result<(Proxy, Side)> {
    let http = format!(
        "keepalive_requests 1000000;
        map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
        upstream hubs {{ hash $cookie_pod consistent; server {hub}; keepalive 64; keepalive_requests 1000000; }}
        server {{
            listen 127.0.0.1:PORT;
            location / {{
                proxy_pass http://hubs; proxy_http_version 1.1; proxy_read_timeout 1h; proxy_buffering off;
                proxy_set_header upgrade $http_upgrade; proxy_set_header connection $connection_upgrade;
            }}
        }}"
    );
    side("nginx with the hash of a cookie", "nginx", Proxy::nginx(&http)?)
}

fn side(name: &'static str, thread: &str, proxy: Proxy) -> Result<(Proxy, Side)> {
    let schedule = schedule(proxy.pid(), thread)?;
    let url = proxy.url();
    Ok((proxy, Side { name, url, schedule }))
}
