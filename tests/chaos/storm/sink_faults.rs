//! What befalls the calls of the sink, one by one.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::{Due, Storm};
use crate::plan::{IntoBigQuery, Target, Way};
use crate::proxy::LostCommit;
use crate::servers::Server;
use crate::sink::Sink;

impl Storm<'_> {
    pub(super) fn sink_fault(&mut self) {
        match self.plan.target {
            Target::Stdout => self.freeze_sink(),
            Target::Postgres(_) => self.database_fault(),
            // It can be told nothing.
            Target::BigQuery(_) if self.sink_frozen => {}
            Target::BigQuery(setting) if setting.way == Way::InsertAll => self.insert_all_fault(),
            Target::BigQuery(setting) => {
                for _ in 0..self.dice.within(1..=3) {
                    self.storage_write_fault(setting);
                }
            }
        }
    }

    /// What befalls `tabledata.insertAll`.
    fn insert_all_fault(&mut self) {
        let times = self.dice.within(1..=25);
        let unavailable = json!({ "error": { "status": 503, "reason": "backendError", "message": "later" } });
        let what = match self.dice.index(6) {
            0 => json!("reply_lost"),
            1 => json!("cut"),
            2 => unavailable,
            3 => json!({ "html": { "status": 502 } }),
            4 => json!({ "slow": { "ms": self.dice.within(200..=2500) } }),
            _ => json!({ "row_errors": { "rows": [0, 3], "reason": "backendError" } }),
        };
        if what == json!("reply_lost") {
            self.evidence.lost_replies += times;
        }
        self.script("tabledata.insertAll", &what, times, None);
    }

    /// `now_and_then`: the seed of a fault that does not strike every call.
    fn script(&mut self, method: &str, what: &Json, times: u64, now_and_then: Option<u64>) {
        let Sink::BigQuery(server) = &self.sink else { return };
        let mut fault = json!({ "method": method, "what": what, "times": times });
        if let Some(seed) = now_and_then {
            fault["chance"] = json!(0.3);
            fault["seed"] = json!(seed);
        }
        server.script(&fault);
        self.tell(&format!("{method} fails {times} times: {}", named(what)));
    }

    /// What befalls the methods of the Storage Write API.
    fn storage_write_fault(&mut self, setting: IntoBigQuery) {
        let status = |code: &str| json!({ "status": { "code": code, "message": "later" } });
        let method = match setting.way {
            Way::TwoPhase => self.dice.one_of(&[
                "AppendRows",
                "AppendRows",
                "AppendRows",
                "AppendRows",
                "FlushRows",
                "FlushRows",
                "FinalizeWriteStream",
                "CreateWriteStream",
            ]),
            Way::Upsert | Way::DefaultStream | Way::InsertAll => "AppendRows",
        };
        let common = [
            json!("reply_lost"),
            json!("reply_lost"),
            json!("cut"),
            status("UNAVAILABLE"),
            status("INTERNAL"),
            json!({ "slow": { "ms": self.dice.within(200..=2500) } }),
        ];
        let of_appends = [
            status("ABORTED"),
            json!({ "stream_closed": { "because": "restart" } }),
            json!({ "stream_closed": { "because": "inactivity" } }),
            json!({ "status": { "code": "UNAVAILABLE", "message": "later", "in_band": true } }),
            json!({ "late_reply": { "ms": self.dice.within(50..=1500) } }),
            json!({ "late_reply": { "ms": self.dice.within(50..=1500) } }),
            json!({ "quota": { "reason": "rateLimitExceeded" } }),
            json!({ "not_found_after_create": { "ms": self.dice.within(200..=1500) } }),
        ];
        let of_creations = [json!({ "not_found_after_create": { "ms": self.dice.within(200..=1500) } })];
        let own: &[Json] = match method {
            "AppendRows" => &of_appends,
            "CreateWriteStream" => &of_creations,
            _ => &[],
        };
        let index = self.dice.index(common.len() + own.len());
        let what = common.iter().chain(own).nth(index).unwrap();
        let times = if method == "AppendRows" { self.dice.within(1..=25) } else { self.dice.within(1..=6) };
        if setting.way == Way::DefaultStream {
            // A cut connection takes along every answer that was on its way; the others end in their order.
            let unheard = match what.as_str() {
                Some("reply_lost") => 1,
                Some("cut") => self.plan.lanes * self.plan.in_flight,
                _ => 0,
            };
            self.evidence.lost_replies += times * unheard as u64;
            // A drain may be given up for it.
            let window = self.open_window("fault");
            self.later(Duration::from_secs(20), Due::Close(window));
        }
        let now_and_then = self.dice.percent(50).then(|| self.dice.number());
        self.script(method, what, times, now_and_then);
    }

    /// What befalls the way to the database, and the sessions in it.
    fn database_fault(&mut self) {
        let fault = self.dice.index(8);
        let pause = self.dice.millis(500..=6_000);
        let times = self.dice.index(6) + 1;
        let delay = self.dice.millis(20..=400);
        let ours = self.plan.servers && !self.database.is_busy();
        let Sink::Postgres(postgres) = &self.sink else { return };
        let lose = |how| {
            postgres.proxy.lose_commits(how, times);
            format!("{times} commits are lost: {how:?}")
        };
        let said = match fault {
            0 => lose(LostCommit::BeforeTheServer),
            1 => lose(LostCommit::AfterTheServer),
            2 => lose(LostCommit::InSilence),
            3 => {
                postgres.proxy.cut();
                "all connections to the database are cut".to_owned()
            }
            4 => {
                postgres.proxy.refuse(true);
                postgres.proxy.cut();
                self.later(pause, Due::Admit);
                format!("the database is out of reach for {} ms", pause.as_millis())
            }
            5 => {
                postgres.proxy.delay(delay);
                self.later(pause, Due::Hasten);
                format!("the database is {} ms away for {} ms", delay.as_millis(), pause.as_millis())
            }
            _ if ours => return self.server_fault(Server::Database),
            // A database that is frozen or on its way up ends no sessions either.
            _ if self.database.is_busy() => return,
            _ => format!("{} sessions in the database are ended", postgres.terminate_sessions()),
        };
        self.tell(&said);
    }

    pub(super) fn admit(&mut self) {
        let Sink::Postgres(postgres) = &self.sink else { return };
        postgres.proxy.refuse(false);
        self.tell("the database is within reach again");
    }

    pub(super) fn hasten(&mut self) {
        let Sink::Postgres(postgres) = &self.sink else { return };
        postgres.proxy.delay(Duration::ZERO);
        self.tell("the database is near again");
    }
}

fn named(what: &Json) -> String {
    match what {
        Json::String(name) => name.clone(),
        other => other.to_string(),
    }
}
