#!/bin/sh
# Builds the module, from the repository's root: `cargo xtask wasm` and the Dockerfile both run this, so that they give the same
# bytes. Arguments go to `cargo build`. With some for the compiler of the module alone, behind `--`, they go to `cargo rustc`, which
# wants the crates of the tests as well.
#
# Panic locations name source files. The flags take the folders of this machine out of them: the same sources and the same
# compiler give the same module in any folder and for any user.
set -eu

cargo_home=${CARGO_HOME:-$HOME/.cargo}
# With the component `rust-src`, the standard library's sources have a place on this machine; without, they keep the name that
# they were built under.
sysroot=$("${RUSTC:-rustc}" --print sysroot)
commit=$("${RUSTC:-rustc}" --version --verbose | sed -n 's/^commit-hash: //p')
host=$("${RUSTC:-rustc}" --version --verbose | sed -n 's/^host: //p')

# The separator of CARGO_ENCODED_RUSTFLAGS.
unit=$(printf '\037')
CARGO_ENCODED_RUSTFLAGS="--remap-path-prefix=$cargo_home/registry/src=/registry"
CARGO_ENCODED_RUSTFLAGS="$CARGO_ENCODED_RUSTFLAGS$unit--remap-path-prefix=$(pwd -P)=/envoy-signalr"
CARGO_ENCODED_RUSTFLAGS="$CARGO_ENCODED_RUSTFLAGS$unit--remap-path-prefix=$sysroot/lib/rustlib/src/rust=/rustc/$commit"
export CARGO_ENCODED_RUSTFLAGS

CARGO_TARGET_WASM32_WASIP1_LINKER=$(cd "$(dirname "$0")" && pwd -P)/link-module.sh
RUST_LLD=$sysroot/lib/rustlib/$host/bin/rust-lld
export CARGO_TARGET_WASM32_WASIP1_LINKER RUST_LLD

case " $* " in
*" -- "*) task=rustc ;;
*) task=build ;;
esac
exec "${CARGO:-cargo}" "$task" --release --target wasm32-wasip1 --package envoy-signalr --lib "$@"
