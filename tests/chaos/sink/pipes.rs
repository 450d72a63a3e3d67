//! The standard outputs of the members.

use std::io::{BufRead, BufReader, Read};
use std::process::ChildStdout;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::{Arrived, DEADLINE, Mark, Row};
use crate::kafka::Partition;
use crate::records::{self, Kind};

/// Reads the standard outputs of all members, and can be told to read nothing for a while.
#[derive(Default)]
pub(crate) struct Pipes {
    shared: Arc<PipesShared>,
    readers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct PipesShared {
    paused: AtomicBool,
    streams: Mutex<Vec<Vec<Row>>>,
    strange: Mutex<Vec<String>>,
}

impl Pipes {
    /// Takes over the output of a process.
    pub(crate) fn add(&mut self, pipe: ChildStdout, topics: &[String]) {
        let shared = Arc::clone(&self.shared);
        let stream = {
            let mut streams = shared.streams.lock().unwrap();
            streams.push(Vec::new());
            streams.len() - 1
        };
        let topics = topics.to_vec();
        self.readers.push(std::thread::spawn(move || read(pipe, &topics, stream, &shared)));
    }

    pub(super) fn mark(&self) -> Mark {
        self.shared.streams.lock().unwrap().iter().map(Vec::len).collect()
    }

    pub(super) fn arrived(&mut self) -> Arrived {
        let end = Instant::now() + DEADLINE;
        for reader in self.readers.drain(..) {
            while !reader.is_finished() {
                assert!(Instant::now() < end, "a pipe of a process that has ended is still open");
                std::thread::sleep(Duration::from_millis(5));
            }
            reader.join().unwrap();
        }
        Arrived {
            streams: self.shared.streams.lock().unwrap().clone(),
            strange: self.shared.strange.lock().unwrap().clone(),
            positions: None,
            write_streams: Vec::new(),
        }
    }

    pub(crate) fn pause(&self, paused: bool) {
        self.shared.paused.store(paused, Ordering::Relaxed);
    }
}

fn read(pipe: ChildStdout, topics: &[String], stream: usize, shared: &PipesShared) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        while shared.paused.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        line.clear();
        reader.by_ref().read_until(b'\n', &mut line).unwrap();
        // What follows the last line break was cut off when the process was killed.
        if line.pop() != Some(b'\n') {
            return;
        }
        match row(&line, topics) {
            Some(row) => shared.streams.lock().unwrap()[stream].push(row),
            None => shared.strange.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned()),
        }
    }
}

/// A line of standard output with its envelope.
fn row(line: &[u8], topics: &[String]) -> Option<Row> {
    let line: Json = serde_json::from_slice(line).ok()?;
    let id = records::id_of(line["key"].as_str()?.as_bytes())?;
    let topic = topics.iter().position(|topic| line["topic"] == topic.as_str())?;
    let number = i32::try_from(line["partition"].as_i64()?).ok()?;
    let intact = match Kind::of(id) {
        Kind::Good | Kind::Refused => {
            line["value"]["id"] == id
                && line["value"]["account"] == records::account(id)
                && line["value"]["note"] == records::note(id).as_str()
        }
        Kind::Tombstone => line["value"].is_null(),
        Kind::Broken | Kind::WrongType => false,
    };
    Some(Row { id, place: Some((Partition { topic, number }, line["offset"].as_i64()?)), intact })
}
