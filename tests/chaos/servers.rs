//! What may befall a server as a whole: it is frozen, restarted or killed, and its data stays.

use std::fmt;
use std::process::{Child, Command, Stdio};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Broker,
    Database,
}

impl fmt::Display for Server {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Broker => "broker",
            Self::Database => "database",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerFault {
    Freeze,
    Thaw,
    Restart,
    Crash,
}

impl ServerFault {
    fn word(self) -> &'static str {
        match self {
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
            Self::Restart => "restart",
            Self::Crash => "crash",
        }
    }
}

/// One server of the tests, and what is being done to it.
pub(crate) struct Victim {
    server: Server,
    busy: bool,
    call: Option<Child>,
}

impl Victim {
    pub(crate) fn new(server: Server) -> Self {
        Self { server, busy: false, call: None }
    }

    /// From the beginning of a fault until the server answers again.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Whether a command of ours runs.
    pub(crate) fn is_called(&self) -> bool {
        self.call.is_some()
    }

    /// Begins a fault, after the one before.
    pub(crate) fn begin(&mut self, fault: ServerFault) {
        if let Some(call) = self.call.take() {
            check(self.server, call);
        }
        self.busy = true;
        let call = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/dev"))
            .args(["services", &self.server.to_string(), fault.word()])
            .stdin(Stdio::null())
            .spawn();
        self.call = Some(call.unwrap());
    }

    /// Whether the command has just ended; the server answers then, unless it was frozen.
    pub(crate) fn has_come_back(&mut self) -> bool {
        let Some(call) = &mut self.call else { return false };
        if call.try_wait().unwrap().is_none() {
            return false;
        }
        if let Some(call) = self.call.take() {
            check(self.server, call);
        }
        true
    }

    pub(crate) fn answers(&mut self) {
        self.busy = false;
    }
}

fn check(server: Server, mut call: Child) {
    let status = call.wait().unwrap();
    assert!(status.success(), "./dev services {server}: {status}");
}
