//! Requests of administration: each has a reply queue of its own, so that a late answer to one that was given
//! up is thrown away with its queue.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka_sys as sys;

use super::{Entry, Failure, Handle, check, copy_failure, copy_list, copy_text, milliseconds};

/// The longest time-out that librdkafka takes for a request (`rdkafka_admin.c`, `rd_kafka_AdminOptions_init`).
const LONGEST: Duration = Duration::from_hours(1);

/// What a broker says about one topic.
#[derive(Clone, Debug)]
pub(crate) struct DescribedTopic {
    pub(crate) name: String,
    /// As Kafka's own tools print it; `None` where the broker has no ids.
    pub(crate) id: Option<String>,
    pub(crate) code: Code,
}

/// What the coordinator says about one group.
#[derive(Clone, Debug)]
pub(crate) struct DescribedGroup {
    pub(crate) state: sys::rd_kafka_consumer_group_state_t,
    pub(crate) members: Vec<DescribedMember>,
    pub(crate) failure: Option<Failure>,
}

/// A member of a group.
#[derive(Clone, Debug)]
pub(crate) struct DescribedMember {
    pub(crate) client_id: String,
    pub(crate) host: String,
}

/// An answer, destroyed when it is dropped.
struct Answer(*mut sys::rd_kafka_event_t);

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: the event is alive and this is its only owner.
        unsafe { sys::rd_kafka_event_destroy(self.0) };
    }
}

/// The settings of one request, destroyed when they are dropped.
struct Options(*mut sys::rd_kafka_AdminOptions_t);

impl Options {
    /// `broker` is the number of the one to ask; none leaves it to the client.
    fn new(
        handle: &Handle,
        request: sys::rd_kafka_admin_op_t,
        broker: Option<i32>,
        timeout: Duration,
    ) -> Result<Self, Failure> {
        // SAFETY: the client is alive; `Options` destroys what is made.
        let options = Self(unsafe { sys::rd_kafka_AdminOptions_new(handle.ptr(), request) });
        if options.0.is_null() {
            return Err(Failure::plain(Code::InvalidArgument));
        }
        let milliseconds = milliseconds(timeout.clamp(Duration::from_millis(1), LONGEST));
        // SAFETY: the options are alive; without a buffer no text is written.
        let set = unsafe {
            sys::rd_kafka_AdminOptions_set_request_timeout(options.0, milliseconds, std::ptr::null_mut(), 0)
        };
        check(set)?;
        if let Some(broker) = broker {
            // SAFETY: as above.
            check(unsafe {
                sys::rd_kafka_AdminOptions_set_broker(options.0, broker, std::ptr::null_mut(), 0)
            })?;
        }
        Ok(options)
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the options are alive and this is their only owner.
            unsafe { sys::rd_kafka_AdminOptions_destroy(self.0) };
        }
    }
}

impl Handle {
    /// What a broker knows of these topics; a topic that is not there is not created. `broker` is its number; without
    /// one the client asks the controller.
    pub(crate) fn describe_topics(
        self: &Arc<Self>,
        topics: &BTreeSet<&str>,
        broker: Option<i32>,
        timeout: Duration,
    ) -> Result<Vec<DescribedTopic>, Failure> {
        let names = topics.iter().copied().map(c_string).collect::<Result<Vec<_>, _>>()?;
        let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        let request = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let answer = self.ask(request, broker, timeout, |options, queue| {
            // SAFETY: `pointers` holds C strings that live until the end of the function; the collection copies
            // them, the request copies the collection. Client, options and queue are alive.
            unsafe {
                let topics =
                    sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
                sys::rd_kafka_DescribeTopics(self.ptr(), topics, options, queue);
                sys::rd_kafka_TopicCollection_destroy(topics);
            }
        })?;
        // SAFETY: the event is alive as long as `answer`; a result that is not of this kind is null, which is
        // checked. The array and all it points to belong to the event and are copied.
        unsafe {
            let result = sys::rd_kafka_event_DescribeTopics_result(answer.0);
            if result.is_null() {
                return Err(Failure::plain(Code::BadMessage));
            }
            let mut count = 0;
            let array = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            Ok(elements(array, count).map(|topic| copy_topic(topic)).collect())
        }
    }

    /// The state and the members of a group.
    pub(crate) fn describe_group(
        self: &Arc<Self>,
        group: &str,
        timeout: Duration,
    ) -> Result<DescribedGroup, Failure> {
        let name = c_string(group)?;
        let mut names = [name.as_ptr()];
        let request = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
        let answer = self.ask(request, None, timeout, |options, queue| {
            // SAFETY: the array holds a C string that lives until the end of the function and is copied. Client,
            // options and queue are alive.
            unsafe {
                sys::rd_kafka_DescribeConsumerGroups(
                    self.ptr(),
                    names.as_mut_ptr(),
                    names.len(),
                    options,
                    queue,
                );
            }
        })?;
        // SAFETY: as in `describe_topics`.
        unsafe {
            let result = sys::rd_kafka_event_DescribeConsumerGroups_result(answer.0);
            if result.is_null() {
                return Err(Failure::plain(Code::BadMessage));
            }
            let mut count = 0;
            let array = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
            let described = elements(array, count).map(|group| copy_group(group)).next();
            described.ok_or_else(|| Failure::plain(Code::BadMessage))
        }
    }

    /// Stores positions for a group that this client is no member of; the outcome of each is in the answer.
    pub(crate) fn alter_group_offsets(
        self: &Arc<Self>,
        group: &str,
        positions: &TopicPartitionList,
        timeout: Duration,
    ) -> Result<Vec<Entry>, Failure> {
        let name = c_string(group)?;
        let request = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS;
        let answer = self.ask(request, None, timeout, |options, queue| {
            // SAFETY: name and list live until the end of the function and are copied, as is what is made of
            // them. Client, options and queue are alive.
            unsafe {
                let change = sys::rd_kafka_AlterConsumerGroupOffsets_new(name.as_ptr(), positions.ptr());
                let mut changes = [change];
                sys::rd_kafka_AlterConsumerGroupOffsets(
                    self.ptr(),
                    changes.as_mut_ptr(),
                    changes.len(),
                    options,
                    queue,
                );
                sys::rd_kafka_AlterConsumerGroupOffsets_destroy(change);
            }
        })?;
        // SAFETY: as in `describe_topics`.
        unsafe {
            let result = sys::rd_kafka_event_AlterConsumerGroupOffsets_result(answer.0);
            if result.is_null() {
                return Err(Failure::plain(Code::BadMessage));
            }
            let mut count = 0;
            let array = sys::rd_kafka_AlterConsumerGroupOffsets_result_groups(result, &raw mut count);
            let Some(altered) = elements(array, count).next() else {
                return Err(Failure::plain(Code::BadMessage));
            };
            if let Some(failure) = copy_error(sys::rd_kafka_group_result_error(altered)) {
                return Err(failure);
            }
            Ok(copy_list(sys::rd_kafka_group_result_partitions(altered)))
        }
    }

    /// Sends a request and waits for its answer, which may be of any kind but is no failure.
    fn ask(
        self: &Arc<Self>,
        request: sys::rd_kafka_admin_op_t,
        broker: Option<i32>,
        timeout: Duration,
        send: impl FnOnce(*const sys::rd_kafka_AdminOptions_t, *mut sys::rd_kafka_queue_t),
    ) -> Result<Answer, Failure> {
        let options = Options::new(self, request, broker, timeout)?;
        let queue = self.new_queue().ok_or_else(|| Failure::plain(Code::CriticalSystemResource))?;
        send(options.0, queue.ptr());
        // The queue is new and nothing else is sent to it: the first event is the answer.
        // SAFETY: the queue is alive; `Answer` destroys the event.
        let event = unsafe { sys::rd_kafka_queue_poll(queue.ptr(), milliseconds(timeout)) };
        if event.is_null() {
            return Err(Failure::plain(Code::OperationTimedOut));
        }
        let answer = Answer(event);
        // SAFETY: the event is alive; its text belongs to it and is copied.
        let (code, text) = unsafe {
            (
                Code::from(sys::rd_kafka_event_error(answer.0)),
                copy_text(sys::rd_kafka_event_error_string(answer.0)),
            )
        };
        if code == Code::NoError { Ok(answer) } else { Err(Failure { code, fatal: false, text }) }
    }
}

/// # Safety
/// `array` must be null or hold `count` pointers, and live as long as what is returned.
unsafe fn elements<T: 'static>(array: *mut *const T, count: usize) -> impl Iterator<Item = *const T> {
    // SAFETY: as the caller promises.
    let elements = if array.is_null() { &[] } else { unsafe { std::slice::from_raw_parts(array, count) } };
    elements.iter().copied().filter(|element| !element.is_null())
}

/// # Safety
/// `topic` must be alive.
unsafe fn copy_topic(topic: *const sys::rd_kafka_TopicDescription_t) -> DescribedTopic {
    // SAFETY: the caller promises a live description; name, id and error belong to it and are copied.
    unsafe {
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        let bits = if id.is_null() {
            0
        } else {
            let half = |bits: i64| u128::from(bits.cast_unsigned());
            half(sys::rd_kafka_Uuid_most_significant_bits(id)) << 64
                | half(sys::rd_kafka_Uuid_least_significant_bits(id))
        };
        DescribedTopic {
            name: copy_text(sys::rd_kafka_TopicDescription_name(topic)),
            id: (bits != 0).then(|| uuid_text(bits)),
            code: copy_error(sys::rd_kafka_TopicDescription_error(topic))
                .map_or(Code::NoError, |failure| failure.code),
        }
    }
}

/// # Safety
/// `group` must be alive.
unsafe fn copy_group(group: *const sys::rd_kafka_ConsumerGroupDescription_t) -> DescribedGroup {
    // SAFETY: the caller promises a live description; its members belong to it and are copied.
    unsafe {
        let count = sys::rd_kafka_ConsumerGroupDescription_member_count(group);
        let members = (0..count)
            .map(|index| sys::rd_kafka_ConsumerGroupDescription_member(group, index))
            .filter(|member| !member.is_null())
            .map(|member| DescribedMember {
                client_id: copy_text(sys::rd_kafka_MemberDescription_client_id(member)),
                host: copy_text(sys::rd_kafka_MemberDescription_host(member)),
            })
            .collect();
        DescribedGroup {
            state: sys::rd_kafka_ConsumerGroupDescription_state(group),
            members,
            failure: copy_error(sys::rd_kafka_ConsumerGroupDescription_error(group)),
        }
    }
}

/// The failure that an error within an answer tells, if it tells one.
///
/// # Safety
/// `error` must be null or alive; it stays its owner's.
unsafe fn copy_error(error: *const sys::rd_kafka_error_t) -> Option<Failure> {
    if error.is_null() {
        return None;
    }
    // SAFETY: not null, so alive, as the caller promises.
    let failure = unsafe { copy_failure(error) };
    (failure.code != Code::NoError).then_some(failure)
}

fn c_string(text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure::plain(Code::InvalidArgument))
}

/// A UUID as Kafka prints it: URL-safe base64 without padding. librdkafka's own text is the usual base64.
fn uuid_text(bits: u128) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // 21 digits of six bits, and one for the last two.
    let digits = (0..21).map(|index| bits >> (122 - 6 * index)).chain([bits << 4]);
    digits.map(|bits| char::from(DIGITS[(bits & 63) as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_ids_look_as_kafka_prints_them() {
        // Kafka's `Uuid.ONE_UUID` and `Uuid.METADATA_TOPIC_ID` are the number 1.
        assert_eq!(uuid_text(1), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(uuid_text(u128::MAX), "_____________________w");
        assert_eq!(uuid_text(0xf8 << 120), "-AAAAAAAAAAAAAAAAAAAAA");
    }
}
