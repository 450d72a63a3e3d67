//! Protobuf's wire format (<https://protobuf.dev/programming-guides/encoding/>), as far as rows need it.

/// What comes behind a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireType {
    Varint = 0,
    Fixed64 = 1,
    Delimited = 2,
}

/// The bytes that a field begins with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tag {
    bytes: [u8; 10],
    length: usize,
}

impl Tag {
    /// The tag of the field for the column `index`, counted from 0.
    pub(crate) fn new(index: usize, wire_type: WireType) -> Self {
        let mut tag = Self { bytes: [0; 10], length: 0 };
        tag.length = fill((index as u64 + 1) << 3 | wire_type as u64, &mut tag.bytes);
        tag
    }

    #[inline]
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        if let [byte] = self.bytes[..self.length] {
            out.push(byte);
        } else {
            out.extend_from_slice(&self.bytes[..self.length]);
        }
    }
}

/// Appends a varint.
#[inline]
pub(crate) fn write_varint(value: u64, out: &mut Vec<u8>) {
    if value < 0x80 {
        out.push(low_bits(value));
        return;
    }
    let mut bytes = [0; 10];
    let length = fill(value, &mut bytes);
    out.extend_from_slice(&bytes[..length]);
}

/// Appends text or bytes with their length in front.
#[inline]
pub(crate) fn write_delimited(bytes: &[u8], out: &mut Vec<u8>) {
    write_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Appends what `write` appends, with its length in front. `room` bytes are kept free for the length; where it takes
/// another number of them, what was written is moved. After an error `out` holds a part.
#[inline]
pub(crate) fn delimited<E>(
    room: usize,
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = out.len();
    out.extend(std::iter::repeat_n(0, room));
    write(out)?;
    set_length(start, room, out);
    Ok(())
}

/// Writes the length of everything behind `start + room` to `start`, and answers how many bytes it takes.
pub(crate) fn set_length(start: usize, room: usize, out: &mut Vec<u8>) -> usize {
    let content = start + room;
    let end = out.len();
    let mut bytes = [0; 10];
    let taken = fill((end - content) as u64, &mut bytes);
    if taken > room {
        out.extend(std::iter::repeat_n(0, taken - room));
    }
    if taken != room {
        out.copy_within(content..end, start + taken);
        out.truncate(end - room + taken);
    }
    out[start..start + taken].copy_from_slice(&bytes[..taken]);
    taken
}

fn fill(mut value: u64, bytes: &mut [u8; 10]) -> usize {
    let mut length = 0;
    while value >= 0x80 {
        bytes[length] = low_bits(value) | 0x80;
        length += 1;
        value >>= 7;
    }
    bytes[length] = low_bits(value);
    length + 1
}

/// The last seven bits.
#[inline]
fn low_bits(value: u64) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::encoding::{decode_key, decode_varint, encode_varint};

    #[test]
    fn the_tags_of_the_first_fifteen_fields_have_one_byte() {
        for (index, length) in [(0, 1), (14, 1), (15, 2), (2_046, 2), (2_047, 3), (9_999, 3)] {
            let mut out = Vec::new();
            Tag::new(index, WireType::Delimited).write(&mut out);
            assert_eq!(out.len(), length);
            let (number, wire_type) = decode_key(&mut &out[..]).unwrap();
            assert_eq!((number as usize, wire_type as u64), (index + 1, 2));
        }
    }

    proptest! {
        #[test]
        fn varints_are_those_of_another_writer(value in any::<u64>(), shift in 0..64_u32) {
            let value = value >> shift;
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            write_varint(value, &mut ours);
            encode_varint(value, &mut theirs);
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn a_length_is_right_whatever_room_was_kept(
            before in prop::collection::vec(any::<u8>(), 0..4),
            content in prop_oneof![prop::collection::vec(any::<u8>(), 0..300), prop::collection::vec(any::<u8>(), 16_380..16_390)],
            room in 0..4_usize,
        ) {
            let mut out = before.clone();
            delimited(room, &mut out, |out| { out.extend_from_slice(&content); Ok::<(), ()>(()) }).unwrap();
            let mut rest = &out[before.len()..];
            prop_assert_eq!(&out[..before.len()], &before[..]);
            prop_assert_eq!(decode_varint(&mut rest).unwrap(), content.len() as u64);
            prop_assert_eq!(rest, &content[..]);
            let mut plain = before.clone();
            write_delimited(&content, &mut plain);
            prop_assert_eq!(out, plain);
        }
    }
}
