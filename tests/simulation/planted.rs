//! Bugs that are planted into the simulated runtime or into the models, to show that the simulation finds them.

use crate::plan::Protocol;

/// A planted bug. Nothing of production code is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    FinishedBeforeWritten,
    FinishedBeforeDeadLettered,
    RefusedRowsForgotten,
    UnansweredWriteTakenForSuccess,
    CommitOfALostPartition,
    ReleasedBeforeTheLastCommit,
    LostCommitTakenForStored,
    PositionOfTheFurthestSpan,
    RecordsOfAnOlderAssignment,
    TakenBeforeTheLaneKnows,
    GivenUpSpansFinished,
    SpansOfAnOlderAssignmentFinish,
    NoEpoch,
    NoExpectedPosition,
    RowsAndPositionsApart,
    PositionsBeforeRows,
    DeadLettersAfterTheTransaction,
    DoubtTakenForSuccess,
    DoubtTakenForFailure,
    PlainSelectInDoubt,
    TakeOverDoesNotWait,
    ResumedAtTheGroupsPosition,
    FencedFlushWrittenAnyway,
    RefusalOfAFormerOwner,
    StoppedSessionsStay,
    GroupAheadOfTheSink,
    CommitsWithoutANote,
    EndOfTheNewestAppend,
    LostCommitRepeated,
    ForeignPositionTaken,
    NothingPublishedAtTheStart,
    FinalizedBeforeNamed,
    PublishedBeforeTheCommit,
    CommitOfAWriter,
    StreamsReused,
    UnansweredAppendTakenForRefused,
    ClosedWithoutPublication,
    NoNewMembership,
    StopsAtOldNews,
    RowsBeforeTheirSpan,
    RowsBehindTheirSpan,
    TransformedAgainInPart,
    FilteredKeepsThePosition,
    OnlyTheRefusedRowCut,
    StoredRowsStay,
    TornRecordsForgotten,
    LetterForEveryRow,
}

impl Bug {
    /// Every bug, where it can be seen, and what it is in plain words.
    pub(crate) const ALL: [(Self, Protocol, &'static str); 65] = [
        (
            Self::FinishedBeforeWritten,
            Protocol::AtLeastOnce,
            "the position moves when a flush is handed over",
        ),
        (
            Self::FinishedBeforeDeadLettered,
            Protocol::AtLeastOnce,
            "the position moves before the dead letters are confirmed",
        ),
        (
            Self::RefusedRowsForgotten,
            Protocol::AtLeastOnce,
            "rows that the sink refuses are cut out and not dead-lettered",
        ),
        (
            Self::UnansweredWriteTakenForSuccess,
            Protocol::AtLeastOnce,
            "a write without an answer is taken for a success",
        ),
        (
            Self::CommitOfALostPartition,
            Protocol::AtLeastOnce,
            "a commit is sent for a partition that was just lost",
        ),
        (
            Self::ReleasedBeforeTheLastCommit,
            Protocol::AtLeastOnce,
            "a partition is given back before its last commit is answered",
        ),
        (
            Self::LostCommitTakenForStored,
            Protocol::AtLeastOnce,
            "a commit without an answer is taken for stored",
        ),
        (
            Self::PositionOfTheFurthestSpan,
            Protocol::AtLeastOnce,
            "the end of the furthest finished span is committed, with gaps before it",
        ),
        (
            Self::RecordsOfAnOlderAssignment,
            Protocol::AtLeastOnce,
            "a lane goes on with records that it took under an older assignment",
        ),
        (
            Self::TakenBeforeTheLaneKnows,
            Protocol::AtLeastOnce,
            "records that come before the lane knows their partition are dropped",
        ),
        (
            Self::GivenUpSpansFinished,
            Protocol::AtLeastOnce,
            "what a drain gives up is dropped, and committed",
        ),
        (
            Self::SpansOfAnOlderAssignmentFinish,
            Protocol::AtLeastOnce,
            "spans of an older assignment count for the new one",
        ),
        (Self::NoEpoch, Protocol::OffsetsInSink, "transactions do not check the epoch"),
        (
            Self::NoExpectedPosition,
            Protocol::OffsetsInSink,
            "transactions do not check the position that they expect",
        ),
        (
            Self::RowsAndPositionsApart,
            Protocol::OffsetsInSink,
            "rows are committed first, positions in a second transaction",
        ),
        (
            Self::PositionsBeforeRows,
            Protocol::OffsetsInSink,
            "positions are committed first, rows in a second transaction",
        ),
        (
            Self::DeadLettersAfterTheTransaction,
            Protocol::OffsetsInSink,
            "the transaction commits before the dead letters are confirmed",
        ),
        (Self::DoubtTakenForSuccess, Protocol::OffsetsInSink, "a commit in doubt is taken for durable"),
        (
            Self::DoubtTakenForFailure,
            Protocol::OffsetsInSink,
            "a commit in doubt is repeated without asking, and positions are not checked",
        ),
        (
            Self::PlainSelectInDoubt,
            Protocol::OffsetsInSink,
            "a commit in doubt is looked up by a plain SELECT, and positions are not checked",
        ),
        (Self::TakeOverDoesNotWait, Protocol::OffsetsInSink, "a take-over does not wait for the row's lock"),
        (
            Self::ResumedAtTheGroupsPosition,
            Protocol::OffsetsInSink,
            "reading resumes at the group's position, not at the sink's",
        ),
        (
            Self::FencedFlushWrittenAnyway,
            Protocol::OffsetsInSink,
            "a fenced flush takes over and writes its rows all the same",
        ),
        (
            Self::RefusalOfAFormerOwner,
            Protocol::OffsetsInSink,
            "rows that the server refuses to a former owner are dead-lettered",
        ),
        (Self::StoppedSessionsStay, Protocol::OffsetsInSink, "sessions of stopped owners are not ended"),
        (
            Self::GroupAheadOfTheSink,
            Protocol::OffsetsInSink,
            "the group's position moves before the transaction commits",
        ),
        (Self::FinishedBeforeWritten, Protocol::TwoPhase, "the position moves when a flush is handed over"),
        (
            Self::FinishedBeforeDeadLettered,
            Protocol::TwoPhase,
            "the position moves before the dead letters are confirmed",
        ),
        (
            Self::RefusedRowsForgotten,
            Protocol::TwoPhase,
            "rows that the sink refuses are cut out and not dead-lettered",
        ),
        (
            Self::UnansweredWriteTakenForSuccess,
            Protocol::TwoPhase,
            "an append without an answer is taken for stored",
        ),
        (
            Self::UnansweredAppendTakenForRefused,
            Protocol::TwoPhase,
            "an append without an answer is taken for refused, and \"already there\" for a success",
        ),
        (
            Self::RecordsOfAnOlderAssignment,
            Protocol::TwoPhase,
            "a lane goes on with records that it took under an older assignment",
        ),
        (
            Self::TakenBeforeTheLaneKnows,
            Protocol::TwoPhase,
            "records that come before the lane knows their partition are dropped",
        ),
        (Self::GivenUpSpansFinished, Protocol::TwoPhase, "what a drain gives up is dropped, and committed"),
        (
            Self::SpansOfAnOlderAssignmentFinish,
            Protocol::TwoPhase,
            "spans of an older assignment count for the new one",
        ),
        (
            Self::PublishedBeforeTheCommit,
            Protocol::TwoPhase,
            "rows are published before the commit that counts them",
        ),
        (Self::StreamsReused, Protocol::TwoPhase, "a stream is used by two assignments"),
        (
            Self::CommitOfALostPartition,
            Protocol::TwoPhase,
            "a commit is sent for a partition that was just lost",
        ),
        (
            Self::CommitOfAWriter,
            Protocol::TwoPhase,
            "a writer commits, which does not know that the partition was just lost",
        ),
        (
            Self::LostCommitTakenForStored,
            Protocol::TwoPhase,
            "a commit without an answer is taken for stored",
        ),
        (
            Self::LostCommitRepeated,
            Protocol::TwoPhase,
            "a commit without an answer is followed by others before the group was asked",
        ),
        (
            Self::NoNewMembership,
            Protocol::TwoPhase,
            "a commit that may still arrive is followed by others under the same membership",
        ),
        (Self::CommitsWithoutANote, Protocol::TwoPhase, "a commit says nothing beside its position"),
        (Self::EndOfTheNewestAppend, Protocol::TwoPhase, "a commit counts rows behind its position"),
        (
            Self::PositionOfTheFurthestSpan,
            Protocol::TwoPhase,
            "the end of the furthest finished span is committed, with gaps before it",
        ),
        (
            Self::NothingPublishedAtTheStart,
            Protocol::TwoPhase,
            "reading begins at the position without publishing what it counts",
        ),
        (Self::ForeignPositionTaken, Protocol::TwoPhase, "a position of another tool is taken as it is"),
        (
            Self::FinalizedBeforeNamed,
            Protocol::TwoPhase,
            "streams are finalized before a commit names them as finished",
        ),
        (
            Self::ClosedWithoutPublication,
            Protocol::TwoPhase,
            "a partition is given back before its committed rows are published",
        ),
        (
            Self::StopsAtOldNews,
            Protocol::TwoPhase,
            "a process that was stopped for long stops for good at what others have finished meanwhile",
        ),
        (
            Self::RowsBeforeTheirSpan,
            Protocol::OffsetsInSink,
            "some rows of a record are written before the span that covers it",
        ),
        (
            Self::RowsBeforeTheirSpan,
            Protocol::TwoPhase,
            "some rows of a record are written before the span that covers it",
        ),
        (
            Self::RowsBehindTheirSpan,
            Protocol::AtLeastOnce,
            "a span is closed with some of the rows of its last record",
        ),
        (
            Self::RowsBehindTheirSpan,
            Protocol::OffsetsInSink,
            "a span is closed with some of the rows of its last record",
        ),
        (
            Self::RowsBehindTheirSpan,
            Protocol::TwoPhase,
            "a span is closed with some of the rows of its last record",
        ),
        (
            Self::TransformedAgainInPart,
            Protocol::OffsetsInSink,
            "what is written again is transformed again in part",
        ),
        (
            Self::TransformedAgainInPart,
            Protocol::TwoPhase,
            "what is written again is transformed again in part",
        ),
        (Self::FilteredKeepsThePosition, Protocol::AtLeastOnce, "a filtered record keeps the position back"),
        (
            Self::FilteredKeepsThePosition,
            Protocol::OffsetsInSink,
            "a filtered record keeps the position back",
        ),
        (Self::FilteredKeepsThePosition, Protocol::TwoPhase, "a filtered record keeps the position back"),
        (
            Self::OnlyTheRefusedRowCut,
            Protocol::OffsetsInSink,
            "a refused row leaves the other rows of its record behind",
        ),
        (
            Self::OnlyTheRefusedRowCut,
            Protocol::TwoPhase,
            "a refused row leaves the other rows of its record behind",
        ),
        (
            Self::StoredRowsStay,
            Protocol::TwoPhase,
            "a refused row leaves those rows of its record behind that are in streams already",
        ),
        (
            Self::TornRecordsForgotten,
            Protocol::TwoPhase,
            "a record that had to be given up with its streams is tried again in the same way",
        ),
        (
            Self::LetterForEveryRow,
            Protocol::AtLeastOnce,
            "a record with several refused rows is dead-lettered for each",
        ),
    ];
}
