//! The Kafka source, the dead letter producer and topic administration
pub mod library;
pub mod mock;
