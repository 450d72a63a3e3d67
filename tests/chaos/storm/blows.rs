//! What befalls a round.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::{Due, Storm};
use crate::plan::Mood;
use crate::proxy::LostCommit;
use crate::servers::{Server, ServerFault, Victim};
use crate::sink::Sink;

/// What can befall a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    Kill,
    KillTwo,
    Freeze,
    Terminate,
    Join,
    Leave,
    SinkFault,
    SinkFreeze,
    Broker,
}

impl Storm<'_> {
    pub(super) fn blow(&mut self) {
        let calm = [Blow::Terminate, Blow::Terminate, Blow::Join, Blow::Leave];
        let wild = [
            Blow::Kill,
            Blow::Kill,
            Blow::Kill,
            Blow::Kill,
            Blow::KillTwo,
            Blow::Freeze,
            Blow::Freeze,
            Blow::Terminate,
            Blow::Terminate,
            Blow::Join,
            Blow::Leave,
            Blow::SinkFault,
            Blow::SinkFault,
            Blow::SinkFault,
            Blow::SinkFreeze,
            Blow::SinkFreeze,
            Blow::Broker,
        ];
        let blow = match self.plan.mood {
            Mood::Calm => self.dice.one_of(&calm),
            Mood::Wild => self.dice.one_of(&wild),
        };
        match blow {
            Blow::Kill => self.kill_one(),
            Blow::KillTwo => {
                self.kill_one();
                self.kill_one();
            }
            Blow::Freeze => self.freeze_one(),
            Blow::Terminate => self.terminate_one(true),
            Blow::Join if self.expected() < 4 => self.start_member(),
            Blow::Leave if self.running() > 1 && self.expected() > 1 => self.terminate_one(false),
            Blow::SinkFault => self.sink_fault(),
            Blow::SinkFreeze => self.freeze_sink(),
            Blow::Broker if self.plan.servers && !self.broker.is_busy() => self.server_fault(Server::Broker),
            Blow::Join | Blow::Leave | Blow::Broker => {}
        }
    }

    pub(super) fn sink_fault(&mut self) {
        let server = match &self.sink {
            Sink::BigQuery(server) => server,
            Sink::Pipes(_) => return self.freeze_sink(),
            Sink::Postgres(_) => return self.database_fault(),
        };
        if self.sink_frozen {
            return;
        }
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
        let fault = json!({ "method": "tabledata.insertAll", "what": what, "times": times });
        server.script(&fault);
        if what == json!("reply_lost") {
            self.evidence.lost_replies += times;
        }
        self.tell(&format!("BigQuery fails {times} times: {}", named(&what)));
    }

    /// Nothing is taken for a while, longer than a drain may last or shorter.
    pub(super) fn freeze_sink(&mut self) {
        if self.sink_frozen {
            return;
        }
        let window = self.stop_sink();
        let pause = self.dice.millis(1_000..=12_000);
        self.tell(&format!("the sink takes nothing for {} ms", pause.as_millis()));
        self.later(pause, Due::ThawSink);
        self.later(pause + Duration::from_secs(6), Due::Close(window));
    }

    pub(super) fn stop_sink(&mut self) -> usize {
        self.sink_frozen = true;
        self.sink.stop(true);
        self.open_window("sink")
    }

    pub(super) fn thaw_sink(&mut self) {
        self.sink.stop(false);
        self.sink_frozen = false;
        self.tell("the sink takes again");
    }

    pub(super) fn victim(&mut self, server: Server) -> &mut Victim {
        match server {
            Server::Broker => &mut self.broker,
            Server::Database => &mut self.database,
        }
    }

    fn server_fault(&mut self, server: Server) {
        let window = self.open_window("server");
        let pause = self.dice.millis(1_500..=9_000);
        let fault = self.dice.one_of(&[ServerFault::Freeze, ServerFault::Restart, ServerFault::Crash]);
        self.tell(&format!("the {server}: {fault:?}"));
        self.victim(server).begin(fault);
        if fault == ServerFault::Freeze {
            self.later(pause, Due::ThawServer(server));
        }
        self.later(pause + Duration::from_secs(25), Due::Close(window));
    }

    pub(super) fn look_at(&mut self, server: Server) {
        let frozen = self.dues.iter().any(|(_, due)| *due == Due::ThawServer(server));
        if self.victim(server).has_come_back() && !frozen {
            self.victim(server).answers();
            self.tell(&format!("the {server} answers"));
        }
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
