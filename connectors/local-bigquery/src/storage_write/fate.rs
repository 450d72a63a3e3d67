//! What the fault script makes of a gRPC call.

use tonic::Code;

use super::refusal::Refusal;
use crate::faults::End;

/// How a call ends.
#[derive(Debug)]
pub(super) enum Fate {
    /// As it should.
    CarriedOut,
    /// It is carried out, and the caller does not learn of it.
    ReplyLost,
    /// The connection closes, and nothing is carried out.
    Cut,
    /// It is refused, and nothing is carried out.
    Refused(Refusal),
}

pub(super) fn fate(end: Option<End>) -> Fate {
    match end {
        None => Fate::CarriedOut,
        Some(End::ReplyLost) => Fate::ReplyLost,
        Some(End::Cut) => Fate::Cut,
        Some(End::Refused(error)) => Fate::Refused(error.into()),
        // A gRPC client takes a proxy's page for this.
        Some(End::Html(status)) => Fate::Refused(Refusal::new(
            Code::Unavailable,
            format!("unexpected HTTP status {status} with a page of a proxy"),
        )),
        Some(End::Status { code, message, in_band }) => {
            let mut refusal = Refusal::new(Code::from_i32(code.number()), message);
            refusal.in_band = in_band;
            Fate::Refused(refusal)
        }
    }
}

/// What a caller sees whose reply is lost.
pub(super) fn lost_reply() -> Refusal {
    Refusal::new(Code::Unavailable, "The connection was lost before the answer arrived.")
}
