//! The file behind stdout, shared by the whole process.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use txconnect_connector_api::SinkError;

/// Pause before another try where the other end has made stdout non-blocking and it is full.
const FULL_PAUSE: Duration = Duration::from_millis(2);

/// Lines go out one batch at a time, whoever writes.
#[derive(Clone)]
pub(crate) struct Output(Arc<Mutex<Target>>);

struct Target {
    file: Box<dyn Write + Send>,
    /// The last write ended inside a line.
    inside_line: bool,
}

impl Output {
    pub(crate) fn new(file: Box<dyn Write + Send>) -> Self {
        Self(Arc::new(Mutex::new(Target { file, inside_line: false })))
    }

    /// The process's stdout, the same for every caller. Without the standard library's buffer, which would cut
    /// batches into pieces.
    pub(crate) fn stdout() -> io::Result<Self> {
        static STDOUT: OnceLock<Output> = OnceLock::new();
        if let Some(output) = STDOUT.get() {
            return Ok(output.clone());
        }
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(STDOUT.get_or_init(|| Self::new(Box::new(file))).clone())
    }

    /// Writes whole lines and flushes. Blocks for as long as the reader takes. On an error also says how many
    /// bytes are out.
    pub(crate) fn write_lines(&self, lines: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut target = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if target.inside_line {
            // The rest of that line was given up: the next one shall not be glued to it.
            target.write(b"\n").map_err(|(_, error)| (0, error))?;
        }
        target.write(lines)?;
        loop {
            match target.file.flush() {
                Ok(()) => return Ok(()),
                Err(error) if passes(&error) => {}
                // What a buffer holds back is not out, and how much that is nobody knows.
                Err(error) => return Err((0, error)),
            }
        }
    }
}

impl Target {
    fn write(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(0) => return Err((written, ErrorKind::WriteZero.into())),
                Ok(count) => {
                    written += count;
                    self.inside_line = bytes[written - 1] != b'\n';
                }
                Err(error) if passes(&error) => {}
                Err(error) => return Err((written, error)),
            }
        }
        Ok(())
    }
}

/// Whether the call can be made again at once; waits where there is no room.
fn passes(error: &io::Error) -> bool {
    match error.kind() {
        ErrorKind::Interrupted => true,
        ErrorKind::WouldBlock => {
            std::thread::sleep(FULL_PAUSE);
            true
        }
        _ => false,
    }
}

/// What the runtime is told.
pub(crate) fn sink_error(error: &io::Error) -> SinkError {
    if error.kind() == ErrorKind::BrokenPipe {
        return SinkError::Closed;
    }
    let hint = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room on the disk that stdout goes to",
        _ => "check where stdout goes to",
    };
    SinkError::fatal(format!("cannot write to stdout: {error}"), hint)
}
