//! Protobuf's wire format, read without copying.

/// Bytes that are no protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// One field's content as it travels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Content<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// The fields of a message in the order they were written: number and content.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn of(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message }
    }

    fn field(&mut self) -> Result<(u32, Content<'a>), Malformed> {
        let tag = varint(&mut self.rest)?;
        let number = u32::try_from(tag >> 3).map_err(|_| Malformed)?;
        if number == 0 || number > 0x1FFF_FFFF {
            return Err(Malformed);
        }
        let content = match tag & 7 {
            0 => Content::Varint(varint(&mut self.rest)?),
            1 => Content::Fixed64(u64::from_le_bytes(fixed(&mut self.rest)?)),
            2 => {
                let length = usize::try_from(varint(&mut self.rest)?).map_err(|_| Malformed)?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
                self.rest = rest;
                Content::Bytes(bytes)
            }
            5 => Content::Fixed32(u32::from_le_bytes(fixed(&mut self.rest)?)),
            // Groups, which proto2 has given up, and what is no wire type at all.
            _ => return Err(Malformed),
        };
        Ok((number, content))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Content<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Takes a varint off the front.
pub(crate) fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0_u64;
    for (index, byte) in rest.iter().enumerate().take(10) {
        value |=
            u64::from(byte & 0x7F).checked_shl(7 * u32::try_from(index).unwrap_or(u32::MAX)).unwrap_or(0);
        if byte & 0x80 == 0 {
            // The tenth byte holds the last bit only.
            if index == 9 && *byte > 1 {
                return Err(Malformed);
            }
            *rest = &rest[index + 1..];
            return Ok(value);
        }
    }
    Err(Malformed)
}

/// Takes so many bytes off the front.
pub(crate) fn fixed<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (bytes, after) = rest.split_first_chunk::<N>().ok_or(Malformed)?;
    *rest = after;
    Ok(*bytes)
}

/// A zigzag number, as `sint32` and `sint64` travel.
pub(crate) fn unzigzag(encoded: u64) -> i64 {
    (encoded >> 1).cast_signed() ^ -(encoded & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::encoding::encode_varint;

    #[test]
    fn every_kind_of_field_is_read_and_what_is_cut_short_is_not() {
        let message = [0x08, 0x96, 0x01, 0x11, 1, 0, 0, 0, 0, 0, 0, 0, 0x1A, 2, b'h', b'i', 0x25, 7, 0, 0, 0];
        let fields: Vec<_> = Fields::of(&message).map(Result::unwrap).collect();
        assert_eq!(
            fields,
            vec![
                (1, Content::Varint(150)),
                (2, Content::Fixed64(1)),
                (3, Content::Bytes(b"hi")),
                (4, Content::Fixed32(7)),
            ]
        );
        for end in [1, 2, 5, 14, 20] {
            assert_eq!(Fields::of(&message[..end]).last(), Some(Err(Malformed)), "{end}");
        }
        // A group, the field number 0, and a varint of eleven bytes.
        for wrong in [&[0x0B_u8][..], &[0x02, 0], &[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2]] {
            assert_eq!(Fields::of(wrong).next(), Some(Err(Malformed)));
        }
    }

    proptest! {
        #[test]
        fn a_varint_comes_back_as_it_was_written(value: u64) {
            let mut bytes = Vec::new();
            encode_varint(value, &mut bytes);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(varint(&mut rest), Ok(value));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn a_zigzag_number_comes_back_as_it_was_written(value: i64) {
            prop_assert_eq!(unzigzag(((value << 1) ^ (value >> 63)).cast_unsigned()), value);
        }

        #[test]
        fn no_bytes_make_it_panic_and_it_always_ends(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Fields::of(&bytes).count() <= bytes.len());
        }
    }
}
