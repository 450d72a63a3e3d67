//! What befalls a round.

use std::time::Duration;

use super::{Due, Storm};
use crate::plan::Mood;
use crate::servers::{Server, ServerFault, Victim};

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

    pub(super) fn server_fault(&mut self, server: Server) {
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
}
