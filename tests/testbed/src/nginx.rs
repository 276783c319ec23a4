//! A proxy that others wrote, before an Envoy: nginx with its defaults, but for what a test changes.
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process::{Process, free_port, run_dir};

/// A running nginx. It ends when this is dropped.
#[derive(Debug)]
pub struct Nginx {
    port: u16,
    _process: Process,
}

impl Nginx {
    /// Starts `program`, which passes everything on to `upstream`, such as `http://127.0.0.1:8080`, with further directives.
    pub fn start(program: &Path, upstream: &str, directives: &str) -> Result<Self> {
        let port = free_port()?;
        let folder = run_dir()?.join(format!("nginx-{port}"));
        fs::create_dir_all(&folder)?;
        // One process, which ends with the test's, and nothing outside of the folder.
        let configuration = format!(
            "daemon off; master_process off; pid {folder}/pid; error_log stderr;
            events {{ }}
            http {{
                access_log off;
                client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
                uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
                server {{
                    listen 127.0.0.1:{port};
                    location / {{ proxy_pass {upstream}; {directives} }}
                }}
            }}",
            folder = folder.display(),
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, configuration)?;
        let mut command = Command::new(program);
        command.arg("-e").arg("stderr").arg("-p").arg(&folder).arg("-c").arg(&file);
        let mut process = Process::spawn("nginx", command)?;
        process.wait_ready(|| TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Self { port, _process: process })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}
