//! Resources of Kubernetes, by their kind and by the prefixes of their annotations.

use super::Reader;
use super::{envoy, haproxy_ingress, ingress_nginx, istio, nginx_inc, traefik};
use crate::convert::ask::{Ask, ELSEWHERE, ROUTE};

/// Annotations by prefix. One Ingress may carry those of several controllers.
type Annotation = fn(&mut Reader<'_>, &str, &str);
const ANNOTATIONS: [(&str, Annotation); 11] = [
    ("nginx.ingress.kubernetes.io/", ingress_nginx::annotation),
    ("nginx.org/", nginx_inc::annotation),
    ("nginx.com/", nginx_inc::annotation),
    ("haproxy-ingress.github.io/", haproxy_ingress::annotation),
    ("haproxy.org/", haproxy_ingress::annotation_of_haproxy_technologies),
    ("ingress.haproxy.org/", haproxy_ingress::annotation_of_haproxy_technologies),
    ("traefik.ingress.kubernetes.io/", traefik::annotation),
    // Only where the Ingress is for the controller that reads it.
    ("ingress.kubernetes.io/", haproxy_ingress::annotation),
    ("kubernetes.io/", no_affinity),
    ("cert-manager.io/", no_affinity),
    ("external-dns.alpha.kubernetes.io/", no_affinity),
];

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
        }
        "ConfigMap" => ingress_nginx::config_map(reader),
        "IngressRoute" => traefik::ingress_route(reader),
        "Middleware" => traefik::middleware(reader, "/spec"),
        "TraefikService" => traefik::service(reader, "/spec"),
        "DestinationRule" => istio::destination_rule(reader),
        "EnvoyFilter" => envoy::read(reader),
        "Policy" => nginx_inc::policy(reader),
        "VirtualServer" => nginx_inc::virtual_server(reader),
        "VirtualService" | "HTTPRoute" | "Gateway" | "IngressClass" | "VirtualServerRoute" => {
            reader.take_resource(Ask::left(ROUTE));
        }
        _ => {
            reader.take_resource(Ask::left(ELSEWHERE));
            for place in ["/metadata/annotations", "/spec/template/metadata/annotations"] {
                linkerd(reader, place);
            }
        }
    }
}

fn annotations(reader: &mut Reader<'_>) {
    for (name, pointer) in reader.members("/metadata/annotations") {
        let known = ANNOTATIONS.iter().find_map(|(prefix, annotation)| Some((name.strip_prefix(prefix)?, annotation)));
        match known {
            Some((name, annotation)) => annotation(reader, name, &pointer),
            None => reader.take(&pointer, Ask::left(ELSEWHERE)),
        }
    }
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

fn no_affinity(reader: &mut Reader<'_>, _: &str, pointer: &str) {
    reader.take(pointer, Ask::left(ELSEWHERE));
}

/// Paths and services. Both spellings of a service: `networking.k8s.io/v1`, and `v1beta1` before.
fn rules(reader: &mut Reader<'_>) {
    for rule in reader.items("/spec/rules") {
        for path in reader.items(&format!("{rule}/http/paths")) {
            service(reader, &format!("{path}/backend"));
            let written = reader.text(&format!("{path}/path")).unwrap_or_else(|| "/".to_owned());
            let place = if reader.get(&format!("{path}/path")).is_some() { format!("{path}/path") } else { path };
            reader.take(&place, Ask::Pages(written));
        }
    }
    for backend in ["/spec/defaultBackend", "/spec/backend"] {
        service(reader, backend);
    }
    reader.take_resource(Ask::left(ROUTE));
}

fn service(reader: &mut Reader<'_>, backend: &str) {
    let first = |pointers: [&str; 2]| pointers.iter().find_map(|below| reader.text(&format!("{backend}{below}")));
    let Some(name) = first(["/service/name", "/serviceName"]) else { return };
    let port = first(["/service/port/number", "/servicePort"]).and_then(|port| port.parse().ok());
    let namespace = reader.text("/metadata/namespace").unwrap_or_else(|| "default".to_owned());
    // A port by name is looked up by whoever sees the Service: port 80 is what nearly all have.
    reader.take(backend, Ask::Service(format!("{name}.{namespace}"), port.unwrap_or(80)));
}
