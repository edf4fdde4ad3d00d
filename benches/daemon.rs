//! Figures of the daemon on its socket: `daemon figures MOED MODELS [--quick]` starts MOED with the
//! model `intent` of the directory MODELS, and prints a `name = value unit` line for each.
//! `benches/figures daemon` builds and runs it.
//!
//! Clients are blocking and keep their connection, as a program that asks now and then would;
//! overload comes from a hundred connections at a rate that nobody's answer slows down. All share
//! the machine's processors with the daemon.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it has no command line to speak of, and a failure is the end of it"
)]

#[path = "../tests/it/support/allocations.rs"]
mod allocations;
#[path = "daemon/client.rs"]
mod client;
#[path = "daemon/overload.rs"]
mod overload;
#[path = "daemon/process.rs"]
mod process;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use allocations::{Counting, allocations_of_operators};
use client::Client;
use moed::config::Config;
use moed::daemon::load_settings;
use moed::engine::tract::Tract;
use moed::engine::{LoadOptions, Model as _, RunOptions};
use moed::infer::{NamedTensor, RequestOptions};
use moed::repository::load::load;
use moed::repository::scan::candidate;
use moed::repository::version::Runner;
use moed::tensor::{Data, Tensor};
use process::{Daemon, Options};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SENTENCES: [&str; 5] = [
    "turn on the kitchen light",
    "set the thermostat to 21 degrees",
    "is the garage door open",
    "start a pasta timer for 9 minutes",
    "how warm is it in the living room",
];

/// A question to the pretended model.
const SIM_BODY: &str = r#"{"x": [[1, 2]]}"#;

/// Connections that send a request's head and never its end.
const STALLED: usize = 200;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` passes `--bench`: alone, this program has nothing to measure.
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["figures", moed, models, more @ ..] => {
            figures(Path::new(moed), Path::new(models), more.contains(&"--quick"));
        }
        ["stall", socket, count] => client::stall(Path::new(socket), count.parse().unwrap()),
        _ => {}
    }
}

fn figures(moed: &Path, models: &Path, is_quick: bool) {
    let times = |full: usize, quick: usize| if is_quick { quick } else { full };
    let seconds = |full: u64, quick: u64| Duration::from_secs(if is_quick { quick } else { full });
    overhead(moed, models, times(40, 4));
    several_clients(moed, models, seconds(5, 1));
    overload(moed, models, seconds(8, 2));
    batches(moed, seconds(4, 1));
    stalled(moed, models, seconds(10, 2));
    start(moed, models, times(20, 3));
    memory_and_idleness(moed, models, times(2000, 200), seconds(30, 3));
    swaps(moed, models);
    allocated(models);
}

fn figure(name: &str, value: f64, unit: &str) {
    println!("daemon_{name} = {} {unit}", rounded(value));
}

/// Four digits, or all of a whole number.
fn rounded(value: f64) -> String {
    if value.fract() == 0.0 {
        return format!("{value:.0}");
    }
    let decimals = match value.abs() {
        value if value >= 1000.0 => 0,
        value if value >= 100.0 => 1,
        value if value >= 10.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The value that `part` of all are not above.
fn percentile(times: &mut [Duration], part: f64) -> Duration {
    times.sort_unstable();
    let at = ((times.len() - 1) as f64 * part).round() as usize;
    times[at]
}

fn body(sentence: &str) -> String {
    format!("{{\"text\": \"{sentence}\"}}")
}

fn question(sentence: &str) -> Vec<NamedTensor> {
    let tensor = Tensor::new(&[1], Data::Bytes(vec![sentence.as_bytes().to_vec()])).unwrap();
    vec![NamedTensor { name: "text".to_owned(), tensor }]
}

/// The same sentences in this process and over the socket, in turns, so that whatever else the
/// machine does meets both.
fn overhead(moed: &Path, models: &Path, rounds: usize) {
    const RUNS: usize = 250;
    let found = candidate(&models.join("intent")).expect("the model is there");
    let settings = load_settings(&Config::default());
    let loaded = load("intent", &found, &Tract, &settings, None).expect("it loads");
    let mut runner: Runner = std::sync::Arc::new(loaded.version).runner().expect("it runs");
    let daemon = Daemon::start(moed, &Options::of_models(models));
    let mut client = daemon.connect();
    let options = RequestOptions::default();
    let (mut alone, mut asked, mut computing) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        for i in 0..RUNS {
            let question = question(SENTENCES[i % SENTENCES.len()]);
            let start = Instant::now();
            runner.run(question, &options).expect("it runs");
            alone.push(start.elapsed());
        }
        for i in 0..RUNS {
            let body = body(SENTENCES[i % SENTENCES.len()]);
            let start = Instant::now();
            let reply = client.infer("intent", &body);
            asked.push(start.elapsed());
            assert_eq!(reply.status, 200, "{}", reply.text());
            computing.push(Duration::from_micros(reply.number("compute_us")));
        }
        if round == 0 {
            [&mut alone, &mut asked, &mut computing].into_iter().for_each(Vec::clear);
        }
    }
    println!(
        "# a sentence, {rounds} times {RUNS} of each, in turns; the socket's client waits for"
    );
    println!("# each answer; compute: what the daemon says of itself");
    let (alone, mut asked_p50) = (percentile(&mut alone, 0.5), percentile(&mut asked, 0.5));
    figure("in_process_p50", us(alone), "us");
    figure("socket_p50", us(asked_p50), "us");
    figure("socket_compute_p50", us(percentile(&mut computing, 0.5)), "us");
    asked_p50 = asked_p50.saturating_sub(alone);
    figure("socket_overhead_p50", us(asked_p50), "us");
    figure("socket_p99", us(percentile(&mut asked, 0.99)), "us");
    println!(
        "# what it takes to wake a thread four times, as a request does, beside a computation as"
    );
    println!("# long: client, input and output, worker, input and output, client");
    figure("wakeups_p50", us(wakeups(rounds * RUNS, alone)), "us");
}

/// The least that a request over a socket to a thread of another process costs on this machine,
/// whose work is done by a second one.
fn wakeups(rounds: usize, computing: Duration) -> Duration {
    let (mut client, mut server) = UnixStream::pair().expect("a pair of sockets");
    let (ask, asked) = mpsc::channel::<()>();
    let (answer, answered) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        for () in asked {
            let start = Instant::now();
            while start.elapsed() < computing {
                std::hint::spin_loop();
            }
            answer.send(()).expect("a server");
        }
    });
    std::thread::spawn(move || {
        let mut byte = [0];
        while server.read_exact(&mut byte).is_ok() {
            ask.send(()).expect("a worker");
            answered.recv().expect("a worker");
            server.write_all(&byte).expect("a client");
        }
    });
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            client.write_all(&[0]).expect("a server");
            client.read_exact(&mut [0]).expect("a server");
            start.elapsed()
        })
        .collect();
    percentile(&mut times, 0.5).saturating_sub(computing)
}

/// What a client waits that asks again and again.
fn times_of_client(client: &mut Client, time: Duration, times: &mut Vec<Duration>) {
    let start = Instant::now();
    for i in 0.. {
        if start.elapsed() > time {
            break;
        }
        let body = body(SENTENCES[i % SENTENCES.len()]);
        let asked = Instant::now();
        let reply = client.infer("intent", &body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        // The first few find everything cold.
        if i > 20 {
            times.push(asked.elapsed());
        }
    }
}

/// What clients that ask at the same time wait, and how many answers there are in a second.
fn times_of_clients(daemon: &Daemon, clients: usize, time: Duration) -> (Vec<Duration>, f64) {
    let ask = || {
        let mut times = Vec::new();
        times_of_client(&mut daemon.connect(), time, &mut times);
        times
    };
    let start = Instant::now();
    let times: Vec<Duration> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    (times, rate)
}

fn several_clients(moed: &Path, models: &Path, time: Duration) {
    let daemon = Daemon::start(moed, &Options::of_models(models));
    for clients in [1, 4] {
        let (mut times, rate) = times_of_clients(&daemon, clients, time);
        let (p50, p99) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
        let name = if clients == 1 { "1_client" } else { "4_clients" };
        figure(&format!("{name}_p50"), us(p50), "us");
        figure(&format!("{name}_p99"), us(p99), "us");
        figure(&format!("{name}_p99_over_p50"), us(p99) / us(p50), "times");
        figure(&format!("{name}_rate"), rate, "answers/s");
    }
}

fn overload(moed: &Path, models: &Path, time: Duration) {
    println!(
        "# overload: ten times what is answered to 8 clients that wait, for {} s",
        time.as_secs()
    );
    println!("# sim: a pretended model that sleeps 5 ms, so that the daemon's own part shows;");
    println!("# intent: computing, sending and asking share the processors");
    let cases = [("sim", SIM_BODY.to_owned()), ("intent", body(SENTENCES[0]))];
    for (model, body) in cases {
        let daemon =
            Daemon::start(moed, &Options { sim_ms: Some(5), ..Options::of_models(models) });
        let seen = overload::run(&daemon.socket(), model, &body, time);
        let name = |what: &str| format!("overload_{model}_{what}");
        figure(&name("capacity"), seen.capacity, "answers/s");
        figure(&name("offered"), seen.offered, "requests/s");
        figure(&name("goodput"), seen.goodput, "answers/s");
        figure(&name("goodput_over_capacity"), seen.goodput / seen.capacity, "times");
        let mut refused = seen.refused;
        figure(&name("refused"), refused.len() as f64, "requests");
        if !refused.is_empty() {
            figure(&name("refusal_p50"), us(percentile(&mut refused, 0.5)) / 1e3, "ms");
            figure(&name("refusal_p99"), us(percentile(&mut refused, 0.99)) / 1e3, "ms");
            figure(&name("refusal_max"), us(percentile(&mut refused, 1.0)) / 1e3, "ms");
        }
        figure(&name("unanswered"), seen.unanswered as f64, "requests");
    }
}

/// Requests of 8 clients, each alone and up to 8 in one run.
fn batches(moed: &Path, time: Duration) {
    let nothing = tempfile::tempdir().unwrap();
    println!("# batches: 8 clients of the pretended model, whose run takes 5 ms for any rows");
    for (name, config) in [("off", ""), ("of_8", "[scheduler]\nbatch_rows_max = 8\n")] {
        let options = Options { sim_ms: Some(5), config, ..Options::of_models(nothing.path()) };
        let daemon = Daemon::start(moed, &options);
        let rate = overload::capacity(&daemon.socket(), "sim", SIM_BODY, time);
        figure(&format!("batches_{name}_rate"), rate, "answers/s");
    }
}

/// A client that has its connection, and one that wants one, beside connections that never finish
/// their request, and are opened again as soon as they are closed.
fn stalled(moed: &Path, models: &Path, time: Duration) {
    let daemon = Daemon::start(moed, &Options::of_models(models));
    let mut client = daemon.connect();
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    times_of_client(&mut client, time, &mut alone);
    let stalling: Vec<Stalling> = (0..2).map(|_| Stalling::start(&daemon, STALLED / 2)).collect();
    std::thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    while !daemon.connect().is_served() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let served_after = start.elapsed();
    times_of_client(&mut client, time, &mut beside);
    drop(stalling);
    println!(
        "# slowloris: {STALLED} connections of two processes that send a byte of a header each"
    );
    println!(
        "# 100 ms, and are opened again when they are closed; beside them a client that had its"
    );
    println!("# connection before, and a new one that tries until it has one");
    let (alone, beside) = (percentile(&mut alone, 0.99), percentile(&mut beside, 0.99));
    figure("slowloris_p99_without", us(alone), "us");
    figure("slowloris_p99_with", us(beside), "us");
    figure("slowloris_ratio", us(beside) / us(alone), "times");
    figure("slowloris_new_client_served_after", us(served_after) / 1e3, "ms");
}

/// A process that stalls: this program, in its second role.
struct Stalling(std::process::Child);

impl Stalling {
    fn start(daemon: &Daemon, count: usize) -> Self {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.arg("stall").arg(daemon.socket()).arg(count.to_string());
        Self(command.spawn().expect("it starts"))
    }
}

impl Drop for Stalling {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(moed: &Path, models: &Path, count: usize) {
    let mut times: Vec<Duration> =
        (0..count).map(|_| Daemon::start(moed, &Options::of_models(models)).ready_after).collect();
    println!("# from the start of the process to READY=1, as systemd would see it");
    figure("start_p50", us(percentile(&mut times, 0.5)) / 1e3, "ms");
    figure("start_max", us(percentile(&mut times, 1.0)) / 1e3, "ms");
}

fn memory_and_idleness(moed: &Path, models: &Path, requests: usize, time: Duration) {
    let daemon = Daemon::start(moed, &Options::of_models(models));
    ask(&daemon, requests);
    let size = |file: &str| fs::metadata(models.join("intent").join(file)).unwrap().len();
    let model = (size("model.onnx") + size("experts.bin")) as f64;
    let resident = daemon.memory_bytes("VmRSS") as f64;
    println!("# after {requests} requests");
    figure("rss", resident / 1e6, "MB");
    figure("model_size", model / 1e6, "MB");
    figure("rss_over_model_size", (resident - model) / 1e6, "MB");
    figure("rss_anonymous", daemon.memory_bytes("RssAnon") as f64 / 1e6, "MB");
    figure("threads", daemon.threads() as f64, "threads");
    std::thread::sleep(Duration::from_secs(1));
    let (before, start) = (daemon.cpu_time(), Instant::now());
    std::thread::sleep(time);
    let used = daemon.cpu_time().saturating_sub(before).as_secs_f64();
    println!("# of one processor, over {} s without requests", time.as_secs());
    figure("idle_cpu", used / start.elapsed().as_secs_f64() * 100.0, "%");
}

fn ask(daemon: &Daemon, requests: usize) {
    let mut client = daemon.connect();
    for i in 0..requests {
        let reply = client.infer("intent", &body(SENTENCES[i % SENTENCES.len()]));
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
}

/// Back and forth between two versions, with requests between the swaps.
fn swaps(moed: &Path, models: &Path) {
    const SWAPS: usize = 50;
    let directory = tempfile::tempdir().unwrap();
    for version in ["1.0.0", "1.0.1"] {
        let to = directory.path().join("intent").join(version);
        fs::create_dir_all(&to).unwrap();
        for file in fs::read_dir(models.join("intent")).unwrap() {
            let from = file.unwrap().path();
            fs::copy(&from, to.join(from.file_name().unwrap())).unwrap();
        }
        let manifest = to.join("manifest.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        let text = text.lines().map(|line| match line.starts_with("version = ") {
            true => format!("version = \"{version}\"\n"),
            false => format!("{line}\n"),
        });
        fs::write(&manifest, text.collect::<String>()).unwrap();
    }
    let daemon = Daemon::start(moed, &Options::of_models(directory.path()));
    let mut admin = Client::connect(&daemon.admin_socket());
    let mut swap = |number: usize| {
        let verb = ["rollback", "load"][number % 2];
        let reply = admin.post(&format!("/v2/repository/models/intent/{verb}"), "{}");
        assert_eq!(reply.status, 200, "{verb}: {}", reply.text());
        ask(&daemon, 20);
        daemon.memory_bytes("VmRSS") as f64
    };
    ask(&daemon, 200);
    let first = daemon.memory_bytes("VmRSS") as f64;
    // Both versions' files have been mapped once, and buffers have grown.
    let base = (0..4).map(&mut swap).fold(0.0, f64::max);
    let after = (0..SWAPS).map(&mut swap).last().unwrap_or(base);
    println!("# {SWAPS} swaps between two versions; base: the most after the first four");
    figure("swaps_rss_before", first / 1e6, "MB");
    figure("swaps_rss_base", base / 1e6, "MB");
    figure("swaps_rss_after_50", after / 1e6, "MB");
    figure("swaps_rss_growth", (after - base) / 1e6, "MB");
}

/// What a run allocates: in our operators, which is held to 0 by a test, and in all.
fn allocated(models: &Path) {
    let bundle = models.join("intent");
    let (count, operators) = allocations_of_operators(&bundle, "model.onnx", 5, 2);
    println!(
        "# of {operators} operators of ours on 2 threads, for a sentence of 5 words, when warm"
    );
    figure("allocations_in_operators", count as f64, "per run");
    let limits = moed::bundle::Limits::default();
    let bundle = moed::bundle::Bundle::open(&bundle, &limits).expect("a bundle");
    let file = &bundle.manifest().model;
    let model = moed::engine::tract::load(bundle.dir(), file, &LoadOptions::default());
    let model = model.expect("it loads");
    let pipeline = bundle.pipeline(&model, None).expect("a pipeline");
    let mut session = model.session().expect("a session");
    let prepared = pipeline.prepare(question(SENTENCES[0]), None).expect("it can be asked");
    let mut run = || {
        let before = allocations::allocations();
        session.run(&prepared.inputs, RunOptions::default()).expect("it runs");
        allocations::allocations() - before
    };
    let _ = (run(), run());
    println!("# of the run around them: tract makes each node's output anew");
    figure("allocations_in_a_run", run() as f64, "per run");
}
