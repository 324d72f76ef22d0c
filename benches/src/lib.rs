//! What the benchmarks share: batches through an operator's dataflow.

use std::sync::Arc;

use model::dialect::MakeDialect;
use model::{Account, Batch, Message};
use operators::{Context, SourceClock, Stream};
use timely::dataflow::operators::Input;

/// Runs all batches through what `build` adds to the dataflow, each at a logical time of its own, dealt out to the
/// workers in turn.
///
/// # Panics
/// A worker cannot be started, or panics.
pub fn drive(
    workers: usize,
    batches: &Arc<Vec<Batch>>,
    dialects: Arc<MakeDialect>,
    build: impl for<'s> Fn(Stream<'s>, &Context) -> Stream<'s> + Send + Sync + 'static,
) {
    let batches = batches.clone();
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let cx = Context {
            node: "bench".into(),
            account: Arc::new(Account::default()),
            sources: Arc::new([SourceClock { source: 0, disorder: 0, idle: 60_000 }]),
            dialects: dialects.clone(),
            keeper: None,
        };
        let mut input = worker.dataflow(|scope| {
            let (input, stream) = scope.new_input::<Vec<Message>>();
            build(stream, &cx);
            input
        });
        for (i, batch) in batches.iter().enumerate() {
            if i % worker.peers() == worker.index() {
                input.send(Message::Batch(batch.clone()));
            }
            input.advance_to(i as u64 + 1);
            worker.step();
        }
    });
    for result in guards.expect("the workers start").join() {
        result.expect("no worker panics");
    }
}
