//! Gives every record back in full, one by one: what the border costs where it is crossed for each record.
//! A value `trap` traps, `exit` exits, `fail` fails, `none` is filtered out and `many` becomes two thousand rows.

wit_bindgen::generate!({ path: "../../../../wit/1.0.0", world: "record-transform" });

use exports::txconnect::transform::records::{Change, Failure, Guest, Input, Row};
use txconnect::transform::description::{Description, Needs};

struct Echo;

impl Guest for Echo {
    fn describe() -> Description {
        Description {
            name: "echo-records".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            needs: Needs::KEYS | Needs::HEADERS | Needs::POSITIONS,
            config_schema: String::new(),
        }
    }

    fn init(_: String) -> Result<(), String> {
        Ok(())
    }

    fn transform(input: Input) -> Result<Vec<Row>, Failure> {
        let keep = || Row { key: Change::Keep, value: Change::Keep, topic: None, headers: None };
        match input.value.as_deref() {
            Some(b"trap") => panic!("a record that nobody likes"),
            Some(b"exit") => std::process::exit(7),
            Some(b"fail") => {
                Err(Failure { code: "not_liked".to_owned(), message: "nobody likes it".to_owned() })
            }
            Some(b"none") => Ok(Vec::new()),
            Some(b"keep") => Ok(vec![keep()]),
            Some(b"many") => Ok((0..2000).map(|_| keep()).collect()),
            _ => Ok(vec![Row {
                key: Change::Replace(input.key),
                value: Change::Replace(input.value),
                topic: Some(input.topic),
                headers: Some(input.headers),
            }]),
        }
    }
}

export!(Echo);
