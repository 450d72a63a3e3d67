//! What the kernel knows about processes: CPU time, memory, bytes written. Linux only, like the servers.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::Duration;

/// `USER_HZ`, in which `/proc` counts time: 100 on every architecture that Rust has a Linux target with std for.
const TICKS_PER_SECOND: u32 = 100;

/// What `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Ended, and waiting for its parent to ask for its exit code.
    pub(crate) ended: bool,
    parent: u32,
    /// User and system time of the process and of those of its children that it has waited for.
    pub(crate) cpu: Duration,
}

impl Stat {
    /// Of a process; `None` when there is none.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The name, in parentheses, may hold anything. Behind it are the state and the parent; times are the fields
        // 14 to 17 of proc_pid_stat(5).
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u32>().ok()).sum::<Option<u32>>()?;
        Some(Self {
            ended: matches!(*fields.first()?, "Z" | "X"),
            parent: fields.get(1)?.parse().ok()?,
            cpu: Duration::from_secs(1) * ticks / TICKS_PER_SECOND,
        })
    }
}

/// A process and everything below it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    root: u32,
    /// One of them that does not count.
    but_for: Option<u32>,
}

impl Family {
    pub(crate) fn of(root: u32) -> Self {
        Self { root, but_for: None }
    }

    pub(crate) fn but_for(self, pid: u32) -> Self {
        Self { but_for: Some(pid), ..self }
    }

    fn members(self) -> Vec<u32> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
            if let Some(stat) = Stat::of(pid) {
                children.entry(stat.parent).or_default().push(pid);
            }
        }
        let mut found = HashSet::new();
        let mut waiting = vec![self.root];
        while let Some(pid) = waiting.pop() {
            if found.insert(pid) {
                waiting.extend(children.remove(&pid).unwrap_or_default());
            }
        }
        found.into_iter().filter(|pid| Some(*pid) != self.but_for).collect()
    }

    /// User and system time of all of them.
    pub(crate) fn cpu(self) -> Duration {
        self.members().into_iter().filter_map(Stat::of).map(|stat| stat.cpu).sum()
    }

    /// The sum of what each of them had in memory at its peak, in bytes.
    pub(crate) fn peak_bytes(self) -> u64 {
        self.members().into_iter().map(peak_bytes).sum()
    }
}

/// What the process had in memory (resident) at its peak, in bytes; 0 once it has ended.
pub(crate) fn peak_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    field(&status, "VmHWM:").map_or(0, |kibibytes| kibibytes * 1024)
}

/// Bytes that the process has given to `write`, whatever file took them. Sockets are written with other calls.
pub(crate) fn written_bytes(pid: u32) -> Option<u64> {
    field(&fs::read_to_string(format!("/proc/{pid}/io")).ok()?, "wchar:")
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Time that all cores of the machine have spent on anything, since it was started.
pub(crate) fn machine_busy() -> Duration {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    // user nice system idle iowait irq softirq steal
    let ticks: Vec<u32> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|field| field.parse().ok())
        .collect();
    let busy = ticks.iter().enumerate().filter(|(index, _)| !matches!(index, 3 | 4)).map(|(_, ticks)| *ticks);
    Duration::from_secs(1) * busy.sum::<u32>() / TICKS_PER_SECOND
}

/// The processor's name, as the kernel tells it.
pub(crate) fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let stat = Stat::parse("7 (a) b (c) Z 3 7 7 0 -1 0 0 0 0 0 120 30 4 6 20 0 1 0 99").unwrap();
        assert_eq!(stat, Stat { ended: true, parent: 3, cpu: Duration::from_millis(1_600) });
    }

    #[test]
    fn a_cut_off_line_is_nothing() {
        assert_eq!(Stat::parse("7 (a) S 3 7 7"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn a_child_belongs_to_the_family_until_it_has_ended() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let family = Family::of(std::process::id());
        assert!(family.members().contains(&child.id()));
        assert!(!family.but_for(child.id()).members().contains(&child.id()));
        assert!(peak_bytes(child.id()) > 0);
        child.kill().unwrap();
        while !Stat::of(child.id()).unwrap().ended {}
        child.wait().unwrap();
        assert!(!family.members().contains(&child.id()));
        assert_eq!(Stat::of(child.id()), None);
    }
}
