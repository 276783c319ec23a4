//! Child processes that never outlive their purpose.
//!
//! A [`Process`] is ended by its own pid when it is dropped. Should this process die before it can
//! do so, the kernel kills the child (`PR_SET_PDEATHSIG`). The kernel ties that to the *thread*
//! that started the child, and the threads of a test end with the test, so one thread that lives
//! as long as the process starts all children.
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

/// How long to wait for an event that is sure to come, such as the start of a program. A machine that works at nothing else
/// needs a small part of it; one whose cores are taken may need most.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// How long a child may take to obey SIGTERM before it is killed, which is all the same to whoever drops it.
const GRACE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);

/// A child process whose output goes to a log file.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// Where the standard output of a child goes; standard error always goes to the log.
enum Output {
    Logged,
    To(File),
}

impl Process {
    /// Starts `command`. `name` is what errors and the log file call it.
    pub fn spawn(name: &str, command: Command) -> Result<Self> {
        Self::start(name, command, Output::Logged)
    }

    fn start(name: &str, mut command: Command, output: Output) -> Result<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let log = run_dir()?.join(format!("{serial:03}-{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        match output {
            Output::Logged => command.stdout(file.try_clone()?),
            Output::To(output) => command.stdout(output),
        };
        command.stdin(Stdio::null()).stderr(file);
        let child = spawn_tied(command).with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file that holds what the process printed.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What the process has printed up to now.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How the process ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until `ready` says so. Fails at once when the process ends before.
    pub fn wait_ready(&mut self, mut ready: impl FnMut() -> bool) -> Result<()> {
        let what = format!("{} to be ready", self.name);
        let (log, child) = (&self.log, &mut self.child);
        let mut ended = None;
        let waited = wait_for(&what, || {
            ended = child.try_wait().ok().flatten();
            ended.is_some() || ready()
        });
        if let Some(status) = ended {
            bail!("{} ended with {status}; {}", self.name, tail(log));
        }
        waited.with_context(|| tail(log))
    }

    /// Kills the process at once, as a crash would.
    pub fn kill(&mut self) {
        // It may have ended already: then there is nothing left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends the process a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().try_into()?);
        kill(pid, signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Ends the process as Ctrl-C does in a terminal, and returns how it ended.
    pub fn interrupt(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGINT)?;
        let mut ended = None;
        wait_for(&format!("the end of {}", self.name), || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some()
        })?;
        ended.context("it has ended")
    }

    /// Asks the process to end, and kills it if it does not.
    pub fn stop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let obeyed = self.signal(Signal::SIGTERM).is_ok()
            && wait_until(GRACE, "the end", || !matches!(self.child.try_wait(), Ok(None))).is_ok();
        if !obeyed {
            self.kill();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs `command` to its end, tied to this process as a [`Process`] is, and kills it after
/// `timeout`. Returns its standard output; an error holds the end of its standard error.
pub fn run(name: &str, command: Command, timeout: Duration) -> Result<Vec<u8>> {
    let output = tempfile::tempfile_in(run_dir()?)?;
    let mut reader = output.try_clone()?;
    finish(Process::start(name, command, Output::To(output))?, timeout)?;
    let mut bytes = Vec::new();
    reader.rewind()?;
    reader.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Like [`run`] for a program that reports its errors on standard output.
pub fn run_with_output(name: &str, command: Command, timeout: Duration) -> Result<()> {
    finish(Process::spawn(name, command)?, timeout)
}

fn finish(mut process: Process, timeout: Duration) -> Result<()> {
    let mut ended = None;
    let waited = wait_until(timeout, &format!("{} to end", process.name), || {
        ended = process.child.try_wait().ok().flatten();
        ended.is_some()
    });
    match ended {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("{} ended with {status}; {}", process.name, tail(&process.log)),
        None => {
            process.kill();
            waited.with_context(|| tail(&process.log))
        }
    }
}

/// Waits for an event that is sure to come, for as long as [`PATIENCE`] allows; the error names `what`.
pub fn wait_for(what: &str, ready: impl FnMut() -> bool) -> Result<()> {
    wait_until(PATIENCE, what, ready)
}

/// Asks `ready` again and again until it says yes or the time is over; the error names `what`.
fn wait_until(timeout: Duration, what: &str, mut ready: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        if ready() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("waited {} s in vain for {what}", timeout.as_secs_f32());
        }
        thread::sleep(POLL);
    }
}

/// How many cores there are: load that is to make threads meet is in proportion to them.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Waits until someone presses Ctrl-C or this process is asked to end by SIGTERM.
///
/// Before this is called those end the process as they do by default, and the kernel its children.
pub fn wait_for_interrupt() -> Result<()> {
    let (interrupt, interrupted) = mpsc::channel();
    ctrlc::set_handler(move || {
        let _ = interrupt.send(());
    })?;
    interrupted.recv().context("the handler of signals has ended")
}

/// A TCP port of 127.0.0.1 that nobody listens on, and that this process was not given before.
///
/// Not taken from the kernel's own choice: between here and the start of the server, one of the
/// many outgoing connections of a test could be given the same number. These lie below its range.
pub fn free_port() -> Result<u16> {
    const RANGE: std::ops::Range<u32> = 16_000..32_000;
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    // Other processes of this crate run beside this one, so each starts its search elsewhere.
    let start = std::process::id().wrapping_mul(97);
    for step in 0..RANGE.len() as u32 {
        let offset = start.wrapping_add(step) % RANGE.len() as u32;
        let port = u16::try_from(RANGE.start + offset)?;
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return Ok(port);
        }
    }
    bail!("no free port between {} and {}", RANGE.start, RANGE.end)
}

/// The folder that holds the logs of this process's children. It outlives the process, so that a
/// failed test can be read; those of earlier processes go after an hour.
pub fn run_dir() -> Result<&'static Path> {
    static DIRECTORY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = DIRECTORY.get_or_init(|| {
        let runs = crate::target_dir().join("testbed");
        forget_old_runs(&runs);
        let own = runs.join(std::process::id().to_string());
        fs::create_dir_all(&own).map(|()| own).map_err(|error| format!("cannot write {}: {error}", runs.display()))
    });
    made.as_deref().map_err(|error| anyhow::anyhow!(error.clone()))
}

fn forget_old_runs(runs: &Path) {
    for entry in fs::read_dir(runs).into_iter().flatten().flatten() {
        let alive = Path::new("/proc").join(entry.file_name()).exists();
        if !alive && is_older(&entry, Duration::from_secs(3_600)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether this was last changed longer ago than `age`.
pub(crate) fn is_older(entry: &fs::DirEntry, age: Duration) -> bool {
    let changed = entry.metadata().and_then(|metadata| metadata.modified());
    changed.is_ok_and(|changed| SystemTime::now().duration_since(changed).is_ok_and(|passed| passed > age))
}

/// The last lines of a log, for an error.
fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n    ");
    format!("the end of {}:\n    {last}", log.display())
}

/// Starts a child on the thread that never ends, tied to this process's life.
fn spawn_tied(mut command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let this = nix::unistd::getpid();
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; prctl and getppid are,
    // and nothing here allocates.
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the line above took effect.
            if getppid() != this {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        });
    }
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (reply, answer) = mpsc::channel();
    let gone = |_| io::Error::other("the thread that starts processes has ended");
    let orders = spawner.lock().unwrap_or_else(PoisonError::into_inner).clone();
    orders.send((command, reply)).map_err(|_| gone(()))?;
    answer.recv().map_err(|_| gone(()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once() {
        let ports: BTreeSet<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 50);
    }

    #[test]
    fn a_child_ends_with_its_value_and_not_with_the_thread_that_asked_for_it() {
        let go_on = tempfile::tempdir().unwrap();
        let file = go_on.path().join("go on");
        let mut command = Command::new("sh");
        command.args(["-c", "until [ -e \"$0\" ]; do sleep 0.02; done; echo alive; exec sleep 600"]).arg(&file);
        let asked = thread::spawn(|| (Process::spawn("sh", command).unwrap(), nix::unistd::gettid()));
        let (mut process, thread) = asked.join().unwrap();
        // Only then has the kernel sent what it sends when a parent dies.
        let thread = PathBuf::from(format!("/proc/self/task/{thread}"));
        wait_for("the end of the thread", || !thread.exists()).unwrap();
        File::create(file).unwrap();
        wait_for("a sign of life", || process.log().contains("alive") || process.ended().unwrap().is_some()).unwrap();
        assert!(process.ended().unwrap().is_none());
        let proc = PathBuf::from(format!("/proc/{}", process.pid()));
        drop(process);
        assert!(!proc.exists());
    }

    #[test]
    fn an_early_end_is_told_with_the_log() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out of cheese; exit 3"]);
        let mut process = Process::spawn("sh", command).unwrap();
        let error = process.wait_ready(|| false).unwrap_err();
        let message = format!("{error:#}");
        assert!(message.contains("out of cheese") && message.contains("exit status: 3"), "{message}");
    }

    #[test]
    fn a_program_that_hangs_is_ended_and_told() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo still here >&2; exec sleep 60"]);
        let process = Process::spawn("sh", command).unwrap();
        wait_for("its words", || process.log().contains("still here")).unwrap();
        let error = finish(process, Duration::from_millis(200)).unwrap_err();
        let message = format!("{error:#}");
        assert!(message.contains("in vain for sh to end") && message.contains("still here"), "{message}");
    }

    #[test]
    fn what_was_awaited_in_vain_is_named() {
        let error = wait_until(Duration::from_millis(30), "a miracle", || false).unwrap_err();
        assert!(error.to_string().contains("a miracle"));
    }
}
