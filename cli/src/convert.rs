//! `convert`: the filter's settings and manifests from the configuration of another proxy, and a report of every line.
//!
//! Nobody else reads these files for SignalR; routes are converted by `ingress2gateway` of the Kubernetes project, and stay its business.
//!
//! | file | decides |
//! |---|---|
//! | `sources.rs` and below | which proxy a file is of, and what each of its lines asks for |
//! | `ask.rs` | the words for that, which all sources share |
//! | `plan.rs` | which settings it becomes, and what the filter cannot do |
//! | `report.rs` | how the report is printed |

mod ask;
mod plan;
mod report;
mod sources;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{FromArgMatches as _, Subcommand as _, ValueEnum};
use plan::{Line, Plan, Service};

use crate::render::{self, Render};
use crate::{print, read};

const EXAMPLE: &str = "\
Examples:
  envoy-signalr convert ingress.yaml --hub /chat
  envoy-signalr convert ingress.yaml --to envoy-gateway -- --image registry.example.com/signalr@sha256:… | kubectl apply -f -
  envoy-signalr convert haproxy.cfg --to envoy -- --upstream hub.internal:8080 > envoy.yaml
  helm template chat | envoy-signalr convert -

What it reads: Ingress of ingress-nginx, NGINX Inc., haproxy-ingress, HAProxy Technologies and Traefik; Traefik's resources, labels of
Compose and files in YAML; haproxy.cfg; DestinationRule; labels of a Service for Istio's sessions; YARP's appsettings.json; Envoy's
stateful_session and hashes.

Status: 0; with --strict, 1 if a line is not possible here or had no effect before; 2 if a file cannot be read.";

/// Convert affinity and limits of another proxy into settings and manifests of this filter, with a report of every line
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Convert {
    /// Files of other proxies; several together give one configuration. `-` is standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// What to print
    #[arg(long, value_enum, default_value_t = Target::Settings)]
    to: Target,
    /// The path of a hub; may be given several times. Without, each path that negotiates is a hub
    #[arg(long = "hub", value_name = "PATH")]
    hubs: Vec<String>,
    /// Give up the cookie for each client. SignalR needs none; Blazor Server does
    #[arg(long)]
    no_client_cookie: bool,
    /// Write the report here, as JSON if the name ends in `.json`. Without, it is printed to standard error
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// End with status 1 if a line is not possible here or had no effect before
    #[arg(long)]
    strict: bool,
    /// Options of `envoy-signalr render` for the manifests
    #[arg(last = true, value_name = "OPTION")]
    options: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// The filter's settings in YAML
    Settings,
    /// A bootstrap for Envoy by itself
    Envoy,
    /// Resources for an ingress gateway of Istio
    Istio,
    /// Resources for Envoy Gateway
    EnvoyGateway,
}

/// Reads, prints what was asked for, and reports.
///
/// # Errors
/// A file that cannot be read or has nothing to convert, or options that `render` does not take.
pub fn run(options: &Convert) -> Result<ExitCode> {
    let mut texts = Vec::new();
    for file in &options.files {
        texts.push((file.display().to_string(), read(file)?));
    }
    let Converted { text, lines, note } = convert(&texts, options)?;
    let is_json = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "json");
    let report = if options.report.as_ref().is_some_and(is_json) { report::json(&lines) } else { report::text(&lines) };
    match &options.report {
        Some(file) => fs::write(file, report).with_context(|| format!("cannot write {}", file.display()))?,
        None => eprint!("{report}"),
    }
    if let Some(note) = note {
        eprintln!("\nnote: {note}");
    }
    print(&text)?;
    let needs_a_look = lines.iter().any(|line| line.outcome.needs_a_look());
    Ok(if options.strict && needs_a_look { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What files become.
struct Converted {
    text: String,
    lines: Vec<Line>,
    /// What the manifests lack.
    note: Option<String>,
}

fn convert(files: &[(String, String)], options: &Convert) -> Result<Converted> {
    let mut plan = Plan::new(&options.hubs, !options.no_client_cookie);
    for (file, text) in files {
        sources::read(file, text, &mut plan).map_err(|why| anyhow!("{file}: {}", why.trim_start()))?;
    }
    let settings = plan.settings().map_err(anyhow::Error::msg)?;
    let service = plan.service();
    let with_port = service.and_then(|Service { name, port, .. }| Some(format!("{name}:{}", (*port)?)));
    let (target, option, given) = match options.to {
        Target::Settings if !options.options.is_empty() => bail!("`--to settings` takes no options of `render`"),
        Target::Settings => return Ok(Converted { text: settings.yaml(0), lines: plan.lines, note: None }),
        Target::Envoy => ("envoy", "--upstream", with_port.map(|value| vec![value])),
        Target::Istio => {
            let whole = service.map(|Service { name, namespace, .. }| format!("{name}.{namespace}.svc.cluster.local"));
            ("istio", "--service", whole.map(|value| vec![value]))
        }
        Target::EnvoyGateway => {
            let namespace = service.map(|service| service.namespace.clone());
            let given = with_port.zip(namespace);
            ("envoy-gateway", "--service", given.map(|(value, own)| vec![value, "--namespace".to_owned(), own]))
        }
    };
    let is_given = options.options.iter().any(|given| given.split('=').next() == Some(option));
    let note = (given.is_none() && !is_given).then(|| {
        format!("the input does not name one service with its port: give that of the hubs with `-- {option}`")
    });
    // The service of the hubs is that of the input if it has one, and the options win.
    let words = ["render", target].map(str::to_owned).into_iter();
    let words = words.chain(given.into_iter().flat_map(|given| [vec![option.to_owned()], given].concat()));
    let command = Render::augment_subcommands(clap::Command::new("render"));
    let command = command.mut_subcommand(target, |target| target.args_override_self(true));
    let matches = command.try_get_matches_from(words.chain(options.options.iter().cloned()))?;
    let text = render::text(&Render::from_arg_matches(&matches)?, settings)?;
    Ok(Converted { text, lines: plan.lines, note })
}

/// The settings that a file of another proxy becomes, in YAML with a comment for each line that they come from. `file` is its name there.
///
/// # Errors
/// In one line, why the text cannot be read, or that nothing in it can be converted.
pub fn settings_from(file: &str, text: &str) -> Result<String, String> {
    let mut plan = Plan::new(&[], true);
    sources::read(file, text, &mut plan)?;
    Ok(plan.settings()?.yaml(0))
}
