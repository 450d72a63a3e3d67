//! Gives every record back as it came, copied: what `./dev bench wasm` measures the border between host and guest with.

use txconnect_transform::{Record, transform};

#[transform]
fn echo(mut record: Record) -> Record {
    let value = record.value().map(<[u8]>::to_vec);
    record.set_value(value);
    record
}
