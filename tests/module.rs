//! Tier 4: the module itself, before any Envoy runs it: what it asks for, what it offers, how big it is.
//!
//! An import that Envoy does not have keeps the filter from starting, and one that nobody expected shows what a
//! dependency brought in. So every import is listed here with its reason, and a new one is a decision.

use std::collections::BTreeSet;
use std::fs;

use wasmparser::{ExternalKind, Parser, Payload, TypeRef, Validator};

/// Uncompressed. What a gateway fetches and compiles before it serves its first request.
const MOST_BYTES: usize = 768 * 1_024;

const ENV: &str = "env";
const WASI: &str = "wasi_snapshot_preview1";

/// What the module may ask of Envoy: the proxy-wasm ABI 0.2.1, and of WASI the few calls that Envoy has.
const IMPORTS: &[(&str, &[&str])] = &[
    // What the filter does: headers, a negotiate's body, the upstream's address, the clock.
    (ENV, &["proxy_get_header_map_pairs", "proxy_get_header_map_value"]),
    (ENV, &["proxy_add_header_map_value", "proxy_replace_header_map_value", "proxy_remove_header_map_value"]),
    (ENV, &["proxy_get_buffer_bytes", "proxy_set_buffer_bytes"]),
    (ENV, &["proxy_get_property", "proxy_get_current_time_nanoseconds"]),
    // What it reports: metrics and log lines.
    (ENV, &["proxy_define_metric", "proxy_increment_metric", "proxy_record_metric", "proxy_log"]),
    // What the worker threads agree on: the process's secret, the names of hubs, and who holds how many connections,
    // which a beat keeps fresh.
    (ENV, &["proxy_get_shared_data", "proxy_set_shared_data", "proxy_set_tick_period_milliseconds"]),
    // How a limit answers.
    (ENV, &["proxy_send_local_response"]),
    // Limits shared through Redis: calls, the streams that wait for them, and a queue that wakes the root.
    (ENV, &["proxy_http_call", "proxy_set_effective_context", "proxy_continue_stream"]),
    (ENV, &["proxy_register_shared_queue", "proxy_enqueue_shared_queue", "proxy_dequeue_shared_queue"]),
    // The SDK's dispatcher and the default methods of its traits, which link even where nothing calls them.
    (ENV, &["proxy_done", "proxy_get_status", "proxy_call_foreign_function"]),
    (ENV, &["proxy_set_header_map_pairs", "proxy_set_property"]),
    (ENV, &["proxy_close_stream", "proxy_resolve_shared_queue"]),
    (ENV, &["proxy_grpc_call", "proxy_grpc_stream", "proxy_grpc_send", "proxy_grpc_close", "proxy_grpc_cancel"]),
    // Nonces and the process's secret; Envoy answers from its cryptographic generator.
    (WASI, &["random_get"]),
    // `{"env": "..."}` in the configuration: Envoy shows only the variables that `vm_config` names.
    (WASI, &["environ_get", "environ_sizes_get"]),
    // Rust's standard library, for the message and the end of a panic.
    (WASI, &["fd_write", "proc_exit"]),
];

/// What Envoy looks up by name: without the version it refuses the module, and a callback that is missing it skips. One that is
/// there it calls, even if nothing happens there: `envoy/link-module.sh` has the same list.
const EXPORTS: &[(ExternalKind, &[&str])] = &[
    (ExternalKind::Memory, &["memory"]),
    // A reactor (`cdylib`): Envoy calls this first, and it runs the SDK's `main!`.
    (ExternalKind::Func, &["_initialize"]),
    (ExternalKind::Func, &["proxy_abi_version_0_2_1"]),
    // How Envoy hands over headers and bodies.
    (ExternalKind::Func, &["proxy_on_memory_allocate"]),
    // Roots.
    (ExternalKind::Func, &["proxy_on_context_create", "proxy_on_vm_start", "proxy_on_configure", "proxy_on_tick"]),
    // Exchanges.
    (ExternalKind::Func, &["proxy_on_request_headers", "proxy_on_request_body"]),
    (ExternalKind::Func, &["proxy_on_response_headers", "proxy_on_response_body", "proxy_on_log", "proxy_on_delete"]),
    // Limits shared through Redis.
    (ExternalKind::Func, &["proxy_on_http_call_response", "proxy_on_queue_ready"]),
];

fn module() -> Vec<u8> {
    fs::read(testbed::envoy::module().unwrap()).unwrap()
}

fn sections(module: &[u8]) -> impl Iterator<Item = Payload<'_>> {
    Parser::new(0).parse_all(module).map(|payload| payload.unwrap())
}

#[test]
fn every_import_is_one_that_was_decided_on() {
    let module = module();
    let allowed: BTreeSet<_> =
        IMPORTS.iter().flat_map(|(module, names)| names.iter().map(|name| (*module, *name))).collect();
    let mut seen = 0;
    for payload in sections(&module) {
        let Payload::ImportSection(imports) = payload else { continue };
        for import in imports.into_imports() {
            let import = import.unwrap();
            assert!(matches!(import.ty, TypeRef::Func(_)), "Envoy gives functions only: {import:?}");
            assert!(
                allowed.contains(&(import.module, import.name)),
                "not on the list: {}.{}",
                import.module,
                import.name
            );
            seen += 1;
        }
    }
    assert!(seen > 0, "no imports were found");
}

#[test]
fn the_callbacks_that_the_filter_needs_are_exported_and_no_others() {
    let module = module();
    let mut exports = BTreeSet::new();
    for payload in sections(&module) {
        let Payload::ExportSection(section) = payload else { continue };
        for export in section {
            let export = export.unwrap();
            exports.insert((export.name, format!("{:?}", export.kind)));
        }
    }
    let needed = EXPORTS.iter().flat_map(|(kind, names)| names.iter().map(move |name| (*name, format!("{kind:?}"))));
    assert_eq!(exports, needed.collect());
}

/// At instantiation Envoy has given the module no context yet, so a call into Envoy from there would trap.
#[test]
fn nothing_runs_before_envoy_calls() {
    let module = module();
    for payload in sections(&module) {
        match payload {
            Payload::StartSection { .. } => panic!("the module has a start function"),
            Payload::ExportSection(exports) => {
                let command = exports.into_iter().any(|export| export.unwrap().name == "_start");
                assert!(!command, "a command, not a reactor: build it as a cdylib");
            }
            _ => {}
        }
    }
}

#[test]
fn the_module_is_valid_and_within_its_size() {
    let module = module();
    Validator::new().validate_all(&module).unwrap();
    assert!(module.len() <= MOST_BYTES, "{} bytes of at most {MOST_BYTES}", module.len());
}

#[test]
fn the_module_holds_no_path_of_the_machine_that_built_it() {
    let module = module();
    for needle in ["/.cargo/", "/.rustup/", "/rustlib/src/", "/home/", "/root/", "/Users/"] {
        let at = module.windows(needle.len()).position(|bytes| bytes == needle.as_bytes());
        let around = at.map(|at| String::from_utf8_lossy(&module[at.saturating_sub(20)..at + 60]).into_owned());
        assert_eq!(around, None, "a path of the machine that built it");
    }
}

#[test]
fn the_same_sources_in_another_folder_and_home_give_the_same_module() {
    let elsewhere = tempfile::tempdir().unwrap();
    let other = fs::read(testbed::envoy::module_built_in(elsewhere.path()).unwrap()).unwrap();
    let first = module().iter().zip(&other).position(|(one, other)| one != other);
    assert_eq!((first, other.len()), (None, module().len()), "the first byte that differs, and the size");
}
