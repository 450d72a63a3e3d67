//! The BigQuery sink: batches of rows as insertAll requests
