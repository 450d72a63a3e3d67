//! What a hostile guest does, and that it costs its instance and nothing else.

use std::time::Duration;

use txconnect_transform_host::{CallError, Limits};

use super::*;

const ENDLESS: &str = "(loop $ever (br $ever)) (unreachable)";
const BRIEF: Duration = Duration::from_millis(30);

/// Does harm to batches of two records and more.
fn harmful(harm: &str) -> WatGuest {
    WatGuest::transform(&format!(
        "(if (i32.gt_u (i32.load offset=76 (local.get $batch)) (i32.const 1)) (then (drop (block (result i32) {harm}))))
         (call $keep_all (local.get $batch))"
    ))
}

/// Calls with two records, then with one, which goes well in a new instance.
#[track_caller]
fn contained(transform: &mut Transform, time: Duration) -> CallError {
    let error = transform.call(&batch(&["{}", "{}"]), time).unwrap_err();
    assert_eq!(transform.memory(), 0, "the instance is gone");
    let output = transform.call(&batch(&["{}"]), AMPLE).unwrap();
    assert_eq!(output.sources(), [0]);
    assert!(output.row(0).value().is_none());
    error
}

#[test]
fn a_guest_that_never_ends_is_stopped() {
    for interrupt in interrupts() {
        let mut transform = start_within(&harmful(ENDLESS), Limits { interrupt, ..limits() });
        assert_eq!(contained(&mut transform, BRIEF), CallError::TooSlow { after: BRIEF }, "{interrupt:?}");
    }
}

#[test]
fn a_trap_says_what_happened_and_where() {
    let mut transform = start(&harmful("(unreachable)"));
    let CallError::Trap { message, backtrace } = contained(&mut transform, AMPLE) else { panic!("no trap") };
    assert!(message.contains("unreachable"), "{message}");
    assert!(backtrace.unwrap().contains("transform"));
}

#[test]
fn a_stack_without_end_is_a_trap() {
    let guest = harmful("(call $deeper (i32.const 1))")
        .with("(func $deeper (param i32) (result i32) (i32.add (call $deeper (local.get 0)) (i32.const 1)))");
    let CallError::Trap { message, backtrace } = contained(&mut start(&guest), AMPLE) else {
        panic!("no trap")
    };
    assert!(message.contains("stack"), "{message}");
    assert!(backtrace.unwrap().len() <= 8 << 10);
}

#[test]
fn memory_beyond_the_limit_is_refused_and_named() {
    let growing = harmful("(loop $more (drop (memory.grow (i32.const 16))) (br $more)) (unreachable)");
    let wanted = CallError::TooMuchMemory { limit: 16 << 20 };
    assert_eq!(contained(&mut start(&growing), AMPLE), wanted);

    let tables = harmful(
        "(loop $more (drop (table.grow $t (ref.null func) (i32.const 65536))) (br $more)) (unreachable)",
    )
    .with("(table $t 1 funcref)");
    assert_eq!(contained(&mut start(&tables), AMPLE), wanted);
}

#[test]
fn a_guest_that_begins_with_more_memory_than_it_may_have_is_not_loaded() {
    let limits = Limits { memory: ByteSize(64 << 10), ..limits() };
    let error = load_with(&WatGuest::default(), limits, &[]).err().unwrap();
    assert!(error.why.contains("it wanted more than 65536 bytes of memory"), "{error}");
}

#[test]
fn an_answer_that_points_outside_the_memory_is_malformed() {
    // Sources: a gigabyte somewhere.
    let guest = harmful(
        "(i32.store offset=4 (global.get $answer) (i32.const 1024))
         (i32.store offset=8 (global.get $answer) (i32.const 0x10000000))
         (return (global.get $answer))",
    );
    let error = contained(&mut start(&guest), AMPLE);
    assert!(matches!(error, CallError::Malformed { .. }), "{error:?}");
    // The answer itself lies outside.
    let error = contained(&mut start(&harmful("(return (i32.const -8))")), AMPLE);
    assert!(matches!(error, CallError::Malformed { .. }), "{error:?}");
}

#[test]
fn an_answer_larger_than_the_memory_because_its_parts_overlap_is_refused() {
    // A million failures, each with the same code of ten thousand bytes.
    let guest = harmful(
        "(local.set $at (call $alloc (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 8000000)))
         (local.set $end (i32.add (local.get $at) (i32.const 8000000)))
         (i32.store offset=148 (global.get $answer) (local.get $at))
         (i32.store offset=152 (global.get $answer) (i32.const 400000))
         (loop $next
           (i32.store offset=4 (local.get $at) (i32.const 1024))
           (i32.store offset=8 (local.get $at) (i32.const 10000))
           (local.set $at (i32.add (local.get $at) (i32.const 20)))
           (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
         (return (global.get $answer))",
    );
    let guest = WatGuest::transform(&format!("(local $at i32) (local $end i32) {}", guest.body()));
    let error = contained(&mut start(&guest), AMPLE);
    assert_eq!(error, CallError::TooMuchMemory { limit: 16 << 20 });
}

#[test]
fn answers_that_make_no_sense_are_malformed() {
    for (harm, words) in [
        // One row whose source is 7.
        (
            "(i32.store (i32.const 4096) (i32.const 7))
             (i32.store offset=4 (global.get $answer) (i32.const 4096))
             (i32.store offset=8 (global.get $answer) (i32.const 1))
             (return (global.get $answer))",
            "a row's source is 7, and the batch has 2 records",
        ),
        // Two rows, with keys of which the second ends before the first.
        (
            "(i32.store offset=0 (i32.const 4096) (i32.const 0)) (i32.store offset=4 (i32.const 4096) (i32.const 1))
             (i32.store offset=8 (i32.const 4096) (i32.const 4)) (i32.store offset=12 (i32.const 4096) (i32.const 3))
             (i32.store offset=4 (global.get $answer) (i32.const 4096))
             (i32.store offset=8 (global.get $answer) (i32.const 2))
             (i32.store8 offset=12 (global.get $answer) (i32.const 1))
             (i32.store offset=16 (global.get $answer) (i32.const 1024))
             (i32.store offset=20 (global.get $answer) (i32.const 3))
             (i32.store offset=24 (global.get $answer) (i32.const 4104))
             (i32.store offset=28 (global.get $answer) (i32.const 2))
             (return (global.get $answer))",
            "the ends of keys fall",
        ),
    ] {
        let error = contained(&mut start(&harmful(harm)), AMPLE);
        let CallError::Malformed { what } = error else { panic!("{error:?}") };
        assert!(what.contains(words), "{what}");
    }
}

#[test]
fn text_that_is_not_utf_8_is_no_answer() {
    // A refusal whose words are two broken bytes.
    let guest = harmful(
        "(i32.store16 (i32.const 4096) (i32.const 0xfffe))
         (i32.store8 (global.get $answer) (i32.const 1))
         (i32.store offset=4 (global.get $answer) (i32.const 4096))
         (i32.store offset=8 (global.get $answer) (i32.const 2))
         (return (global.get $answer))",
    );
    let error = contained(&mut start(&guest), AMPLE);
    assert!(matches!(&error, CallError::Malformed { what } if what.contains("utf-8")), "{error:?}");
}

#[test]
fn a_refusal_is_told_in_one_line() {
    let guest = harmful(
        "(i32.store8 (global.get $answer) (i32.const 1))
         (i32.store offset=4 (global.get $answer) (i32.const 4096))
         (i32.store offset=8 (global.get $answer) (i32.const 9))
         (return (global.get $answer))",
    )
    .with(r#"(data (i32.const 4096) "not\0atoday")"#);
    assert_eq!(contained(&mut start(&guest), AMPLE), CallError::Refused { message: "not today".to_owned() });
}

#[test]
fn a_record_that_becomes_too_many_rows_fails_alone() {
    // Record 0 becomes 2000 rows, record 1 none.
    let guest = WatGuest::transform(
        "(i32.store offset=4 (global.get $answer) (call $alloc (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 8000)))
         (i32.store offset=8 (global.get $answer) (i32.const 2000))
         (global.get $answer)",
    );
    let output = start(&guest).call(&batch(&["{}", "{}"]), AMPLE).unwrap();
    assert!(output.is_empty());
    let [failure] = output.failures() else { panic!("{:?}", output.failures()) };
    assert_eq!((failure.record, failure.code.as_str()), (0, "transform.too_many_rows"));
}

#[test]
fn a_guest_that_traps_in_every_call_goes_on_being_contained() {
    let mut transform = start(&WatGuest::transform("(unreachable)"));
    for _ in 0..50 {
        let error = transform.call(&batch(&["{}"]), AMPLE).unwrap_err();
        assert!(matches!(error, CallError::Trap { .. }), "{error:?}");
    }
}

#[test]
fn an_instance_is_kept_from_call_to_call() {
    // Grows by a page in each call.
    let guest = WatGuest::transform("(drop (memory.grow (i32.const 1))) (call $keep_all (local.get $batch))");
    let mut transform = start(&guest);
    let before = transform.memory();
    for _ in 0..3 {
        transform.call(&batch(&["{}"]), AMPLE).unwrap();
    }
    assert_eq!(transform.memory(), before + 3 * 65536);
}

#[test]
fn an_init_that_refuses_its_config_says_why() {
    let refusing = WatGuest::default().init(
        "(i32.store8 (i32.const 1100) (i32.const 1)) (i32.store offset=4 (i32.const 1100) (i32.const 512))
         (i32.store offset=8 (i32.const 1100) (i32.const 6)) (i32.const 1100)",
    );
    let module = load_with(&refusing, limits(), &[]).unwrap();
    let error = module.start(None, Arc::new(Heard::default())).err().unwrap();
    assert_eq!(error.to_string(), "the transform by-w does not start: it refuses its config: by-wat");
}

#[test]
fn an_init_that_traps_does_not_start() {
    let trapping = WatGuest::default().init("(unreachable)");
    let error =
        load_with(&trapping, limits(), &[]).unwrap().start(None, Arc::new(Heard::default())).err().unwrap();
    assert!(error.why.contains("unreachable"), "{error}");
}

#[test]
fn a_module_that_does_not_start_leaves_the_old_one_at_work() {
    let mut transform = start(&WatGuest::default());
    let refusing = WatGuest::default().init("(unreachable)");
    let new = load_with(&refusing, limits(), &[]).unwrap();
    transform.swap(&new, None).unwrap_err();
    assert_eq!(transform.call(&batch(&["{}", "{}"]), AMPLE).unwrap().sources(), [0, 1]);

    // All is filtered by the next.
    let new = load_with(&WatGuest::transform("(global.get $answer)"), limits(), &[]).unwrap();
    transform.swap(&new, None).unwrap();
    assert!(Arc::ptr_eq(transform.module(), &new));
    assert!(transform.call(&batch(&["{}", "{}"]), AMPLE).unwrap().is_empty());
}
