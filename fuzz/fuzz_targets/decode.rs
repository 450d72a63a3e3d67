//! Any bytes as the value of a record. What is accepted, and what it means, must be what `serde_json` says.

#![no_main]

use bumpalo::Bump;
use libfuzzer_sys::fuzz_target;
use serde_json::Value as Json;
use txconnect::stages::decode::{Format, decode, parse};
use txconnect_connector_api::Value;

fuzz_target!(|data: &[u8]| {
    let arena = Bump::new();
    let theirs = serde_json::from_slice::<Json>(data);
    let document = match decode(Format::Json, Some(data), &arena) {
        Ok(Value::Json { document, .. }) => document,
        Ok(other) => panic!("JSON became {other:?}"),
        Err(bad) => {
            match bad.class.as_ref() {
                // serde_json keeps the last of two members.
                "decode.duplicate_key" => {}
                // It rounds a little differently at the very end of the range.
                "decode.number" => assert!(theirs.is_err() || near_the_largest(data), "{bad}"),
                "decode.json" | "decode.utf8" | "decode.depth" => assert!(theirs.is_err(), "{bad}"),
                other => panic!("no class of this stage: {other}"),
            }
            return;
        }
    };
    let theirs = match theirs {
        Ok(theirs) => theirs,
        Err(error) => {
            assert!(error.to_string().contains("number out of range"), "only serde_json refuses it: {error}");
            return;
        }
    };
    assert!(same(&document.to_value(), &theirs), "{:?} is not {theirs:?}", document.to_value());
    let mut written = Vec::new();
    document.write_json(&mut written);
    let text = std::str::from_utf8(&written).expect("what is written is text");
    assert_eq!(parse(text, &arena).as_ref(), Ok(document), "what is written is read again");
    assert_eq!(serde_json::from_slice::<Json>(&written).expect("what is written is JSON"), theirs);
});

/// Whether a literal of the text may be rounded to the largest double or beyond it.
fn near_the_largest(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    text.split(|c: char| !matches!(c, '0'..='9' | '.' | '-' | '+' | 'e' | 'E'))
        .filter_map(|literal| literal.parse::<f64>().ok())
        .any(|value| value.abs() > 1.797e308)
}

/// Whether two values are the same but for the last digits of a double.
fn same(mine: &Json, theirs: &Json) -> bool {
    match (mine, theirs) {
        (Json::Number(mine), Json::Number(theirs)) => {
            let (Some(a), Some(b)) = (mine.as_f64(), theirs.as_f64()) else { return false };
            mine == theirs || (a - b).abs() <= a.abs() * 1e-14 || a.abs() < 1e-300
        }
        (Json::Array(mine), Json::Array(theirs)) => {
            mine.len() == theirs.len() && mine.iter().zip(theirs).all(|(mine, theirs)| same(mine, theirs))
        }
        (Json::Object(mine), Json::Object(theirs)) => {
            mine.len() == theirs.len()
                && mine.iter().zip(theirs).all(|(mine, theirs)| mine.0 == theirs.0 && same(mine.1, theirs.1))
        }
        _ => mine == theirs,
    }
}
