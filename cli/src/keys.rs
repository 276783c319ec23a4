//! `keygen` and `keys`: a gateway's secrets, and how one follows another without cutting a connection.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use envoy_signalr::settings::Settings;
use serde_json::Value;

use crate::check::{any_secret, settings_in};
use crate::print;

/// XChaCha20's key has 256 bits; a secret has some more.
const SECRET_LEN: usize = 48;

/// Make a secret for `affinity.keys`, from the system's generator
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  envoy-signalr keygen > signalr-affinity.key
  kubectl create secret generic signalr-affinity --namespace istio-system \\
    --from-literal=SIGNALR_AFFINITY_KEY=\"$(envoy-signalr keygen)\"")]
pub struct Keygen {}

/// Prints a new secret: 64 characters of base64.
///
/// # Errors
/// The system gives no random bytes.
pub fn generate(_: &Keygen) -> Result<()> {
    let mut secret = [0; SECRET_LEN];
    getrandom::fill(&mut secret).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    print(&(STANDARD.encode(secret) + "\n"))?;
    Ok(())
}

/// What can be done with the keys of a configuration.
#[derive(Debug, clap::Subcommand)]
pub enum Keys {
    /// Print how to replace the key that seals by a new one: what to change, in which order, and when
    #[command(after_help = "Example:\n  envoy-signalr keys rotate wasm-plugin.yaml --new-id 2027-02")]
    Rotate(Rotate),
}

/// The configuration, and the new key's name.
#[derive(Debug, clap::Args)]
pub struct Rotate {
    /// A file with the filter's settings, as `check` reads it
    file: PathBuf,
    /// The id of the new key; by default, the number after the present key's, or the present one's with `-next`
    #[arg(long)]
    new_id: Option<String>,
}

/// Prints the steps of a rotation.
///
/// # Errors
/// The file cannot be read, the filter refuses it, or it has no key.
pub fn run(Keys::Rotate(options): &Keys) -> Result<()> {
    let text = fs::read_to_string(&options.file).with_context(|| format!("cannot read {}", options.file.display()))?;
    print(&steps(&text, options.new_id.as_deref()).with_context(|| options.file.display().to_string())?)?;
    Ok(())
}

fn steps(text: &str, new_id: Option<&str>) -> Result<String> {
    // The secrets are not needed: any value will do.
    let any = |name: &str| std::env::var(name).ok().or_else(|| any_secret(name));
    let (settings, value) = settings_in(text, &any).map_err(anyhow::Error::msg)?;
    let keys = value.pointer("/affinity/keys").and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(present) = keys.first() else {
        bail!("it has no `affinity.keys`, so there is none to replace: each Envoy made up its own");
    };
    let id = present.get("id").and_then(Value::as_str).unwrap_or_default();
    let new_id = new_id.map_or_else(|| following(id), str::to_owned);
    if keys.iter().any(|key| key.get("id").and_then(Value::as_str) == Some(&new_id)) {
        bail!("there is a key `{new_id}` already: choose another `--new-id`");
    }
    let variable = present.pointer("/secret/env").and_then(Value::as_str).map(|name| format!("{name}_NEXT"));
    let old: Vec<String> =
        keys.iter().map(|key| line(key, key.pointer("/secret/env").and_then(Value::as_str))).collect();
    let new = [line(&serde_json::json!({ "id": new_id }), variable.as_deref())];
    let list = |keys: Vec<String>| format!("     affinity:\n       keys:\n{}", keys.concat());
    let pass_on = variable.map_or_else(
        || "1. Make a secret with `envoy-signalr keygen`.\n".to_owned(),
        |name| {
            format!(
                "1. Make a secret with `envoy-signalr keygen`. Put it into the environment of all gateways as {name}, and pass that on\n   \
                 as you do with the present one's variable (`envoy-signalr check` names the place if it is missing).\n"
            )
        },
    );
    let longest = longest_life(&settings);
    Ok(format!(
        "{pass_on}
2. Add the new key last, on all gateways. They go on sealing with `{id}`, and open both.

{}
3. When all gateways have that, move it first. They seal with `{new_id}` now.

{}
4. When all gateways have that, wait for {}: the longest of `connection_token.ttl` and the `max_age` of
   the cookies. Then remove `{id}`, and its variable.

To go back at any step, undo that step alone. Nothing of this cuts a connection.
",
        list([&old[..], &new].concat()),
        list([&new[..], &old].concat()),
        humantime::format_duration(longest),
    ))
}

/// A key as YAML. A secret that stands in the configuration itself is not repeated.
fn line(key: &Value, variable: Option<&str>) -> String {
    let id = key.get("id").unwrap_or(&Value::Null);
    let secret = variable.map_or_else(|| "value: \"…\"".to_owned(), |name| format!("env: {name}"));
    format!("         - {{ id: {id}, secret: {{ {secret} }} }}\n")
}

/// How long something may be in use that the present key sealed.
fn longest_life(settings: &Settings) -> Duration {
    let client = settings.client_cookie.as_ref().map(|cookie| &cookie.attributes);
    let cookies = settings.connection_cookie.iter().chain(client).map(|cookie| cookie.max_age);
    let token = settings.connection_token.issue.then_some(settings.connection_token.ttl);
    cookies.chain(token).max().unwrap_or_default()
}

/// An id for the key that follows.
fn following(id: &str) -> String {
    let next = id.parse::<u64>().ok().and_then(|number| number.checked_add(1));
    next.map_or_else(|| format!("{id}-next"), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_adds_then_moves_then_waits_for_the_longest_life() {
        let text = r#"{"affinity": {"keys": [{"id": "1", "secret": {"env": "KEY"}}], "connection_cookie": {"max_age": "30days"}}}"#;
        let steps = steps(text, None).unwrap();
        let places = [
            "KEY_NEXT",
            r#"- { id: "1", secret: { env: KEY } }"#,
            r#"- { id: "2", secret: { env: KEY_NEXT } }"#,
            "move it first",
            r#"- { id: "2", secret: { env: KEY_NEXT } }"#,
            r#"- { id: "1", secret: { env: KEY } }"#,
            "30days",
            "remove `1`",
        ];
        let mut rest = steps.as_str();
        for place in places {
            rest = rest.split_once(place).unwrap_or_else(|| panic!("{place}: {steps}")).1;
        }
    }

    #[test]
    fn a_secret_in_the_configuration_is_not_repeated() {
        let secret = "0123456789abcdef0123456789abcdef";
        let text = format!(r#"{{"affinity": {{"keys": [{{"id": "blue", "secret": {{"value": "{secret}"}}}}]}}}}"#);
        let steps = steps(&text, None).unwrap();
        assert!(!steps.contains(secret) && steps.contains(r#"{ id: "blue-next", secret: { value: "…" } }"#), "{steps}");
    }

    #[test]
    fn what_cannot_be_rotated_is_said() {
        let keyed =
            r#"{"affinity": {"keys": [{"id": "1", "secret": {"env": "KEY"}}, {"id": "2", "secret": {"env": "KEY"}}]}}"#;
        for (text, expected) in [
            ("{}", "no `affinity.keys`"),
            (keyed, "a key `2` already"),
            (r#"{"affinity": {"keys": 1}}"#, "affinity.keys: invalid type"),
        ] {
            let error = steps(text, None).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
