//! What is to happen to a cluster: steps that follow from a seed, and are read as they are printed.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A node's agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agent {
    /// The one that leads when it happens.
    Leader,
    /// By its number.
    Number(usize),
}

/// A store behind a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    ClickHouse,
    S3,
}

/// Something that happens. What is killed comes back after the time, except for workers, which the cluster starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    KillWorker(usize),
    KillAgent(Agent, Duration),
    KillNats(usize, Duration),
    KillStore(Store, Duration),
    /// SIGSTOP, and SIGCONT after the time.
    StopWorker(usize, Duration),
    StopAgent(Agent, Duration),
    /// Connections break, and new ones are refused.
    Cut(Store, Duration),
    /// Nothing passes, and nothing ends.
    Still(Store, Duration),
    /// Another number of processes.
    Rescale(usize),
    /// Another rate of the source, and the other half of the filter.
    Upgrade,
}

/// A line of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// It does not wait until rows flow after the one before.
    pub(super) at_once: bool,
    /// How long it waits then.
    pub(super) pause: Duration,
    pub(super) action: Action,
}

impl Action {
    fn kills(self) -> bool {
        matches!(self, Action::KillWorker(_) | Action::KillAgent(..) | Action::KillNats(..) | Action::KillStore(..))
    }
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Agent::Leader => write!(f, "leader"),
            Agent::Number(number) => write!(f, "{number}"),
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Store::ClickHouse => "clickhouse",
            Store::S3 => "s3",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = Duration::as_millis;
        match self {
            Action::KillWorker(number) => write!(f, "kill worker {number}"),
            Action::KillAgent(agent, time) => write!(f, "kill agent {agent} for {} ms", ms(time)),
            Action::KillNats(number, time) => write!(f, "kill nats {number} for {} ms", ms(time)),
            Action::KillStore(store, time) => write!(f, "kill {store} for {} ms", ms(time)),
            Action::StopWorker(number, time) => write!(f, "stop worker {number} for {} ms", ms(time)),
            Action::StopAgent(agent, time) => write!(f, "stop agent {agent} for {} ms", ms(time)),
            Action::Cut(store, time) => write!(f, "cut {store} for {} ms", ms(time)),
            Action::Still(store, time) => write!(f, "still {store} for {} ms", ms(time)),
            Action::Rescale(processes) => write!(f, "rescale {processes}"),
            Action::Upgrade => write!(f, "upgrade"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ms: {}", if self.at_once { "within" } else { "after" }, self.pause.as_millis(), self.action)
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(line: &str) -> Result<Step, String> {
        let wrong = || format!("`{line}` is no step of a plan");
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |word: &str| word.parse::<usize>().map_err(|_| wrong());
        let time = |word: &str| word.parse().map(Duration::from_millis).map_err(|_| wrong());
        let agent = |word: &str| if word == "leader" { Ok(Agent::Leader) } else { number(word).map(Agent::Number) };
        let store = |word: &str| match word {
            "clickhouse" => Ok(Store::ClickHouse),
            "s3" => Ok(Store::S3),
            _ => Err(wrong()),
        };
        let [when @ ("within" | "after"), pause, "ms:", action @ ..] = &words[..] else { return Err(wrong()) };
        let action = match action {
            ["kill", "worker", n] => Action::KillWorker(number(n)?),
            ["kill", "agent", who, "for", ms, "ms"] => Action::KillAgent(agent(who)?, time(ms)?),
            ["kill", "nats", n, "for", ms, "ms"] => Action::KillNats(number(n)?, time(ms)?),
            ["kill", which, "for", ms, "ms"] => Action::KillStore(store(which)?, time(ms)?),
            ["stop", "worker", n, "for", ms, "ms"] => Action::StopWorker(number(n)?, time(ms)?),
            ["stop", "agent", who, "for", ms, "ms"] => Action::StopAgent(agent(who)?, time(ms)?),
            ["cut", which, "for", ms, "ms"] => Action::Cut(store(which)?, time(ms)?),
            ["still", which, "for", ms, "ms"] => Action::Still(store(which)?, time(ms)?),
            ["rescale", n] => Action::Rescale(number(n)?),
            ["upgrade"] => Action::Upgrade,
            _ => return Err(wrong()),
        };
        Ok(Step { at_once: *when == "within", pause: time(pause)?, action })
    }
}

/// What a seed is made into, with so many kills. Everything that can happen happens in every 25 kills.
pub(super) fn plan(seed: u64, kills: usize) -> Vec<Step> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut below = move |most: u64| random.next_u64() % most;
    let mut steps = Vec::new();
    let mut processes = 3_usize;
    let mut killed = 0;
    while killed < kills {
        let mut deck: Vec<u8> = b"wwwwwwwwwaaaallllnnnccsssWAxXyYrrrrrruuu".to_vec();
        while !deck.is_empty() && killed < kills {
            let card = deck.swap_remove(below(deck.len() as u64) as usize);
            let mut between = |least: u64, most: u64| Duration::from_millis(least + below(most - least));
            let short = between(200, 3_000);
            let long = between(2_000, 12_000);
            let pause = between(0, 1_000);
            let of_three = below(3) as usize;
            let action = match card {
                b'w' => Action::KillWorker(of_three % processes),
                b'a' => Action::KillAgent(Agent::Number(of_three), short),
                b'l' => Action::KillAgent(Agent::Leader, short),
                b'n' => Action::KillNats(of_three, short),
                b'c' => Action::KillStore(Store::ClickHouse, short),
                b's' => Action::KillStore(Store::S3, short),
                b'W' => Action::StopWorker(of_three % processes, long),
                b'A' => Action::StopAgent(if below(2) == 0 { Agent::Leader } else { Agent::Number(of_three) }, long),
                b'x' => Action::Cut(Store::ClickHouse, short),
                b'X' => Action::Cut(Store::S3, short),
                b'y' => Action::Still(Store::ClickHouse, short),
                b'Y' => Action::Still(Store::S3, short),
                b'r' => {
                    // 1 → 2 → 3 → 1.
                    processes = processes % 3 + 1;
                    Action::Rescale(processes)
                }
                _ => Action::Upgrade,
            };
            // While processes take over from others, something else happens half of the time.
            let changing = steps.last().is_some_and(|step: &Step| matches!(step.action, Action::Rescale(_) | Action::Upgrade));
            let at_once = action.kills() && changing && below(2) == 0;
            killed += usize::from(action.kills());
            steps.push(Step { at_once, pause, action });
        }
    }
    steps
}

#[test]
fn a_plan_is_what_is_printed_of_it() {
    for seed in 0..20 {
        let steps = plan(seed, 25);
        assert_eq!(steps, plan(seed, 25), "it follows from the seed");
        assert_ne!(steps, plan(seed + 1, 25));
        assert_eq!(steps.iter().filter(|step| step.action.kills()).count(), 25);
        let read: Result<Vec<Step>, String> = steps.iter().map(|step| step.to_string().parse()).collect();
        assert_eq!(read.unwrap(), steps);
    }
    assert_eq!("after 5 ms: kill s9".parse::<Step>(), Err("`after 5 ms: kill s9` is no step of a plan".into()));
}
