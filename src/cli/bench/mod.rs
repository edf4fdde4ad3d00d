//! `moed bench`: what a model takes here, alone and over the socket.

mod body;
mod meter;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use super::client::{Client, path_part};
use super::process::{Process, new_directory};
use super::{Failure, failure, print};
use crate::bundle::{Bundle, Limits};
use crate::config::Config;
use crate::daemon::load_settings;
use crate::engine::tract::Tract;
use crate::infer::{NamedTensor, RequestOptions};
use crate::repository::load::load;
use crate::repository::scan::{Candidate, candidate, scan};
use crate::repository::version::Version;

/// Requests that are not counted.
const WARM_UP: usize = 50;
const LATENCIES_MAX: usize = 1 << 20;

/// Measures a model: latency, rate, bytes of experts read, energy.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  moed bench intent\n  moed bench models/intent --clients 4\n\n\
    The questions are the bundle's recorded ones, one after the other. Over the socket, a daemon\n\
    of its own is asked, in a process of its own. Energy is the processor's package, all of it,\n\
    where the kernel lets this user read it; idle power is not taken off."
)]
pub struct Bench {
    /// A bundle, or the name of a model in the configured directories.
    model: PathBuf,
    /// How long each part is measured.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Clients that ask over the socket at the same time.
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Threads that compute one request; 0: one for each processor.
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

/// A model and its questions.
struct Subject {
    path: PathBuf,
    name: String,
    version: Version,
    questions: Vec<Vec<NamedTensor>>,
}

impl Bench {
    pub fn run(self) -> Result<(), Failure> {
        let seconds = Duration::try_from_secs_f64(self.seconds)
            .map_err(|error| format!("--seconds: {error}"))?;
        let subject = self.load()?;
        print(&format!("{} {}\n", subject.name, subject.version.version()))?;
        let subject = in_process(subject, seconds)?;
        over_socket(&subject, seconds, self.clients.clamp(1, 64), self.threads)
    }

    fn load(&self) -> Result<Subject, Failure> {
        let mut config = Config::read(None).map_err(failure)?;
        config.models.threads = self.threads;
        let shown = self.model.display();
        let candidate = find(&self.model, &config).ok_or_else(|| {
            format!("{shown}: no bundle, and no model of that name; `moed check` lists them")
        })?;
        if candidate.is_archive {
            return Err(format!("{shown}: a file; name a bundle's directory"));
        }
        let bundle = Bundle::open(&candidate.path, &Limits::default()).map_err(failure)?;
        let name = bundle.manifest().name.clone();
        let questions = bundle.golden().and_then(|golden| golden.questions()).map_err(failure)?;
        let loaded = load(&name, &candidate, &Tract, &load_settings(&config), None);
        let version = loaded.map_err(|error| format!("{shown}: {error}"))?.version;
        Ok(Subject { path: candidate.path, name, version, questions })
    }
}

fn find(model: &Path, config: &Config) -> Option<Candidate> {
    candidate(model).or_else(|| {
        let mut found = scan(&config.models.directories, None, config.models.models_max);
        found.remove(model.to_str()?)?.into_iter().next()
    })
}

fn in_process(subject: Subject, seconds: Duration) -> Result<Subject, Failure> {
    let Subject { path, name, version, questions } = subject;
    let version = std::sync::Arc::new(version);
    let mut runner = version.runner().map_err(failure)?;
    let mut bytes_read = Vec::new();
    let options = RequestOptions::default();
    let mut ask = |i: usize| {
        let question = questions.get(i % questions.len()).cloned().unwrap_or_default();
        let start = Instant::now();
        let computed = runner.run(question, &options).map_err(failure)?;
        let took = start.elapsed();
        if bytes_read.len() < LATENCIES_MAX {
            bytes_read.push(computed.report.weight_bytes_read());
        }
        Ok(took)
    };
    let before = meter::read();
    let measured = measure(&mut ask, seconds)?;
    let energy = meter::since(before.as_ref());
    print(&measured.line("in process"))?;
    bytes_read.sort_unstable();
    let kib = |bytes: u64| bytes.div_ceil(1024);
    let all: u64 = version.layers().iter().map(|one| one.expert_bytes * one.experts as u64).sum();
    if all > 0 {
        let median = bytes_read.get(bytes_read.len() / 2).copied().unwrap_or(0);
        print(&format!("experts      p50 {} KiB read of {} KiB\n", kib(median), kib(all)))?;
    }
    print(&match energy {
        Ok(joules) => {
            let mj = joules * 1000.0 / measured.count.max(1) as f64;
            format!("energy       {mj:.3} mJ for each request, of the whole package\n")
        }
        Err(why) => format!("energy       {why}\n"),
    })?;
    drop(runner);
    let version = std::sync::Arc::into_inner(version).ok_or("model: still in use")?;
    Ok(Subject { path, name, version, questions })
}

fn over_socket(
    subject: &Subject,
    seconds: Duration,
    clients: usize,
    threads: usize,
) -> Result<(), Failure> {
    // A directory with this one model in it, wherever it comes from.
    let models = new_directory().map_err(failure)?;
    let path = std::path::absolute(&subject.path).map_err(failure)?;
    let linked = std::os::unix::fs::symlink(path, models.join(&subject.name)).map_err(failure);
    let measured = linked.and_then(|()| {
        let daemon = Process::start(&models, &["--threads", &threads.to_string()], None)?;
        let bodies = subject.questions.iter().map(|question| body::of(question));
        let bodies: Vec<Vec<u8>> = bodies.collect::<Result<_, _>>()?;
        let target = format!("/v2/models/{}/infer", path_part(&subject.name));
        let measured = std::thread::scope(|scope| {
            let ask = || {
                let mut client = daemon.client()?;
                measure(&mut |i| ask_over_socket(&mut client, &target, &bodies, i), seconds)
            };
            let threads: Vec<_> = (0..clients).map(|_| scope.spawn(ask)).collect();
            let results = threads.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|_| Err("a client panicked".to_owned()))
            });
            results.collect::<Result<Vec<_>, Failure>>()
        })?;
        Ok((Measured::all(measured), daemon.start, daemon.resident_bytes()))
    });
    // It holds nothing but a link.
    let _ = std::fs::remove_dir_all(&models);
    let (measured, start, resident) = measured?;
    let plural = if clients == 1 { "" } else { "s" };
    print(&measured.line(&format!("socket, {clients} client{plural}")))?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let resident = resident.map_or_else(String::new, |bytes| {
        let need = mib(subject.version.info().resident_bytes);
        format!(", {:.1} MiB in memory (the model should need {need:.1})", mib(bytes))
    });
    print(&format!("daemon       ready after {} ms{resident}\n", start.as_millis()))
}

fn ask_over_socket(
    client: &mut Client,
    target: &str,
    bodies: &[Vec<u8>],
    i: usize,
) -> Result<Duration, Failure> {
    let body = bodies.get(i % bodies.len().max(1)).cloned().unwrap_or_default();
    let start = Instant::now();
    let response = client.post(target, body)?;
    let took = start.elapsed();
    if response.status == 200 { Ok(took) } else { response.json().map(|_| took) }
}

/// What was measured.
struct Measured {
    latencies: Vec<Duration>,
    count: usize,
    elapsed: Duration,
}

/// Asks again and again for some time.
fn measure(
    ask: &mut dyn FnMut(usize) -> Result<Duration, Failure>,
    seconds: Duration,
) -> Result<Measured, Failure> {
    for i in 0..WARM_UP {
        ask(i)?;
    }
    let mut latencies = Vec::new();
    let mut count = 0;
    let start = Instant::now();
    while start.elapsed() < seconds {
        let took = ask(count)?;
        count += 1;
        if latencies.len() < LATENCIES_MAX {
            latencies.push(took);
        }
    }
    Ok(Measured { latencies, count, elapsed: start.elapsed() })
}

impl Measured {
    /// Of clients that asked at the same time.
    fn all(parts: Vec<Self>) -> Self {
        let count = parts.iter().map(|part| part.count).sum();
        let elapsed = parts.iter().map(|part| part.elapsed).max().unwrap_or_default();
        let latencies = parts.into_iter().flat_map(|part| part.latencies).collect();
        Self { latencies, count, elapsed }
    }

    fn line(&self, what: &str) -> String {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = |permille: usize| {
            let index = sorted.len().saturating_sub(1) * permille / 1000;
            sorted.get(index).copied().unwrap_or_default().as_secs_f64() * 1e6
        };
        let rate = self.count as f64 / self.elapsed.as_secs_f64().max(1e-9);
        format!(
            "{what:<18} p50 {:.1} us  p90 {:.1} us  p99 {:.1} us  max {:.1} us  {rate:.0}/s\n",
            at(500),
            at(900),
            at(990),
            at(1000),
        )
    }
}
