//! The shared cases against Google's BigQuery, where `TXCONNECT_BIGQUERY_PROJECT` names a project. The
//! dataset is `TXCONNECT_BIGQUERY_DATASET` or `txconnect_tests`; tables are left behind.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use support::Place;

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[expect(clippy::print_stdout, reason = "a case that does not run says so")]
fn place() -> Option<Place<'static>> {
    let Some(project) = environment("TXCONNECT_BIGQUERY_PROJECT") else {
        println!("skipped: TXCONNECT_BIGQUERY_PROJECT names no project");
        return None;
    };
    let dataset = environment("TXCONNECT_BIGQUERY_DATASET").unwrap_or_else(|| "txconnect_tests".to_owned());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Some(Place {
        settings: json!({ "project": project, "dataset": dataset }),
        environment: &environment,
        unique: format!("t{}", now.as_nanos()),
        pause: Duration::from_secs(5),
        patience: Duration::from_mins(10),
    })
}

#[tokio::test]
async fn rows_of_every_type_arrive_in_a_table_that_is_created() {
    if let Some(place) = place() {
        support::rows_of_every_type_arrive_in_a_table_that_is_created(&place).await;
    }
}

#[tokio::test]
async fn a_missing_table_is_fatal_where_none_may_be_created() {
    if let Some(place) = place() {
        support::a_missing_table_is_fatal_where_none_may_be_created(&place).await;
    }
}

#[tokio::test]
async fn a_table_that_does_not_fit_is_fatal() {
    if let Some(place) = place() {
        support::a_table_that_does_not_fit_is_fatal(&place).await;
    }
}
