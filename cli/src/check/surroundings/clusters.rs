//! Whether clusters let a pin lead where it should: to a pod that drains, and for `encoding: plain` anywhere at all.

use envoy_signalr::settings::{PinEncoding, Settings};
use serde_json::Value;

use super::super::finding::Finding;
use super::super::plugin::Plugin;
use super::{is_anywhere, items, member, warning};

pub(super) fn warnings(plugin: &Plugin<'_>, settings: &Settings) -> Vec<Finding> {
    let document = &plugin.document.value;
    let mut warnings = Vec::new();
    let draining = pins_to_draining(document);
    if draining && settings.client_cookie.is_some() && settings.pin.mark.is_none() {
        warnings.push(warning(
            plugin.place_of("affinity.client_cookie"),
            "the client cookie brings new connections to draining pods, too, because `override_host_status` has `DRAINING`: see \
             `affinity.client_cookie.mark`",
        ));
    }
    match settings.pin.encoding {
        PinEncoding::Base64 if !draining => {
            let place = first_that_drains(document).and_then(|pointer| plugin.document.place(&pointer));
            warnings.extend(place.map(|place| {
                warning(
                    Some(place),
                    "a pod that drains loses the requests of its open connections: set `common_lb_config: { \
                     override_host_status: { statuses: [UNKNOWN, HEALTHY, DEGRADED, DRAINING] } }`",
                )
            }));
        }
        PinEncoding::Plain if has_clusters(document) && !reads_pin(document, &settings.pin.header) => {
            let header = &settings.pin.header;
            warnings.push(warning(
                plugin.place_of("affinity.pin.encoding"),
                format!(
                    "nothing reads `{header}`: `encoding: plain` is for the load balancing policy `override_host` with \
                     `override_host_sources: [{{ header: {header} }}]`, which no cluster here has"
                ),
            ));
        }
        PinEncoding::Base64 | PinEncoding::Plain => {}
    }
    warnings
}

/// Whether a cluster has `DRAINING` in its `override_host_status`.
fn pins_to_draining(value: &Value) -> bool {
    is_anywhere(value, &|value| {
        let statuses = member(value, "override_host_status");
        statuses.is_some_and(|statuses| items(statuses, "statuses").any(|status| status == "DRAINING"))
    })
}

/// The first cluster whose hosts can be said to drain. Only endpoint discovery says so.
fn first_that_drains(document: &Value) -> Option<String> {
    let clusters = document.pointer("/static_resources/clusters").and_then(Value::as_array)?;
    let is_discovered = |cluster: &Value| cluster.get("type").is_some_and(|kind| kind == "EDS");
    let chooses = |cluster: &Value| {
        member(cluster, "common_lb_config").is_some_and(|config| member(config, "override_host_status").is_some())
    };
    let index = clusters.iter().position(|cluster| is_discovered(cluster) || chooses(cluster))?;
    Some(format!("/static_resources/clusters/{index}"))
}

fn has_clusters(document: &Value) -> bool {
    document
        .pointer("/static_resources/clusters")
        .and_then(Value::as_array)
        .is_some_and(|clusters| !clusters.is_empty())
}

fn reads_pin(document: &Value, header: &str) -> bool {
    is_anywhere(document, &|value| {
        items(value, "override_host_sources").any(|source| {
            source.get("header").and_then(Value::as_str).is_some_and(|own| own.eq_ignore_ascii_case(header))
        })
    })
}
