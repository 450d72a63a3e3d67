//! Every query against what the data in memory says.

use std::collections::BTreeMap;

use serde_json::Value;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::manifest::{cards, sql};
use crate::payments::{Database, Payments, Transfer};

type Rows = Vec<Vec<String>>;

/// Cents as an amount with two decimals.
fn money(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let cents = cents.unsigned_abs();
    format!("{sign}{}.{:02}", cents / 100, cents % 100)
}

/// Milliseconds as seconds with three decimals.
fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn moment(ms: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).unwrap()
}

fn day(ms: i64) -> String {
    moment(ms).format(format_description!("[year]-[month]-[day]")).unwrap()
}

/// The smallest of the sorted values that has at least `percent` of them at or below it.
fn percentile(sorted: &[i64], percent: usize) -> i64 {
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}

fn sorted(values: impl Iterator<Item = i64>) -> Vec<i64> {
    let mut values: Vec<i64> = values.collect();
    values.sort_unstable();
    values
}

/// Count and sum of cents by some key.
fn sums<'t>(entries: impl Iterator<Item = (String, &'t Transfer)>) -> BTreeMap<String, (usize, i64)> {
    let mut sums = BTreeMap::new();
    for (key, transfer) in entries {
        let sum: &mut (usize, i64) = sums.entry(key).or_default();
        sum.0 += 1;
        sum.1 += transfer.amount;
    }
    sums
}

fn counted(sums: BTreeMap<String, (usize, i64)>) -> Rows {
    sums.into_iter().map(|(key, (count, cents))| vec![key, count.to_string(), money(cents)]).collect()
}

fn amounts(kind: &str, transfers: &[Transfer]) -> Vec<String> {
    let sorted = sorted(transfers.iter().map(|transfer| transfer.amount));
    let (count, total) = (sorted.len(), sorted.iter().sum::<i64>());
    // Hundredths of a cent are rounded half up; no average is negative.
    let divisor = i64::try_from(count).unwrap();
    let average = (2 * total + divisor) / (2 * divisor);
    vec![
        kind.to_owned(),
        count.to_string(),
        money(total),
        money(average),
        money(sorted[0]),
        money(percentile(&sorted, 50)),
        money(sorted[count - 1]),
    ]
}

fn money_by_day(payments: &Payments) -> Rows {
    let mut days: BTreeMap<String, [i64; 3]> = BTreeMap::new();
    for cash_in in &payments.cash_ins {
        days.entry(day(cash_in.at)).or_default()[0] += cash_in.amount;
    }
    for cash_out in &payments.cash_outs {
        days.entry(day(cash_out.at)).or_default()[1] += cash_out.amount;
        if let Some(refunded_at) = payments.refunded.get(&cash_out.id) {
            days.entry(day(*refunded_at)).or_default()[2] += cash_out.amount;
        }
    }
    days.into_iter()
        .map(|(day, [cash_in, cash_out, refund])| {
            vec![day, money(cash_in), money(cash_out), money(refund), money(cash_in - cash_out + refund)]
        })
        .collect()
}

fn states_by_day(payments: &Payments) -> Rows {
    let mut days: BTreeMap<String, BTreeMap<&str, usize>> = BTreeMap::new();
    for cash_out in &payments.cash_outs {
        *days.entry(day(cash_out.at)).or_default().entry(payments.state(&cash_out.id)).or_default() += 1;
    }
    days.into_iter()
        .map(|(day, states)| {
            let count = |state| states.get(state).copied().unwrap_or(0).to_string();
            vec![day, count("pending"), count("processed"), count("refunded")]
        })
        .collect()
}

fn pending(payments: &Payments) -> Rows {
    let mut pending: Vec<&Transfer> = payments
        .cash_outs
        .iter()
        .filter(|cash_out| {
            !payments.processed.contains_key(&cash_out.id) && !payments.refunded.contains_key(&cash_out.id)
        })
        .collect();
    pending.sort_by_key(|cash_out| (cash_out.at, cash_out.id.clone()));
    pending
        .into_iter()
        .map(|cash_out| {
            // As PostgreSQL writes it in the time zone of the test's session, without zeros at the end.
            let tokyo = moment(cash_out.at).to_offset(time::macros::offset!(+9));
            let format =
                format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]");
            let text = tokyo.format(format).unwrap();
            let text = text.trim_end_matches('0').trim_end_matches('.');
            vec![cash_out.id.clone(), cash_out.account.clone(), money(cash_out.amount), format!("{text}+09")]
        })
        .collect()
}

fn times_to_process(payments: &Payments) -> BTreeMap<String, Vec<i64>> {
    let mut days: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for cash_out in &payments.cash_outs {
        if let Some(processed_at) = payments.processed.get(&cash_out.id) {
            days.entry(day(cash_out.at)).or_default().push(processed_at - cash_out.at);
        }
    }
    days.into_iter().map(|(day, times)| (day, sorted(times.into_iter()))).collect()
}

fn balances(payments: &Payments) -> Rows {
    let mut accounts: BTreeMap<&str, [i64; 3]> = BTreeMap::new();
    for cash_in in &payments.cash_ins {
        accounts.entry(&cash_in.account).or_default()[0] += cash_in.amount;
    }
    for cash_out in &payments.cash_outs {
        let account = accounts.entry(&cash_out.account).or_default();
        match payments.state(&cash_out.id) {
            "processed" => account[1] += cash_out.amount,
            "pending" => account[2] += cash_out.amount,
            _ => {}
        }
    }
    let mut accounts: Vec<_> = accounts.into_iter().collect();
    accounts.sort_by_key(|(account, [cash_in, cash_out, _])| (cash_out - cash_in, *account));
    accounts
        .into_iter()
        .map(|(account, [cash_in, cash_out, pending])| {
            vec![
                account.to_owned(),
                money(cash_in),
                money(cash_out),
                money(cash_in - cash_out),
                money(pending),
            ]
        })
        .collect()
}

/// What the data says that a query gives.
fn expected(file: &str, payments: &Payments) -> Rows {
    let cash_outs = &payments.cash_outs;
    match file {
        "cash_ins_by_day.sql" => counted(sums(payments.cash_ins.iter().map(|t| (day(t.at), t)))),
        "cash_outs_by_day.sql" => counted(sums(cash_outs.iter().map(|t| (day(t.at), t)))),
        "refunds_by_day.sql" => {
            counted(sums(cash_outs.iter().filter_map(|t| Some((day(*payments.refunded.get(&t.id)?), t)))))
        }
        // The names of the states happen to be in the order of the states.
        "cash_outs_by_state.sql" => {
            counted(sums(cash_outs.iter().map(|t| (payments.state(&t.id).to_owned(), t))))
        }
        "cash_outs_by_state_and_day.sql" => states_by_day(payments),
        "money_by_day.sql" => money_by_day(payments),
        "pending_cash_outs.sql" => pending(payments),
        "amounts.sql" => vec![amounts("cash-ins", &payments.cash_ins), amounts("cash-outs", cash_outs)],
        "time_to_process.sql" => {
            let times = sorted(times_to_process(payments).into_values().flatten());
            [50, 75, 90, 95, 99, 100]
                .into_iter()
                .map(|percent| vec![format!("{percent}.0"), seconds(percentile(&times, percent))])
                .collect()
        }
        "time_to_process_by_day.sql" => times_to_process(payments)
            .into_iter()
            .map(|(day, times)| vec![day, seconds(percentile(&times, 50)), seconds(percentile(&times, 95))])
            .collect(),
        "balances_by_account.sql" => balances(payments),
        _ => panic!("{file}: nobody has said what this query gives"),
    }
}

#[tokio::test]
async fn every_query_gives_what_the_data_says() {
    let payments = Payments::read();
    let database = Database::with_sample_data("data").await;
    for card in cards() {
        let file = card["sql"].as_str().unwrap();
        let (_, rows) = database.ask(&sql(file)).await;
        let expected = expected(file, &payments);
        assert!(!expected.is_empty(), "{file} would show nothing");
        assert_eq!(rows, expected, "{file}");
    }
    database.drop_schema().await;
}

#[tokio::test]
async fn every_query_runs_on_empty_tables() {
    let database = Database::with_tables("empty").await;
    for card in cards() {
        let (names, rows) = database.ask(&sql(card["sql"].as_str().unwrap())).await;
        assert_eq!(rows, Rows::new(), "{}", card["sql"]);
        assert!(!names.is_empty());
    }
    database.drop_schema().await;
}

#[tokio::test]
async fn every_chart_shows_columns_that_its_query_has() {
    let database = Database::with_tables("charts").await;
    for card in cards() {
        let (names, _) = database.ask(&sql(card["sql"].as_str().unwrap())).await;
        let shown: Vec<&Value> = ["graph.dimensions", "graph.metrics"]
            .iter()
            .filter_map(|key| card["settings"].get(key)?.as_array())
            .flatten()
            .collect();
        for column in &shown {
            assert!(
                names.iter().any(|name| *column == name),
                "{}: {column} is none of {names:?}",
                card["sql"]
            );
        }
        assert_eq!(shown.is_empty(), card["display"] == "table", "{}", card["sql"]);
    }
    database.drop_schema().await;
}

#[test]
fn no_two_cards_lie_on_each_other_and_none_beside_the_grid() {
    let mut taken = BTreeMap::new();
    for card in cards() {
        let place = |key: &str| card["place"][key].as_u64().unwrap();
        assert!(place("column") + place("width") <= 24, "{}", card["name"]);
        for column in place("column")..place("column") + place("width") {
            for row in place("row")..place("row") + place("height") {
                let other = taken.insert((column, row), card["name"].clone());
                assert_eq!(other, None, "{} lies on another card", card["name"]);
            }
        }
    }
}
