//! The pseudo-columns of change data capture: `_CHANGE_TYPE` and `_CHANGE_SEQUENCE_NUMBER`.

/// The most sections of a sequence number (documented).
const MOST_SECTIONS: usize = 4;
/// The most hexadecimal digits of a section (documented).
const MOST_DIGITS: usize = 16;

/// What becomes of the row with the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChangeType {
    Upsert,
    Delete,
}

impl ChangeType {
    /// Reads `_CHANGE_TYPE`; nothing else than these two words is taken.
    pub(crate) fn parse(text: &str) -> Option<ChangeType> {
        match text {
            "UPSERT" => Some(ChangeType::Upsert),
            "DELETE" => Some(ChangeType::Delete),
            _ => None,
        }
    }
}

/// A sequence number: its sections compared from left to right as unsigned numbers; those that are left out count as 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Sequence([u64; MOST_SECTIONS]);

impl Sequence {
    /// Reads one to four sections of one to sixteen hexadecimal digits, split by `/`.
    pub(crate) fn parse(text: &str) -> Option<Sequence> {
        let mut sections = [0; MOST_SECTIONS];
        for (index, section) in text.split('/').enumerate() {
            let digits = (1..=MOST_DIGITS).contains(&section.len());
            // from_str_radix would take a sign.
            if !digits || !section.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return None;
            }
            *sections.get_mut(index)? = u64::from_str_radix(section, 16).ok()?;
        }
        Some(Sequence(sections))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // "Stream table updates with change data capture", section on the format: its four examples.
    #[test]
    fn the_documented_examples_compare_as_documented() {
        for (smaller, larger) in
            [("77", "7B"), ("FFF/B", "FFF/ABC"), ("BA/FFFFFFFF", "ABC"), ("ABC", "FFF/ABC")]
        {
            assert!(
                Sequence::parse(smaller).unwrap() < Sequence::parse(larger).unwrap(),
                "{smaller} {larger}"
            );
        }
        assert_eq!(Sequence::parse("ff"), Sequence::parse("FF/0/0/0"));
    }

    // The same page: at most 16 hexadecimal characters a section, at most four sections.
    #[test]
    fn a_malformed_number_is_refused() {
        assert!(Sequence::parse("FFFFFFFFFFFFFFFF/0/0/FFFFFFFFFFFFFFFF").is_some());
        for wrong in
            ["", "/", "1/", "/1", "1//2", "1/2/3/4/5", "g", "0x1", "+1", "-1", " 1", "10000000000000000"]
        {
            assert_eq!(Sequence::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn numbers_compare_as_their_sections_do(a: [u64; 4], b: [u64; 4]) {
            let read = |sections: [u64; 4]| {
                Sequence::parse(&sections.map(|section| format!("{section:X}")).join("/")).unwrap()
            };
            prop_assert_eq!(read(a).cmp(&read(b)), a.cmp(&b));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9a-fA-F/]{0,80}|.{0,20}") {
            let _ = Sequence::parse(&text);
        }
    }
}
