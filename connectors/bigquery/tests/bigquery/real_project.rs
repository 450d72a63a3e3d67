//! The shared cases against Google's BigQuery, where `TXCONNECT_BIGQUERY_PROJECT` names a project. The
//! dataset is `TXCONNECT_BIGQUERY_DATASET` or `txconnect_tests`; tables are left behind.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::{self, Place};
use serde_json::json;

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[expect(clippy::print_stdout, reason = "a case that does not run says so")]
fn place(mode: serde_json::Value) -> Option<Place<'static>> {
    let Some(project) = environment("TXCONNECT_BIGQUERY_PROJECT") else {
        println!("skipped: TXCONNECT_BIGQUERY_PROJECT names no project");
        return None;
    };
    let dataset = environment("TXCONNECT_BIGQUERY_DATASET").unwrap_or_else(|| "txconnect_tests".to_owned());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut settings = mode;
    settings["project"] = project.into();
    settings["dataset"] = dataset.into();
    Some(Place {
        settings,
        environment: &environment,
        unique: format!("t{}", now.as_nanos()),
        pause: Duration::from_secs(5),
        patience: Duration::from_mins(10),
    })
}

#[tokio::test]
async fn insert_all() {
    if let Some(place) = place(json!({ "api": "insert_all" })) {
        support::rows_of_every_type_arrive_in_a_table_that_is_created(&place).await;
        support::a_missing_table_is_fatal_where_none_may_be_created(&place).await;
        support::a_table_that_does_not_fit_is_fatal(&place).await;
        support::rows_of_several_tables_arrive_in_their_own(&place).await;
    }
}

#[tokio::test]
async fn default_streams() {
    if let Some(place) = place(json!({ "delivery": "at_least_once" })) {
        support::rows_of_every_type_arrive_in_a_table_that_is_created(&place).await;
        support::a_missing_table_is_fatal_where_none_may_be_created(&place).await;
        support::a_table_that_does_not_fit_is_fatal(&place).await;
        support::a_missing_table_is_fatal_before_anything_is_read(&place).await;
        support::a_table_that_does_not_fit_is_fatal_before_anything_is_read(&place).await;
        support::rows_of_several_tables_arrive_in_their_own(&place).await;
    }
}

#[tokio::test]
async fn upserts() {
    if let Some(place) = place(json!({})) {
        support::of_rows_with_one_key_the_newest_stays(&place).await;
    }
}

#[tokio::test]
async fn buffered_streams() {
    if let Some(place) = place(json!({})) {
        support::rows_of_a_stream_are_seen_once_they_are_published(&place).await;
        support::a_stream_that_is_ended_takes_and_shows_nothing_more(&place).await;
    }
}
