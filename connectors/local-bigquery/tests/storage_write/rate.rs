//! How much the server takes in, so that it is known what a benchmark against it can show.

use std::time::{Duration, Instant};

use crate::support::{Person, Server, StreamType, first, later, offset_of, person_descriptor};
use txconnect_local_bigquery::{Fault, Method, Options, What};

/// Rows of about 110 bytes.
fn rows(count: usize) -> Vec<Vec<u8>> {
    let row = Person { id: Some(1), name: Some("x".repeat(105)) };
    vec![prost::Message::encode_to_vec(&row); count]
}

/// Appends `batches` of `rows_per_batch` on one connection, all in flight that there is room for.
async fn append(server: &Server, batches: i64, rows_per_batch: usize) -> Duration {
    let stream = server.create(StreamType::Buffered).await;
    let mut connection = server.connect(&stream).await;
    let rows = rows(rows_per_batch);
    let step = i64::try_from(rows_per_batch).expect("a small number");
    connection.send(first(&stream, person_descriptor(), Some(0), rows.clone())).await;
    offset_of(&connection.next().await.expect("an answer"));
    let begin = Instant::now();
    let requests = connection.requests.clone();
    let sender = async move {
        for batch in 1..batches {
            requests.send(later(Some(batch * step), rows.clone())).await.expect("the connection is open");
        }
    };
    let receiver = async {
        for batch in 1..batches {
            assert_eq!(offset_of(&connection.next().await.expect("an answer")), Some(batch * step));
        }
    };
    tokio::join!(sender, receiver);
    begin.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: cargo test --release -p txconnect-local-bigquery --test storage_write rate -- --ignored --nocapture"]
async fn rows_per_second() {
    for count_only in [false, true] {
        let server = Server::with_people(Options { count_only, ..Options::default() }).await;
        for (batches, rows) in [(2_000, 500), (200, 5_000)] {
            let taken = append(&server, batches, rows).await;
            let all = batches as f64 * rows as f64;
            println!(
                "count_only {count_only}, {rows} rows a request: {:.0} rows/s",
                all / taken.as_secs_f64()
            );
        }
    }
    let slow = Fault::new(Method::AppendRows, What::Slow { ms: 50 });
    let options = Options { count_only: true, faults: vec![slow], ..Options::default() };
    let server = Server::with_people(options).await;
    let taken = append(&server, 2_000, 500).await;
    println!("count_only, 50 ms a call, 500 rows a request: {:.0} rows/s", 1e6 / taken.as_secs_f64());
}
