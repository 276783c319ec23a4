//! Files that the command-line program reads: what `convert` prints is settings that the filter takes.
#![no_main]

use envoy_signalr_cli::{check, convert};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    check::lines_of(text);
    if let Ok(settings) = convert::settings_from("file", text) {
        let lines = check::lines_of(&settings);
        assert!(!lines.iter().any(|line| line.contains("refused")), "{lines:?}\n{settings}");
    }
});
