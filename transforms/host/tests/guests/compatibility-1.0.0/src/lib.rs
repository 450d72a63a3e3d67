//! A guest that was written for version 1.0.0 and uses all of it. It stays as it is, with its own copy of the interface:
//! every later host must run it.

wit_bindgen::generate!({ path: "wit", world: "batch-transform" });

use exports::txconnect::transform::batches::{Batch, Column, Failure, Guest, Headers, Output, Routing};
use txconnect::transform::description::{Description, Needs};
use txconnect::transform::host::{Level, counter, log};

struct Everything;

/// A column of these parts.
fn column<'a>(parts: impl IntoIterator<Item = Option<&'a [u8]>>) -> Column {
    let mut column = Column { data: Vec::new(), ends: Vec::new(), nulls: Vec::new() };
    for part in parts {
        column.data.extend_from_slice(part.unwrap_or_default());
        column.ends.push(column.data.len() as u32);
        column.nulls.push(u8::from(part.is_none()));
    }
    column
}

impl Guest for Everything {
    fn describe() -> Description {
        Description {
            name: "compatibility".to_owned(),
            version: "1.0.0".to_owned(),
            needs: Needs::KEYS | Needs::HEADERS | Needs::POSITIONS,
            config_schema:
                r#"{"type": "object", "required": ["suffix"], "properties": {"suffix": {"type": "string"}}}"#
                    .to_owned(),
        }
    }

    fn init(config: String) -> Result<(), String> {
        if config.contains("refuse") { Err(format!("not with {config}")) } else { Ok(()) }
    }

    /// The first record becomes two rows in other topics, the second fails, further ones are filtered out.
    fn transform(batch: Batch) -> Result<Output, String> {
        if batch.values.ends.is_empty() {
            return Err("there is nothing to do".to_owned());
        }
        log(Level::Info, &format!("{} records of {}", batch.values.ends.len(), batch.topics.join(", ")));
        counter("records", batch.values.ends.len() as u64);
        let seen = format!(
            "{:?} {:?} {:?} {:?} {:?} {:?}",
            batch.topic_of,
            batch.partitions,
            batch.offsets,
            batch.timestamps,
            batch.keys.nulls,
            batch.headers.counts,
        );
        let second = (batch.values.ends.len() > 1).then(|| Failure {
            record: 1,
            code: "second".to_owned(),
            message: "the second record fails".to_owned(),
        });
        Ok(Output {
            sources: vec![0, 0],
            keys: Some(column([Some(&b"key"[..]), None])),
            values: Some(column([Some(seen.as_bytes()), None])),
            routing: Some(Routing {
                topics: vec!["left".to_owned(), "right".to_owned()],
                topic_of: vec![1, 0],
            }),
            headers: Some(Headers {
                counts: vec![1, 0],
                names: column([Some(&b"by"[..])]),
                values: column([None]),
            }),
            failures: second.into_iter().collect(),
        })
    }
}

export!(Everything);
