//! Records of several partitions in one queue, taken in batches.
//!
//! librdkafka fetches each partition into a queue of its own; on assignment these are forwarded to the queue
//! of a lane. The lane's thread takes messages without blocking and is woken when an empty queue gets one.
//!
//! A message pins the buffer it was fetched with: copy what is needed and clear the batch at once.

use std::borrow::Cow;
use std::ffi::CStr;
use std::os::raw::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Arc;

use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka_sys as sys;

use crate::error::{describe, one_line};
use crate::native::{Handle, Queue};

/// What is called when an empty queue gets a message. It runs on librdkafka's thread, under the queue's
/// lock: it may only notify, never call Kafka.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// The queue of one lane; lives on the lane's thread.
pub struct LaneQueue {
    shared: Arc<Shared>,
}

/// Names a lane's queue in assignments.
#[derive(Clone)]
pub struct LaneHandle {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Queue,
    /// What librdkafka's callback points to.
    wake: Box<Wake>,
}

impl LaneQueue {
    pub(crate) fn new(queue: Queue, wake: Wake) -> Self {
        let shared = Arc::new(Shared { queue, wake: Box::new(wake) });
        let opaque: *const Wake = &raw const *shared.wake;
        // SAFETY: the queue is alive. The callback gets a pointer to a box that lives as long as `shared`,
        // and `shared` takes the callback off before it goes.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(
                shared.queue.ptr(),
                Some(wake_up),
                opaque.cast_mut().cast::<c_void>(),
            );
        }
        Self { shared }
    }

    /// Fills `batch` with at most `max` messages that are waiting, after releasing those it held. Never
    /// blocks. Returns how many there are; after 0, wait for the wake-up.
    ///
    /// A message may be an error: see [`Message::error`].
    pub fn take(&mut self, batch: &mut MessageBatch, max: usize) -> usize {
        batch.clear();
        batch.messages.reserve(max);
        // SAFETY: the queue is alive and the vector has room for `max` pointers.
        let taken = unsafe {
            sys::rd_kafka_consume_batch_queue(self.shared.queue.ptr(), 0, batch.messages.as_mut_ptr(), max)
        };
        let taken = usize::try_from(taken).unwrap_or(0);
        if taken > 0 {
            // SAFETY: librdkafka has written `taken` pointers, at most `max`.
            unsafe { batch.messages.set_len(taken) };
            batch.handle = Some(Arc::clone(self.shared.queue.handle()));
        }
        taken
    }

    /// A name for this queue, to assign partitions to it.
    pub fn handle(&self) -> LaneHandle {
        LaneHandle { shared: Arc::clone(&self.shared) }
    }
}

impl LaneHandle {
    pub(crate) fn queue(&self) -> &Queue {
        &self.shared.queue
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the queue is alive. The callback runs under the queue's lock, which this call takes: after
        // it nothing points to `wake`.
        unsafe { sys::rd_kafka_queue_cb_event_enable(self.queue.ptr(), None, std::ptr::null_mut()) };
    }
}

/// # Safety
/// `opaque` must point to a live [`Wake`].
unsafe extern "C" fn wake_up(_: *mut sys::rd_kafka_t, opaque: *mut c_void) {
    // SAFETY: `LaneQueue::new` passed a pointer to a `Wake` that outlives the callback.
    let wake = unsafe { &*opaque.cast::<Wake>() };
    // A panic must not cross librdkafka's frames; the lane's tick takes the place of a lost wake-up.
    if catch_unwind(AssertUnwindSafe(|| wake())).is_err() {
        tracing::error!(target: "kafka", "the wake-up of a lane panicked");
    }
}

/// Messages taken from a [`LaneQueue`], released on [`MessageBatch::clear`] and on drop. Reuse it.
#[derive(Default)]
pub struct MessageBatch {
    messages: Vec<*mut sys::rd_kafka_message_t>,
    /// Keeps the client alive while messages are.
    handle: Option<Arc<Handle>>,
}

// SAFETY: the batch is the only owner of its messages, and librdkafka lets any thread read and destroy them.
unsafe impl Send for MessageBatch {}

impl MessageBatch {
    /// A batch without messages.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many messages it holds.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The messages. Those of one partition are in the order of their offsets; partitions alternate.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Message<'_>> {
        self.messages.iter().map(|&message| {
            // SAFETY: the pointer came from librdkafka and stays valid until `clear`, which needs `&mut self`.
            Message { message: unsafe { &*message } }
        })
    }

    /// Releases the messages and the buffers that they pin.
    pub fn clear(&mut self) {
        for message in self.messages.drain(..) {
            // SAFETY: each message is destroyed once: draining takes it out of the batch.
            unsafe { sys::rd_kafka_message_destroy(message) };
        }
        self.handle = None;
    }
}

impl Drop for MessageBatch {
    fn drop(&mut self) {
        self.clear();
    }
}

/// One message of a batch.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    message: &'a sys::rd_kafka_message_t,
}

/// Why a message holds no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageError {
    /// What sort of error it is.
    pub kind: MessageErrorKind,
    /// One line, without values of a record.
    pub message: String,
}

/// The sorts of [`MessageError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageErrorKind {
    /// The position is not in the log; the partition stands still until it is moved.
    OffsetOutOfRange,
    /// The topic or partition is not there any more.
    UnknownTopic,
    /// Reading the topic is not permitted.
    Authorization,
    /// A fetch that failed or a batch that cannot be read; retried by the client.
    Other,
}

impl<'a> Message<'a> {
    /// The topic's name.
    pub fn topic(&self) -> &'a str {
        if self.message.rkt.is_null() {
            return "";
        }
        // SAFETY: the message holds a reference on its topic; the name is a C string that lives as long.
        let name = unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.message.rkt)) };
        // Kafka permits ASCII names only.
        name.to_str().unwrap_or("")
    }

    /// The partition's number.
    pub fn partition(&self) -> i32 {
        self.message.partition
    }

    /// Whether the other message of the same batch is from the same partition. Cheaper than comparing names.
    pub fn same_partition_as(&self, other: &Message<'_>) -> bool {
        self.message.partition == other.message.partition && std::ptr::eq(self.message.rkt, other.message.rkt)
    }

    /// The record's offset.
    pub fn offset(&self) -> i64 {
        self.message.offset
    }

    /// Milliseconds since 1970, where the record has a timestamp.
    pub fn timestamp(&self) -> Option<i64> {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive.
        let timestamp = unsafe { sys::rd_kafka_message_timestamp(self.message, &raw mut kind) };
        let available = kind != sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        (available && timestamp >= 0).then_some(timestamp)
    }

    /// The key's bytes. An empty key is not the same as none.
    pub fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: pointer and length belong together and live as long as the message.
        unsafe { bytes(self.message.key, self.message.key_len) }
    }

    /// The value's bytes; none for a tombstone. For an error message there is none.
    pub fn payload(&self) -> Option<&'a [u8]> {
        if self.failed() {
            // librdkafka puts the error's text there.
            return None;
        }
        // SAFETY: pointer and length belong together and live as long as the message.
        unsafe { bytes(self.message.payload, self.message.len) }
    }

    /// The headers in order, parsed when asked for. A name that is not UTF-8 comes with replacement characters.
    pub fn headers(&self) -> impl Iterator<Item = (Cow<'a, str>, Option<&'a [u8]>)> + use<'a> {
        let mut headers = std::ptr::null_mut();
        // SAFETY: the message is alive; the headers belong to it. Batches are not `Sync`, so nobody else
        // parses them at the same time.
        let found = unsafe { sys::rd_kafka_message_headers(self.message, &raw mut headers) };
        let headers = if Code::from(found) == Code::NoError { NonNull::new(headers) } else { None };
        let mut index = 0;
        std::iter::from_fn(move || {
            let headers = headers?;
            let (mut name, mut value, mut length): (*const c_char, *const c_void, usize) =
                (std::ptr::null(), std::ptr::null(), 0);
            // SAFETY: the headers live as long as the message, which the batch lends for `'a`.
            unsafe {
                let result = sys::rd_kafka_header_get_all(
                    headers.as_ptr(),
                    index,
                    &raw mut name,
                    &raw mut value,
                    &raw mut length,
                );
                if Code::from(result) != Code::NoError || name.is_null() {
                    return None;
                }
                index += 1;
                Some((CStr::from_ptr(name).to_string_lossy(), bytes(value, length)))
            }
        })
    }

    /// Why there is no record, where the message is an error. librdkafka 2.12 moves its position past an
    /// error message: seek to the next offset that is wanted before going on.
    pub fn error(&self) -> Option<MessageError> {
        if !self.failed() {
            return None;
        }
        let code = Code::from(self.message.err);
        let kind = match code {
            Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::NoOffset => {
                MessageErrorKind::OffsetOutOfRange
            }
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                MessageErrorKind::UnknownTopic
            }
            Code::TopicAuthorizationFailed => MessageErrorKind::Authorization,
            _ => MessageErrorKind::Other,
        };
        // SAFETY: pointer and length belong together; of an error message it is the text.
        let text = unsafe { bytes(self.message.payload, self.message.len) }.unwrap_or_default();
        let text = one_line(&String::from_utf8_lossy(text));
        let message = if text.is_empty() { describe(code) } else { text };
        Some(MessageError { kind, message })
    }

    fn failed(self) -> bool {
        self.message.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
    }
}

/// # Safety
/// `start` must be null or point to `length` bytes that live for `'a`.
unsafe fn bytes<'a>(start: *const c_void, length: usize) -> Option<&'a [u8]> {
    if start.is_null() {
        return None;
    }
    // SAFETY: not null, so valid, as the caller promises.
    Some(unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length) })
}
