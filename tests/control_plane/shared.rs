//! Limits of all gateways, by `filter/shared-limits`.

use testbed::process::wait_for;
use testbed::raw::{Answer, Client, Socket};
use testbed::tools::{Skips, redis};

use crate::demo::DEPLOYMENT;
use crate::lab::{Lab, Pod, lab};

const PASSWORD: &str = "of the Redis of this test";

#[test]
fn two_gateways_have_one_limit_through_redis() {
    let test = "two_gateways_have_one_limit_through_redis";
    let Some(program) = Skips::here().or_skip(test, redis()) else { return };
    let Some(lab) = lab(test) else { return };
    lab.serve_demo();
    create_password(&lab);
    lab.in_gateways(&["scale", DEPLOYMENT, "--replicas=2"]);
    lab.in_gateways(&["rollout", "restart", DEPLOYMENT]);
    lab.rolled_out("istio-ingress", DEPLOYMENT);
    wait_for("two gateways", || lab.gateways().len() == 2).unwrap();
    let gateways = lab.gateways();
    let _redis = gateways[0].start_redis(&program, PASSWORD);

    let folder = lab.kubectl(&["kustomize", "istio/filter/shared-limits"]);
    let changes = [
        ("address: redis.default.svc.cluster.local", format!("address: {}", gateways[0].address)),
        ("per_client: 20", "per_client: 2".to_owned()),
    ];
    lab.apply_text(&changes.iter().fold(folder, |text, (from, to)| {
        assert!(text.contains(from), "{from}: {text}");
        text.replace(from, to)
    }));
    for gateway in &gateways {
        let calls = r#"signalr_gateway_shared_calls_total{signalr_result="ok"}"#;
        wait_for("a call to Redis", || gateway.metrics(15090).contains(calls)).unwrap();
        gateway.wait_sealed(8080);
    }
    let _held = [connect(&gateways[0]).unwrap(), connect(&gateways[1]).unwrap()];
    for gateway in &gateways {
        let refusal = connect(gateway).err().expect("the limit of two holds for both together");
        assert!(refusal.text().contains("Connection limit reached"), "{refusal:?}");
    }
}

fn connect(gateway: &Pod) -> Result<Socket, Answer> {
    Client::of(&gateway.url(8080)).connect()
}

fn create_password(lab: &Lab) {
    let password = format!("--from-literal=REDIS_PASSWORD={PASSWORD}");
    let secret = ["create", "secret", "generic", "signalr-redis", &password, "--dry-run=client", "--output=yaml"];
    lab.apply_text(&lab.in_gateways(&secret));
}
