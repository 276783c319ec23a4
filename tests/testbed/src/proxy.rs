//! A proxy that others wrote, beside an Envoy or before it: nginx, HAProxy or Traefik.
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process::{Process, free_port, run_dir};
use crate::tools;

/// A running proxy. It ends when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    process: Process,
}

impl Proxy {
    /// nginx with this in its section `http`, where `PORT` stands for the port to listen on.
    pub fn nginx(http: &str) -> Result<Self> {
        Self::start("nginx", &tools::nginx()?, &["-e", "stderr", "-c"], "nginx.conf", |port, folder| {
            // One process, which ends with the test's, and nothing outside of the folder.
            Ok(format!(
                "daemon off; master_process off; pid {folder}/pid; error_log stderr;
                events {{ worker_connections 4096; }}
                http {{
                    access_log off;
                    client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
                    uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
                    {http}
                }}",
                folder = folder.display(),
                http = http.replace("PORT", &port.to_string()),
            ))
        })
    }

    /// HAProxy with this configuration, where `PORT` stands for the port to listen on.
    pub fn haproxy(configuration: &str) -> Result<Self> {
        let configuration = |port: u16, _: &Path| Ok(configuration.replace("PORT", &port.to_string()));
        Self::start("haproxy", &tools::haproxy()?, &["-f"], "haproxy.cfg", configuration)
    }

    /// Traefik with its entry point `web` and these routers, services and middlewares.
    pub fn traefik(dynamic: &str) -> Result<Self> {
        Self::start("traefik", &tools::traefik()?, &["--configFile"], "traefik.yaml", |port, folder| {
            let file = folder.join("dynamic.yaml");
            let static_part = serde_json::json!({
                "entryPoints": { "web": { "address": format!("127.0.0.1:{port}") } },
                "providers": { "file": { "filename": file } },
                "global": { "checkNewVersion": false, "sendAnonymousUsage": false },
            });
            fs::write(&file, dynamic)?;
            Ok(static_part.to_string())
        })
    }

    fn start(
        name: &'static str,
        program: &Path,
        arguments: &[&str],
        file: &str,
        configuration: impl Fn(u16, &Path) -> Result<String>,
    ) -> Result<Self> {
        let port = free_port()?;
        let folder = run_dir()?.join(format!("{name}-{port}"));
        fs::create_dir_all(&folder)?;
        let file = folder.join(file);
        fs::write(&file, configuration(port, &folder)?)?;
        let mut command = Command::new(program);
        // Debian's packages with what they need are unpacked into one folder.
        let libraries = program.parent().map(|folder| folder.join("../lib/x86_64-linux-gnu")).unwrap_or_default();
        command.args(arguments).arg(&file).env("LD_LIBRARY_PATH", libraries).current_dir(&folder);
        let mut process = Process::spawn(name, command)?;
        process.wait_ready(|| TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Self { port, process })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}
