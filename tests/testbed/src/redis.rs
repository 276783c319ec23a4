//! A real Redis: nothing is kept on disk.
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process::{Process, free_port, run_dir};

/// A running Redis. It ends when this is dropped.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    _process: Process,
}

impl Redis {
    /// Starts `program`.
    pub fn start(program: &Path) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(program);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(run_dir()?);
        // Where Debian's package is unpacked and not installed, its libraries lie beside it.
        if let Some(root) = program.parent().and_then(Path::parent) {
            let libraries = root.join("lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
            command.env("LD_LIBRARY_PATH", libraries);
        }
        let mut process = Process::spawn("redis", command)?;
        process.wait_ready(|| TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Self { port, _process: process })
    }

    /// Where it listens, `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}
