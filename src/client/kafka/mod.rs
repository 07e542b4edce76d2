//! The client on librdkafka.
