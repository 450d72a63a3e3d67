//! `dead-letters replay`: sends letters back to the topics they came from, or through the pipeline again.
//!
//! | module | what it does |
//! |---|---|
//! | `plan` | which letters go and which stay, without sending anything |
//! | `send` | brings them to where they go, and remembers which have arrived |
//! | `to_topics` | back to their topics |
//! | `to_sink` | through the stages of the pipeline into its sink |
//!
//! Everything is read twice: first to say what would happen, and to be sure that it can be remembered.

mod plan;
mod send;
mod to_sink;
mod to_topics;

use super::letter::Stretch;
use super::list::say_missing;
use super::lock::{self, Lock};
use super::look::{Doubt, View, look};
use super::{CommandError, Opened, ReplayArguments, To};
use crate::commands::{print_result, runtime, say};
use crate::terminal::numbers::counted;
use crate::terminal::progress::Screen;

use self::plan::{Chooser, Plan};
use self::send::{Destination, Sent};
use self::to_sink::Stages;
use self::to_topics::Topics;

/// Replays what the arguments name.
pub(super) fn replay(
    opened: &Opened,
    arguments: &ReplayArguments,
    screen: &Screen,
) -> Result<(), CommandError> {
    refuse_unclear(arguments)?;
    if arguments.yes {
        lock::refuse_active(opened)?;
    }
    let view = look(opened, &arguments.causes.topics)?;
    say_missing(opened, &view);
    refuse_doubts(opened, &view)?;
    refuse_unknown(&arguments.offsets, &view)?;
    let chooser = Chooser::new(opened, arguments, &view);
    let plan = Plan::make(opened, &chooser, &view, screen)?;
    for line in plan.remarks() {
        opened.say(&line);
    }
    if plan.letters() == 0 {
        let text = format!("{}: no dead letter to replay\n", opened.pipeline.name);
        return print_about(opened, arguments.to, &text);
    }
    plan.refuse_what_cannot_be_remembered(&opened.pipeline.name)?;
    print_about(opened, arguments.to, &plan.text(&opened.pipeline.name))?;
    if arguments.dry_run {
        return Ok(());
    }
    if !arguments.yes {
        return Err(CommandError::Usage(
            "nothing was sent: say --yes to do it, or --dry-run to only look".to_owned(),
        ));
    }
    let runtime = runtime()?;
    let ended = send::end_signals(&runtime)?;
    // Before anybody is kept from replaying: whether there is a way to go.
    let mut way = match arguments.to {
        To::Topic => Way::Topics(Topics::connect(opened, &runtime)?),
        To::Pipeline => Way::Stages(Box::new(Stages::open(opened, &arguments.pipeline, &runtime, &ended)?)),
    };
    let mut lock = Lock::take(opened, &plan.partitions())?;
    let sent = still_as_planned(opened, arguments, &view).and_then(|()| {
        let destination: &mut dyn Destination = match &mut way {
            Way::Topics(topics) => topics,
            Way::Stages(stages) => &mut **stages,
        };
        send::send(opened, &chooser, &plan, destination, &mut lock, &ended, screen)
    });
    lock.leave();
    if let Way::Stages(stages) = &way {
        for line in stages.failed() {
            opened.say(&line);
        }
    }
    tell(opened, arguments.to, sent?)
}

/// Where letters go, with what is needed for it.
enum Way<'a> {
    Topics(Topics<'a>),
    Stages(Box<Stages<'a>>),
}

fn tell(opened: &Opened, to: To, sent: Sent) -> Result<(), CommandError> {
    let letters = counted(sent.arrived, "dead letter", "dead letters");
    let line = match to {
        To::Topic => format!("{letters} sent back"),
        To::Pipeline => format!("{letters} through the pipeline"),
    };
    print_about(opened, to, &format!("{}: {line}\n", opened.pipeline.name))?;
    let stayed = counted(sent.stayed, "letter stays", "letters stay");
    match (sent.stayed, to) {
        (0, _) => Ok(()),
        (_, To::Topic) => Err(CommandError::Failed(format!(
            "{stayed}: too large for the topic with the headers of a replay; raise its `max.message.bytes` and run the \
             command again"
        ))),
        (_, To::Pipeline) => Err(CommandError::Failed(format!(
            "{stayed}, with the mistakes told above; mend them and run the command again"
        ))),
    }
}

/// Prints a result; where the rows themselves go to the standard output, beside it.
fn print_about(opened: &Opened, to: To, text: &str) -> Result<(), CommandError> {
    if to == To::Pipeline && opened.pipeline.sink.name() == "stdout" {
        say(text.trim_end());
        return Ok(());
    }
    print_result(text)
}

fn refuse_unclear(arguments: &ReplayArguments) -> Result<(), CommandError> {
    let chosen = !arguments.causes.is_empty() || !arguments.offsets.is_empty();
    match (chosen, arguments.all) {
        (false, false) => Err(CommandError::Usage(
            "which letters? say --class, --stage, --topic, --since, --until or --offset, or --all".to_owned(),
        )),
        (true, true) => Err(CommandError::Usage(
            "--all means every letter: leave it out, or the options that choose some".to_owned(),
        )),
        _ => Ok(()),
    }
}

/// What is remembered must be certain before anything is sent.
fn refuse_doubts(opened: &Opened, view: &View) -> Result<(), CommandError> {
    for (partition, doubt) in &view.doubts {
        match doubt {
            Doubt::Anew => opened.say(&format!("{partition}: {doubt}")),
            Doubt::Unreadable(..) => {
                return Err(CommandError::Failed(format!(
                    "{partition}: {doubt}. Nothing was sent: set the position of the group {} with Kafka's \
                     kafka-consumer-groups, which removes the text beside it, to say below which offset everything was \
                     replayed",
                    opened.group
                )));
            }
            Doubt::OtherPipeline(..) => {
                return Err(CommandError::Failed(format!(
                    "{partition}: {doubt}. Nothing was sent: give this pipeline a group of its own, for this command \
                     with --set source.kafka.group=NAME"
                )));
            }
        }
    }
    Ok(())
}

fn refuse_unknown(stretches: &[Stretch], view: &View) -> Result<(), CommandError> {
    let unknown = stretches.iter().find(|stretch| {
        !view
            .partitions
            .iter()
            .any(|one| *one.partition.topic == *stretch.topic && one.partition.partition == stretch.partition)
    });
    let Some(unknown) = unknown else { return Ok(()) };
    let mut topics: Vec<&str> = view.partitions.iter().map(|one| &*one.partition.topic).collect();
    topics.dedup();
    Err(CommandError::Usage(format!(
        "{}/{} is no partition of a dead letter topic of the pipeline{}",
        unknown.topic,
        unknown.partition,
        if topics.is_empty() { String::new() } else { format!("; they are {}", topics.join(", ")) }
    )))
}

/// Nobody may have replayed between the plan and the membership.
fn still_as_planned(
    opened: &Opened,
    arguments: &ReplayArguments,
    planned: &View,
) -> Result<(), CommandError> {
    let now = look(opened, &arguments.causes.topics)?;
    let same = planned.partitions.iter().all(|before| {
        now.partitions.iter().any(|after| {
            before.partition == after.partition
                && before.topic_id == after.topic_id
                // Retention may have moved the beginning meanwhile.
                && (before.replayed == after.replayed || before.begin != after.begin)
        })
    });
    if same {
        return Ok(());
    }
    Err(CommandError::Failed(
        "another replay has ended meanwhile: nothing was sent, run the command again".to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::{Command, CommandLine};
    use clap::Parser;

    fn arguments(line: &str) -> ReplayArguments {
        let line = format!("txconnect dead-letters replay p.yaml {line}");
        let parsed = CommandLine::try_parse_from(line.split_whitespace()).unwrap();
        let Command::DeadLetters(arguments) = parsed.command else { panic!("another command") };
        let super::super::DeadLettersCommand::Replay(arguments) = arguments.command else {
            panic!("another command")
        };
        arguments
    }

    #[test]
    fn letters_must_be_chosen_and_all_of_them_on_purpose() {
        for (line, clear) in [
            ("--yes", false),
            ("--again --yes", false),
            ("--all", true),
            ("--class validate", true),
            ("--offset t/0/1", true),
            ("--all --stage decode", false),
            ("--all --offset t/0/1-9", false),
        ] {
            assert_eq!(refuse_unclear(&arguments(line)).is_ok(), clear, "{line}");
        }
    }
}
