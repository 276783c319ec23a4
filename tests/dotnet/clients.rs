//! Every transport, protocol and way with cookies, with all that a connection can carry.

use testbed::clients::{Cookies, NodeClient, Outcome, Protocol, Task, Transport, run_dotnet, run_node};
use testbed::envoy::{Envoy, Filter};
use testbed::hub::{Hub, three_hubs};

use crate::kit::{all_connected, defaults, dotnet, has_dotnet_10, talkative};

type Run = fn(NodeClient) -> Outcome;

const CLIENTS: [(&str, Run); 2] =
    [(".NET", |client| run_dotnet(&dotnet(client)).unwrap()), ("JavaScript", |client| run_node(&client).unwrap())];

/// Events carry no bytes, and so no MessagePack.
const CHANNELS: [(Transport, Protocol); 5] = [
    (Transport::WebSockets, Protocol::Json),
    (Transport::WebSockets, Protocol::MessagePack),
    (Transport::ServerSentEvents, Protocol::Json),
    (Transport::LongPolling, Protocol::Json),
    (Transport::LongPolling, Protocol::MessagePack),
];

#[test]
fn client_results_and_streams_both_ways_pass_on_every_transport() {
    if !has_dotnet_10("client_results_and_streams_both_ways_pass_on_every_transport") {
        return;
    }
    let hubs = three_hubs().unwrap();
    let envoy = Envoy::before(&hubs, defaults()).unwrap();
    for cookies in [Cookies::Refused, Cookies::Kept] {
        for (name, run) in CLIENTS {
            for (transport, protocol) in CHANNELS {
                let outcome = run(NodeClient { transport, protocol, cookies, ..talkative(&envoy) });
                all_connected(&format!("{name} {transport:?} {protocol:?} {cookies:?}"), &outcome);
                let used = Some(format!("{transport:?}"));
                assert!(outcome.tries.iter().all(|one| one.transport == used), "{name} {transport:?}: {outcome:?}");
            }
            let sent = with_cookies(&hubs);
            assert_eq!(sent > 0, cookies == Cookies::Kept, "{name} {cookies:?}: {sent} requests with cookies");
        }
    }
    assert_eq!(envoy.metric("signalr_gateway_internal_errors_total", &[]).unwrap(), 0.0);
}

/// How many requests with cookies have reached the hubs.
fn with_cookies(hubs: &[Hub]) -> usize {
    let requests = hubs.iter().flat_map(|hub| hub.requests().unwrap());
    requests.filter(|request| request.headers.contains_key("cookie")).count()
}

/// The control: the test above can fail.
#[test]
fn without_the_filter_most_dotnet_clients_fail() {
    if !has_dotnet_10("without_the_filter_most_dotnet_clients_fail") {
        return;
    }
    let hubs = three_hubs().unwrap();
    let envoy = Envoy::before(&hubs, Filter::Absent).unwrap();
    for transport in Transport::ALL {
        let outcome =
            run_dotnet(&dotnet(NodeClient { task: Task::of(envoy.url(), 12), transport, ..talkative(&envoy) }))
                .unwrap();
        assert!(outcome.connected < outcome.tried, "{transport:?}: all of {} connected", outcome.tried);
    }
}
