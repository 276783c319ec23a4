//! `cargo xtask bench growth`: whether a connect or a message costs more while many WebSockets are open, and the memory of one.
//!
//! Each side has an Envoy of its own, so that memory is the side's. Nobody holds more than 9,000 sockets, because client, hub and
//! Envoy take two open files for each, and 20,000 are a common bound.

use std::fs;
use std::thread;

use anyhow::{Context as _, Result};
use testbed::raw::{Client, Socket};
use testbed::stand_in;

use super::gateway::measure;
use super::load::{Clients, Load};
use super::report::Spread;
use super::sides;

const SOCKETS: [usize; 3] = [100, 1_000, 9_000];
const LOADS: [Load; 2] = [Load::Connect, Load::Echo(64)];
/// Threads that open sockets.
const AT_ONCE: usize = 8;

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// How many times each load is measured
    #[arg(long, default_value_t = 15)]
    rounds: u32,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let hub = stand_in::quick_hub()?.to_string();
    println!("CPU time of the worker thread in µs, the median of {} rounds with the quartiles.\n", options.rounds);
    println!(
        "| side | open WebSockets | {} | {} | memory of one |\n|---|---|---|---|---|",
        LOADS[0].name(),
        LOADS[1].name()
    );
    for name in [sides::ENVOY, sides::EMPTY, sides::OURS] {
        let (envoy, sides) = sides::envoy(&hub, sides::named(name)?)?;
        let side = sides.first().context("one side was asked for")?;
        let mut clients = LOADS.map(|load| (load, Clients::new(&side.url, load)));
        let mut held = Vec::new();
        let before = memory(envoy.pid())?;
        for open in SOCKETS {
            eprintln!("{name}, {open} WebSockets …");
            hold(&side.url, open, &mut held);
            let of_one = memory(envoy.pid())?.saturating_sub(before) / open as u64;
            let mut cells = Vec::new();
            for (load, clients) in &mut clients {
                let samples = (0..options.rounds).map(|_| measure(side, clients, *load)).collect::<Result<Vec<_>>>()?;
                let Spread([low, median, high]) = Spread::of(samples);
                cells.push(format!("{median:.1} ({low:.1} to {high:.1})"));
            }
            println!("| {name} | {open} | {} | {:.1} KiB |", cells.join(" | "), of_one as f64 / 1024.0);
        }
    }
    Ok(())
}

/// Opens WebSockets until so many are held.
fn hold(url: &str, number: usize, held: &mut Vec<Socket>) {
    let missing = number.saturating_sub(held.len());
    thread::scope(|scope| {
        let open = move |count: usize| {
            let client = Client::of(url);
            let socket =
                |_| client.bare_socket(Some(&client.negotiate().expect("a hub answers"))).expect("a hub connects");
            (0..count).map(socket).collect::<Vec<_>>()
        };
        let share = |thread| missing / AT_ONCE + usize::from(thread < missing % AT_ONCE);
        let threads: Vec<_> = (0..AT_ONCE).map(|thread| scope.spawn(move || open(share(thread)))).collect();
        held.extend(threads.into_iter().flat_map(|thread| thread.join().expect("no thread panics")));
    });
}

/// What a process has of the machine's memory, in bytes.
fn memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kibibytes.context("Linux reports a process's memory")? * 1024)
}
