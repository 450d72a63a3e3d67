//! `dashboards/transactions.json`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub(crate) fn in_repository(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub(crate) fn manifest() -> Value {
    serde_json::from_str(&fs::read_to_string(in_repository("dashboards/transactions.json")).unwrap()).unwrap()
}

pub(crate) fn cards() -> Vec<Value> {
    manifest()["cards"].as_array().unwrap().clone()
}

pub(crate) fn sql(file: &str) -> String {
    fs::read_to_string(in_repository("dashboards").join(file)).unwrap()
}

#[test]
fn every_query_is_on_the_dashboard_once() {
    let listed: Vec<String> = cards().iter().map(|card| card["sql"].as_str().unwrap().to_owned()).collect();
    let there: BTreeSet<String> = fs::read_dir(in_repository("dashboards"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "sql"))
        .collect();
    assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), there);
    assert_eq!(listed.len(), there.len(), "a query is listed twice");
    let names: BTreeSet<String> = cards().iter().map(|card| card["name"].to_string()).collect();
    assert_eq!(names.len(), listed.len(), "two questions share a name");
}
