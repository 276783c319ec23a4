//! The little HTTP that the testbed speaks itself: asking a server on this machine whether it is
//! ready, Envoy for its statistics, and anything very often. Clients under test bring their own HTTP.
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, Result, bail, ensure};

use crate::process::PATIENCE;

/// Gets `url` and returns the status and the body, whatever the status is.
pub fn get(url: &str) -> Result<(u16, String)> {
    read(agent().get(url).call(), url)
}

/// Posts nothing to `url`, as Envoy's admin interface and SignalR's negotiate want it.
pub fn post(url: &str) -> Result<(u16, String)> {
    post_with(url, &[])
}

/// The same with these headers.
pub fn post_with(url: &str, headers: &[(&str, &str)]) -> Result<(u16, String)> {
    let request = headers.iter().fold(agent().post(url), |request, (name, value)| request.header(*name, *value));
    read(request.send_empty(), url)
}

/// A connection that is kept for many requests: far faster than one for each.
#[derive(Debug)]
pub struct Kept {
    stream: TcpStream,
    answers: BufReader<TcpStream>,
}

impl Kept {
    /// Envoy closes a connection when it has more answers of its own to send on it: "too many responses queued".
    const AT_ONCE: usize = 2;

    /// Connects to the server of `url`.
    pub fn open(url: &str) -> Result<Self> {
        let stream = TcpStream::connect(url.trim_start_matches("http://"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let answers = BufReader::new(stream.try_clone()?);
        Ok(Self { stream, answers })
    }

    /// Sends the requests without waiting for each answer, and returns the statuses in order.
    pub fn ask(&mut self, requests: &[String]) -> Result<Vec<u16>> {
        let mut statuses = Vec::new();
        for some in requests.chunks(Self::AT_ONCE) {
            self.stream.write_all(some.concat().as_bytes())?;
            for _ in some {
                statuses.push(self.read_answer()?);
            }
        }
        Ok(statuses)
    }

    fn read_answer(&mut self) -> Result<u16> {
        let head = self.read_line()?;
        let status = head.split(' ').nth(1).with_context(|| format!("no status: {head}"))?.parse()?;
        let mut length = 0;
        loop {
            let line = self.read_line()?;
            match line.split_once(": ") {
                None if line.is_empty() => break,
                Some(("content-length", value)) => length = value.parse()?,
                Some(("transfer-encoding", _)) => bail!("an answer of unknown length"),
                _ => {}
            }
        }
        self.answers.by_ref().take(length).read_to_end(&mut Vec::new())?;
        Ok(status)
    }

    fn read_line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "the server closed the connection");
        Ok(line.trim_end().to_owned())
    }
}

fn agent() -> ureq::Agent {
    // A fresh agent each time: a kept connection to a server that was restarted would fail once.
    ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .new_agent()
}

fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>, url: &str) -> Result<(u16, String)> {
    let mut answer = answer.with_context(|| format!("no answer from {url}"))?;
    let body = answer.body_mut().read_to_string().with_context(|| format!("cut short: the answer of {url}"))?;
    Ok((answer.status().as_u16(), body))
}
