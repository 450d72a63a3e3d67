//! The Kafka source, the dead letter producer and topic administration
