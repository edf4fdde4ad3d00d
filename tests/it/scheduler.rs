//! The scheduler: the queue alone, and with workers behind it.

mod batches;
mod queue;
mod workers;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use moed::engine::sim::{Behaviour, Sim};
use moed::engine::{Backend, LoadOptions};
use moed::infer::{
    Answer, ClientId, InferError, InferRequest, ModelRef, NamedTensor, Reply, RequestOptions,
};
use moed::metrics::Metrics;
use moed::repository::slot::Slot;
use moed::repository::version::Version;
use moed::scheduler::{Scheduler, SchedulerOptions};
use moed::tensor::{Data, Tensor};

/// As long as anything may take on a busy machine before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(20);

type Outcome = Result<Answer, InferError>;

/// A scheduler with one pretended model, `x`.
struct Setup {
    scheduler: Scheduler,
    slot: Arc<Slot>,
    metrics: Metrics,
}

fn version(behaviour: Behaviour) -> Arc<Version> {
    let sim = Sim::new(behaviour);
    let model = sim.load(Path::new("."), "none.onnx", &LoadOptions::default()).expect("it loads");
    Arc::new(Version::plain("x", model).expect("a version"))
}

impl Setup {
    fn new(behaviour: Behaviour, options: SchedulerOptions) -> Self {
        let slot = Arc::new(Slot::new("x"));
        slot.serve(Some(version(behaviour)));
        let metrics = Metrics::new("none", Vec::new());
        let scheduler = Scheduler::start(options).expect("it starts");
        scheduler.serve(&slot, &metrics).expect("workers start");
        Self { scheduler, slot, metrics }
    }

    fn swap(&self, behaviour: Behaviour) {
        self.slot.serve(Some(version(behaviour)));
        self.scheduler.serve(&self.slot, &self.metrics).expect("its workers are told");
    }

    fn send(&self, request: InferRequest) {
        self.scheduler.submit(request);
    }

    fn count(&self, series: &str) -> u64 {
        let text = self.metrics.exposition();
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.map_or(0, |value| value.trim().parse().expect("a count"))
    }
}

/// A request for `rows` rows of the model `x`, and where its answer comes out.
fn request(rows: usize, patience: Duration) -> (InferRequest, Receiver<Outcome>) {
    let (sender, receiver) = channel();
    let tensor = Tensor::new(&[rows, 2], Data::F32(vec![1.0; rows * 2])).expect("a tensor");
    let request = InferRequest {
        id: "1".to_owned(),
        model: ModelRef { name: "x".to_owned(), version: None },
        inputs: vec![NamedTensor { name: "x".to_owned(), tensor }],
        options: RequestOptions::default(),
        deadline: Instant::now() + patience,
        client: ClientId("tester".into()),
        reply: Reply::new(move |outcome| drop(sender.send(outcome))),
    };
    (request, receiver)
}

fn delay(ms: u64) -> Behaviour {
    Behaviour { delay: Duration::from_millis(ms), ..Behaviour::default() }
}

/// `ok`, or the word of the error.
fn word(outcome: &Outcome) -> &'static str {
    outcome.as_ref().map_or_else(|error| error.code.word(), |_| "ok")
}
