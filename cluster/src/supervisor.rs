//! What is to be done about one pipeline: a pure function of what happened and when.
//!
//! A [`Supervisor`] is told [`Event`]s and answers with [`Action`]s; it does nothing itself, and time is handed to it. It
//! promises, whatever the order of events (a model test holds it to that):
//!
//! - It never starts a process while one runs, and speaks to a process only while it runs.
//! - A pipeline that is not wanted ends: drained, or killed once its time to drain is over; and then nothing is started.
//! - A pipeline that crashes is started again after a delay that doubles up to a cap, and has failed after so many
//!   crashes without a healthy time between two of them, or when it says that it cannot go on. It is then left alone until
//!   someone wants it anew.
//! - A process that says nothing any more is killed, and that is a crash.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How patient a supervisor is.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// The delay after the first crash; it doubles with each.
    pub first_delay: Duration,
    /// The greatest delay.
    pub longest_delay: Duration,
    /// How often a pipeline is started again after crashes without a healthy time between two of them.
    pub restarts: u32,
    /// A process that has run so long is healthy: earlier crashes are forgotten.
    pub healthy: Duration,
    /// How long a process may take to drain.
    pub drain: Duration,
    /// How long a process may say nothing.
    pub silence: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            first_delay: Duration::from_millis(500),
            longest_delay: Duration::from_secs(30),
            restarts: 20,
            healthy: Duration::from_secs(60),
            drain: Duration::from_secs(60),
            silence: Duration::from_secs(30),
        }
    }
}

impl Policy {
    /// The delay after so many crashes.
    fn delay(&self, crashes: u32) -> Duration {
        let doublings = crashes.saturating_sub(1).min(30);
        self.first_delay.saturating_mul(1 << doublings).min(self.longest_delay)
    }
}

/// Whether a pipeline is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// It is to run.
    Running,
    /// It is to stop once what was read is committed.
    Stopped,
    /// It is to stop at once.
    StoppedNow,
}

/// What is wanted of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Whether it is to run.
    pub desired: Desired,
    /// Grows each time that it is to be started anew: a process of an earlier version is replaced, and a pipeline that
    /// has failed or finished gets another chance.
    pub version: u64,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The sources had ended, and all was well.
    Finished,
    /// It was asked to drain, and all was well.
    Drained,
    /// It cannot go on before somebody decides something, and what that is. Starting it again would tell the same.
    Refused(String),
    /// As [`Exit::Refused`]: only the pipeline as it was can finish what it had begun, and nobody knows how that was.
    Unfinished(String),
    /// The next one takes its turn: the pipeline as it was is to finish what it had begun, or has.
    MadeWay,
    /// Anything else, and what is known of it.
    Crashed(String),
}

/// How a pipeline came to its end, which is kept over restarts of its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Its sources ended and all was well.
    Finished,
    /// It crashed too often, or cannot go on; the last cause.
    Failed(String),
}

/// Where a pipeline stands. Times are the moments at which a state began or ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// No process, because it is not wanted.
    Stopped,
    /// A process was started, and its sources and sinks are not open yet.
    Starting,
    /// Rows flow.
    Running,
    /// The process commits what it has read, and ends.
    Draining {
        /// When it is killed.
        deadline: Duration,
    },
    /// The process was killed, and is not gone yet.
    Killed {
        /// The crash that it counts as, if it is one.
        crash: Option<String>,
    },
    /// No process, because the last one crashed a moment ago.
    BackingOff {
        /// When the next one is started.
        until: Duration,
    },
    /// No process, because the last ones crashed too often, or the last one cannot go on.
    Failed(String),
    /// No process, because the sources have ended.
    Finished,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// What is wanted, now or still.
    Want(Want),
    /// The process said how it is: whether its sources and sinks are open.
    Reported {
        /// They are.
        running: bool,
    },
    /// The process is gone.
    Exited(Exit),
    /// Time has passed.
    Tick,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a process of a new generation.
    Start,
    /// Ask the process to drain.
    Drain,
    /// Kill the process.
    Kill,
    /// Remember for good how it ended.
    Record(Ended),
}

/// The one that looks after a pipeline. See the [module](self).
#[derive(Clone, Debug)]
pub struct Supervisor {
    policy: Policy,
    state: State,
    since: Duration,
    want: Want,
    /// The version of the process, or of what ended.
    version: u64,
    heard: Duration,
    crashes: u32,
    last_crash: Option<String>,
}

impl Supervisor {
    /// One whose pipeline has no process: it ended earlier, or none was started yet. The first [`Event::Want`] sets it
    /// in motion.
    pub fn new(policy: Policy, version: u64, ended: Option<Ended>, now: Duration) -> Supervisor {
        let state = match ended {
            None => State::Stopped,
            Some(Ended::Finished) => State::Finished,
            Some(Ended::Failed(cause)) => State::Failed(cause),
        };
        let want = Want { desired: Desired::Stopped, version };
        Supervisor { policy, state, since: now, want, version, heard: now, crashes: 0, last_crash: None }
    }

    /// Where the pipeline stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// When it began to stand there.
    pub fn since(&self) -> Duration {
        self.since
    }

    /// Crashes without a healthy time between two of them.
    pub fn crashes(&self) -> u32 {
        self.crashes
    }

    /// Why the process before this one crashed, until one has been healthy.
    pub fn last_crash(&self) -> Option<&str> {
        self.last_crash.as_deref()
    }

    /// Whether a process runs, as far as is known.
    pub fn has_process(&self) -> bool {
        matches!(self.state, State::Starting | State::Running | State::Draining { .. } | State::Killed { .. })
    }

    /// When it needs an [`Event::Tick`] at the latest, if nothing else happens.
    pub fn wake(&self) -> Option<Duration> {
        match self.state {
            State::Starting => Some(self.heard + self.policy.silence),
            State::Running => {
                let healthy = Some(self.since + self.policy.healthy).filter(|_| self.crashes > 0);
                let silent = self.heard + self.policy.silence;
                Some(healthy.map_or(silent, |healthy| healthy.min(silent)))
            }
            State::Draining { deadline } => Some(deadline),
            State::BackingOff { until } => Some(until),
            State::Stopped | State::Killed { .. } | State::Failed(_) | State::Finished => None,
        }
    }

    /// Says what to do about an event. Times never fall.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        match event {
            Event::Want(want) => {
                self.want = want;
                self.pursue(now)
            }
            Event::Reported { running } => {
                self.heard = now;
                if running && self.state == State::Starting {
                    self.enter(now, State::Running);
                }
                Vec::new()
            }
            Event::Exited(exit) => self.exited(now, exit),
            Event::Tick => self.tick(now),
        }
    }

    fn enter(&mut self, now: Duration, state: State) {
        self.state = state;
        self.since = now;
    }

    fn start(&mut self, now: Duration) -> Vec<Action> {
        self.version = self.want.version;
        self.heard = now;
        self.enter(now, State::Starting);
        vec![Action::Start]
    }

    fn start_anew(&mut self, now: Duration) -> Vec<Action> {
        self.crashes = 0;
        self.last_crash = None;
        self.start(now)
    }

    fn kill(&mut self, now: Duration, crash: Option<String>) -> Vec<Action> {
        self.enter(now, State::Killed { crash });
        vec![Action::Kill]
    }

    fn drain(&mut self, now: Duration) -> Vec<Action> {
        self.enter(now, State::Draining { deadline: now + self.policy.drain });
        vec![Action::Drain]
    }

    /// Brings the state closer to what is wanted.
    fn pursue(&mut self, now: Duration) -> Vec<Action> {
        let renewed = self.want.version != self.version;
        match (&self.state, self.want.desired) {
            (State::Stopped, Desired::Running) => self.start_anew(now),
            (State::Starting | State::Running | State::Draining { .. }, Desired::StoppedNow) => self.kill(now, None),
            (State::Starting | State::Running, Desired::Stopped) => self.drain(now),
            (State::Starting | State::Running, Desired::Running) if renewed => self.drain(now),
            (State::BackingOff { .. } | State::Failed(_) | State::Finished, Desired::Running) if renewed => self.start_anew(now),
            (State::BackingOff { .. }, Desired::Stopped | Desired::StoppedNow) => self.stop(now),
            (State::Failed(_) | State::Finished, Desired::Stopped | Desired::StoppedNow) if renewed => self.stop(now),
            _ => Vec::new(),
        }
    }

    fn stop(&mut self, now: Duration) -> Vec<Action> {
        self.version = self.want.version;
        self.enter(now, State::Stopped);
        Vec::new()
    }

    fn exited(&mut self, now: Duration, exit: Exit) -> Vec<Action> {
        let wanted = self.want.desired == Desired::Running;
        match (&self.state, exit) {
            (State::Starting | State::Running, Exit::Finished) => {
                self.enter(now, State::Finished);
                vec![Action::Record(Ended::Finished)]
            }
            (State::Starting | State::Running, Exit::Drained) => {
                self.crashed(now, "a signal asked the process to drain".into(), self.policy.restarts)
            }
            (State::Starting | State::Running, Exit::Crashed(cause)) => self.crashed(now, cause, self.policy.restarts),
            (State::Starting | State::Running, Exit::Refused(cause) | Exit::Unfinished(cause)) => self.crashed(now, cause, 0),
            (State::Starting | State::Running, Exit::MadeWay) => self.start(now),
            (State::Killed { crash: Some(cause) }, _) => {
                let cause = cause.clone();
                self.crashed(now, cause, self.policy.restarts)
            }
            (State::Draining { .. }, Exit::Crashed(cause) | Exit::Refused(cause) | Exit::Unfinished(cause)) if !wanted => {
                // What it had not committed is read again when it is started.
                self.last_crash = Some(format!("while it drained: {cause}"));
                self.stop(now)
            }
            (State::Draining { .. } | State::Killed { crash: None }, _) => {
                if wanted {
                    self.start_anew(now)
                } else {
                    self.stop(now)
                }
            }
            // There is no process that could have ended.
            (State::Stopped | State::BackingOff { .. } | State::Failed(_) | State::Finished, _) => Vec::new(),
        }
    }

    /// It is started again, unless it has crashed more often than `restarts`.
    fn crashed(&mut self, now: Duration, cause: String, restarts: u32) -> Vec<Action> {
        self.crashes = self.crashes.saturating_add(1);
        self.last_crash = Some(cause.clone());
        if self.want.desired != Desired::Running {
            return self.stop(now);
        }
        if self.want.version != self.version {
            return self.start_anew(now);
        }
        if self.crashes > restarts {
            self.enter(now, State::Failed(cause.clone()));
            return vec![Action::Record(Ended::Failed(cause))];
        }
        let until = now + self.policy.delay(self.crashes);
        self.enter(now, State::BackingOff { until });
        Vec::new()
    }

    fn tick(&mut self, now: Duration) -> Vec<Action> {
        match self.state {
            State::BackingOff { until } if now >= until => self.start(now),
            State::Draining { deadline } if now >= deadline => self.kill(now, None),
            State::Starting | State::Running if now >= self.heard + self.policy.silence => {
                let crash = format!("the process said nothing for {} s", self.policy.silence.as_secs_f64());
                self.kill(now, Some(crash))
            }
            State::Running if now >= self.since + self.policy.healthy => {
                self.crashes = 0;
                self.last_crash = None;
                Vec::new()
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy = Policy {
        first_delay: Duration::from_millis(500),
        longest_delay: Duration::from_secs(4),
        restarts: 5,
        healthy: Duration::from_secs(60),
        drain: Duration::from_secs(10),
        silence: Duration::from_secs(30),
    };

    #[derive(Clone, Debug)]
    enum Op {
        Want(Desired),
        /// Start, upgrade, rescale.
        Renew(Desired),
        Report(bool),
        Exit(u8),
        Pass(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        let desired = || prop_oneof![3 => Just(Desired::Running), 1 => Just(Desired::Stopped), 1 => Just(Desired::StoppedNow)];
        prop_oneof![
            2 => desired().prop_map(Op::Want),
            1 => desired().prop_map(Op::Renew),
            4 => any::<bool>().prop_map(Op::Report),
            3 => (0..6_u8).prop_map(Op::Exit),
            5 => prop_oneof![1..1_000_u64, 1_000..70_000_u64].prop_map(Op::Pass),
        ]
    }

    /// A supervisor in a world: what really runs, and what it was told.
    struct World {
        supervisor: Supervisor,
        now: Duration,
        want: Want,
        alive: bool,
        killed: bool,
        drained: bool,
        starts: u32,
    }

    impl World {
        fn new() -> World {
            let want = Want { desired: Desired::Stopped, version: 1 };
            let supervisor = Supervisor::new(POLICY, 1, None, Duration::ZERO);
            World { supervisor, now: Duration::ZERO, want, alive: false, killed: false, drained: false, starts: 0 }
        }

        fn tell(&mut self, event: Event) -> Vec<Action> {
            let actions = self.supervisor.step(self.now, event);
            for action in &actions {
                match action {
                    Action::Start => {
                        assert!(!self.alive, "started while one runs");
                        assert_eq!(self.want.desired, Desired::Running, "started though not wanted");
                        (self.alive, self.killed, self.drained) = (true, false, false);
                        self.starts += 1;
                    }
                    Action::Drain => {
                        assert!(self.alive && !self.killed && !self.drained);
                        self.drained = true;
                    }
                    Action::Kill => {
                        assert!(self.alive && !self.killed);
                        self.killed = true;
                    }
                    Action::Record(_) => assert!(!self.alive),
                }
            }
            assert_eq!(self.supervisor.has_process(), self.alive);
            actions
        }

        fn want(&mut self, desired: Desired, renew: bool) -> Vec<Action> {
            self.want = Want { desired, version: self.want.version + u64::from(renew) };
            self.tell(Event::Want(self.want))
        }

        fn exit(&mut self, exit: Exit) -> Vec<Action> {
            self.alive = false;
            self.tell(Event::Exited(exit))
        }

        /// Time passes in steps, as the one who drives the supervisor lets it.
        fn pass(&mut self, duration: Duration) {
            let end = self.now + duration;
            while let Some(wake) = self.supervisor.wake().filter(|wake| *wake <= end) {
                self.now = self.now.max(wake);
                self.tell(Event::Tick);
                assert!(self.supervisor.wake() != Some(wake), "it wants to be woken at {wake:?} again and again");
            }
            self.now = end;
            self.tell(Event::Tick);
        }
    }

    fn exit(kind: u8, world: &World) -> Exit {
        match kind {
            _ if world.killed => Exit::Crashed("killed".into()),
            0 if world.drained => Exit::Drained,
            0 => Exit::Finished,
            1 => Exit::Drained,
            2 => Exit::Refused("the pipeline has changed".into()),
            3 => Exit::Unfinished("a sink committed".into()),
            4 => Exit::MadeWay,
            _ => Exit::Crashed("it crashed".into()),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn it_keeps_its_promises(ops in prop::collection::vec(op(), 0..120)) {
            let mut world = World::new();
            for op in ops {
                match op {
                    Op::Want(desired) => drop(world.want(desired, false)),
                    Op::Renew(desired) => drop(world.want(desired, true)),
                    Op::Report(running) if world.alive => drop(world.tell(Event::Reported { running })),
                    Op::Exit(kind) if world.alive => drop(world.exit(exit(kind, &world))),
                    Op::Report(_) | Op::Exit(_) => {}
                    Op::Pass(millis) => world.pass(Duration::from_millis(millis)),
                }
                prop_assert!(world.supervisor.crashes() <= POLICY.restarts + 1);
                if let State::BackingOff { until } = *world.supervisor.state() {
                    prop_assert!(until <= world.supervisor.since() + POLICY.longest_delay);
                }
            }
            // Wherever it stands: one that is not wanted ends in time, and one that is wanted anew runs.
            world.want(Desired::Stopped, false);
            world.pass(POLICY.drain);
            prop_assert!(!world.alive || world.killed);
            if world.alive {
                world.exit(Exit::Crashed("killed".into()));
            }
            prop_assert!(matches!(world.supervisor.state(), State::Stopped | State::Failed(_) | State::Finished));
            let starts = world.starts;
            world.pass(Duration::from_secs(1_000));
            prop_assert_eq!(world.starts, starts);
            world.want(Desired::Running, true);
            prop_assert!(world.alive);
            prop_assert_eq!(world.supervisor.state(), &State::Starting);
        }
    }

    #[test]
    fn one_that_cannot_go_on_has_failed_at_once() {
        let mut world = World::new();
        world.want(Desired::Running, true);
        world.exit(Exit::Refused("the pipeline has changed".into()));
        assert_eq!(world.supervisor.state(), &State::Failed("the pipeline has changed".into()));
        world.want(Desired::Running, true);
        assert_eq!(world.supervisor.state(), &State::Starting);
    }

    #[test]
    fn crashes_back_off_and_end_in_failed() {
        let mut world = World::new();
        world.want(Desired::Running, true);
        let mut delays = Vec::new();
        loop {
            world.exit(Exit::Crashed("no such file".into()));
            match *world.supervisor.state() {
                State::BackingOff { until } => {
                    delays.push((until - world.now).as_millis());
                    world.pass(until - world.now);
                }
                ref state => {
                    assert_eq!(state, &State::Failed("no such file".into()));
                    break;
                }
            }
        }
        assert_eq!(delays, [500, 1_000, 2_000, 4_000, 4_000]);
        world.pass(Duration::from_secs(10_000));
        world.want(Desired::Running, false);
        assert_eq!((world.starts, world.supervisor.last_crash()), (6, Some("no such file")));
        world.want(Desired::Running, true);
        assert_eq!((world.starts, world.supervisor.crashes()), (7, 0));
    }

    #[test]
    fn a_healthy_time_forgives() {
        let mut world = World::new();
        world.want(Desired::Running, true);
        for _ in 0..100 {
            world.tell(Event::Reported { running: true });
            for _ in 0..3 {
                world.pass(Duration::from_secs(20));
                world.tell(Event::Reported { running: true });
            }
            world.exit(Exit::Crashed("now and then".into()));
            assert_eq!(world.supervisor.crashes(), 1);
            world.pass(Duration::from_secs(1));
        }
        assert_eq!(world.supervisor.state(), &State::Starting);
    }

    #[test]
    fn a_silent_process_is_killed_and_replaced() {
        let mut world = World::new();
        world.want(Desired::Running, true);
        world.tell(Event::Reported { running: true });
        world.pass(POLICY.silence);
        assert!(world.killed);
        world.exit(Exit::Crashed("signal 9".into()));
        assert_eq!(world.supervisor.last_crash(), Some("the process said nothing for 30 s"));
        world.pass(Duration::from_secs(1));
        assert_eq!(world.starts, 2);
    }

    #[test]
    fn what_has_finished_is_not_started_by_a_restart_of_the_node() {
        let mut supervisor = Supervisor::new(POLICY, 3, Some(Ended::Finished), Duration::ZERO);
        assert_eq!(supervisor.step(Duration::ZERO, Event::Want(Want { desired: Desired::Running, version: 3 })), []);
        assert_eq!(supervisor.step(Duration::ZERO, Event::Want(Want { desired: Desired::Running, version: 4 })), [Action::Start]);
    }
}
