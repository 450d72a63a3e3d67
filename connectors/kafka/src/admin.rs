//! Describe and create topics.

#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::connection::Connection;
use crate::consumer::Consumer;
use crate::error::KafkaError;
use crate::log::LogContext;

/// Describes and creates topics. Its calls need a tokio runtime.
pub struct Admin {
    /// Asks for metadata as a consumer: a producer that asks for a topic creates it.
    inquiry: Arc<Mutex<Consumer>>,
    client: Option<AdminClient<LogContext>>,
    brokers: String,
}

/// What a topic is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// The number of partitions.
    pub partitions: usize,
    /// The number of copies of each partition.
    pub replication: usize,
}

/// What [`Admin::ensure_topic`] has found or done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnsuredTopic {
    /// The topic was created.
    Created,
    /// The topic was there; nothing about it was changed.
    AlreadyThere,
}

impl Admin {
    /// Makes the clients. They connect in the background.
    pub fn connect(connection: &Connection) -> Result<Self, KafkaError> {
        let inquiry = Consumer::without_group(connection)?;
        let client = connection
            .client("admin")
            .create_with_context(LogContext)
            .map_err(|error| connection.refused(&error))?;
        Ok(Self {
            inquiry: Arc::new(Mutex::new(inquiry)),
            client: Some(client),
            brokers: connection.brokers().to_owned(),
        })
    }

    /// What the topic is like. It is not created by asking.
    pub async fn describe_topic(
        &self,
        name: &str,
        deadline: Duration,
    ) -> Result<TopicDescription, KafkaError> {
        let (inquiry, topic) = (Arc::clone(&self.inquiry), name.to_owned());
        let asked = tokio::task::spawn_blocking(move || {
            inquiry.lock().unwrap_or_else(PoisonError::into_inner).describe(&topic, deadline)
        });
        asked.await.unwrap_or_else(|error| Err(failed("describing", &error.to_string())))
    }

    /// The largest record batch that the topic takes, in bytes: its `max.message.bytes`.
    pub async fn max_message_bytes(&self, name: &str, deadline: Duration) -> Result<u64, KafkaError> {
        let what = "reading the settings";
        let specifier = [ResourceSpecifier::Topic(name)];
        let options = AdminOptions::new().request_timeout(Some(deadline));
        let asked = self.client()?.describe_configs(&specifier, &options);
        let answer = self.within(deadline, what, asked).await?;
        let resource = match answer.into_iter().next() {
            Some(Ok(resource)) => resource,
            Some(Err(code)) => return Err(KafkaError::from_code(code, what, Some(name), &self.brokers)),
            None => return Err(failed(what, "the answer is empty")),
        };
        resource
            .get("max.message.bytes")
            .and_then(|entry| entry.value.as_deref()?.parse().ok())
            .ok_or_else(|| failed(what, "the answer has no max.message.bytes"))
    }

    /// Makes the topic where it is missing, and waits until it can be used. `replication` none leaves the
    /// number of copies to the broker. A topic that is there is left as it is.
    pub async fn ensure_topic(
        &self,
        name: &str,
        partitions: i32,
        replication: Option<i32>,
        settings: &[(&str, &str)],
        deadline: Duration,
    ) -> Result<EnsuredTopic, KafkaError> {
        let end = Instant::now() + deadline;
        let left = || end.saturating_duration_since(Instant::now());
        match self.describe_topic(name, left()).await {
            Ok(_) => return Ok(EnsuredTopic::AlreadyThere),
            Err(KafkaError::UnknownTopic { .. }) => {}
            Err(error) => return Err(error),
        }
        let what = "creating";
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replication.unwrap_or(-1)));
        for (setting, value) in settings {
            topic = topic.set(setting, value);
        }
        let topics = [topic];
        let options = AdminOptions::new().request_timeout(Some(left())).operation_timeout(Some(left()));
        let asked = self.client()?.create_topics(&topics, &options);
        let done = match self.within(left(), what, asked).await?.into_iter().next() {
            Some(Ok(_)) => EnsuredTopic::Created,
            Some(Err((_, Code::TopicAlreadyExists))) => EnsuredTopic::AlreadyThere,
            Some(Err((_, code))) => return Err(KafkaError::from_code(code, what, Some(name), &self.brokers)),
            None => return Err(failed(what, "the answer is empty")),
        };
        // Other brokers hear of it a little later.
        loop {
            match self.describe_topic(name, left()).await {
                Ok(_) => return Ok(done),
                Err(KafkaError::UnknownTopic { .. }) if !left().is_zero() => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn within<T>(
        &self,
        deadline: Duration,
        what: &str,
        asked: impl Future<Output = rdkafka::error::KafkaResult<T>>,
    ) -> Result<T, KafkaError> {
        // The client ends a request by the same deadline; this one is for a client that hangs.
        match tokio::time::timeout(deadline + Duration::from_secs(1), asked).await {
            Ok(answer) => answer.map_err(|error| KafkaError::from_client(&error, what, None, &self.brokers)),
            Err(_) => Err(KafkaError::Timeout { what: what.to_owned() }),
        }
    }

    fn client(&self) -> Result<&AdminClient<LogContext>, KafkaError> {
        self.client.as_ref().ok_or_else(|| failed("administration", "the client is closed"))
    }
}

fn failed(what: &str, cause: &str) -> KafkaError {
    KafkaError::Other { what: what.to_owned(), cause: cause.to_owned() }
}

impl Drop for Admin {
    fn drop(&mut self) {
        let client = self.client.take();
        // Destroying waits for librdkafka's threads and must not hold up an asynchronous runtime. Where no
        // thread can be had, the closure is dropped here, and the client with it.
        let aside = std::thread::Builder::new().name("kafka-close".to_owned()).spawn(move || drop(client));
        if let Err(error) = aside {
            tracing::warn!(target: "kafka", "no thread to close a Kafka client on: {error}");
        }
    }
}
