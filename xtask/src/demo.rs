//! `cargo xtask demo`: the problem and the cure, side by side on this machine.
//!
//! Three hubs, one Envoy without the filter and one with it, and clients that others wrote through
//! both. It shows a table of who got through, and then serves the chat page until it is stopped.
//! Whatever it started ends with it: [`testbed::process`] sees to that, however it ends.
use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use testbed::clients::{Cookies, NodeClient, Outcome, Protocol, Task, Transport, run_node, run_python};
use testbed::envoy::Envoy;
use testbed::hub::Hub;
use testbed::process::wait_for_interrupt;

use crate::gateways::Gateways;

/// Start three hubs behind Envoy, without and with the filter, and run real clients through both.
#[derive(clap::Args, Debug)]
pub(crate) struct Demo {
    /// End after the table instead of serving the chat page.
    #[arg(long)]
    once: bool,
    /// Connections that each client makes.
    #[arg(long, default_value_t = 20)]
    connects: u32,
}

/// Runs the demo. It fails when a client failed in spite of the filter.
pub(crate) fn run(options: Demo) -> Result<ExitCode> {
    let started = Instant::now();
    // First what may be missing or take long: the rest then runs without a break.
    testbed::tools::require_programs()?;
    testbed::tools::require_space()?;
    testbed::envoy::module()?;
    testbed::tools::python_clients()?;
    let Gateways { hubs, without, with, page, metrics } = Gateways::start()?;
    let pods: Vec<&str> = hubs.iter().map(Hub::pod).collect();
    println!("Three ASP.NET Core hubs ({}) behind Envoy, round robin.", pods.join(", "));

    let rows = compare(&without, &with, options.connects)?;
    print!("{}", Table(&rows));
    println!("{} s in all.", started.elapsed().as_secs());
    let failed = rows.iter().any(|row| row.with.connected < row.with.tried);
    if !options.once {
        println!("\nThe chat page:  {page}");
        println!("Metrics:        {metrics}");
        println!("Without filter: {}/", without.url());
        println!("Ctrl-C ends everything.");
        wait_for_interrupt()?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A client as it is run here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    Node(Transport, Protocol, Cookies),
    Python,
}

impl Client {
    fn all() -> Vec<Self> {
        let node = Transport::ALL.into_iter().flat_map(|transport| {
            let json = move |cookies| Self::Node(transport, Protocol::Json, cookies);
            [json(Cookies::Kept), json(Cookies::Refused)]
        });
        let binary = Self::Node(Transport::WebSockets, Protocol::MessagePack, Cookies::Refused);
        node.chain([binary, Self::Python]).collect()
    }

    fn run(self, url: String, connects: u32) -> Result<Outcome> {
        // A client that waits for a pod which does not know it is not worth more.
        let task = Task { try_timeout: Duration::from_secs(3), ..Task::of(url, connects) };
        match self {
            Self::Node(transport, protocol, cookies) => {
                run_node(&NodeClient { task, transport, protocol, cookies, ..NodeClient::default() })
            }
            Self::Python => run_python(&task),
        }
    }

    /// Client, transport and cookies, as the table names them.
    fn names(self) -> [&'static str; 3] {
        match self {
            Self::Node(transport, protocol, cookies) => [
                match protocol {
                    Protocol::Json => "@microsoft/signalr",
                    Protocol::MessagePack => "… with MessagePack",
                },
                match transport {
                    Transport::WebSockets => "WebSockets",
                    Transport::ServerSentEvents => "server-sent events",
                    Transport::LongPolling => "long polling",
                },
                match cookies {
                    Cookies::Kept => "kept",
                    Cookies::Refused => "refused",
                },
            ],
            Self::Python => ["pysignalr", "WebSockets", "refused"],
        }
    }
}

/// What one client achieved.
struct Row {
    client: Client,
    without: Outcome,
    with: Outcome,
}

fn compare(without: &Envoy, with: &Envoy, connects: u32) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for client in Client::all() {
        let name = client.names().join(", ");
        let row =
            Row { client, without: client.run(without.url(), connects)?, with: client.run(with.url(), connects)? };
        println!(
            "  {name}: {} of {connects} without the filter, {} with it",
            row.without.connected, row.with.connected
        );
        if let Some(error) = row.with.first_error() {
            println!("    {error}");
        }
        rows.push(row);
    }
    Ok(rows)
}

struct Table<'a>(&'a [Row]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |outcome: &Outcome| format!("{} of {}", outcome.connected, outcome.tried);
        let head = ["client", "transport", "cookies"].map(str::to_owned);
        let mut lines = vec![(head, "without the filter".to_owned(), "with the filter".to_owned())];
        for row in self.0 {
            let names = row.client.names().map(str::to_owned);
            lines.push((names, of(&row.without), of(&row.with)));
        }
        writeln!(formatter)?;
        for ([client, transport, cookies], without, with) in lines {
            writeln!(formatter, "{client:<20} {transport:<20} {cookies:<9} {without:>20} {with:>18}")?;
        }
        writeln!(formatter)
    }
}
