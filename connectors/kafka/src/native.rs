//! A safe face on the parts of librdkafka that its Rust binding does not offer: own queues, forwarding,
//! commits with a reply queue, events with their lists, and (in [`administration`]) topic ids and groups.
//!
//! A [`Handle`] owns the native client. Whatever points into it ([`Queue`], batches of messages) holds an
//! `Arc` of it, so that the client is destroyed last. Destroying may block, for example on a broker thread
//! that resolves a name: it happens on a thread of its own.

mod administration;

use std::ffi::{CStr, CString};
use std::os::raw::{c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use rdkafka::client::Client;
use rdkafka::error::KafkaResult;
use rdkafka::types::{RDKafkaErrorCode as Code, RDKafkaType};
use rdkafka::{ClientConfig, TopicPartitionList};
use rdkafka_sys as sys;

use crate::log::{self, LogContext};

pub(crate) use administration::{DescribedGroup, DescribedTopic};

/// A native consumer client.
pub(crate) struct Handle {
    client: Option<Client<LogContext>>,
    /// Closed when the client is destroyed.
    destroyed: Option<SyncSender<()>>,
}

/// One entry of a list that librdkafka has filled in.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// The offset or, where negative, one of librdkafka's logical offsets.
    pub(crate) offset: i64,
    pub(crate) metadata: Vec<u8>,
    pub(crate) code: Code,
}

/// What a queue hands out.
#[derive(Debug)]
pub(crate) enum Event {
    Assign(Vec<Entry>),
    Revoke(Vec<Entry>),
    Error {
        code: Code,
        fatal: bool,
        text: String,
    },
    Committed {
        token: u64,
        code: Code,
        entries: Vec<Entry>,
    },
    /// A record that should have gone to a lane's queue.
    StrayRecord,
    /// Nothing for the caller: a log line that is written by now, or the end of closing.
    Served,
}

/// The error of a native call.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) fatal: bool,
    pub(crate) text: String,
}

impl Handle {
    /// Makes a consumer client. The receiver disconnects once the client is destroyed.
    pub(crate) fn open(settings: &ClientConfig) -> KafkaResult<(Arc<Self>, Receiver<()>)> {
        let native = settings.create_native_config()?;
        let events =
            sys::RD_KAFKA_EVENT_REBALANCE | sys::RD_KAFKA_EVENT_OFFSET_COMMIT | sys::RD_KAFKA_EVENT_ERROR;
        // SAFETY: `native` owns a live configuration; the calls store the mask and a function that lives for
        // ever. Log lines arrive as events; while a client closes librdkafka calls the function instead, and
        // its own would write to the standard error stream.
        unsafe {
            sys::rd_kafka_conf_set_events(native.ptr(), events);
            sys::rd_kafka_conf_set_log_cb(native.ptr(), Some(write_log));
        }
        let client = Client::new(settings, native, RDKafkaType::RD_KAFKA_CONSUMER, LogContext)?;
        // SAFETY: the client is alive. Without a group the call fails, which changes nothing.
        unsafe { sys::rd_kafka_poll_set_consumer(client.native_ptr()) };
        let (destroyed, receiver) = sync_channel(0);
        Ok((Arc::new(Self { client: Some(client), destroyed: Some(destroyed) }), receiver))
    }

    /// The binding's client.
    pub(crate) fn client(&self) -> &Client<LogContext> {
        self.client.as_ref().expect("the client is only taken out when the handle is dropped")
    }

    fn ptr(&self) -> *mut sys::rd_kafka_t {
        self.client().native_ptr()
    }

    /// The queue of rebalances, errors and log lines.
    pub(crate) fn event_queue(self: &Arc<Self>) -> Option<Queue> {
        // SAFETY: the client is alive; the returned reference is released by `Queue`. Without a group there
        // is no consumer queue, and the events stay in the main one.
        unsafe {
            let queue = sys::rd_kafka_queue_get_consumer(self.ptr());
            Queue::own(queue, self).or_else(|| Queue::own(sys::rd_kafka_queue_get_main(self.ptr()), self))
        }
    }

    /// A queue of our own.
    pub(crate) fn new_queue(self: &Arc<Self>) -> Option<Queue> {
        // SAFETY: the client is alive; the returned queue is destroyed by `Queue`.
        let queue = unsafe { sys::rd_kafka_queue_new(self.ptr()) };
        Queue::own(queue, self)
    }

    /// The queue that a partition is fetched into.
    pub(crate) fn partition_queue(self: &Arc<Self>, topic: &str, partition: i32) -> Option<Queue> {
        let topic = CString::new(topic).ok()?;
        // SAFETY: the client is alive and the name is a C string that outlives the call; the returned
        // reference is released by `Queue`.
        let queue = unsafe { sys::rd_kafka_queue_get_partition(self.ptr(), topic.as_ptr(), partition) };
        Queue::own(queue, self)
    }

    pub(crate) fn subscribe(&self, topics: &TopicPartitionList) -> Result<(), Failure> {
        // SAFETY: client and list are alive; the list is copied.
        check(unsafe { sys::rd_kafka_subscribe(self.ptr(), topics.ptr()) })
    }

    pub(crate) fn unsubscribe(&self) -> Result<(), Failure> {
        // SAFETY: the client is alive.
        check(unsafe { sys::rd_kafka_unsubscribe(self.ptr()) })
    }

    /// Replaces the assignment.
    pub(crate) fn assign(&self, partitions: &TopicPartitionList) -> Result<(), Failure> {
        // SAFETY: client and list are alive; the list is copied.
        check(unsafe { sys::rd_kafka_assign(self.ptr(), partitions.ptr()) })
    }

    /// Removes the whole assignment.
    pub(crate) fn assign_nothing(&self) -> Result<(), Failure> {
        // SAFETY: the client is alive; no list means to remove the assignment.
        check(unsafe { sys::rd_kafka_assign(self.ptr(), std::ptr::null()) })
    }

    pub(crate) fn incremental_assign(&self, partitions: &TopicPartitionList) -> Result<(), Failure> {
        // SAFETY: client and list are alive; the list is copied; the error is released by `check_error`.
        unsafe { check_error(sys::rd_kafka_incremental_assign(self.ptr(), partitions.ptr())) }
    }

    pub(crate) fn incremental_unassign(&self, partitions: &TopicPartitionList) -> Result<(), Failure> {
        // SAFETY: client and list are alive; the list is copied; the error is released by `check_error`.
        unsafe { check_error(sys::rd_kafka_incremental_unassign(self.ptr(), partitions.ptr())) }
    }

    /// Moves partitions to the offsets of the list; the outcome of each is in the answer.
    pub(crate) fn seek(
        &self,
        partitions: &TopicPartitionList,
        timeout: Duration,
    ) -> Result<Vec<Entry>, Failure> {
        // SAFETY: client and list are alive; the error is released by `check_error`.
        unsafe {
            check_error(sys::rd_kafka_seek_partitions(self.ptr(), partitions.ptr(), milliseconds(timeout)))
        }?;
        Ok(entries(partitions))
    }

    pub(crate) fn committed(
        &self,
        partitions: &TopicPartitionList,
        timeout: Duration,
    ) -> Result<Vec<Entry>, Failure> {
        // SAFETY: client and list are alive; the list is filled in before the call returns.
        check(unsafe { sys::rd_kafka_committed(self.ptr(), partitions.ptr(), milliseconds(timeout)) })?;
        Ok(entries(partitions))
    }

    /// The next offset of each partition after what was taken from its lane's queue.
    pub(crate) fn positions(&self, partitions: &TopicPartitionList) -> Result<Vec<Entry>, Failure> {
        // SAFETY: client and list are alive; the list is filled in before the call returns.
        check(unsafe { sys::rd_kafka_position(self.ptr(), partitions.ptr()) })?;
        Ok(entries(partitions))
    }

    /// Turns the times (or logical offsets) of the list into offsets.
    pub(crate) fn offsets_for_times(
        &self,
        partitions: &TopicPartitionList,
        timeout: Duration,
    ) -> Result<Vec<Entry>, Failure> {
        // SAFETY: client and list are alive; the list is filled in before the call returns.
        check(unsafe {
            sys::rd_kafka_offsets_for_times(self.ptr(), partitions.ptr(), milliseconds(timeout))
        })?;
        Ok(entries(partitions))
    }

    /// Sends a commit; its answer arrives on `replies` with `token`.
    pub(crate) fn commit(
        &self,
        positions: &TopicPartitionList,
        replies: &Queue,
        token: usize,
    ) -> Result<(), Failure> {
        // SAFETY: client, list and queue are alive; the list is copied and the queue referenced. The opaque
        // pointer is a number that is only handed back.
        check(unsafe {
            sys::rd_kafka_commit_queue(
                self.ptr(),
                positions.ptr(),
                replies.ptr(),
                None,
                std::ptr::without_provenance_mut::<c_void>(token),
            )
        })
    }

    /// Whether the group hands partitions over one by one.
    pub(crate) fn is_cooperative(&self) -> bool {
        // SAFETY: the client is alive; the answer is null or a static C string.
        unsafe {
            let protocol = sys::rd_kafka_rebalance_protocol(self.ptr());
            !protocol.is_null() && CStr::from_ptr(protocol) == c"COOPERATIVE"
        }
    }

    pub(crate) fn assignment_lost(&self) -> bool {
        // SAFETY: the client is alive.
        unsafe { sys::rd_kafka_assignment_lost(self.ptr()) != 0 }
    }

    /// Begins to leave the group; the remaining events arrive on `queue`.
    pub(crate) fn close_into(&self, queue: &Queue) -> Result<(), Failure> {
        // SAFETY: client and queue are alive; the error is released by `check_error`.
        unsafe { check_error(sys::rd_kafka_consumer_close_queue(self.ptr(), queue.ptr())) }
    }

    /// Whether the group is left.
    pub(crate) fn closed(&self) -> bool {
        // SAFETY: the client is alive.
        unsafe { sys::rd_kafka_consumer_closed(self.ptr()) != 0 }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let (client, destroyed) = (self.client.take(), self.destroyed.take());
        let destroy = move || {
            drop(client);
            drop(destroyed);
        };
        // Where no thread can be had, the closure is dropped here, and the client with it.
        if let Err(error) = std::thread::Builder::new().name("kafka-close".to_owned()).spawn(destroy) {
            tracing::warn!(target: "kafka", "no thread to close a Kafka client on: {error}");
        }
    }
}

/// A librdkafka queue, kept together with its client.
pub(crate) struct Queue {
    queue: NonNull<sys::rd_kafka_queue_t>,
    handle: Arc<Handle>,
}

// SAFETY: librdkafka's queues lock themselves and may be used from any thread.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Queue {
    fn own(queue: *mut sys::rd_kafka_queue_t, handle: &Arc<Handle>) -> Option<Self> {
        Some(Self { queue: NonNull::new(queue)?, handle: Arc::clone(handle) })
    }

    /// The native queue, valid as long as `self`.
    pub(crate) fn ptr(&self) -> *mut sys::rd_kafka_queue_t {
        self.queue.as_ptr()
    }

    /// The client of the queue.
    pub(crate) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    /// Sends what arrives here, and what is here already, to `target`. Stopping a partition undoes it.
    pub(crate) fn forward_to(&self, target: &Self) {
        // SAFETY: both queues are alive; librdkafka takes a reference of its own on the target.
        unsafe { sys::rd_kafka_queue_forward(self.ptr(), target.ptr()) };
    }

    /// The next event. Must not be called on a lane's queue, whose messages are taken in batches.
    pub(crate) fn poll(&self, timeout: Duration) -> Option<Event> {
        // SAFETY: the queue is alive; the event is destroyed below, after all that points into it was copied.
        unsafe {
            let event = sys::rd_kafka_queue_poll(self.ptr(), milliseconds(timeout));
            if event.is_null() {
                return None;
            }
            let copied = copy_event(event);
            sys::rd_kafka_event_destroy(event);
            Some(copied)
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the queue is alive and this is its only owner; its client is alive too, `handle` sees to it.
        unsafe { sys::rd_kafka_queue_destroy(self.ptr()) };
    }
}

/// Copies what is of interest out of an event and writes log lines.
///
/// # Safety
/// `event` must be alive.
unsafe fn copy_event(event: *mut sys::rd_kafka_event_t) -> Event {
    // SAFETY: the caller promises a live event; strings and lists belong to it and are copied.
    unsafe {
        let code = Code::from(sys::rd_kafka_event_error(event));
        match sys::rd_kafka_event_type(event) {
            sys::RD_KAFKA_EVENT_REBALANCE => {
                let list = copy_list(sys::rd_kafka_event_topic_partition_list(event));
                if code == Code::AssignPartitions { Event::Assign(list) } else { Event::Revoke(list) }
            }
            sys::RD_KAFKA_EVENT_ERROR => Event::Error {
                code,
                fatal: sys::rd_kafka_event_error_is_fatal(event) != 0,
                text: copy_text(sys::rd_kafka_event_error_string(event)),
            },
            sys::RD_KAFKA_EVENT_OFFSET_COMMIT => Event::Committed {
                token: sys::rd_kafka_event_opaque(event).addr() as u64,
                code,
                entries: copy_list(sys::rd_kafka_event_topic_partition_list(event)),
            },
            sys::RD_KAFKA_EVENT_FETCH => Event::StrayRecord,
            sys::RD_KAFKA_EVENT_LOG => {
                let (mut facility, mut line, mut level): (*const c_char, *const c_char, c_int) =
                    (std::ptr::null(), std::ptr::null(), 0);
                if sys::rd_kafka_event_log(event, &raw mut facility, &raw mut line, &raw mut level) == 0 {
                    log::write(level, &copy_text(facility), &copy_text(line));
                }
                Event::Served
            }
            _ => Event::Served,
        }
    }
}

/// # Safety
/// `facility` and `line` must be null or C strings.
unsafe extern "C" fn write_log(
    _: *const sys::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    line: *const c_char,
) {
    // SAFETY: librdkafka passes C strings that live until the call returns.
    let (facility, line) = unsafe { (copy_text(facility), copy_text(line)) };
    log::write(level, &facility, &line);
}

/// # Safety
/// `text` must be null or a C string.
unsafe fn copy_text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, so a C string, as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned()
}

/// # Safety
/// `list` must be null or alive.
unsafe fn copy_list(list: *const sys::rd_kafka_topic_partition_list_t) -> Vec<Entry> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: not null, so alive, as the caller promises; `elems` holds `cnt` elements, and each element's
    // metadata `metadata_size` bytes.
    unsafe {
        let count = usize::try_from((*list).cnt).unwrap_or(0);
        if count == 0 {
            return Vec::new();
        }
        let elements = std::slice::from_raw_parts((*list).elems, count);
        elements
            .iter()
            .map(|element| Entry {
                topic: copy_text(element.topic),
                partition: element.partition,
                offset: element.offset,
                metadata: if element.metadata.is_null() {
                    Vec::new()
                } else {
                    std::slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size).to_vec()
                },
                code: element.err.into(),
            })
            .collect()
    }
}

/// The entries of a list.
fn entries(list: &TopicPartitionList) -> Vec<Entry> {
    // SAFETY: the list is alive.
    unsafe { copy_list(list.ptr()) }
}

/// A time-out as librdkafka takes it: never negative, which would mean without end.
fn milliseconds(timeout: Duration) -> c_int {
    c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX)
}

impl Failure {
    fn plain(code: Code) -> Self {
        Self { code, fatal: code == Code::Fatal, text: crate::error::describe(code) }
    }
}

fn check(error: sys::rd_kafka_resp_err_t) -> Result<(), Failure> {
    match Code::from(error) {
        Code::NoError => Ok(()),
        code => Err(Failure::plain(code)),
    }
}

/// # Safety
/// `error` must be null or alive and is destroyed.
unsafe fn check_error(error: *mut sys::rd_kafka_error_t) -> Result<(), Failure> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: not null, so alive, as the caller promises; it is copied before it is destroyed.
    unsafe {
        let failure = copy_failure(error);
        sys::rd_kafka_error_destroy(error);
        Err(failure)
    }
}

/// # Safety
/// `error` must be alive; it stays its owner's.
unsafe fn copy_failure(error: *const sys::rd_kafka_error_t) -> Failure {
    // SAFETY: the caller promises a live error, whose text is copied.
    unsafe {
        Failure {
            code: sys::rd_kafka_error_code(error).into(),
            fatal: sys::rd_kafka_error_is_fatal(error) != 0,
            text: copy_text(sys::rd_kafka_error_string(error)),
        }
    }
}
