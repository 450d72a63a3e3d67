//! `txconnect version`.

use super::{CommandError, print_result};

/// Prints what this program is made of.
pub fn print() -> Result<(), CommandError> {
    let features = txconnect_kafka::library::features().unwrap_or_else(|| "unknown".to_owned());
    print_result(&format!(
        "txconnect {}\nrevision    {}\nlibrdkafka  {} ({})\nsources     kafka\nsinks       bigquery, postgres, stdout\n",
        env!("CARGO_PKG_VERSION"),
        env!("TXCONNECT_REVISION"),
        txconnect_kafka::library::version(),
        features.replace(',', ", "),
    ))
}
