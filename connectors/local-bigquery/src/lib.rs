//! A faithful local BigQuery for the embedded mode and for tests
