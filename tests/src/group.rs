//! The worker processes of a pipeline, started as a node's agent starts them.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use cluster::definition::{Generation, Spec};
use cluster::protocol::{Assignment, DRAIN, Line, PEERS};

use crate::program::{program, signal, until};

/// One generation of a pipeline. Its processes are killed when this is dropped.
#[derive(Debug)]
pub struct Group {
    children: Vec<Child>,
    inputs: Vec<Option<ChildStdin>>,
    lines: Vec<Receiver<Line>>,
}

impl Group {
    /// Starts the processes of a pipeline over a data folder, and lets them find each other. They log to `log`.
    ///
    /// # Panics
    /// A process does not start.
    pub fn start(spec: &Spec, data: &Path, processes: usize, log: &Path) -> Group {
        let generation = Generation { number: 1, epoch: 1, nonce: format!("{:p}-{:?}", spec, std::time::Instant::now()) };
        let mut group = Group { children: Vec::new(), inputs: Vec::new(), lines: Vec::new() };
        for process in 0..processes {
            let file = File::options().create(true).append(true).open(log).expect("the log is made");
            let mut child = program()
                .arg("worker")
                .current_dir(&spec.folder)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(file)
                .spawn()
                .expect("the program starts");
            let assignment = Assignment {
                generation: generation.clone(),
                spec: spec.clone(),
                accept: false,
                data: data.display().to_string(),
                settings_folder: spec.folder.clone(),
                process,
                processes,
                host: "127.0.0.1".into(),
                silence: None,
            };
            let mut input = child.stdin.take().expect("it is piped");
            writeln!(input, "{}", serde_json::to_string(&assignment).expect("it is JSON")).expect("the worker reads");
            let out = BufReader::new(child.stdout.take().expect("it is piped"));
            let (said, lines) = channel();
            thread::spawn(move || {
                for line in out.lines().map_while(Result::ok) {
                    let line = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                    if said.send(line).is_err() {
                        return;
                    }
                }
            });
            group.children.push(child);
            group.inputs.push(Some(input));
            group.lines.push(lines);
        }
        if processes > 1 {
            let addresses: Vec<String> = group.lines.iter().map(address).collect();
            for process in 0..processes {
                group.tell(process, &format!("{PEERS} {}", addresses.join(" ")));
            }
        }
        group
    }

    fn tell(&mut self, process: usize, line: &str) {
        // One that is gone says so itself.
        let _ = writeln!(self.inputs[process].as_mut().expect("it is open"), "{line}");
    }

    /// Asks it to drain, as an agent does.
    pub fn drain(&mut self) {
        self.tell(0, DRAIN);
    }

    /// Sends a signal to a process.
    pub fn signal(&self, process: usize, name: &str) {
        signal(self.children[process].id().into(), name);
    }

    /// Whether a process has ended.
    ///
    /// # Panics
    /// The system does not know.
    pub fn has_ended(&mut self, process: usize) -> bool {
        self.children[process].try_wait().expect("the system knows its children").is_some()
    }

    /// Waits until all processes have ended; their exit statuses, `None` for one that was killed.
    ///
    /// # Panics
    /// They do not end.
    pub fn wait(&mut self) -> Vec<Option<i32>> {
        let ended = |child: &mut Child| until("the end of a worker", || child.try_wait().expect("the system knows its children")).code();
        self.children.iter_mut().map(ended).collect()
    }
}

/// Where a worker listens.
fn address(lines: &Receiver<Line>) -> String {
    loop {
        if let Line::Listening { address } = lines.recv().expect("a worker says where it listens") {
            return address;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
