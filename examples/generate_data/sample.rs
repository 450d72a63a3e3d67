//! Some weeks of a payment service's events, the same at every call.
//!
//! A cash-out is created, usually processed within minutes, and sometimes refunded days later; the last few are
//! still pending. Money moves between a few accounts, which therefore come up again and again.

/// Another seed gives other data of the same kind.
const SEED: u64 = 2026;

const ACCOUNTS: usize = 60;
const CASH_INS: u64 = 100;
const CASH_OUTS: u64 = 2_400;
/// Created, and nothing else yet.
const PENDING: u64 = 10;
const REFUNDED: u64 = 230;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
/// 2026-09-01T00:00:00Z in epoch milliseconds.
const FIRST_DAY_MS: u64 = 1_788_220_800_000;
/// Money is moved for so long; refunds may come up to 12 days after it.
const DAYS: u64 = 42;

/// The records of one topic.
pub(crate) struct SampleFile {
    /// The topic, and the file's name without its ending.
    pub(crate) topic: &'static str,
    /// A JSON array with one record per line, in the order of `inserted_at`.
    pub(crate) text: String,
    /// How many records the array holds.
    pub(crate) records: usize,
}

/// A record's text and the time by which records are sorted.
struct Event {
    at: u64,
    text: String,
}

/// All files.
pub(crate) fn files() -> Vec<SampleFile> {
    let mut random = SplitMix64(SEED);
    let accounts: Vec<String> = (0..ACCOUNTS).map(|_| random.uuid()).collect();

    let cash_ins = (0..CASH_INS)
        .map(|_| {
            let at = random.moment();
            let id = random.uuid();
            transfer(&mut random, &accounts, &id, at)
        })
        .collect();

    let mut cash_outs: Vec<(u64, String)> =
        (0..CASH_OUTS).map(|_| (random.moment(), random.uuid())).collect();
    cash_outs.sort();
    let created = cash_outs.iter().map(|(at, id)| transfer(&mut random, &accounts, id, *at)).collect();

    // The pending ones are the newest.
    let settled = CASH_OUTS - PENDING;
    let mut processed = Vec::new();
    let mut refunded = Vec::new();
    for ((created_at, id), left) in cash_outs.iter().zip((1..=settled).rev()) {
        let processed_at = created_at + 1 + random.below(30 * MINUTE_MS);
        processed.push(step(id, processed_at));
        // Takes exactly as many as are wanted, each with the same chance.
        let wanted = REFUNDED - count(&refunded);
        if random.below(left) < wanted {
            let refunded_at = processed_at + 60 * MINUTE_MS + random.below(12 * DAY_MS);
            refunded.push(step(id, refunded_at));
        }
    }

    vec![
        file("cash_ins", cash_ins),
        file("cash_outs_created", created),
        file("cash_outs_processed", processed),
        file("cash_outs_refunded", refunded),
    ]
}

/// A record of `cash_ins` or `cash_outs_created`.
fn transfer(random: &mut SplitMix64, accounts: &[String], id: &str, at: u64) -> Event {
    let account = random.index(accounts.len());
    // Any account but the first one.
    let counterparty = (account + 1 + random.index(accounts.len() - 1)) % accounts.len();
    // From 0.50 to about 4,900.00; small amounts are more frequent.
    let root = random.below(700);
    let amount = 50 + root * root + random.below(2 * root + 1);
    let text = format!(
        r#"{{"transaction_id":"{id}","account_id":"{}","counterparty_account_id":"{}","amount":{amount},"inserted_at":{at}}}"#,
        accounts[account], accounts[counterparty],
    );
    Event { at, text }
}

/// A record of `cash_outs_processed` or `cash_outs_refunded`.
fn step(id: &str, at: u64) -> Event {
    Event { at, text: format!(r#"{{"transaction_id":"{id}","inserted_at":{at}}}"#) }
}

fn file(topic: &'static str, mut events: Vec<Event>) -> SampleFile {
    events.sort_by(|a, b| (a.at, &a.text).cmp(&(b.at, &b.text)));
    let lines: Vec<&str> = events.iter().map(|event| event.text.as_str()).collect();
    SampleFile { topic, text: format!("[\n{}\n]\n", lines.join(",\n")), records: events.len() }
}

fn count(events: &[Event]) -> u64 {
    events.len() as u64
}

/// The generator `SplitMix64` (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014): small, and
/// its sequence will never change with a library's version.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0. The bias is far below what sample data could show.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn index(&mut self, length: usize) -> usize {
        // What is below a usize fits one.
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    /// An epoch in milliseconds, within the weeks in which money is moved.
    fn moment(&mut self) -> u64 {
        FIRST_DAY_MS + self.below(DAYS * DAY_MS)
    }

    /// A version 4 UUID as text.
    fn uuid(&mut self) -> String {
        let high = (self.next() & !0xF000) | 0x4000;
        let low = (self.next() & !(0b11 << 62)) | (0b10 << 62);
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xFFFF,
            high & 0xFFFF,
            low >> 48,
            low & 0xFFFF_FFFF_FFFF
        )
    }
}
