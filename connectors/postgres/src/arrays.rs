//! Rows turned into one array per column, in PostgreSQL's binary form.

use std::error::Error;
use std::fmt;

use bytes::BytesMut;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

use crate::plan::PlannedColumn;
use crate::row::{DamagedRow, Fields};
use crate::statements::array_type;

/// The length that stands for NULL.
const NULL_LENGTH: [u8; 4] = (-1_i32).to_be_bytes();

/// Dimensions, flags, element type, length, lower bound: 32 bits each, as `array_recv` reads them.
const HEADER_BYTES: usize = 20;

/// Where the flag stands that says whether there are NULLs.
const NULLS: std::ops::Range<usize> = 4..8;

/// One column of many rows, as a parameter.
pub(crate) struct ColumnArray {
    bytes: Vec<u8>,
}

impl ColumnArray {
    fn new(element: &Type, rows: usize, bytes: usize) -> Self {
        let mut array = Vec::with_capacity(HEADER_BYTES + bytes);
        array.extend(1_i32.to_be_bytes());
        array.extend(0_i32.to_be_bytes());
        array.extend(element.oid().to_be_bytes());
        // A batch holds no more rows than its bytes, and a request far less than 2 GiB.
        array.extend(i32::try_from(rows).unwrap_or(i32::MAX).to_be_bytes());
        array.extend(1_i32.to_be_bytes());
        Self { bytes: array }
    }

    /// `field` with its length in front, as a row has it too.
    fn push(&mut self, field: &[u8]) {
        if field.starts_with(&NULL_LENGTH) {
            self.bytes[NULLS].copy_from_slice(&1_i32.to_be_bytes());
        }
        self.bytes.extend_from_slice(field);
    }
}

impl fmt::Debug for ColumnArray {
    /// Without the values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

impl ToSql for ColumnArray {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.bytes);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Binary
    }

    to_sql_checked!();
}

/// The columns `chosen` of `tuples`, each with the type of its array.
///
/// # Errors
/// [`DamagedRow`] where a tuple does not have as many fields as there are `columns`.
pub(crate) fn transpose<'a>(
    columns: &[PlannedColumn],
    chosen: &[usize],
    tuples: impl ExactSizeIterator<Item = &'a [u8]>,
) -> Result<Vec<(ColumnArray, Type)>, DamagedRow> {
    /// What a column takes for a start; longer values make it grow.
    const USUAL_FIELD_BYTES: usize = 20;
    let rows = tuples.len();
    let mut places = vec![None; columns.len()];
    let mut arrays = Vec::with_capacity(chosen.len());
    for (place, &index) in chosen.iter().enumerate() {
        let (array, element) = array_type(&columns[index].column_type);
        arrays.push((ColumnArray::new(&element, rows, rows * USUAL_FIELD_BYTES), array));
        places[index] = Some(place);
    }
    for tuple in tuples {
        let mut fields = Fields::of(tuple)?;
        if fields.left() != columns.len() {
            return Err(DamagedRow);
        }
        for place in &places {
            let field = fields.next_with_length().ok_or(DamagedRow)??;
            if let Some(place) = place {
                arrays[*place].0.push(field);
            }
        }
    }
    Ok(arrays)
}
