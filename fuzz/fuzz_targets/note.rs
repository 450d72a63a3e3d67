//! Any text as what stands beside a committed position: another program may have written it. What is taken for a note of
//! ours must read back the same, and count only rows that a stream can hold.

#![no_main]

use libfuzzer_sys::fuzz_target;
use txconnect::delivery::Note;

fuzz_target!(|text: &str| {
    let Ok(note) = Note::read(text) else { return };
    assert_eq!(Note::read(&note.to_text()).as_ref(), Ok(&note));
    if let Note::Streams(streams) = note {
        for committed in streams.streams {
            assert!(committed.end > 0 && (0..=committed.end).contains(&committed.published));
        }
    }
});
