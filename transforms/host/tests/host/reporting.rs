//! What guests tell: logs, counters, standard error, and how much of it is heard.

use std::time::Duration;

use txconnect_transform_host::CallError;

use super::*;

/// Starts a guest and listens to it.
fn heard(guest: &WatGuest, limits: Limits, allow: &[Grant]) -> (Transform, Arc<Heard>) {
    let heard = Arc::new(Heard::default());
    let module = load_with(guest, limits, allow).unwrap();
    let transform = module.start(None, Arc::clone(&heard) as Arc<dyn Reports>).unwrap();
    (transform, heard)
}

/// Runs a body so many times, then keeps all records.
fn repeated(times: u32, body: &str) -> WatGuest {
    WatGuest::transform(&format!(
        "(local $index i32)
         (loop $next
           {body}
           (local.set $index (i32.add (local.get $index) (i32.const 1)))
           (br_if $next (i32.lt_u (local.get $index) (i32.const {times}))))
         (call $keep_all (local.get $batch))"
    ))
}

#[test]
fn a_line_arrives_with_its_level_and_without_what_steers_a_terminal() {
    let guest = repeated(1, "(call $log (i32.const 2) (i32.const 4096) (i32.const 12))")
        .with(r#"(data (i32.const 4096) "tw\0ao \1b[31ms!")"#);
    let (mut transform, heard) = heard(&guest, limits(), &[]);
    transform.call(&batch(&["{}"]), AMPLE).unwrap();
    assert_eq!(*heard.lines.lock().unwrap(), [(LogLevel::Warn, "tw o  [31ms!".to_owned())]);
}

#[test]
fn of_very_many_lines_the_first_are_heard_and_the_rest_counted() {
    let (mut transform, heard) =
        heard(&repeated(100_000, "(call $log (i32.const 1) (i32.const 512) (i32.const 6))"), limits(), &[]);
    for call in 1..=2 {
        transform.call(&batch(&["{}"]), AMPLE).unwrap();
        let lines = heard.lines.lock().unwrap();
        assert_eq!(lines.len(), call * 101);
        let (level, last) = lines.last().unwrap();
        assert_eq!((*level, last.as_str()), (LogLevel::Warn, "99900 more lines of this batch were left out"));
    }
}

#[test]
fn lines_are_cut_and_their_bytes_are_limited() {
    let long = "(call $log (i32.const 0) (i32.const 8192) (i32.const 50000))";
    let filled = "(memory.fill (i32.const 8192) (i32.const 97) (i32.const 50000))";
    let (mut transform, heard) = heard(&repeated(1000, &format!("{filled} {long}")), limits(), &[]);
    transform.call(&batch(&["{}"]), AMPLE).unwrap();
    let lines = heard.lines.lock().unwrap();
    let bytes: usize = lines.iter().map(|(_, line)| line.len()).sum();
    assert!(lines.iter().all(|(_, line)| line.len() <= 1030) && bytes <= (64 << 10) + 200, "{bytes}");
}

#[test]
fn a_guest_that_logs_for_ever_is_stopped_however_it_is_interrupted() {
    let time = Duration::from_millis(50);
    // A mebibyte a line: the host has most of the work.
    let guest = repeated(u32::MAX, "(call $log (i32.const 1) (i32.const 262144) (i32.const 1048576))")
        .with("(func $grow (drop (memory.grow (i32.const 32)))) (start $grow)");
    for interrupt in interrupts() {
        let (mut transform, _) = heard(&guest, Limits { interrupt, ..limits() }, &[]);
        let error = transform.call(&batch(&["{}"]), time).unwrap_err();
        assert_eq!(error, CallError::TooSlow { after: time }, "{interrupt:?}");
    }
}

#[test]
fn counters_count_under_64_names() {
    // Names of six letters that begin at every place of the memory's first bytes.
    let letters = (0..40).map(|number| format!("{number:03}")).collect::<Vec<_>>().concat();
    let guest = repeated(
        100,
        "(call $counter (i32.add (i32.const 4096) (local.get $index)) (i32.const 6) (i64.const -1))",
    )
    .with(&format!("(data (i32.const 4096) \"{letters}\")"));
    let (mut transform, heard) = heard(&guest, limits(), &[]);
    transform.call(&batch(&["{}"]), AMPLE).unwrap();
    transform.call(&batch(&["{}"]), AMPLE).unwrap();
    let counts = heard.counts.lock().unwrap();
    let mut names: Vec<&str> = counts.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 64);
    assert_eq!(counts.len(), 128);
    assert!(counts.iter().all(|(_, delta)| *delta == u64::MAX));
}

#[test]
fn names_of_counters_that_are_too_long_or_empty_count_nothing() {
    let guest = repeated(
        1,
        "(memory.fill (i32.const 4096) (i32.const 97) (i32.const 100))
         (call $counter (i32.const 4096) (i32.const 65) (i64.const 1))
         (call $counter (i32.const 4096) (i32.const 0) (i64.const 1))
         (call $counter (i32.const 4096) (i32.const 64) (i64.const 1))",
    );
    let (mut transform, heard) = heard(&guest, limits(), &[]);
    transform.call(&batch(&["{}"]), AMPLE).unwrap();
    assert_eq!(*heard.counts.lock().unwrap(), [("a".repeat(64), 1)]);
}

#[test]
fn a_guest_that_sleeps_for_ever_is_stopped() {
    let time = Duration::from_millis(50);
    let guest = repeated(u32::MAX, "(call $block (call $subscribe (i64.const -1)))").importing(
        "import wasi:clocks/monotonic-clock@0.2.6; import wasi:io/poll@0.2.6",
        "package wasi:io@0.2.6 {
           interface poll { resource pollable { block: func(); } }
         }
         package wasi:clocks@0.2.6 {
           interface monotonic-clock {
             use wasi:io/poll@0.2.6.{pollable};
             subscribe-duration: func(when: u64) -> pollable;
           }
         }",
        r#"(import "wasi:clocks/monotonic-clock@0.2.6" "subscribe-duration" (func $subscribe (param i64) (result i32)))
           (import "wasi:io/poll@0.2.6" "[method]pollable.block" (func $block (param i32)))"#,
    );
    for interrupt in interrupts() {
        let (mut transform, _) = heard(&guest, Limits { interrupt, ..limits() }, &[Grant::Clock]);
        // Two threads: one of ours, one of tokio.
        let error = transform.call(&batch(&["{}"]), time).unwrap_err();
        assert_eq!(error, CallError::TooSlow { after: time }, "{interrupt:?}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = runtime.block_on(async { transform.call(&batch(&["{}"]), time) }).unwrap_err();
        assert_eq!(error, CallError::TooSlow { after: time }, "{interrupt:?}");
    }
}
