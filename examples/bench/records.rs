//! The records that every contender moves: JSON transactions of 218 bytes on average (219 with the line break), the same ones on every run.

use std::fmt::Write as _;

/// What the records add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// How many there are.
    pub(crate) rows: u64,
    /// The sum of their amounts.
    pub(crate) amount: i64,
    /// Their bytes as lines of JSON, line breaks included.
    pub(crate) json_bytes: u64,
}

/// Makes one record after the other.
#[derive(Debug, Default)]
pub(crate) struct Records {
    made: Totals,
    random: SplitMix,
    ids: [String; 3],
}

/// One record in the two forms in which the contenders take it, without line breaks.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// What is produced.
    pub(crate) json: String,
    /// What `COPY … FROM STDIN` takes in its text format.
    pub(crate) text: String,
}

impl Records {
    /// The time of the first record, in milliseconds since 1970.
    const FIRST_INSERTED_AT: u64 = 1_650_000_000_000;
    /// The milliseconds between two records.
    const INTERVAL: u64 = 137;
    /// Amounts are from 1 to this, in cents.
    const LARGEST_AMOUNT: u64 = 999_999;

    /// Overwrites `record` with the next one.
    pub(crate) fn next(&mut self, record: &mut Record) {
        for id in &mut self.ids {
            write_uuid(id, self.random.next(), self.random.next());
        }
        let [transaction, account, counterparty] = &self.ids;
        let amount = 1 + self.random.next() % Self::LARGEST_AMOUNT;
        let inserted_at = Self::FIRST_INSERTED_AT + self.made.rows * Self::INTERVAL;
        let Record { json, text } = record;
        json.clear();
        text.clear();
        // Writing into a string cannot fail.
        let _ = write!(
            json,
            r#"{{"transaction_id":"{transaction}","account_id":"{account}","counterparty_account_id":"{counterparty}","amount":{amount},"inserted_at":{inserted_at}}}"#
        );
        let _ = write!(text, "{transaction}\t{account}\t{counterparty}\t{amount}\t{inserted_at}");
        self.made.rows += 1;
        self.made.amount += i64::try_from(amount).unwrap_or(i64::MAX);
        self.made.json_bytes += json.len() as u64 + 1;
    }

    /// What the records made so far add up to.
    pub(crate) fn totals(&self) -> Totals {
        self.made
    }
}

/// A random UUID (version 4), its digits taken from 128 random bits.
fn write_uuid(text: &mut String, high: u64, low: u64) {
    text.clear();
    let _ = write!(
        text,
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        low >> 52,
        low & 0xffff_ffff_ffff
    );
}

/// The generator `SplitMix64` of Steele, Lea and Flood, with 0 as its seed.
#[derive(Debug, Default)]
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn made(rows: u64) -> (Vec<Record>, Totals) {
        let mut records = Records::default();
        let made = (0..rows)
            .map(|_| {
                let mut record = Record::default();
                records.next(&mut record);
                record
            })
            .collect();
        (made, records.totals())
    }

    #[test]
    fn records_are_219_bytes_long_on_average_with_their_line_break() {
        let (_, totals) = made(10_000);
        assert_eq!((totals.json_bytes + totals.rows / 2) / totals.rows, 219);
    }

    #[test]
    fn both_forms_hold_the_same_values_and_totals_add_them_up() {
        let (records, totals) = made(1_000);
        let mut ids = HashSet::new();
        let mut amount = 0;
        for record in &records {
            let json: serde_json::Value = serde_json::from_str(&record.json).unwrap();
            let text: Vec<&str> = record.text.split('\t').collect();
            assert_eq!(json["transaction_id"], text[0]);
            assert_eq!(json["account_id"], text[1]);
            assert_eq!(json["counterparty_account_id"], text[2]);
            assert_eq!(json["amount"].to_string(), text[3]);
            assert_eq!(json["inserted_at"].to_string(), text[4]);
            amount += json["amount"].as_i64().unwrap();
            ids.insert(text[0].to_owned());
        }
        assert_eq!(ids.len(), 1_000);
        assert_eq!(totals.amount, amount);
        assert_eq!(totals.rows, 1_000);
    }

    #[test]
    fn ids_are_uuids_of_version_4() {
        let mut text = String::new();
        write_uuid(&mut text, u64::MAX, u64::MAX);
        assert_eq!(text, "ffffffff-ffff-4fff-afff-ffffffffffff");
        write_uuid(&mut text, 0, 0);
        assert_eq!(text, "00000000-0000-4000-a000-000000000000");
    }
}
