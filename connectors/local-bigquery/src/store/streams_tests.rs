//! Streams against a model of them.

use super::*;
use crate::types::Value;
use crate::types::proto::DecodedRow;
use proptest::prelude::*;
use serde_json::json;

fn store() -> Store {
    let mut store = Store::new(true);
    let resource = json!({"schema": {"fields": [{"name": "x", "type": "INTEGER"}]}});
    let serde_json::Value::Object(resource) = resource else { panic!("it is an object") };
    store.create_table(&table(), resource, 0).unwrap();
    store
}

fn table() -> TableName {
    TableName::new("p", "d", "t")
}

/// An append of rows with these numbers.
fn append(store: &mut Store, name: &StreamName, offset: i64, numbers: &[i64]) -> Result<(), StreamError> {
    let view = store.writer_view(name, 0, 0, 0)?;
    let row = |number: &i64| DecodedRow { row: vec![Value::Integer(*number)], change: None, sequence: None };
    let content = NewContent::Rows(Arc::clone(&view.columns), numbers.iter().map(row).collect());
    store.append(name, Some(offset), content, view.identity, 0).map(drop)
}

fn visible(store: &Store) -> Vec<i64> {
    let rows = store.table(&table()).unwrap().rows().iter();
    rows.map(|row| if let Value::Integer(number) = row[0] { number } else { panic!("no number") }).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Append { stream: usize, offset: i64, rows: i64 },
    Flush { stream: usize, offset: i64 },
    Finalize { stream: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_usize..3, 0_i64..12, 1_i64..5).prop_map(|(stream, offset, rows)| Step::Append { stream, offset, rows }),
        2 => (0_usize..3, -1_i64..14).prop_map(|(stream, offset)| Step::Flush { stream, offset }),
        1 => (0_usize..3).prop_map(|stream| Step::Finalize { stream }),
    ]
}

/// What a BUFFERED stream should be: its rows, how many are flushed, whether it has ended.
#[derive(Default)]
struct Model {
    rows: Vec<i64>,
    flushed: usize,
    finalized: bool,
}

proptest! {
    #[test]
    fn a_stream_holds_each_offset_once_and_shows_what_was_flushed(
        steps in proptest::collection::vec(step(), 0..40)
    ) {
        let mut store = store();
        let names: Vec<StreamName> =
            (0..3).map(|_| store.create_stream(&table(), StreamType::Buffered, 0).unwrap()).collect();
        let mut models: Vec<Model> = (0..3).map(|_| Model::default()).collect();
        let mut shown: Vec<i64> = Vec::new();
        let mut next = 0_i64;
        for step in steps {
            match step {
                Step::Append { stream, offset, rows } => {
                    let numbers: Vec<i64> = (next..next + rows).collect();
                    next += rows;
                    let model = &mut models[stream];
                    let end = i64::try_from(model.rows.len()).unwrap();
                    let taken = append(&mut store, &names[stream], offset, &numbers);
                    let wanted = match (model.finalized, offset) {
                        (true, _) => Err(StreamError::Finalized(names[stream].clone())),
                        (_, given) if given < end => Err(StreamError::OffsetExists { expected: end, given }),
                        (_, given) if given > end => Err(StreamError::OffsetBeyond { expected: end, given }),
                        _ => {
                            model.rows.extend(&numbers);
                            Ok(())
                        }
                    };
                    prop_assert_eq!(taken, wanted);
                }
                Step::Flush { stream, offset } => {
                    let model = &mut models[stream];
                    let flushed = store.flush(&names[stream], offset, 0);
                    let wanted = usize::try_from(offset).ok().filter(|offset| {
                        !model.finalized && *offset < model.rows.len() && *offset >= model.flushed
                    });
                    prop_assert_eq!(flushed.is_ok(), wanted.is_some());
                    if let Some(last) = wanted {
                        shown.extend(&model.rows[model.flushed..=last]);
                        model.flushed = last + 1;
                    }
                }
                Step::Finalize { stream } => {
                    let model = &mut models[stream];
                    model.finalized = true;
                    let rows = i64::try_from(model.rows.len()).unwrap();
                    prop_assert_eq!(store.finalize(&names[stream], 0), Ok(rows));
                }
            }
            prop_assert_eq!(&visible(&store), &shown);
        }
    }

    #[test]
    fn counted_rows_are_split_without_losing_rows_or_bytes(
        appends in proptest::collection::vec((1_u64..50, 0_u64..10_000), 1..20),
        flushes in proptest::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let mut store = store();
        let name = store.create_stream(&table(), StreamType::Buffered, 0).unwrap();
        let identity = store.writer_view(&name, 0, 0, 0).unwrap().identity;
        for (rows, bytes) in &appends {
            let content = NewContent::Counted { rows: *rows, bytes: *bytes };
            store.append(&name, None, content, identity, 0).unwrap();
        }
        let total: u64 = appends.iter().map(|(rows, _)| rows).sum();
        let mut offsets: Vec<usize> =
            flushes.iter().map(|flush| flush.index(usize::try_from(total).unwrap())).collect();
        offsets.sort_unstable();
        for offset in offsets {
            let offset = i64::try_from(offset).unwrap();
            let _ = store.flush(&name, offset, 0);
            let shown = store.table(&table()).unwrap().row_count();
            prop_assert_eq!(shown, u64::try_from(offset).unwrap() + 1);
        }
        let last = i64::try_from(total).unwrap() - 1;
        let _ = store.flush(&name, last, 0);
        let bytes: u64 = appends.iter().map(|(_, bytes)| bytes).sum();
        let document = store.table(&table()).unwrap().document(&table());
        prop_assert_eq!(&document["numRows"], &json!(total.to_string()));
        prop_assert_eq!(&document["numBytes"], &json!(bytes.to_string()));
    }
}
