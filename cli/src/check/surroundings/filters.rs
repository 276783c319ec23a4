//! Whether the HTTP filters beside ours let it work: `stateful_session` must come after it and read its header, and nothing may
//! hold WebSockets back.

use envoy_signalr::settings::{PinEncoding, Settings};
use serde_json::Value;

use super::super::finding::Finding;
use super::super::plugin::Plugin;
use super::{Manager, is_anywhere, is_type, items, member, warning};

pub(super) fn warnings(manager: &Manager<'_>, plugin: &Plugin<'_>, settings: &Settings) -> Vec<Finding> {
    let session = match settings.pin.encoding {
        PinEncoding::Base64 => session(manager, plugin, &settings.pin.header),
        PinEncoding::Plain => None,
    };
    let buffer = buffers(manager.value).then(|| {
        warning(
            manager.place("/http_filters"),
            "WebSockets never open, because `envoy.filters.http.buffer` waits for the end of a request and they have none: switch it \
             off for the hubs' routes by a `BufferPerRoute` with `disabled: true`",
        )
    });
    session.into_iter().chain(buffer).collect()
}

/// What a `stateful_session` reads.
pub(in crate::check) enum Reads<'a> {
    Header(&'a str),
    /// Something else, such as a cookie.
    Other,
    /// It is configured elsewhere.
    Unseen,
}

/// What is wrong with the filter that is to send a request to the pod that ours names.
fn session(manager: &Manager<'_>, plugin: &Plugin<'_>, pin: &str) -> Option<Finding> {
    let own = own_index(manager, plugin)?;
    let sessions: Vec<_> = items(manager.value, "http_filters")
        .enumerate()
        .filter_map(|(index, filter)| Some((index, reads(filter)?)))
        .collect();
    let place = |index| manager.place(&format!("/http_filters/{index}"));
    let fits = |read: &Reads<'_>| match read {
        Reads::Header(name) => name.eq_ignore_ascii_case(pin),
        Reads::Unseen => true,
        Reads::Other => false,
    };
    if sessions.iter().any(|(index, read)| *index > own && fits(read)) {
        return None;
    }
    if let Some((index, _)) = sessions.iter().find(|(_, read)| fits(read)) {
        let text = "`stateful_session` runs before the filter, and so never sees the pod that the filter names: move it behind the filter";
        return Some(warning(place(*index), text));
    }
    let session = "`envoy.http.stateful_session.header` with `name: ";
    let Some((index, read)) = sessions.first() else {
        let text = format!(
            "nothing sends a request to the pod that the filter names: add `envoy.filters.http.stateful_session` behind the filter, \
             its state {session}{pin}`"
        );
        return Some(warning(place(own), text));
    };
    let what = match read {
        Reads::Header(name) => format!("the header `{name}`"),
        Reads::Other | Reads::Unseen => "no header".to_owned(),
    };
    let text = format!(
        "`stateful_session` reads {what}, and the filter names the pod in `{pin}` (affinity.pin.header): it needs {session}{pin}`"
    );
    Some(warning(place(*index), text))
}

/// The place of our filter among the others.
pub(super) fn own_index(manager: &Manager<'_>, plugin: &Plugin<'_>) -> Option<usize> {
    let mut below = plugin.pointer.strip_prefix(manager.pointer)?.split('/').skip(1);
    below.next().filter(|name| matches!(*name, "http_filters" | "httpFilters"))?;
    below.next()?.parse().ok()
}

/// What the filter reads if it is a `stateful_session`.
pub(in crate::check) fn reads(filter: &Value) -> Option<Reads<'_>> {
    let Some(config) = member(filter, "typed_config") else {
        let name = filter.get("name").and_then(Value::as_str)?;
        return name.contains("stateful_session").then_some(Reads::Unseen);
    };
    if !is_type(config, "stateful_session.v3.StatefulSession") {
        return None;
    }
    let state = member(config, "session_state").and_then(|state| member(state, "typed_config"));
    let header = state.filter(|state| is_type(state, "HeaderBasedSessionState"));
    let name = header.and_then(|header| header.get("name")).and_then(Value::as_str);
    Some(name.map_or(Reads::Other, Reads::Header))
}

/// Whether a connection manager has Envoy's buffer among its filters, and no route of its own that switches it off.
fn buffers(manager: &Value) -> bool {
    let is_off = |value: &Value| value.get("disabled").and_then(Value::as_bool).unwrap_or(false);
    let is_buffer = |filter: &Value| {
        member(filter, "typed_config").is_some_and(|config| is_type(config, "filters.http.buffer.v3.Buffer"))
    };
    items(manager, "http_filters").any(|filter| is_buffer(filter) && !is_off(filter))
        && !is_anywhere(manager, &|value| is_type(value, "filters.http.buffer.v3.BufferPerRoute") && is_off(value))
}
