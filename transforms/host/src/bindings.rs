//! The interface as types, generated from `transforms/wit`.
//!
//! A batch is lent to a guest, not copied for it: what goes in has references, what comes out is owned.
#![allow(missing_docs, clippy::pedantic, clippy::all, unreachable_pub, reason = "generated code")]

pub(crate) mod batches {
    wasmtime::component::bindgen!({
        path: "../wit/1.0.0",
        world: "batch-transform",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

pub(crate) mod records {
    wasmtime::component::bindgen!({
        path: "../wit/1.0.0",
        world: "record-transform",
        ownership: Borrowing { duplicate_if_necessary: true },
        with: {
            "txconnect:transform/host": super::batches::txconnect::transform::host,
            "txconnect:transform/description": super::batches::txconnect::transform::description,
        },
    });
}
