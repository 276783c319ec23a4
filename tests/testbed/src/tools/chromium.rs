//! A browser: Chromium or Chrome.
//!
//! `$CHROME` names it; else it is the one on the PATH, else Playwright's, else Debian's, unpacked into the cache with the
//! libraries that it needs. Whichever it is has to render a page before a test relies on it.
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail, ensure};

use super::source::Source;
use super::{State, debian, on_path};
use crate::process::{self, PATIENCE};

const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// A browser, and the environment that it needs.
#[derive(Clone, Debug)]
pub struct Chromium {
    /// The program.
    pub program: PathBuf,
    /// Variables to set for it.
    pub environment: Vec<(&'static str, OsString)>,
}

/// A browser that has rendered a page.
pub fn chromium() -> Result<Chromium> {
    static PROVEN: OnceLock<Result<Chromium, String>> = OnceLock::new();
    let prove = || {
        let chromium = match installed() {
            Some(program) => Chromium { program, environment: Vec::new() },
            None => from_debian()?,
        };
        chromium.renders()?;
        Ok(chromium)
    };
    PROVEN
        .get_or_init(|| prove().map_err(|error: anyhow::Error| format!("{error:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

impl Chromium {
    /// Fails with a sentence unless a page's script has run.
    fn renders(&self) -> Result<()> {
        let page = "data:text/html,<p id=sum></p><script>document.getElementById('sum').textContent = 40 + 2</script>";
        let profile = tempfile::tempdir()?;
        let mut command = Command::new(&self.program);
        command
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync", "--no-first-run", "--dump-dom"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(page)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        let refused = || {
            format!("{} renders no page: set CHROME to a Chromium or Chrome that runs here.", self.program.display())
        };
        let dom = process::run("chromium", command, PATIENCE).with_context(refused)?;
        ensure!(String::from_utf8_lossy(&dom).contains(">42<"), refused());
        Ok(())
    }
}

pub(super) fn state() -> State {
    installed().map_or_else(|| source().state(), |program| State::Ready(program.display().to_string()))
}

fn installed() -> Option<PathBuf> {
    let named = std::env::var_os("CHROME").filter(|name| !name.is_empty());
    named.map(PathBuf::from).or_else(|| on_path(&NAMES)).or_else(from_playwright)
}

/// The newest that `playwright install` has left here.
fn from_playwright() -> Option<PathBuf> {
    let folder = match std::env::var_os("PLAYWRIGHT_BROWSERS_PATH") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cache/ms-playwright"),
    };
    newest_of_playwright(&folder)
}

fn newest_of_playwright(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let builds = entries.filter_map(|entry| {
        let build: u32 = entry.file_name().to_str()?.strip_prefix("chromium-")?.parse().ok()?;
        let program = ["chrome-linux", "chrome-linux64"].map(|inner| entry.path().join(inner).join("chrome"));
        Some((build, program.into_iter().find(|program| program.is_file())?))
    });
    builds.max().map(|(_, program)| program)
}

fn source() -> Source {
    Source { name: "Chromium".into(), folder: "chromium-debian".into(), from: "Debian, chromium", megabytes: 145 }
}

fn from_debian() -> Result<Chromium> {
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("there is no Chromium here, and no `apt-get` to fetch Debian's: install Chromium, or set CHROME.");
    }
    let place = source().fetched(|to| debian::unpack("chromium", to))?;
    let libraries = place.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    let search = std::env::join_paths([libraries.clone(), libraries.join("pulseaudio")])?;
    let mut environment = vec![("LD_LIBRARY_PATH", search)];
    // There only where the machine has no fonts of its own.
    if place.join("etc/fonts/fonts.conf").exists() {
        environment.push(("FONTCONFIG_SYSROOT", place.clone().into()));
    }
    Ok(Chromium { program: place.join("usr/lib/chromium/chromium"), environment })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_playwrights_builds_the_newest_that_is_complete_is_used() {
        let folder = tempfile::tempdir().unwrap();
        for build in ["chromium-999/chrome-linux", "chromium-1200/chrome-linux64", "firefox-1500/chrome-linux"] {
            fs::create_dir_all(folder.path().join(build)).unwrap();
            fs::write(folder.path().join(build).join("chrome"), "").unwrap();
        }
        fs::create_dir(folder.path().join("chromium-1300")).unwrap();
        let expected = folder.path().join("chromium-1200/chrome-linux64/chrome");
        assert_eq!(newest_of_playwright(folder.path()), Some(expected));
    }

    #[test]
    fn a_browser_that_renders_nothing_is_refused_with_one_sentence() {
        let silent = Chromium { program: "true".into(), environment: Vec::new() };
        let error = silent.renders().unwrap_err().to_string();
        assert_eq!(error, "true renders no page: set CHROME to a Chromium or Chrome that runs here.");
    }
}
