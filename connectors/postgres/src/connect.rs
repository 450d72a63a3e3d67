//! Connections: hosts, TLS, time-outs.
