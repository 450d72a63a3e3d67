//! Parses every value, drops a member, adds one and writes it again; the same as `edit` in the host's measurements.
//! Values that are no JSON objects fail, and those with `"test": true` are filtered out.

wit_bindgen::generate!({ path: "../../../../wit/1.0.0", world: "batch-transform" });

use exports::txconnect::transform::batches::{Batch, Column, Failure, Guest, Output};
use serde_json::{Map, Value};
use txconnect::transform::description::{Description, Needs};

struct Edit;

fn edit(object: &mut Map<String, Value>) {
    object.remove("counterparty_account_id");
    object.insert("edited".to_owned(), Value::Bool(true));
}

impl Guest for Edit {
    fn describe() -> Description {
        Description {
            name: "json-edit".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            needs: Needs::empty(),
            config_schema: String::new(),
        }
    }

    fn init(_: String) -> Result<(), String> {
        Ok(())
    }

    fn transform(batch: Batch) -> Result<Output, String> {
        let Column { data, ends, .. } = batch.values;
        let mut values = Column { data: Vec::with_capacity(data.len()), ends: Vec::new(), nulls: Vec::new() };
        let (mut sources, mut failures) = (Vec::new(), Vec::new());
        let mut start = 0;
        for (record, end) in (0..).zip(ends) {
            let bytes = &data[start..end as usize];
            start = end as usize;
            let Ok(mut object) = serde_json::from_slice::<Map<String, Value>>(bytes) else {
                let (code, message) = ("no_object".to_owned(), "it is no JSON object".to_owned());
                failures.push(Failure { record, code, message });
                continue;
            };
            if object.get("test") == Some(&Value::Bool(true)) {
                continue;
            }
            edit(&mut object);
            serde_json::to_writer(&mut values.data, &object).map_err(|error| error.to_string())?;
            values.ends.push(u32::try_from(values.data.len()).map_err(|error| error.to_string())?);
            sources.push(record);
        }
        Ok(Output { sources, keys: None, values: Some(values), routing: None, headers: None, failures })
    }
}

export!(Edit);
