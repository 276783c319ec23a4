//! Tier 5: every manifest for Kubernetes renders, and is one that an API server accepts.
//!
//! A resource in any YAML file of the repository is checked, as it stands there and as each folder for kustomize renders it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use testbed::process::{self, PATIENCE};
use testbed::tools::{self, GatewayApi, Kubernetes, Skips};
use testbed::workspace;

/// What lies in the repository and is not its own, or is no manifest by intent.
const ELSEWHERE: [&str; 6] = [".git", ".github", "dist", "node_modules", "target", "tests"];
/// What kustomize reads and no API server sees.
const OF_KUSTOMIZE: &str = "kustomize.config.k8s.io/";

fn tools(test: &str) -> Option<Kubernetes> {
    Skips::here().or_skip(test, tools::kubernetes())
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let own = entries.filter(|path| !ELSEWHERE.iter().any(|name| path.ends_with(name)));
    let (folders, files): (Vec<_>, Vec<_>) = own.partition(|path| path.is_dir());
    let yaml = files.into_iter().filter(|file| file.extension().is_some_and(|name| name == "yaml" || name == "yml"));
    let mut found: Vec<_> = yaml.chain(folders.iter().flat_map(|folder| yaml_files(folder))).collect();
    found.sort();
    found
}

fn documents(text: &str) -> Vec<Value> {
    use serde::Deserialize as _;
    let documents = serde_yaml_ng::Deserializer::from_str(text);
    let parsed: Result<Vec<_>, _> = documents.map(Value::deserialize).collect();
    parsed.unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The folders that `kubectl apply -k` takes.
fn kustomizations(root: &Path) -> Vec<PathBuf> {
    let files = yaml_files(root).into_iter().filter(|file| file.ends_with("kustomization.yaml"));
    let applied = files.filter(|file| documents(&fs::read_to_string(file).unwrap())[0]["kind"] == "Kustomization");
    applied.map(|file| file.parent().unwrap().to_owned()).collect()
}

fn render(tools: &Kubernetes, folder: &Path) -> Vec<Value> {
    let mut kustomize = Command::new(tools.kustomize());
    kustomize.arg("build").arg(folder);
    documents(&String::from_utf8(process::run("kustomize", kustomize, PATIENCE).unwrap()).unwrap())
}

/// What is wrong with each of these manifests, if anything is, in a cluster with this Gateway API.
fn refusals(tools: &Kubernetes, api: GatewayApi, manifests: &[(String, Value)]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let files = (0..manifests.len()).map(|number| folder.path().join(format!("{number}.json")));
    for (file, (_, manifest)) in files.clone().zip(manifests) {
        fs::write(file, manifest.to_string()).unwrap();
    }
    let mut validate = Command::new(tools.kubectl_validate());
    validate.args(["--output", "json"]).args(files.clone());
    for folder in tools.crds(api) {
        validate.arg("--local-crds").arg(folder);
    }
    // No cluster is asked.
    let output = validate.env("KUBECONFIG", "/dev/null").output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let outcomes = files.zip(manifests).map(|(file, (name, manifest))| {
        let outcome = &found[file.to_str().unwrap()][0];
        (outcome["status"] != "Success").then(|| format!("{name}, {}: {outcome}", manifest["kind"]))
    });
    outcomes.flatten().collect()
}

/// A part of a Deployment that is applied to one that is there, together with what that one has at least.
fn completed(mut manifest: Value) -> Value {
    if manifest["kind"] == "Deployment" && manifest["spec"].get("selector").is_none() {
        manifest["spec"]["selector"] = json!({ "matchLabels": { "istio": "ingressgateway" } });
        manifest["spec"]["template"]["metadata"]["labels"]["istio"] = json!("ingressgateway");
        manifest["spec"]["template"]["spec"]["containers"][0]["image"] = json!("auto");
    }
    manifest
}

fn is_resource(manifest: &Value) -> bool {
    let version = manifest["apiVersion"].as_str();
    manifest["kind"].is_string() && version.is_some_and(|version| !version.starts_with(OF_KUSTOMIZE))
}

#[test]
fn an_api_server_accepts_every_manifest() {
    let Some(tools) = tools("an_api_server_accepts_every_manifest") else { return };
    let files = yaml_files(&workspace());
    let as_they_stand = files.iter().flat_map(|file| {
        let all = documents(&fs::read_to_string(file).unwrap()).into_iter().filter(is_resource);
        all.map(|manifest| (file.display().to_string(), manifest))
    });
    let folders = kustomizations(&workspace());
    let rendered = folders.iter().flat_map(|folder| {
        let all = render(&tools, folder);
        assert!(!all.is_empty(), "{} renders nothing", folder.display());
        all.into_iter().map(|manifest| (folder.display().to_string(), manifest))
    });
    let manifests: Vec<_> = as_they_stand.chain(rendered).map(|(name, manifest)| (name, completed(manifest))).collect();
    assert!(manifests.len() > 40, "only {} manifests were found", manifests.len());
    // Envoy Gateway brings the experimental fields along, Istio does not need them.
    let (experimental, standard) =
        manifests.into_iter().partition::<Vec<_>, _>(|(name, _)| name.contains("envoy-gateway"));
    let refused =
        [refusals(&tools, GatewayApi::Standard, &standard), refusals(&tools, GatewayApi::Experimental, &experimental)];
    assert!(refused.concat().is_empty(), "{}", refused.concat().join("\n"));
}

/// What the command-line program renders, also from the files of other proxies.
#[test]
fn an_api_server_accepts_what_the_program_prints() {
    let Some(tools) = tools("an_api_server_accepts_what_the_program_prints") else { return };
    let print = |arguments: &[&str]| {
        let printed = testbed::tasks::printed(arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
        let manifests = documents(&printed).into_iter();
        manifests.map(|manifest| (arguments.join(" "), manifest)).collect::<Vec<_>>()
    };
    let image = ["--image", "registry.example.net/signalr@sha256:0123"];
    let hub = ["--hub", "/chat", "--namespace", "edge"];
    let istio = ["render", "istio"].into_iter().chain(hub).chain(image);
    let mut standard = print(&istio.clone().collect::<Vec<_>>());
    standard.extend(print(&istio.clone().chain(["--api", "wasm-plugin"]).collect::<Vec<_>>()));
    standard.extend(print(&istio.chain(["--gateway", "public"]).collect::<Vec<_>>()));
    let mut experimental = print(&["render", "envoy-gateway"].into_iter().chain(hub).chain(image).collect::<Vec<_>>());
    let inputs = fs::read_dir(workspace().join("tests/convert/inputs")).unwrap();
    for input in inputs.map(|input| input.unwrap().path().display().to_string()) {
        let convert = |target| {
            let arguments = ["convert", &input, "--to", target, "--"].into_iter().chain(image);
            print(&arguments.collect::<Vec<_>>())
        };
        standard.extend(convert("istio"));
        experimental.extend(convert("envoy-gateway"));
    }
    assert!(standard.len() + experimental.len() > 200, "{} and {}", standard.len(), experimental.len());
    let refused =
        [refusals(&tools, GatewayApi::Standard, &standard), refusals(&tools, GatewayApi::Experimental, &experimental)];
    assert!(refused.concat().is_empty(), "{}", refused.concat().join("\n"));
}

#[test]
fn a_manifest_with_a_mistake_is_refused() {
    let Some(tools) = tools("a_manifest_with_a_mistake_is_refused") else { return };
    let read = |file: &str| documents(&fs::read_to_string(workspace().join(file)).unwrap()).remove(0);
    let extension = read("istio/filter/traffic-extension/traffic-extension.yaml");
    let hpa = read("istio/metrics/hpa.yaml");
    let targets = json!([{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gateway" }]);
    let mistakes = [
        ("an unknown field", &extension, "/spec/wasm/vmConfig", json!({ "environment": [] })),
        ("an unknown value", &extension, "/spec/wasm/failStrategy", json!("FAIL_CLOSED")),
        ("a rule of the CRD: selector and targetRefs", &extension, "/spec/targetRefs", targets),
        ("an unknown API", &extension, "/apiVersion", json!("extensions.istio.io/v1beta2")),
        ("an unknown field of Kubernetes' own", &hpa, "/spec/behavior", json!({ "scaleDwn": {} })),
        ("a wrong type", &hpa, "/spec/maxReplicas", json!("20")),
    ];
    let broken = mistakes.map(|(name, right, place, value)| {
        let mut manifest = right.clone();
        let (parent, field) = place.rsplit_once('/').unwrap();
        manifest.pointer_mut(parent).unwrap()[field] = value;
        (name.to_owned(), manifest)
    });
    let refused = refusals(&tools, GatewayApi::Standard, &broken);
    assert_eq!(refused.len(), broken.len(), "only these were refused:\n{}", refused.join("\n"));
}

/// The folders of `istio/` that take their values from `istio/values`, rendered with other ones.
fn with_other_values(tools: &Kubernetes) -> Vec<(String, Value)> {
    let copy = tempfile::tempdir().unwrap();
    let istio = copy.path().join("istio");
    let mut copying = Command::new("cp");
    copying.arg("-r").arg(workspace().join("istio")).arg(&istio);
    process::run("cp", copying, PATIENCE).unwrap();
    let values = istio.join("values/values.yaml");
    let mut text = fs::read_to_string(&values).unwrap();
    for (from, to) in [
        ("namespace: istio-ingress", "namespace: edge"),
        ("deployment: istio-ingressgateway", "deployment: front"),
        ("oci://registry.example.com/envoy-signalr:0.1.0", "oci://registry.example.com/mine@sha256:00"),
        ("hub.default.svc.cluster.local", "hubs.chat.svc.cluster.local"),
    ] {
        assert!(text.contains(from), "values.yaml has no {from}");
        text = text.replace(from, to);
    }
    fs::write(&values, text).unwrap();
    let steps = ["gateway-pods", "filter"].map(|step| kustomizations(&istio.join(step))).concat();
    let rendered = steps.iter().filter(|folder| !folder.ends_with("steering") && !folder.ends_with("config-map"));
    let name = |folder: &Path| folder.strip_prefix(&istio).unwrap().display().to_string();
    rendered.flat_map(|folder| render(tools, folder).into_iter().map(|manifest| (name(folder), manifest))).collect()
}

#[test]
fn the_values_for_istio_stand_in_one_place() {
    let Some(tools) = tools("the_values_for_istio_stand_in_one_place") else { return };
    let rendered = with_other_values(&tools);
    let of = |kind: &'static str| rendered.iter().filter(move |(_, manifest)| manifest["kind"] == kind);
    for (folder, manifest) in &rendered {
        assert_eq!(manifest["metadata"]["namespace"], "edge", "{folder}: {}", manifest["kind"]);
        assert_ne!(manifest["metadata"]["name"], "values", "{folder}");
    }
    for (folder, extension) in of("TrafficExtension") {
        assert_eq!(extension["spec"]["wasm"]["url"], "oci://registry.example.com/mine@sha256:00", "{folder}");
    }
    for (folder, plugin) in of("WasmPlugin") {
        assert_eq!(plugin["spec"]["url"], "oci://registry.example.com/mine@sha256:00", "{folder}");
    }
    for (folder, filter) in of("EnvoyFilter").filter(|(folder, _)| folder != "filter/waypoint") {
        let service = filter.pointer("/spec/configPatches/2/match/cluster/service").unwrap();
        assert_eq!(service, "hubs.chat.svc.cluster.local", "{folder}");
    }
    assert_eq!(of("Deployment").next().unwrap().1["metadata"]["name"], "front");
}

#[test]
fn steering_comes_with_the_filter_and_after_it_for_the_same_pods() {
    let Some(tools) = tools("steering_comes_with_the_filter_and_after_it_for_the_same_pods") else { return };
    let prepared = json!({ "envoy-signalr/key": "present" });
    for (folder, by_label) in [
        ("traffic-extension", true),
        ("wasm-plugin", true),
        ("shared-limits", true),
        ("target-refs", false),
        ("waypoint", false),
    ] {
        let rendered = render(&tools, &workspace().join("istio/filter").join(folder));
        let [filter, steering] = rendered.as_slice() else { panic!("{folder}: {rendered:?}") };
        assert!(filter["kind"] == "TrafficExtension" || filter["kind"] == "WasmPlugin", "{folder}");
        assert_eq!(steering["kind"], "EnvoyFilter", "{folder}");
        assert_eq!(filter["spec"].get("targetRefs"), steering["spec"].get("targetRefs"), "{folder}");
        let labels = |place: &str| by_label.then_some(&prepared) == steering.pointer(place);
        assert!(labels("/spec/workloadSelector/labels"), "{folder}: {steering}");
        assert_eq!(filter.pointer("/spec/selector/matchLabels"), by_label.then_some(&prepared), "{folder}");
    }
}
