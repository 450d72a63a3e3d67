//! `dead-letters replay`: sends letters back to the topics they came from.
//!
//! | module | what it does |
//! |---|---|
//! | `plan` | which letters go and which stay, without sending anything |
//! | `send` | sends them, and remembers what Kafka has confirmed |
//!
//! Everything is read twice: first to say what would happen, and to be sure that it can be remembered.

mod plan;
mod send;

use super::letter::Stretch;
use super::list::say_missing;
use super::lock::{self, Lock};
use super::look::{Doubt, View, look};
use super::{CommandError, Opened, ReplayArguments};
use crate::commands::print_result;
use crate::terminal::numbers::counted;
use crate::terminal::progress::Screen;

use self::plan::{Chooser, Plan};

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
        return print_result(&format!("{}: no dead letter to send back\n", opened.pipeline.name));
    }
    plan.refuse_what_cannot_be_remembered(&opened.pipeline.name)?;
    print_result(&plan.text(&opened.pipeline.name))?;
    if arguments.dry_run {
        return Ok(());
    }
    if !arguments.yes {
        return Err(CommandError::Usage(
            "nothing was sent: say --yes to do it, or --dry-run to only look".to_owned(),
        ));
    }
    let partitions = plan.partitions();
    let mut lock = Lock::take(opened, &partitions)?;
    let sent = still_as_planned(opened, arguments, &view)
        .and_then(|()| send::send(opened, &chooser, &plan, &mut lock, screen));
    lock.leave();
    let sent = sent?;
    print_result(&format!(
        "{}: {} sent back\n",
        opened.pipeline.name,
        counted(sent.letters, "dead letter is", "dead letters are")
    ))?;
    match sent.too_large {
        0 => Ok(()),
        count => Err(CommandError::Failed(format!(
            "{} too large for the topic with the headers of a replay and stay; raise its `max.message.bytes` and run \
             the command again",
            counted(count, "letter is", "letters are")
        ))),
    }
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
