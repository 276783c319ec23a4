//! The inputs of `tests/convert` with what they become. After a change that is meant, `UPDATE_EXPECTED=1 cargo test --package
//! envoy-signalr-cli convert` writes the files anew; look at the difference.

use std::fs;

use clap::Parser;

use super::*;
use crate::check::{settings_in, warnings_of};

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    convert: Convert,
}

fn options(arguments: &str) -> Convert {
    Program::try_parse_from(["convert"].into_iter().chain(arguments.split_whitespace())).unwrap().convert
}

/// Each input by its name without what it ends in, with its file and text.
fn inputs() -> Vec<(String, (String, String))> {
    let folder = testbed::workspace().join("tests/convert/inputs");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let input = |file: PathBuf| {
        let part = |part: Option<&std::ffi::OsStr>| part.unwrap().to_str().unwrap().to_owned();
        (part(file.file_stem()), (part(file.file_name()), fs::read_to_string(&file).unwrap()))
    };
    files.into_iter().map(input).collect()
}

#[test]
fn each_input_has_its_settings_and_its_report() {
    let expected = testbed::workspace().join("tests/convert/expected");
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut differ = Vec::new();
    let inputs = inputs();
    for (name, input) in &inputs {
        let (settings, lines) = convert(std::slice::from_ref(input), &options("FILE")).unwrap();
        for (file, text) in [("settings.yaml", settings), ("report.txt", report::text(&lines))] {
            let file = expected.join(format!("{name}.{file}"));
            if update {
                fs::write(&file, &text).unwrap();
            } else if fs::read_to_string(&file).ok().as_deref() != Some(&text) {
                differ.push(format!("{}:\n{text}", file.display()));
            }
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    assert!(inputs.len() >= 30, "{}", inputs.len());
}

/// Blocks of docs/migrate that name a file of `tests/convert` are that file.
#[test]
fn the_pages_show_what_the_program_prints() {
    let folder = testbed::workspace().join("docs/migrate");
    let mut blocks = 0;
    for page in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let text = fs::read_to_string(&page).unwrap();
        let mut lines = text.split_inclusive('\n');
        let mut as_files_are = String::new();
        while let Some(line) = lines.next() {
            as_files_are.push_str(line);
            if let Some((_, file)) = line.trim_end().split_once(" tests/convert/").filter(|_| line.starts_with("```")) {
                blocks += 1;
                as_files_are
                    .push_str(&fs::read_to_string(testbed::workspace().join("tests/convert").join(file)).unwrap());
                as_files_are.extend(lines.by_ref().find(|line| line.starts_with("```")));
            }
        }
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&page, as_files_are).unwrap();
        } else {
            assert!(text == as_files_are, "{} does not show what its blocks name", page.display());
        }
    }
    assert!(blocks >= 20, "{blocks}");
}

#[test]
fn manifests_for_each_target_hold_the_settings_and_pass_the_check() {
    const IMAGE: &str = "--image registry.example.net/signalr@sha256:0123";
    for (name, input) in inputs() {
        let input = std::slice::from_ref(&input);
        let expected = convert(input, &options("FILE --hub /chat")).unwrap().0;
        let expected = settings_in(&expected, &|_| None).unwrap().1;
        for target in
            ["envoy -- --key KEY".to_owned(), format!("istio -- {IMAGE}"), format!("envoy-gateway -- {IMAGE}")]
        {
            let (text, _) = convert(input, &options(&format!("FILE --hub /chat --to {target}"))).unwrap();
            let mut warnings = warnings_of(&text);
            // What a cookie for each client costs, here as before.
            warnings.retain(|warning| !warning.contains("affinity.client_cookie.mark"));
            assert_eq!(warnings, [""; 0], "{name} to {target}\n{text}");
            let mut settings = settings_in(&text, &|_| Some("x".repeat(64))).unwrap().1;
            assert!(settings["affinity"].as_object_mut().unwrap().remove("keys").is_some(), "{name} to {target}");
            if settings["affinity"] == serde_json::json!({}) {
                settings.as_object_mut().unwrap().remove("affinity");
            }
            assert_eq!(settings, expected, "{name} to {target}");
        }
    }
}

#[test]
fn every_annotation_label_and_directive_is_in_the_report() {
    for (name, (file, text)) in inputs() {
        let (_, lines) = convert(&[(file, text.clone())], &options("FILE")).unwrap();
        let reported: std::collections::BTreeSet<_> = lines.iter().map(|line| line.source.place.line).collect();
        let is_one = |line: &str| {
            let line = line.trim().trim_start_matches("- ").trim_matches('"');
            let prefixes = ["nginx.", "traefik.", "haproxy", "ingress.", "cert-manager.io", "istio.io/"];
            let directives = [
                "cookie ",
                "stick",
                "http-request ",
                "tcp-request ",
                "balance ",
                "timeout ",
                "option ",
                "acl ",
                "server",
            ];
            prefixes.iter().any(|prefix| line.starts_with(prefix) && line.contains([':', '=']))
                || (name.starts_with("haproxy-") && directives.iter().any(|directive| line.starts_with(directive)))
        };
        for (index, line) in text.lines().enumerate().filter(|(_, line)| is_one(line)) {
            // A folded text's own lines belong to its name.
            assert!(reported.contains(&(index + 1)), "{name}:{}: {line}", index + 1);
        }
    }
}

#[test]
fn what_is_given_by_hand_counts() {
    let one = |name: &str| inputs().into_iter().find(|(own, _)| own == name).unwrap().1;
    let input = [one("ingress-nginx-persistent")];
    let (settings, lines) = convert(&input, &options("FILE --no-client-cookie --hub /chat")).unwrap();
    assert!(!settings.contains("client_cookie") && settings.contains("{\"path\":\"/chat\"}"), "{settings}");
    assert!(lines.iter().any(|line| line.text.contains("no cookie is needed")));
    let (text, _) = convert(&input, &options("FILE --to envoy")).unwrap();
    assert!(text.contains("address: hub, port_value: 8080"), "{text}");
    let (text, _) = convert(&input, &options("FILE --to envoy -- --upstream other:1")).unwrap();
    assert!(text.contains("address: other, port_value: 1"), "{text}");
    let (text, _) = convert(&input, &options("FILE --to istio -- --namespace gateways")).unwrap();
    assert!(text.contains("service: hub.chat.svc.cluster.local") && text.contains("namespace: gateways"), "{text}");
    let error = convert(&input, &options("FILE --to istio -- --nonsense")).unwrap_err();
    assert!(error.to_string().contains("--nonsense"), "{error}");
    let error = convert(&[("a.yaml".to_owned(), "a: 1".to_owned())], &options("FILE")).unwrap_err();
    assert!(error.to_string().starts_with("a.yaml: nothing in it that can be converted"), "{error}");
}

#[test]
fn two_files_give_one_configuration_and_what_differs_is_said() {
    let ingress = |limit: u32| {
        let annotation = format!("nginx.ingress.kubernetes.io/limit-connections: \"{limit}\"");
        format!("apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  annotations:\n    {annotation}\n")
    };
    let files = [("a.yaml".to_owned(), ingress(3)), ("b.yaml".to_owned(), ingress(4))];
    let (settings, lines) = convert(&files, &options("FILE")).unwrap();
    assert!(settings.contains("per_client: 3"), "{settings}");
    let text = report::text(&lines);
    assert!(text.contains("`limits.connections.per_client` is 3 by a.yaml:5 already"), "{text}");
}

/// Half a file, a file with other letters, and two files in one.
#[test]
fn damaged_files_do_not_stop_it() {
    let inputs = inputs();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..3000 {
        let (_, (file, text)) = &inputs[random.usize(..inputs.len())];
        let mut letters: Vec<char> = text.chars().collect();
        for _ in 0..random.usize(1..8) {
            let at = random.usize(..letters.len());
            match random.u8(..4) {
                0 => letters.truncate(at.max(1)),
                1 => {
                    letters[at] = *random
                        .choice(&[':', '-', ' ', '\n', '{', '}', '"', '9', '(', '\u{fc}', '/', '*', '&'])
                        .unwrap()
                }
                2 => drop(letters.remove(at)),
                _ => letters.insert(at, random.char(..)),
            }
            if letters.is_empty() {
                break;
            }
        }
        let text: String = letters.into_iter().collect();
        if let Ok(settings) = settings_from(file, &text) {
            let refused: Vec<_> =
                crate::check::lines_of(&settings).into_iter().filter(|line| line.contains("refused")).collect();
            assert!(refused.is_empty(), "{refused:?}\n{text}");
        }
    }
}
