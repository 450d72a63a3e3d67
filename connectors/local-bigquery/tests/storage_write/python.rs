//! Google's own Python clients against the server: clients that somebody else wrote.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;
use txconnect_local_bigquery::{LocalBigQuery, Options};

use crate::support::PATIENCE;

/// Names the Python interpreter that has the packages of `tests/python/requirements.txt`.
const INTERPRETER: &str = "TXCONNECT_PYTHON";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn googles_python_clients_create_insert_append_flush_commit_and_query() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
    let interpreter = std::env::var(INTERPRETER).unwrap_or_else(|_| {
        panic!(
            "{INTERPRETER} is not set: make a virtual environment, install {} into it and set {INTERPRETER} to its python",
            scripts.join("requirements.txt").display()
        )
    });
    let bigquery = LocalBigQuery::start(Options::default()).await.expect("a free port");
    let script = Command::new(&interpreter)
        .arg(scripts.join("google_clients.py"))
        .arg(bigquery.address().to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(10 * PATIENCE, script)
        .await
        .expect("the script ends in time")
        .unwrap_or_else(|refused| panic!("{INTERPRETER}={interpreter} does not start: {refused}"));
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
