//! Any requests to the local BigQuery. The input is cut at NUL bytes into calls: the first byte of each says what is
//! called, the rest is the body or the path. Packed bodies hold NUL bytes themselves, so `g` takes all that is left.

#![no_main]

use std::cell::RefCell;
use std::io::Write;

use axum::body::Body;
use axum::http::Request;
use flate2::Compression;
use flate2::write::GzEncoder;
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::{Value as Json, json};
use txconnect_fuzz::server::{DATASET, Server, as_uri};

/// Calls in one input.
const MAX_CALLS: usize = 8;

thread_local! {
    static SERVER: RefCell<Server> = RefCell::new(Server::new());
}

/// The table that most calls are about.
fn create_table(server: &mut Server) {
    let fields: Json =
        serde_json::from_str(include_str!("../schemas/table.json")).expect("the fields of a table are JSON");
    let (status, answer) = server.create_table("t", &fields);
    assert_eq!(status, 200, "{answer}");
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("room in memory");
    encoder.finish().expect("room in memory")
}

/// Makes one call; answers whether it has put faults into the script.
fn call(server: &mut Server, kind: u8, body: &[u8], faulty: bool) -> bool {
    let insert_all = format!("{DATASET}/tables/t/insertAll");
    let request = match kind {
        b'i' => Request::post(&insert_all).body(body.to_vec()),
        b'g' => Request::post(&insert_all).header("Content-Encoding", "gzip").body(body.to_vec()),
        b'z' => Request::post(&insert_all).header("Content-Encoding", "gzip").body(packed(body)),
        b'r' => {
            // One row, so that the fuzzer need not find the envelope.
            Request::post(&insert_all).body([&b"{\"rows\":[{\"json\":"[..], body, b"}]}"].concat())
        }
        b's' => {
            let sql = String::from_utf8_lossy(body);
            let question = json!({
                "query": sql, "useLegacySql": false,
                "defaultDataset": { "projectId": "p", "datasetId": "d" },
            });
            Request::post("/projects/p/queries").body(question.to_string().into_bytes())
        }
        b'q' => Request::post("/projects/p/queries").body(body.to_vec()),
        b'j' => Request::post("/projects/p/jobs").body(body.to_vec()),
        b'p' => Request::patch(format!("{DATASET}/tables/t")).body(body.to_vec()),
        b'U' => Request::put(format!("{DATASET}/tables/t")).body(body.to_vec()),
        b't' => Request::post(format!("{DATASET}/tables")).body(body.to_vec()),
        b'd' => Request::post("/projects/p/datasets").body(body.to_vec()),
        b'f' => Request::post("/__faults").body(body.to_vec()),
        b'u' => {
            let Some(uri) = as_uri(body) else { return false };
            Request::get(uri).body(Vec::new())
        }
        b'x' => {
            let Some(uri) = as_uri(body) else { return false };
            Request::delete(uri).body(Vec::new())
        }
        _ => return false,
    };
    let (status, answer) = server.call(request.expect("a right request").map(Body::from));
    // A fault may ask for any answer; without one the server never fails by itself.
    if !faulty {
        assert!(matches!(status, 200 | 204 | 400..=499), "status {status} to {}", char::from(kind));
        if status >= 400 {
            let answer: Json = serde_json::from_slice(&answer).expect("a refusal is JSON");
            assert_eq!(answer["error"]["code"], status);
        }
    }
    kind == b'f' && status == 204
}

/// Every row that is kept can be shown in every way.
fn look_at_rows(server: &mut Server) {
    let (status, counts) = server.get("/__tables");
    assert_eq!(status, 200);
    let Some(rows) = counts.as_array().and_then(|all| all.iter().find(|one| one["table"] == "t")) else {
        return;
    };
    let rows = rows["rows"].as_u64().expect("a count");
    let request = Request::get("/__rows/p/d/t").body(Body::empty()).expect("a right request");
    let (status, lines) = server.call(request);
    assert_eq!(status, 200);
    let lines = serde_json::Deserializer::from_slice(&lines).into_iter::<Json>();
    assert_eq!(lines.map(|line| line.expect("a row is JSON")).count() as u64, rows);
    let (status, listed) = server.get(&format!("{DATASET}/tables/t/data"));
    assert_eq!((status, &listed["totalRows"]), (200, &json!(rows.to_string())));
    let question = json!({ "query": "SELECT * FROM d.t", "useLegacySql": false }).to_string();
    let (status, answer) = server.post("/projects/p/queries", question.as_bytes());
    assert_eq!((status, &answer["totalRows"]), (200, &json!(rows.to_string())));
}

fuzz_target!(|data: &[u8]| -> Corpus {
    SERVER.with_borrow_mut(|server| {
        server.forget();
        create_table(server);
        let mut faulty = false;
        let mut rest = data;
        for _ in 0..MAX_CALLS {
            let Some((kind, behind)) = rest.split_first() else { break };
            let end = behind.iter().position(|byte| *byte == 0).filter(|_| *kind != b'g');
            let (body, next) = match end {
                Some(end) => (&behind[..end], &behind[end + 1..]),
                None => (behind, &[][..]),
            };
            faulty |= call(server, *kind, body, faulty);
            rest = next;
        }
        if !faulty {
            look_at_rows(server);
        }
    });
    Corpus::Keep
});
