//! A real Redis: nothing is kept on disk.
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::Result;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::process::{Process, free_port, run_dir, wait_for};

/// A running Redis. It ends when this is dropped.
#[derive(Debug)]
pub struct Redis {
    program: PathBuf,
    arguments: Vec<String>,
    port: u16,
    process: Process,
}

impl Redis {
    /// Starts `program`.
    pub fn start(program: &Path) -> Result<Self> {
        Self::start_with(program, &[])
    }

    /// Starts `program` with further arguments, such as `--requirepass secret`.
    pub fn start_with(program: &Path, arguments: &[&str]) -> Result<Self> {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let port = free_port()?;
        let process = run(program, port, &arguments)?;
        Ok(Self { program: program.to_owned(), arguments, port, process })
    }

    /// Where it listens, `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it at once, and all that it held.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again at the same port, empty.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        self.process = run(&self.program, self.port, &self.arguments)?;
        Ok(())
    }

    /// Stops it in the middle of whatever it does: it keeps connections and answers nothing.
    pub fn freeze(&self) -> Result<()> {
        self.process.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        self.process.signal(Signal::SIGCONT)
    }

    /// Has it load a data set again, for as long as it takes until [`Self::finish_loading`]: it answers `-LOADING`. To be started with
    /// `--enable-debug-command yes`.
    pub fn begin_loading(&self) -> Result<()> {
        // It looks for commands after so many bytes, which each of these keys has, and stops a while at each.
        self.ask::<()>(&["DEBUG", "POPULATE", "600", "ballast", "4096"])?;
        self.ask::<()>(&[
            "CONFIG",
            "SET",
            "loading-process-events-interval-bytes",
            "1024",
            "key-load-delay",
            "500000",
        ])?;
        let mut connection = self.connect()?;
        // Answered when it has been loaded.
        thread::spawn(move || redis::cmd("DEBUG").arg("RELOAD").exec(&mut connection));
        wait_for("Redis to load", || self.ask::<()>(&["DBSIZE"]).is_err())
    }

    /// Loads the rest at once.
    pub fn finish_loading(&self) -> Result<()> {
        self.ask::<()>(&["CONFIG", "SET", "key-load-delay", "0"])?;
        wait_for("Redis to have loaded", || self.ask::<()>(&["DBSIZE"]).is_ok())
    }

    /// What a command is answered with.
    ///
    /// # Errors
    /// What Redis says instead, or that it cannot be reached.
    pub fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> Result<T> {
        let mut connection = self.connect()?;
        let mut words = redis::Cmd::new();
        for word in command {
            words.arg(word);
        }
        Ok(words.query(&mut connection)?)
    }

    fn connect(&self) -> Result<redis::Connection> {
        let mut words = self.arguments.iter();
        let password = words.find(|word| *word == "--requirepass").and_then(|_| words.next());
        let login = password.map(|password| format!(":{password}@")).unwrap_or_default();
        Ok(redis::Client::open(format!("redis://{login}{}", self.address()))?.get_connection()?)
    }
}

fn run(program: &Path, port: u16, arguments: &[String]) -> Result<Process> {
    let mut command = Command::new(program);
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
    // A file of its own: what another one has saved there would be loaded.
    command.args(["--dbfilename", &format!("{port}.rdb")]).args(arguments).arg("--dir").arg(run_dir()?);
    // Where Debian's package is unpacked and not installed, its libraries lie beside it.
    if let Some(root) = program.parent().and_then(Path::parent) {
        let libraries = root.join("lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
        command.env("LD_LIBRARY_PATH", libraries);
    }
    let mut process = Process::spawn("redis", command)?;
    process.wait_ready(|| TcpStream::connect(("127.0.0.1", port)).is_ok())?;
    Ok(process)
}

/// Envoy's cluster of Redis at these ports.
pub fn cluster(ports: &[u16]) -> Value {
    let endpoint = |port: &u16| {
        let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
        json!({ "endpoint": { "address": address } })
    };
    json!({
        "name": "redis",
        "type": "STATIC",
        "connect_timeout": "1s",
        "upstream_config": {
            "name": "envoy.filters.connection_pools.http.tcp",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.tcp.v3.TcpConnectionPoolProto",
            },
        },
        "load_assignment": {
            "cluster_name": "redis",
            "endpoints": [{ "lb_endpoints": ports.iter().map(endpoint).collect::<Vec<_>>() }],
        },
    })
}
