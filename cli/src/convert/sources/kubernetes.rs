//! Resources of Kubernetes, by their kind and by the prefixes of their annotations.

use super::Reader;
use super::{envoy, haproxy_ingress, ingress_nginx, istio, nginx_inc, traefik};
use crate::convert::ask::{Ask, ELSEWHERE, ROUTE, UNREAD};

/// Reads an annotation by its name without the prefix.
type Annotation = fn(&mut Reader<'_>, &str, &str);
/// One Ingress may carry those of several controllers.
const ANNOTATIONS: [(&str, Annotation); 11] = [
    ("nginx.ingress.kubernetes.io/", ingress_nginx::annotation),
    ("nginx.org/", nginx_inc::annotation),
    ("nginx.com/", nginx_inc::annotation),
    ("haproxy-ingress.github.io/", haproxy_ingress::annotation),
    ("haproxy.org/", haproxy_ingress::annotation_of_haproxy_technologies),
    ("haproxy.com/", haproxy_ingress::annotation_of_haproxy_technologies),
    ("traefik.ingress.kubernetes.io/", traefik::annotation),
    // Of both controllers with HAProxy, in their old versions.
    ("ingress.kubernetes.io/", haproxy_ingress::annotation),
    ("kubernetes.io/", elsewhere),
    ("cert-manager.io/", elsewhere),
    ("external-dns.alpha.kubernetes.io/", elsewhere),
];
/// So many segments below a path are pages of it: the settings name each segment.
const DEPTH: usize = 3;

pub(super) fn read(reader: &mut Reader<'_>) {
    let kind = reader.text("/kind").unwrap_or_default();
    match kind.as_str() {
        "List" => {
            let root = reader.root.clone();
            for item in reader.items("/items") {
                reader.root = format!("{root}{item}");
                read(reader);
            }
            reader.root = root;
        }
        "Ingress" => {
            annotations(reader);
            rules(reader);
        }
        "Service" => {
            annotations(reader);
            istio::labels(reader);
            reader.take_resource(Ask::left(ROUTE));
        }
        "ConfigMap" => config_map(reader),
        "IngressRoute" => traefik::ingress_route(reader),
        "Middleware" => traefik::middleware(reader, "/spec"),
        "TraefikService" => {
            traefik::service(reader, "/spec");
            reader.take_resource(Ask::left(ROUTE));
        }
        "DestinationRule" => istio::destination_rule(reader),
        "EnvoyFilter" => {
            envoy::read(reader);
            reader.take_resource(Ask::left("it stays, but for what is said here of its parts"));
        }
        "Policy" => nginx_inc::policy(reader),
        "VirtualServer" | "VirtualServerRoute" => nginx_inc::virtual_server(reader),
        "VirtualService" | "Gateway" | "IngressClass" => reader.take_resource(Ask::left(ROUTE)),
        "Deployment" | "DaemonSet" | "StatefulSet" | "Namespace" | "Secret" | "ServiceAccount" => {
            reader.take_resource(Ask::left(ELSEWHERE));
            for place in ["/metadata/annotations", "/spec/template/metadata/annotations"] {
                linkerd(reader, place);
            }
        }
        _ => reader.take_resource(Ask::left(UNREAD)),
    }
}

fn annotations(reader: &mut Reader<'_>) {
    for (name, pointer) in reader.members("/metadata/annotations") {
        let known = ANNOTATIONS.iter().find_map(|(prefix, annotation)| Some((name.strip_prefix(prefix)?, annotation)));
        match known {
            Some((name, annotation)) => annotation(reader, name, &pointer),
            None => reader.take(&pointer, Ask::left(UNREAD)),
        }
    }
}

fn elsewhere(reader: &mut Reader<'_>, _: &str, pointer: &str) {
    reader.take(pointer, Ask::left(ELSEWHERE));
}

/// In its mode for ingress controllers Linkerd chooses the pod.
fn linkerd(reader: &mut Reader<'_>, annotations: &str) {
    for (_, pointer) in reader.members(annotations).into_iter().filter(|(name, _)| name == "linkerd.io/inject") {
        let ask = match reader.text(&pointer).as_deref() {
            Some("ingress") => {
                Ask::left("`enabled` for the new gateway, or Linkerd chooses the pod: examples/kubernetes/README.md")
            }
            _ => Ask::left("Linkerd keeps to the pod that the gateway has chosen: examples/kubernetes/README.md"),
        };
        reader.take(&pointer, ask);
    }
}

/// The settings of a controller, whichever it is.
fn config_map(reader: &mut Reader<'_>) {
    for (name, pointer) in reader.members("/data") {
        let text = reader.text(&pointer).unwrap_or_default();
        let asks = ingress_nginx::config_map(&name, &text)
            .or_else(|| haproxy_ingress::config_map(&name, text.trim()))
            .unwrap_or_else(|| vec![Ask::left(UNREAD)]);
        reader.take_all(&pointer, asks);
    }
}

/// Paths and services. Both spellings of a service: `networking.k8s.io/v1`, and `v1beta1` before.
fn rules(reader: &mut Reader<'_>) {
    let asks_for_cookie = reader.members("/metadata/annotations").iter().any(|(name, _)| {
        ["/affinity", "sticky-cookie-services", "/cookie-persistence"].iter().any(|end| name.ends_with(end))
    });
    for rule in reader.items("/spec/rules") {
        for path in reader.items(&format!("{rule}/http/paths")) {
            service(reader, &format!("{path}/backend"));
            let place = format!("{path}/path");
            let Some(text) = reader.text(&place).filter(|_| asks_for_cookie) else { continue };
            let is_exact = reader.text(&format!("{path}/pathType")).as_deref() == Some("Exact");
            reader.take(&place, Ask::Pages(pages(&text, is_exact)));
        }
    }
    for backend in ["/spec/defaultBackend", "/spec/backend"] {
        service(reader, backend);
    }
    reader.take_resource(Ask::left(ROUTE));
}

/// A path and those below it.
fn pages(path: &str, is_exact: bool) -> Vec<String> {
    let path = path.trim_end_matches('/');
    let below = (1..=DEPTH).map(|depth| format!("{path}{}", "/*".repeat(depth)));
    let itself = if path.is_empty() { "/".to_owned() } else { path.to_owned() };
    std::iter::once(itself).chain(below.filter(|_| !is_exact)).collect()
}

fn service(reader: &mut Reader<'_>, backend: &str) {
    let first = |pointers: [&str; 2]| pointers.iter().find_map(|below| reader.text(&format!("{backend}{below}")));
    let Some(name) = first(["/service/name", "/serviceName"]) else { return };
    let port = first(["/service/port/number", "/servicePort"]).and_then(|port| port.parse().ok());
    let namespace = reader.namespace();
    reader.take(backend, Ask::Service { name, namespace, port });
}
