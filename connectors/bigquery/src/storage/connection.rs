//! One `AppendRows` call after the other, with many requests on their way.
//!
//! A connection takes rows from a queue, in their order, puts requests around them and matches the answers,
//! which come in the same order. A call that nobody uses is ended, and a new one made with the next rows: servers end
//! idle calls too, and that is no error.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gcp_bigquery_client::google::cloud::bigquery::storage::v1::append_rows_response::Response as Outcome;
use gcp_bigquery_client::google::cloud::bigquery::storage::v1::{AppendRowsResponse, RowError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::{Response, Status, Streaming};
use tracing::debug;

use super::channel::{Link, Seat};
use super::refusal::{Meaning, Refusal};
use super::request::{Envelope, Outlet, Request, TooLarge, body};
use super::target::Target;

/// How many requests are on their way at most.
const MOST_IN_FLIGHT: usize = 128;

/// How many bytes are on their way at most. One request is always allowed.
const MOST_BYTES_IN_FLIGHT: usize = 64 << 20;

/// When a call that nobody uses is ended. Servers do it after some minutes, and then there is always a request that
/// comes too late.
const IDLE: Duration = Duration::from_mins(4);

/// What became of an append.
#[derive(Debug)]
pub(super) enum Answer {
    /// The rows are stored: from this offset on, where the stream has offsets.
    Stored {
        /// As the server gave it.
        offset: Option<i64>,
    },
    /// The server has answered, and nothing is stored.
    Refused {
        /// Why.
        refusal: Refusal,
        /// The rows that are to blame, where rows are.
        rows: Vec<RowError>,
    },
    /// The call ended before there was an answer. The rows may be stored, or may still be.
    Ended {
        /// Why the call ended.
        refusal: Refusal,
        /// Whether this was the append whose answer was due, which the refusal speaks of if it speaks of any.
        due: bool,
    },
    /// The rows were never sent.
    Unsent {
        /// Why.
        refusal: Refusal,
    },
}

/// Rows on their way to a stream.
struct Append {
    target: Arc<Target>,
    stream: Arc<str>,
    offset: Option<i64>,
    rows: Bytes,
    answer: oneshot::Sender<Answer>,
}

impl Append {
    fn answer(self, answer: Answer) {
        // Whoever asked may have gone.
        let _ = self.answer.send(answer);
    }
}

/// A connection for one stream, or for the default streams of many tables. Ends when it is dropped, after the appends
/// that it has taken.
///
/// Its queue has no limit of its own: every append in it has somebody who waits for its answer and has lent the rows. A
/// queue with a limit would let an append pass another one that is about to enter.
#[derive(Clone)]
pub(super) struct Connection {
    queue: mpsc::UnboundedSender<Append>,
}

impl Connection {
    /// Makes a connection that makes its first call with the first rows. Needs a tokio runtime.
    pub(super) fn new(link: Arc<Link>, trace_id: Arc<str>) -> Self {
        let (queue, appends) = mpsc::unbounded_channel();
        let worker =
            Worker { link, trace_id, appends, unsent: VecDeque::new(), renew_token: false, pause: None };
        tokio::spawn(worker.run());
        Self { queue }
    }

    /// Appends rows that are encoded as `ProtoRows`. Appends are sent in the order in which these futures are polled for
    /// the first time.
    pub(super) async fn append(
        &self,
        target: Arc<Target>,
        stream: Arc<str>,
        offset: Option<i64>,
        rows: Bytes,
    ) -> Answer {
        let (sender, receiver) = oneshot::channel();
        let append = Append { target, stream, offset, rows, answer: sender };
        if self.queue.send(append).is_err() {
            return Answer::Unsent { refusal: Refusal::passing("the connection has ended") };
        }
        receiver.await.unwrap_or_else(|_| Answer::Ended {
            refusal: Refusal::passing("the connection has ended"),
            due: false,
        })
    }
}

/// The task behind a [`Connection`].
struct Worker {
    link: Arc<Link>,
    trace_id: Arc<str>,
    appends: mpsc::UnboundedReceiver<Append>,
    /// Appends that a call took and did not send, although nothing was wrong with it.
    unsent: VecDeque<Append>,
    /// The last call was refused for its access token.
    renew_token: bool,
    /// A quota is used up: nothing is sent before this moment.
    pause: Option<(Instant, Refusal)>,
}

/// Why a call is over.
enum End {
    /// Nothing was on its way.
    Idle,
    /// Whoever appends has gone, and everything is answered.
    Done,
    /// The server, or the way to it.
    Refused(Refusal),
}

impl Worker {
    async fn run(mut self) {
        loop {
            let first = match self.unsent.pop_front() {
                Some(append) => append,
                None => match self.appends.recv().await {
                    Some(append) => append,
                    None => return,
                },
            };
            if first.answer.is_closed() {
                continue;
            }
            if let Some((until, refusal)) = &self.pause {
                let left = until.saturating_duration_since(Instant::now());
                if left > Duration::ZERO {
                    first.answer(Answer::Unsent { refusal: refusal.clone().with_retry_after(left) });
                    continue;
                }
                self.pause = None;
            }
            self.serve(first).await;
        }
    }

    /// Makes one call, beginning with `first`, and answers everything that it takes.
    async fn serve(&mut self, first: Append) {
        let renewed = std::mem::take(&mut self.renew_token);
        let (outlet, requests) = body(MOST_IN_FLIGHT);
        let prepared = match self.link.seat() {
            Ok(seat) => {
                let call = self.link.append_call(&seat, &first.stream, requests, renewed).await;
                call.map(|call| (seat, call))
            }
            Err(refusal) => Err(refusal),
        };
        let (seat, call) = match prepared {
            Ok(prepared) => prepared,
            Err(refusal) => {
                first.answer(Answer::Unsent { refusal: refusal.clone() });
                self.refuse_queued(&refusal);
                return;
            }
        };
        let mut exchange = Exchange::new(outlet, Arc::clone(&self.trace_id), self.link.timeout());
        exchange.send(first);
        let mut answers = Answers::Opening(Box::pin(call.make()));
        let end = exchange.run(&mut answers, &mut self.appends).await;
        drop(answers);
        self.settle(exchange, end, renewed, seat);
    }

    /// Answers what a call leaves unanswered.
    fn settle(&mut self, exchange: Exchange, end: End, renewed: bool, seat: Seat) {
        let Exchange { outlet, in_flight, answered, .. } = exchange;
        let begun = outlet.close();
        drop(seat);
        let refusal = match end {
            End::Done | End::Idle => Refusal::passing("the connection was idle"),
            // A new token that was never taken is not replaced by another one.
            End::Refused(refusal)
                if refusal.meaning == Meaning::Unauthenticated && (!renewed || answered > 0) =>
            {
                self.renew_token = true;
                Refusal::passing(format!("{refusal}; asking for a new access token"))
            }
            End::Refused(refusal) => refusal,
        };
        debug!(unanswered = in_flight.len(), "an AppendRows call is over: {refusal}");
        if refusal.meaning == Meaning::Quota
            && let Some(pause) = refusal.retry_after()
        {
            self.pause = Some((Instant::now() + pause, refusal.clone()));
        }
        let begun = usize::try_from(begun.saturating_sub(answered)).unwrap_or(usize::MAX);
        // A call that had worked and ended with nothing on its way was idle: what came too late for it goes into the
        // next one.
        if begun == 0 && answered > 0 && refusal.passes() {
            self.unsent.extend(in_flight.into_iter().map(|waiting| waiting.append));
            return;
        }
        for (position, waiting) in in_flight.into_iter().enumerate() {
            let refusal = refusal.clone();
            waiting.append.answer(if position < begun {
                Answer::Ended { refusal, due: position == 0 }
            } else {
                Answer::Unsent { refusal }
            });
        }
        self.refuse_queued(&refusal);
    }

    /// What waits behind an append that failed has failed too: whoever appends decides what is sent again.
    fn refuse_queued(&mut self, refusal: &Refusal) {
        while let Ok(append) = self.appends.try_recv() {
            append.answer(Answer::Unsent { refusal: refusal.clone() });
        }
    }
}

type Opening = Pin<Box<dyn Future<Output = Result<Response<Streaming<AppendRowsResponse>>, Status>> + Send>>;

/// The answers of a call, which may be long in coming.
enum Answers {
    Opening(Opening),
    Open(Box<Streaming<AppendRowsResponse>>),
}

impl Answers {
    /// The next answer; `None` where the server has ended the call without an error. May be cancelled.
    async fn next(&mut self) -> Result<Option<AppendRowsResponse>, Status> {
        loop {
            match self {
                Self::Opening(opening) => *self = Self::Open(Box::new(opening.await?.into_inner())),
                Self::Open(answers) => return answers.message().await,
            }
        }
    }
}

/// An append that was handed to the call.
struct Waiting {
    append: Append,
    bytes: usize,
}

/// One `AppendRows` call.
struct Exchange {
    outlet: Outlet,
    trace_id: Arc<str>,
    timeout: Duration,
    in_flight: VecDeque<Waiting>,
    bytes_in_flight: usize,
    answered: u64,
    /// Where the last request went.
    last: Option<(Arc<str>, Arc<Target>)>,
    /// Whether the call has served more than one stream: from then on every request names its own.
    several_streams: bool,
    /// When the answer that is due began to be waited for.
    waiting_since: Instant,
}

impl Exchange {
    fn new(outlet: Outlet, trace_id: Arc<str>, timeout: Duration) -> Self {
        Self {
            outlet,
            trace_id,
            timeout,
            in_flight: VecDeque::new(),
            bytes_in_flight: 0,
            answered: 0,
            last: None,
            several_streams: false,
            waiting_since: Instant::now(),
        }
    }

    async fn run(&mut self, answers: &mut Answers, appends: &mut mpsc::UnboundedReceiver<Append>) -> End {
        let mut open = true;
        loop {
            let limit = if self.in_flight.is_empty() {
                if !open {
                    return End::Done;
                }
                self.waiting_since + IDLE
            } else {
                self.waiting_since + self.timeout
            };
            tokio::select! {
                biased;
                answer = answers.next() => {
                    let refusal = match answer {
                        Ok(Some(answer)) => match self.take(answer) {
                            Ok(()) => continue,
                            Err(refusal) => refusal,
                        },
                        Ok(None) => Refusal::passing("the server has ended the call"),
                        Err(status) => Refusal::of_call(&status),
                    };
                    return End::Refused(refusal);
                }
                append = appends.recv(), if open && self.has_room() => match append {
                    Some(append) => self.send(append),
                    None => open = false,
                },
                () = tokio::time::sleep_until(limit) => {
                    if self.in_flight.is_empty() {
                        return End::Idle;
                    }
                    return End::Refused(Refusal::passing("no answer within the time limit"));
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        self.in_flight.is_empty()
            || (self.in_flight.len() < MOST_IN_FLIGHT && self.bytes_in_flight < MOST_BYTES_IN_FLIGHT)
    }

    fn send(&mut self, append: Append) {
        if append.answer.is_closed() {
            // Nobody waits for it any more.
            return;
        }
        let first = self.last.is_none();
        let same_stream = self.last.as_ref().is_some_and(|(stream, _)| *stream == append.stream);
        let same_table = self.last.as_ref().is_some_and(|(_, target)| Arc::ptr_eq(target, &append.target));
        let several_streams = self.several_streams || !(first || same_stream);
        let envelope = Envelope {
            stream: (first || several_streams).then_some(&*append.stream),
            offset: append.offset,
            schema: (!same_table).then_some(&append.target.schema[..]),
            trace_id: first.then_some(&*self.trace_id),
        };
        let bytes = append.rows.len();
        match Request::new(&envelope, append.rows.clone()) {
            Ok(request) => {
                if self.in_flight.is_empty() {
                    self.waiting_since = Instant::now();
                }
                self.outlet.put(request);
                self.several_streams = several_streams;
                self.last = Some((Arc::clone(&append.stream), Arc::clone(&append.target)));
                self.bytes_in_flight += bytes;
                self.in_flight.push_back(Waiting { append, bytes });
            }
            Err(TooLarge { bytes }) => append.answer(Answer::Unsent {
                refusal: Refusal::lasting(
                    format!("a request of {bytes} bytes is more than BigQuery takes"),
                    "set a smaller `batch: {bytes: …}`",
                ),
            }),
        }
    }

    /// Hands an answer to the append that it belongs to.
    fn take(&mut self, answer: AppendRowsResponse) -> Result<(), Refusal> {
        let Some(Waiting { append, bytes }) = self.in_flight.pop_front() else {
            return Err(Refusal::passing("the server has answered what was not asked"));
        };
        self.bytes_in_flight -= bytes;
        self.answered += 1;
        self.waiting_since = Instant::now();
        let AppendRowsResponse { response, row_errors, .. } = answer;
        match response {
            Some(Outcome::AppendResult(result)) if row_errors.is_empty() => {
                append.answer(Answer::Stored { offset: result.offset });
                Ok(())
            }
            Some(Outcome::Error(status)) => {
                append.answer(Answer::Refused { refusal: Refusal::in_answer(&status), rows: row_errors });
                Ok(())
            }
            _ => {
                let refusal = Refusal::passing("the server gave an answer that says nothing");
                append.answer(Answer::Ended { refusal: refusal.clone(), due: true });
                Err(refusal)
            }
        }
    }
}
