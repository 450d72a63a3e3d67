//! One contender, run once: how long it took, what it used, and what it left behind.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use super::Trouble;
use super::bigquery::BigQuery;
use super::broker;
use super::contender::{Contender, Goal, Kind, Place};
use super::processes::{self, Family, Stat};
use super::records::Totals;
use super::table::{Database, Found, Growth, Table};

/// How often a contender that prints is looked at: what its first and last output are timed by.
const LOOK_AT_OUTPUT: Duration = Duration::from_millis(2);
/// How often the others are looked at.
const LOOK_AT_PROCESS: Duration = Duration::from_millis(10);
/// How often a table is looked at while it fills.
const LOOK_AT_TABLE: Duration = Duration::from_millis(100);
/// How often the processes below a contender are looked for.
const LOOK_AT_FAMILY: Duration = Duration::from_secs(1);
/// A table that has not grown for so long does not grow any more.
const STANDSTILL: Duration = Duration::from_secs(30);
/// No contender may take longer.
const LONGEST: Duration = Duration::from_mins(10);
/// How long a contender may take to end once it is asked to.
const LAST_WAIT: Duration = Duration::from_secs(20);
/// Output below this is messages, or wake-ups between threads, and not yet rows.
const FIRST_OUTPUT: u64 = 64 * 1024;

/// What one run of a contender has shown.
#[derive(Clone, Debug)]
pub(crate) struct Measurement {
    /// Rows that arrived.
    pub(crate) rows: u64,
    /// From the start of the process to the last row.
    pub(crate) took: Duration,
    /// From the start of the process to the first rows; `None` where everything came at once.
    pub(crate) first_row: Option<Duration>,
    /// Rows a second from the first rows to the last.
    pub(crate) rate_after_first: Option<f64>,
    /// User and system time of the contender.
    pub(crate) cpu: Duration,
    /// Resident memory of the contender at its peak.
    pub(crate) peak_bytes: u64,
    /// Calls that brought rows to BigQuery; 0 for everybody else.
    pub(crate) requests: u64,
    /// User and system time meanwhile of the server that took the rows: PostgreSQL, or the local BigQuery.
    pub(crate) sink_cpu: Duration,
    /// User and system time of Kafka meanwhile.
    pub(crate) kafka_cpu: Duration,
    /// Cores that were busy with anything else meanwhile.
    pub(crate) other_cores: f64,
    /// What is wrong; empty when all is well.
    pub(crate) faults: Vec<String>,
}

/// The servers of a run.
pub(crate) struct Servers<'d> {
    pub(crate) database: &'d Database,
    pub(crate) kafka: Family,
    pub(crate) postgres: Family,
}

/// How a contender came to its end.
struct End {
    status: Option<ExitStatus>,
    costs: Costs,
    /// What was wrong with it already.
    fault: Option<String>,
}

/// CPU time that was used up to a moment.
struct Counters {
    busy: Duration,
    ours: Duration,
    kafka: Duration,
    sink: Duration,
}

/// What was used from the start of a contender to its end.
struct Costs {
    took: Duration,
    cpu: Duration,
    kafka: Duration,
    sink: Duration,
    other_cores: f64,
}

impl Servers<'_> {
    fn counters(&self, sink: Family) -> Counters {
        let [watcher, session] = [std::process::id(), self.database.backend]
            .map(|pid| Stat::of(pid).map_or(Duration::ZERO, |stat| stat.cpu));
        Counters {
            busy: processes::machine_busy(),
            ours: watcher + session,
            kafka: self.kafka.cpu(),
            sink: sink.cpu(),
        }
    }

    /// Runs a contender on empty tables, or an empty BigQuery.
    pub(crate) async fn measure(
        &self,
        contender: &Contender,
        round: u32,
        place: &Place,
        expected: Totals,
    ) -> Result<Measurement, Trouble> {
        self.database.empty().await?;
        let group = contender.group(round);
        let scratch = place.folder.join("scratch");
        drop(std::fs::remove_dir_all(&scratch));
        std::fs::create_dir_all(&scratch)?;

        let bigquery = match contender.goal() {
            Goal::BigQuery => Some(BigQuery::start(contender, place).await?),
            Goal::Output | Goal::Table(_) => None,
        };
        let mut command = contender.command(place, &group);
        if let Some(bigquery) = &bigquery {
            // Google's client for Python wants an address with its scheme, ours takes it.
            command.env("BIGQUERY_EMULATOR_HOST", format!("http://{}", bigquery.address()));
        }
        let sink =
            bigquery.as_ref().map_or_else(|| self.postgres.but_for(self.database.backend), BigQuery::family);
        let before = self.counters(sink);
        let mut run = Run::start(command, contender, place, &group)?;
        let end = run.watch(self, contender, expected, bigquery.as_ref(), (sink, &before)).await;
        run.stop();
        let end = end?;

        let mut measurement = Measurement {
            rows: expected.rows,
            took: end.costs.took,
            first_row: None,
            rate_after_first: None,
            cpu: end.costs.cpu,
            peak_bytes: run.peak_bytes,
            requests: 0,
            sink_cpu: end.costs.sink,
            kafka_cpu: end.costs.kafka,
            other_cores: end.costs.other_cores,
            faults: end.fault.into_iter().collect(),
        };
        if let Some(status) = end.status.filter(|status| !status.success()) {
            measurement.faults.push(status.to_string());
        }
        let rows = contender.rows(expected.rows);
        match contender.goal() {
            Goal::Table(table) => self.look_at_rows(&mut measurement, table, &run, expected).await?,
            Goal::Output => {
                if let Some(output) = &run.output {
                    output.tell(&mut measurement, expected);
                }
            }
            Goal::BigQuery => {
                if let Some(bigquery) = &bigquery {
                    let received = bigquery.received().await?;
                    measurement.rows = received.rows;
                    measurement.requests = received.requests;
                    measurement.faults.extend(received.faults(&contender.kind, rows));
                    run.arrivals.tell(&mut measurement);
                }
            }
        }
        if matches!(contender.kind, Kind::Ours(_) | Kind::OldWay) {
            let committed = broker::committed(&place.brokers, &group)?;
            if committed != rows {
                measurement.faults.push(format!("committed positions {committed}"));
            }
        }
        Ok(measurement)
    }

    async fn look_at_rows(
        &self,
        measurement: &mut Measurement,
        table: Table,
        run: &Run,
        expected: Totals,
    ) -> Result<(), Trouble> {
        let found: Found = self.database.found(table).await?;
        measurement.rows = found.rows;
        measurement.faults.extend(found.faults(expected));
        if let Some(pace) = self.database.pace(table, run.started_at).await? {
            measurement.took = pace.last;
            if pace.after_first > 0 {
                measurement.first_row = Some(pace.first);
                measurement.rate_after_first = rate(pace.after_first, pace.last.saturating_sub(pace.first));
            }
        }
        Ok(())
    }
}

/// Rows a second; `None` where there was no time.
pub(crate) fn rate(rows: u64, took: Duration) -> Option<f64> {
    (!took.is_zero()).then(|| rows as f64 / took.as_secs_f64())
}

/// A contender that runs.
struct Run {
    child: Child,
    started: Instant,
    started_at: SystemTime,
    /// Of a contender that prints; below `perf` it is not our child, and its output is not seen.
    output: Option<Output>,
    /// Of a contender into BigQuery.
    arrivals: Arrivals,
    peak_bytes: u64,
    looked_at_family: Instant,
}

impl Run {
    fn start(
        mut command: Command,
        contender: &Contender,
        place: &Place,
        group: &str,
    ) -> Result<Self, Trouble> {
        let log = File::create(place.folder.join(format!("{group}.log")))?;
        let to_output = contender.goal() == Goal::Output;
        let stdout = if to_output { Stdio::null() } else { log.try_clone()?.into() };
        let prints = to_output && !contender.is_profiled(place);
        // A group of its own, so that it is ended with all its processes.
        command.stdin(Stdio::null()).stdout(stdout).stderr(log).process_group(0);
        let (started, started_at) = (Instant::now(), SystemTime::now());
        let child = command.spawn().map_err(|error| format!("{contender} cannot be started: {error}"))?;
        Ok(Self {
            child,
            started,
            started_at,
            output: prints.then(Output::default),
            arrivals: Arrivals::default(),
            peak_bytes: 0,
            looked_at_family: started,
        })
    }

    /// Waits until the process has ended by itself, or a rival's table is full, or nothing happens any more.
    async fn watch(
        &mut self,
        servers: &Servers<'_>,
        contender: &Contender,
        expected: Totals,
        bigquery: Option<&BigQuery>,
        (sink, before): (Family, &Counters),
    ) -> Result<End, Trouble> {
        let rival = matches!(contender.kind, Kind::Rival(_));
        let mut growth = Growth::of(servers.database, Table::Plain);
        let mut looked_at_table = self.started;
        loop {
            tokio::time::sleep(if self.output.is_some() { LOOK_AT_OUTPUT } else { LOOK_AT_PROCESS }).await;
            let pid = self.child.id();
            if let Some(output) = &mut self.output {
                output.look(pid, self.started.elapsed());
            }
            if let Some(bigquery) = bigquery {
                let rows = bigquery.rows().await?;
                self.arrivals.look(rows, self.started.elapsed());
            }
            let stat = Stat::of(pid).ok_or("a contender's process is gone without having been waited for")?;
            if stat.ended {
                // While it has not been waited for, the kernel still keeps what it has used.
                let costs = self.costs(servers, before, sink, stat.cpu);
                return Ok(End { status: Some(self.child.wait()?), costs, fault: None });
            }
            self.look_at_memory();
            let fault = if self.started.elapsed() > LONGEST {
                Some("took too long")
            } else if rival && growth.still_for() > STANDSTILL {
                Some("stood still")
            } else {
                None
            };
            if let Some(fault) = fault {
                let costs = self.costs(servers, before, sink, Family::of(pid).cpu());
                return Ok(End { status: None, costs, fault: Some(fault.to_owned()) });
            }
            if rival && looked_at_table.elapsed() > LOOK_AT_TABLE {
                looked_at_table = Instant::now();
                if growth.may_hold(expected.rows).await? {
                    let costs = self.costs(servers, before, sink, Family::of(pid).cpu());
                    // As many rows, but some of them twice: the rest may still come.
                    if servers.database.found(Table::Plain).await?.ids >= expected.rows {
                        return Ok(End { status: None, costs, fault: None });
                    }
                }
            }
        }
    }

    fn look_at_memory(&mut self) {
        let pid = self.child.id();
        self.peak_bytes = self.peak_bytes.max(processes::peak_bytes(pid));
        if self.looked_at_family.elapsed() > LOOK_AT_FAMILY {
            self.looked_at_family = Instant::now();
            self.peak_bytes = self.peak_bytes.max(Family::of(pid).peak_bytes());
        }
    }

    fn costs(&self, servers: &Servers<'_>, before: &Counters, sink: Family, cpu: Duration) -> Costs {
        let took = self.started.elapsed();
        let now = servers.counters(sink);
        let kafka = now.kafka.saturating_sub(before.kafka);
        let sink = now.sink.saturating_sub(before.sink);
        let ours = now.ours.saturating_sub(before.ours);
        let others = now.busy.saturating_sub(before.busy).saturating_sub(kafka + sink + ours + cpu);
        Costs { took, cpu, kafka, sink, other_cores: others.as_secs_f64() / took.as_secs_f64() }
    }

    /// Ends what still runs of it, politely first.
    fn stop(&mut self) {
        for signal in ["TERM", "KILL"] {
            let asked = Instant::now();
            while asked.elapsed() < LAST_WAIT {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                if asked.elapsed() < LOOK_AT_PROCESS {
                    self.signal_group(signal);
                }
                std::thread::sleep(LOOK_AT_PROCESS);
            }
        }
    }

    fn signal_group(&self, signal: &str) {
        // Where the group has just ended, kill says so, and there is nothing left to do.
        let kill = format!("kill -s {signal} -- -{}", self.child.id());
        drop(Command::new("bash").args(["-c", &kill]).stderr(Stdio::null()).status());
    }
}

/// What a contender has written to `/dev/null`, as the kernel counts it.
#[derive(Debug, Default)]
struct Output {
    /// Bytes, and when there were so many.
    first: Option<(u64, Duration)>,
    last: (u64, Duration),
}

impl Output {
    fn look(&mut self, pid: u32, at: Duration) {
        let Some(bytes) = processes::written_bytes(pid) else { return };
        if bytes > FIRST_OUTPUT {
            self.first.get_or_insert((bytes, at));
        }
        // Wake-ups between threads count as 8 bytes each; a page is rows.
        if bytes > self.last.0 + 4_096 {
            self.last = (bytes, at);
        }
    }

    fn tell(&self, measurement: &mut Measurement, expected: Totals) {
        let (bytes, last) = self.last;
        if bytes + FIRST_OUTPUT < expected.json_bytes {
            measurement.faults.push(format!("{bytes} of {} bytes printed", expected.json_bytes));
        }
        measurement.took = last;
        if let Some((first_bytes, first)) = self.first {
            measurement.first_row = Some(first);
            let share = (bytes - first_bytes) as f64 / bytes as f64;
            let took = last.saturating_sub(first).as_secs_f64();
            measurement.rate_after_first = (took > 0.0).then(|| share * expected.rows as f64 / took);
        }
    }
}

/// The rows that could be seen in BigQuery, and since when.
#[derive(Debug, Default)]
struct Arrivals {
    first: Option<(u64, Duration)>,
    last: (u64, Duration),
}

impl Arrivals {
    fn look(&mut self, rows: u64, at: Duration) {
        if rows > self.last.0 {
            self.first.get_or_insert((rows, at));
            self.last = (rows, at);
        }
    }

    fn tell(&self, measurement: &mut Measurement) {
        let Some((first_rows, first)) = self.first else { return };
        let (rows, last) = self.last;
        measurement.took = last;
        if rows > first_rows {
            measurement.first_row = Some(first);
            measurement.rate_after_first = rate(rows - first_rows, last.saturating_sub(first));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_time() {
        assert_eq!(rate(10, Duration::ZERO), None);
        assert_eq!(rate(10, Duration::from_secs(2)), Some(5.0));
    }

    #[test]
    fn rows_that_came_with_the_first_look_do_not_count_after_it() {
        let mut arrivals = Arrivals::default();
        for (rows, second) in [(0, 1), (100, 2), (300, 3), (500, 4), (500, 5)] {
            arrivals.look(rows, Duration::from_secs(second));
        }
        assert_eq!(arrivals.first, Some((100, Duration::from_secs(2))));
        assert_eq!(arrivals.last, (500, Duration::from_secs(4)));
    }
}
