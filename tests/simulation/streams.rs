//! The model of BigQuery's BUFFERED write streams.
//!
//! Requests on one connection are served in order, and several may be on their way. A connection that breaks leaves
//! requests behind that may still be served, also after others that were sent later on another connection. Nothing of a
//! finalized stream becomes visible any more, and a stream may expire or go with its table.

use std::collections::{BTreeMap, BTreeSet};

use txconnect_connector_api::{Published, StreamName};

use crate::dice::Dice;
use crate::plan::Plan;
use crate::truth::{Kind, Place, Row, Truth};
use crate::witness::{Happening, Witness};

pub(crate) type CallId = u64;
pub(crate) type Table = usize;

/// What a client asks for.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Open { table: Table },
    Append { stream: StreamName, offset: i64, rows: Vec<Row> },
    Publish { stream: StreamName, end: i64 },
    Finalize { stream: StreamName },
}

/// What the server says.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Opened(StreamName),
    Stored,
    AlreadyStored,
    Rejected(Vec<Row>),
    OutOfRange,
    /// The stream takes no more rows.
    Gone,
    Published(Published),
    Finalized,
    /// Nothing was done.
    Unavailable,
}

/// How a client's question stands.
pub(crate) enum Answer {
    Waiting,
    Reply(Reply),
    /// No answer will come.
    Unknown,
}

struct Call {
    process: usize,
    /// Appends to one stream share one.
    connection: u64,
    request: Request,
    reply: Option<Reply>,
    awaited: bool,
}

struct Stream {
    table: Table,
    /// The process that has opened it.
    owner: usize,
    rows: Vec<Row>,
    /// How many of them are visible.
    flushed: usize,
    finalized: bool,
}

pub(crate) struct Server {
    pub(crate) down: bool,
    streams: BTreeMap<StreamName, Stream>,
    /// Streams that have expired or went with their table.
    vanished: BTreeSet<StreamName>,
    calls: BTreeMap<CallId, Call>,
    /// The present connection of a process for appends to a stream.
    connections: BTreeMap<(usize, StreamName), u64>,
    next: u64,
    calm: bool,
}

impl Server {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            down: false,
            streams: BTreeMap::new(),
            vanished: BTreeSet::new(),
            calls: BTreeMap::new(),
            connections: BTreeMap::new(),
            next: 0,
            calm: plan.mood == crate::plan::Mood::Gentle,
        }
    }

    /// Nothing fails any more.
    pub(crate) fn calm_down(&mut self) {
        self.down = false;
        self.calm = true;
    }

    /// Sends a request; `None` while the server is away.
    pub(crate) fn call(&mut self, process: usize, request: Request) -> Option<CallId> {
        if self.down {
            return None;
        }
        self.next += 1;
        let id = self.next;
        let connection = match &request {
            Request::Append { stream, .. } => {
                *self.connections.entry((process, stream.clone())).or_insert(id)
            }
            _ => id,
        };
        self.calls.insert(id, Call { process, connection, request, reply: None, awaited: true });
        Some(id)
    }

    pub(crate) fn answer(&mut self, id: CallId) -> Answer {
        let Some(call) = self.calls.get_mut(&id).filter(|call| call.awaited) else { return Answer::Unknown };
        match call.reply.take() {
            None => Answer::Waiting,
            Some(reply) => {
                self.calls.remove(&id);
                Answer::Reply(reply)
            }
        }
    }

    /// A client waits no longer for an answer, and what it sends next goes over a new connection.
    pub(crate) fn give_up(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.awaited = false;
        let connection = call.connection;
        self.connections.retain(|_, present| *present != connection);
        self.sweep();
    }

    /// A process dies with all its connections.
    pub(crate) fn close_all_of(&mut self, process: usize) {
        for call in self.calls.values_mut().filter(|call| call.process == process) {
            call.awaited = false;
        }
        self.connections.retain(|(owner, _), _| *owner != process);
        self.sweep();
    }

    /// A connection breaks. What was on its way may be lost, and may still be served later.
    pub(crate) fn cut(&mut self, dice: &mut Dice, witness: &mut Witness) {
        let connected: Vec<u64> =
            self.calls.values().filter(|call| call.awaited).map(|call| call.connection).collect();
        let Some(connection) = dice.one_of(&connected) else { return };
        witness.count(Happening::Cut);
        let on_it: Vec<CallId> =
            self.calls.iter().filter(|(_, call)| call.connection == connection).map(|(id, _)| *id).collect();
        let arrive = dice.index(on_it.len() + 1);
        witness.tell(|| format!("connection {connection} is cut; {arrive} of {} calls arrive", on_it.len()));
        for (index, id) in on_it.iter().enumerate() {
            let Some(call) = self.calls.get_mut(id) else { continue };
            call.awaited = false;
            if index >= arrive && call.reply.is_none() {
                self.calls.remove(id);
            }
        }
        self.connections.retain(|_, present| *present != connection);
        self.sweep();
    }

    /// Every connection breaks; nothing that was stored is lost.
    pub(crate) fn restart(&mut self, witness: &mut Witness) {
        witness.count(Happening::DatabaseRestart);
        witness.tell(|| "the streams' server restarts".to_owned());
        for call in self.calls.values_mut() {
            call.awaited = false;
        }
        self.connections.clear();
        self.sweep();
    }

    fn sweep(&mut self) {
        self.calls.retain(|_, call| call.awaited || call.reply.is_none());
    }

    /// Whether the server knows the stream no more, though it was there once.
    pub(crate) fn has_vanished(&self, stream: &StreamName) -> bool {
        self.vanished.contains(stream)
    }

    /// The rows that a commit counts; `None` for a stream that is gone.
    pub(crate) fn rows(&self, stream: &StreamName, end: i64) -> Option<&[Row]> {
        let end = usize::try_from(end).unwrap();
        self.streams.get(stream).map(|stream| stream.rows.get(..end).unwrap_or(&stream.rows))
    }

    /// Whether some process that lives may still publish a row of this record.
    pub(crate) fn could_be_published(&self, place: Place, lives: impl Fn(usize) -> bool) -> bool {
        self.streams.values().any(|stream| {
            let invisible = &stream.rows[stream.flushed..];
            !stream.finalized && lives(stream.owner) && invisible.iter().any(|row| row.place == place)
        })
    }

    /// Streams expire: those that nobody has used for long, and in a long pause any.
    pub(crate) fn expire(&mut self, long_pause: bool, dice: &mut Dice, witness: &mut Witness) {
        let busy = |name: &StreamName| {
            self.calls.values().any(|call| match &call.request {
                Request::Append { stream, .. }
                | Request::Publish { stream, .. }
                | Request::Finalize { stream } => stream == name,
                Request::Open { .. } => false,
            })
        };
        let old: Vec<StreamName> = self
            .streams
            .iter()
            .filter(|(name, stream)| long_pause || (stream.rows.len() == stream.flushed && !busy(name)))
            .map(|(name, _)| name.clone())
            .collect();
        for name in old {
            if long_pause || dice.percent(50) {
                witness.count(Happening::StreamExpired);
                witness.tell(|| format!("stream {name} expires"));
                self.streams.remove(&name);
                self.vanished.insert(name);
            }
        }
    }

    /// A table is dropped and made anew.
    pub(crate) fn drop_table(&mut self, table: Table, truth: &mut Truth, witness: &mut Witness) {
        witness.count(Happening::TableDropped);
        witness.tell(|| format!("table {table} is dropped and made anew"));
        let gone: Vec<StreamName> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.table == table)
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.streams.remove(&name);
            self.vanished.insert(name);
        }
        truth.drop_rows(table);
    }

    /// The server serves the first call of some connection.
    pub(crate) fn serve(&mut self, dice: &mut Dice, truth: &mut Truth, witness: &mut Witness) {
        if self.down {
            return;
        }
        let mut seen = BTreeSet::new();
        let first: Vec<CallId> = self
            .calls
            .iter()
            .filter(|(_, call)| call.reply.is_none() && seen.insert(call.connection))
            .map(|(id, _)| *id)
            .collect();
        let Some(id) = dice.one_of(&first) else { return };
        let Some(Call { process, request, awaited, .. }) = self.calls.get(&id) else { return };
        let (process, request, awaited) = (*process, request.clone(), *awaited);
        if !awaited && dice.percent(15) {
            self.calls.remove(&id);
            return;
        }
        let unavailable = !self.calm && dice.percent(4);
        let reply = if unavailable {
            Reply::Unavailable
        } else {
            match &request {
                Request::Open { table } => self.open(*table, process),
                Request::Append { stream, offset, rows } => self.append(stream, *offset, rows, dice, witness),
                Request::Publish { stream, end } => {
                    Reply::Published(self.publish(stream, *end, truth, witness))
                }
                Request::Finalize { stream } => {
                    if let Some(stream) = self.streams.get_mut(stream) {
                        stream.finalized = true;
                    }
                    Reply::Finalized
                }
            }
        };
        witness.tell(|| {
            let late = if awaited { "" } else { ", whom nobody listens to" };
            format!("the server answers process {process}: {request:?}: {reply:?}{late}")
        });
        if awaited {
            if let Some(call) = self.calls.get_mut(&id) {
                call.reply = Some(reply);
            }
        } else {
            if matches!(request, Request::Append { .. }) && matches!(reply, Reply::Stored) {
                witness.count(Happening::LateAppend);
            }
            self.calls.remove(&id);
        }
    }

    fn open(&mut self, table: Table, owner: usize) -> Reply {
        self.next += 1;
        let name = StreamName(format!("s{}", self.next).into());
        let stream = Stream { table, owner, rows: Vec::new(), flushed: 0, finalized: false };
        self.streams.insert(name.clone(), stream);
        Reply::Opened(name)
    }

    fn append(
        &mut self,
        name: &StreamName,
        offset: i64,
        rows: &[Row],
        dice: &mut Dice,
        witness: &mut Witness,
    ) -> Reply {
        let calm = self.calm;
        let Some(stream) = self.streams.get_mut(name).filter(|stream| !stream.finalized) else {
            return Reply::Gone;
        };
        let offset = usize::try_from(offset).unwrap();
        let at_the_end = offset == stream.rows.len();
        // Nobody knows which of its checks the server makes first.
        if at_the_end || dice.percent(50) {
            // A schema that has just arrived somewhere has not arrived everywhere.
            let fickle = !calm && dice.percent(50);
            let is_bad = |kind| kind == Kind::Refused || (kind == Kind::Fickle && fickle);
            let refused: Vec<Row> = rows.iter().filter(|row| is_bad(row.kind)).copied().collect();
            if !refused.is_empty() {
                witness.count(Happening::Rejected);
                return Reply::Rejected(refused);
            }
        }
        match offset.cmp(&stream.rows.len()) {
            std::cmp::Ordering::Less => {
                witness.count(Happening::AlreadyStored);
                Reply::AlreadyStored
            }
            std::cmp::Ordering::Greater => {
                witness.count(Happening::OutOfRange);
                Reply::OutOfRange
            }
            std::cmp::Ordering::Equal => {
                stream.rows.extend_from_slice(rows);
                Reply::Stored
            }
        }
    }

    pub(crate) fn publish(
        &mut self,
        name: &StreamName,
        end: i64,
        truth: &mut Truth,
        witness: &mut Witness,
    ) -> Published {
        let Some(stream) = self.streams.get_mut(name) else { return Published::Missing };
        if stream.finalized {
            return Published::Finalized;
        }
        let end = usize::try_from(end).unwrap();
        if end > stream.rows.len() {
            witness.fault(format!(
                "{end} rows of stream {name} are to be published, which has {}",
                stream.rows.len()
            ));
            return Published::Visible;
        }
        if end > stream.flushed {
            for row in &stream.rows[stream.flushed..end] {
                truth.store_row(*row, witness);
            }
            stream.flushed = end;
        }
        Published::Visible
    }
}
