//! The built binary as a process: started, watched, signalled, and never left behind.

use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::{LIMIT, eventually};

/// The binary in the folder of the repository, with nothing of the caller's environment that it would read.
pub(crate) fn txconnect() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_txconnect"));
    command.current_dir(repository()).stdin(Stdio::null()).env("NO_COLOR", "1");
    for variable in [
        "KAFKA_BROKERS",
        "PG_URL",
        "PGBOUNCER_URL",
        "GCP_PROJECT",
        "BIGQUERY_DATASET",
        "BIGQUERY_EMULATOR_HOST",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "TXCONNECT_LOG",
        "RUST_LOG",
    ] {
        command.env_remove(variable);
    }
    command
}

/// The folder of the repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    Terminate,
    Interrupt,
    Kill,
    Stop,
    Continue,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Terminate => "TERM",
            Self::Interrupt => "INT",
            Self::Kill => "KILL",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        }
    }
}

/// A running process. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    stdout: Captured,
    stderr: Captured,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = Captured::of(child.stdout.take());
        let stderr = Captured::of(child.stderr.take());
        Self { child, stdout, stderr }
    }

    /// As [`Self::start`], with stdout left to the caller's `command`.
    pub(crate) fn start_with_stdout(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = Captured::of(child.stderr.take());
        Self { child, stdout: Captured::default(), stderr }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // Every shell has this command; as a program it may be missing.
        let line = format!("kill -s {} {}", signal.name(), self.child.id());
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success(), "{line}");
    }

    /// Waits until the process has said `part` on its standard error output.
    pub(crate) fn wait_for_talk(&mut self, part: &str) {
        eventually(&format!("`{part}` is said"), || {
            if self.stderr.text().contains(part) {
                return Some(());
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("ended ({status}) without saying `{part}`:\n{}", self.stderr.text());
            }
            None
        });
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Resident memory in bytes; 0 for a process that has just ended.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let Some(line) = status.lines().find_map(|line| line.strip_prefix("VmRSS:")) else { return 0 };
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
    }

    /// Asks the process to end, and waits for it.
    pub(crate) fn terminate(self) -> Ended {
        self.signal(Signal::Terminate);
        self.wait()
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait(mut self) -> Ended {
        let end = std::time::Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if std::time::Instant::now() > end {
                let _ = self.child.kill();
                panic!(
                    "did not end within {} s\n--- stdout\n{}\n--- stderr\n{}",
                    LIMIT.as_secs(),
                    head(&self.stdout.text()),
                    self.stderr.text()
                );
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        };
        Ended { code: status.code(), stdout: self.stdout.finish(), stderr: self.stderr.finish() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- stderr of the process\n{}", self.stderr.text());
        }
    }
}

/// One output of a process, read as it comes so that the process never waits for room.
#[derive(Default)]
struct Captured {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Captured {
    fn of(pipe: Option<impl Read + Send + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&bytes);
        let reader = pipe.map(|mut pipe| {
            std::thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                loop {
                    match pipe.read(&mut buffer) {
                        Ok(0) => break,
                        Ok(count) => taken.lock().unwrap().extend_from_slice(&buffer[..count]),
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        });
        Self { bytes, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    fn finish(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.text()
    }
}

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// What the summaries of a process say, all pipelines together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Books {
    pub(crate) read: u64,
    pub(crate) written: u64,
    pub(crate) dead_lettered: u64,
    pub(crate) filtered: u64,
}

impl Ended {
    /// Fails with everything the process has said unless it ended with `code`. No process of ours ever panics.
    pub(crate) fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "\n{}", self.told());
        assert!(!self.stderr.contains("panicked"), "\n{}", self.told());
        self
    }

    pub(crate) fn succeeded(self) -> Self {
        self.with_code(0)
    }

    pub(crate) fn failed(self) -> Self {
        self.with_code(1)
    }

    /// Fails unless `part` was said on the standard error output or in the summary.
    pub(crate) fn says(self, part: &str) -> Self {
        assert!(
            self.stderr.contains(part) || self.stdout.contains(part),
            "`{part}` is not in\n{}",
            self.told()
        );
        self
    }

    /// Everything, for messages.
    pub(crate) fn told(&self) -> String {
        format!("exit code {:?}\n--- stdout\n{}\n--- stderr\n{}", self.code, head(&self.stdout), self.stderr)
    }

    /// The books of the summaries; fails unless each balances.
    pub(crate) fn books(&self) -> Books {
        let mut sum = Books::default();
        let mut found = false;
        for line in self.stderr.lines().chain(self.stdout.lines()) {
            let Some(line) = line.trim().strip_prefix("books: ") else { continue };
            found = true;
            let counts: Vec<u64> =
                line.split_whitespace().filter_map(|word| word.replace(',', "").parse().ok()).collect();
            let [read, written, dead_lettered, filtered, rest @ ..] = counts.as_slice() else {
                panic!("not books: {line}");
            };
            let given_back: u64 = rest.iter().sum();
            assert_eq!(*read, written + dead_lettered + filtered + given_back, "{line}");
            sum.read += read;
            sum.written += written;
            sum.dead_lettered += dead_lettered;
            sum.filtered += filtered;
        }
        assert!(found, "no books in\n{}", self.told());
        sum
    }
}

/// The beginning of a text that may have megabytes.
fn head(text: &str) -> &str {
    let end = text.char_indices().nth(4000).map_or(text.len(), |(end, _)| end);
    &text[..end]
}
