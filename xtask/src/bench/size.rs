//! `cargo xtask bench size`: what the module's code is made of. Envoy compiles all of it before it serves.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};
use wasmparser::{KnownCustom, Name, Parser, Payload};

/// Groups that are smaller are added up.
const LEAST: usize = 6_000;

pub(super) fn run() -> Result<()> {
    let bytes = fs::read(testbed::envoy::module_with_names()?)?;
    let functions = functions(&bytes)?;
    let mut groups: BTreeMap<String, usize> = BTreeMap::new();
    for (name, size) in &functions {
        *groups.entry(group(name)).or_default() += size;
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    let total: usize = groups.iter().map(|(_, size)| size).sum();
    println!("{} functions, {} KiB of code.\n", functions.len(), total / 1_024);
    println!("| code of | KiB | share |");
    println!("|---|---|---|");
    let (large, small): (Vec<_>, Vec<_>) = groups.into_iter().partition(|(_, size)| *size >= LEAST);
    let rest = ("all others".to_owned(), small.iter().map(|(_, size)| size).sum());
    for (name, size) in large.into_iter().chain([rest]) {
        println!("| {name} | {:.0} | {} % |", size as f64 / 1_024.0, size * 100 / total.max(1));
    }
    Ok(())
}

/// Names of functions as the compiler wrote them, with the bytes of each.
fn functions(module: &[u8]) -> Result<Vec<(String, usize)>> {
    let (mut imported, mut sizes, mut names) = (0, Vec::new(), BTreeMap::new());
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::ImportSection(imports) => imported = imports.into_imports().count(),
            Payload::CodeSectionEntry(body) => sizes.push(body.as_bytes().len()),
            Payload::CustomSection(section) => {
                let KnownCustom::Name(subsections) = section.as_known() else { continue };
                for subsection in subsections {
                    let Name::Function(map) = subsection? else { continue };
                    for naming in map {
                        let naming = naming?;
                        names.insert(usize::try_from(naming.index)?, naming.name.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    let named = |(index, size)| Some((names.get(&(imported + index))?.clone(), size));
    let functions: Vec<_> = sizes.into_iter().enumerate().filter_map(named).collect();
    Some(functions).filter(|functions| !functions.is_empty()).context("the module has no names")
}

/// The crate that a function's path begins with, and for this crate and Rust's own the module. Of a trait's function it is the type
/// that has it.
fn group(name: &str) -> String {
    let path = format!("{:#}", rustc_demangle::demangle(name));
    let path = path.trim_start_matches(['<', '&', '*', '(', '[']).trim_start_matches("mut ").trim_start_matches("dyn ");
    let end = path.find([' ', '>', '<', '(', '[', ',']).unwrap_or(path.len());
    let mut parts = path.get(..end).unwrap_or(path).split("::");
    let first = parts.next().unwrap_or_default();
    match (first, parts.next()) {
        ("envoy_signalr" | "core" | "alloc" | "std", Some(module)) => format!("`{first}::{module}`"),
        _ => format!("`{first}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_belongs_to_the_crate_or_module_that_its_path_begins_with() {
        for (name, expected) in [
            ("_ZN13envoy_signalr8settings8Settings5parse17hf16a19ee46c4090bE", "`envoy_signalr::settings`"),
            (
                "_ZN86_$LT$core..marker..PhantomData$LT$T$GT$$u20$as$u20$serde_core..de..DeserializeSeed$GT$11deserialize17h9428f4b3eb247261E",
                "`core::marker`",
            ),
            ("_ZN4sha26sha25611compress25617h0e1c39d703ddd0f1E", "`sha2`"),
            ("dlmalloc", "`dlmalloc`"),
        ] {
            assert_eq!(group(name), expected);
        }
    }
}
