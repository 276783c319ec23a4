//! Tier 6: the commands of `docs/troubleshooting.md` with which a user connects by hand, with real `curl` and `wscat`.

use std::process::Command;

use serde_json::json;
use testbed::envoy::{Envoy, Filter};
use testbed::hub::shared_hubs;
use testbed::process::{self, PATIENCE, run, wait_for};
use testbed::{docs, tools};

#[test]
fn a_connection_is_made_by_hand_with_curl_and_wscat() {
    let commands = docs::blocks("docs/troubleshooting.md", "sh").into_iter().find(|block| block.contains("wscat"));
    let commands = commands.unwrap();
    let programs = tools::node_clients().unwrap().join("node_modules/.bin");
    let path =
        std::env::join_paths([programs].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())));
    let path = path.unwrap();

    let gateway = Envoy::before(shared_hubs().unwrap(), Filter::With(json!({}))).unwrap();
    // wscat ends with its standard input, which a terminal keeps open.
    let terminal = process::run_dir().unwrap().join("terminal");
    let commands = format!("mkfifo -m 600 {0} && exec 0<>{0}; rm {0}\n{commands}\ntrue", terminal.display());
    // The last command always ends by its time limit, and on a busy machine a time limit may be too short for the answer.
    let mut printed = String::new();
    wait_for("the answers to both transports", || {
        let mut shell = Command::new("sh");
        shell.args(["-c", &commands]).env("GATEWAY", gateway.url()).env("PATH", &path);
        printed = String::from_utf8(run("sh", shell, PATIENCE).unwrap()).unwrap();
        printed.contains("{}\u{1e}") && printed.contains("HTTP/1.1 200 OK")
    })
    .unwrap();
    let id = printed.lines().next().unwrap();
    assert!(id.split('.').count() == 2, "a sealed id: {printed}");
    assert!(printed.contains("content-type: text/event-stream") && printed.contains("\n:"), "{printed}");
}
