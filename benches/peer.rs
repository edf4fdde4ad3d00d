//! moed's side of `peers/compare.py`, which times it and onnxruntime in turns.
//!
//! `peer serve` reads one command a line and answers each with one line: `ok key=value ...`, or
//! `error text`. Values hold no spaces.
//!
//! | command | what it does |
//! |---|---|
//! | `load NAME DIR FILE` | loads a model with one thread; says how long, and what memory it took |
//! | `inputs NAME ROWS FILE...` | reads raw f32 inputs, a file for each of the model's inputs |
//! | `run NAME ROWS COUNT` | runs it on one set of inputs after the other; times of these runs |
//! | `total NAME ROWS` | times of all runs so far |
//! | `report NAME ROWS SET` | runs it once: experts that ran, bytes of weights read |
//! | `output NAME ROWS SET FILE` | runs it once and writes its first output, raw |
//! | `counted NAME ROWS` | warms up, then runs it once inside [`counted`] |
//! | `bandwidth MIB COUNT` | reads a buffer of that size so many times; times of all such reads so far |
//! | `pages FILE` | size of this process's mapping of FILE (its full path), and how much is in memory |
//! | `memory` | this process's anonymous memory |
//! | `kernel` | the kernel in use |
//!
//! Times are of the calling thread: CPU time, which does not count what other processes take, and
//! the clock on the wall.

#![expect(clippy::disallowed_methods, reason = "it has no command line to speak of, and no clap")]

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use moed::engine::{
    Backend as _, Dim, LoadOptions, Model, Run, RunOptions, Session, kernel, tract,
};
use moed::tensor::{DType, Data, Tensor};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() {
    // `cargo bench` passes `--bench`: alone, this program has nothing to measure.
    if std::env::args().nth(1).as_deref() != Some("serve") {
        println!("peer: part of benches/figures; `peer serve` reads commands from stdin");
        return;
    }
    let mut peer = Peer::default();
    for line in std::io::stdin().lock().lines() {
        let answer = match line.map_err(Into::into).and_then(|line| peer.answer(&line)) {
            Ok(answer) => format!("ok{answer}"),
            Err(error) => format!("error {}", error.to_string().replace('\n', " ")),
        };
        println!("{answer}");
        let flushed = std::io::stdout().flush();
        if flushed.is_err() {
            return;
        }
    }
}

#[derive(Default)]
struct Peer {
    subjects: BTreeMap<String, Subject>,
    /// Buffers that bandwidth is measured on, by their size in MiB.
    buffers: BTreeMap<usize, (Vec<u64>, Times)>,
}

/// A model that is measured.
struct Subject {
    model: Box<dyn Model>,
    session: Box<dyn Session>,
    workloads: BTreeMap<usize, Workload>,
}

/// Inputs with so many rows, and the runs on them.
struct Workload {
    sets: Vec<Vec<Tensor>>,
    times: Times,
    bytes: u64,
}

impl Peer {
    fn answer(&mut self, line: &str) -> Result<Answer> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match *words.as_slice() {
            ["load", name, directory, file] => self.load(name, Path::new(directory), file),
            ["inputs", name, rows, ref files @ ..] => {
                let subject = self.subject(name)?;
                let sets = read_sets(subject.model.as_ref(), rows.parse()?, files)?;
                let answer = Answer::default().with("sets", sets.len());
                let workload = Workload { sets, times: Times::default(), bytes: 0 };
                subject.workloads.insert(rows.parse()?, workload);
                Ok(answer)
            }
            ["run", name, rows, count] => {
                let (session, workload) = self.workload(name, rows)?;
                let times = workload.run(session, count.parse()?)?;
                Ok(times.answer())
            }
            ["total", name, rows] => {
                let (_, workload) = self.workload(name, rows)?;
                let runs = workload.times.cpu.len().max(1) as u64;
                Ok(workload.times.answer().with("bytes_per_run", workload.bytes / runs))
            }
            ["report", name, rows, set] => {
                let run = self.run_once(name, rows, set)?;
                let layers = run.report.layers.iter();
                let experts: Vec<String> = layers
                    .flat_map(|layer| &layer.experts)
                    .map(|(expert, rows)| format!("{expert}:{rows}"))
                    .collect();
                let bytes = run.report.weight_bytes_read();
                Ok(Answer::default().with("bytes", bytes).with("experts", experts.join(",")))
            }
            ["output", name, rows, set, file] => {
                let run = self.run_once(name, rows, set)?;
                let Some(Data::F32(data)) = run.outputs.first().map(Tensor::data) else {
                    return Err("the first output is not f32".into());
                };
                std::fs::write(file, bytemuck::cast_slice(data))?;
                Ok(Answer::default())
            }
            ["counted", name, rows] => {
                let (session, workload) = self.workload(name, rows)?;
                workload.run(session, 2)?;
                counted(session, &workload.sets[0])?;
                Ok(Answer::default())
            }
            ["bandwidth", mib, count] => Ok(self.bandwidth(mib.parse()?, count.parse()?)),
            ["pages", file] => pages(file),
            ["memory"] => Ok(Answer::default().with("anonymous_kib", anonymous_kib()?)),
            ["kernel"] => Ok(Answer::default().with("kernel", kernel::active()?.name())),
            _ => Err(format!("`{line}`: not a command").into()),
        }
    }

    fn load(&mut self, name: &str, directory: &Path, file: &str) -> Result<Answer> {
        let before = anonymous_kib()?;
        let start = Instant::now();
        let options = LoadOptions { threads: 1, ..LoadOptions::default() };
        let model = tract::Tract.load(directory, file, &options)?;
        let session = model.session()?;
        let wall = start.elapsed();
        let added = anonymous_kib()? as i64 - before as i64;
        let subject = Subject { model, session, workloads: BTreeMap::new() };
        self.subjects.insert(name.to_owned(), subject);
        Ok(Answer::default().with("wall_ns", wall.as_nanos()).with("anonymous_kib", added))
    }

    fn subject(&mut self, name: &str) -> Result<&mut Subject> {
        self.subjects.get_mut(name).ok_or_else(|| format!("model `{name}`: not loaded").into())
    }

    fn workload(&mut self, name: &str, rows: &str) -> Result<(&mut dyn Session, &mut Workload)> {
        let subject = self.subject(name)?;
        let workload = subject.workloads.get_mut(&rows.parse()?);
        let workload = workload.ok_or_else(|| format!("`{name}`: no inputs of {rows} rows"))?;
        Ok((subject.session.as_mut(), workload))
    }

    fn run_once(&mut self, name: &str, rows: &str, set: &str) -> Result<Run> {
        let (session, workload) = self.workload(name, rows)?;
        let set = workload.sets.get(set.parse::<usize>()?).ok_or("no such set of inputs")?;
        Ok(session.run(set, RunOptions::default())?)
    }

    fn bandwidth(&mut self, mib: usize, count: usize) -> Answer {
        let make = || ((0..(mib as u64) << 17).collect(), Times::default());
        let (buffer, times) = self.buffers.entry(mib).or_insert_with(make);
        for _ in 0..count {
            let clock = Clock::start();
            std::hint::black_box(sum(buffer));
            times.push(&clock);
        }
        times.answer().with("bytes_per_run", size_of_val(buffer.as_slice()))
    }
}

impl Workload {
    /// Runs `count` times and gives the times of these runs.
    fn run(&mut self, session: &mut dyn Session, count: usize) -> Result<Times> {
        let mut times = Times::default();
        for _ in 0..count {
            let set = &self.sets[self.times.cpu.len() % self.sets.len()];
            let clock = Clock::start();
            // The outputs are dropped before the clock stops, as on the other side.
            self.bytes += session.run(set, RunOptions::default())?.report.weight_bytes_read();
            times.push(&clock);
            self.times.copy_last(&times);
        }
        Ok(times)
    }
}

/// The run that callgrind is to count: it looks for this name.
#[inline(never)]
fn counted(session: &mut dyn Session, set: &[Tensor]) -> Result<()> {
    std::hint::black_box(session.run(set, RunOptions::default())?);
    Ok(())
}

/// Raw f32 files, one for each of the model's inputs, as sets of inputs with `rows` rows.
fn read_sets(model: &dyn Model, rows: usize, files: &[&str]) -> Result<Vec<Vec<Tensor>>> {
    let ports = &model.signature().inputs;
    if files.len() != ports.len() {
        return Err(format!("{} files given, not {}", files.len(), ports.len()).into());
    }
    let mut sets: Vec<Vec<Tensor>> = Vec::new();
    for (port, file) in ports.iter().zip(files) {
        let [_, Dim::Fixed(width)] = port.dims[..] else {
            return Err(format!("input `{}`: not [rows, width]", port.name).into());
        };
        if port.dtype != DType::F32 {
            return Err(format!("input `{}`: not f32", port.name).into());
        }
        let bytes = std::fs::read(file)?;
        let floats: Vec<f32> =
            bytes.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
        let chunks = floats.chunks_exact(rows * width);
        sets.resize_with(sets.len().max(chunks.len()), Vec::new);
        for (set, floats) in sets.iter_mut().zip(chunks) {
            set.push(Tensor::new(&[rows, width], Data::F32(floats.to_vec()))?);
        }
    }
    if sets.is_empty() || sets.iter().any(|set| set.len() != ports.len()) {
        return Err("the files do not hold equally many sets".into());
    }
    Ok(sets)
}

/// Key-value pairs of an answer.
#[derive(Default)]
struct Answer(String);

impl Answer {
    fn with(mut self, key: &str, value: impl Display) -> Self {
        let written = write!(self.0, " {key}={value}");
        debug_assert!(written.is_ok());
        self
    }
}

impl Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// CPU and wall times of runs.
#[derive(Default)]
struct Times {
    cpu: Vec<Duration>,
    wall: Vec<Duration>,
}

impl Times {
    fn push(&mut self, clock: &Clock) {
        // The CPU clock is the inner one of the two.
        let cpu = thread_cpu_time() - clock.cpu;
        self.wall.push(clock.wall.elapsed());
        self.cpu.push(cpu);
    }

    fn copy_last(&mut self, times: &Self) {
        self.cpu.extend(times.cpu.last());
        self.wall.extend(times.wall.last());
    }

    fn answer(&self) -> Answer {
        let mut answer = Answer::default().with("runs", self.cpu.len());
        for (clock, times) in [("cpu", &self.cpu), ("wall", &self.wall)] {
            let mut sorted = times.clone();
            sorted.sort_unstable();
            for (name, percent) in [("p10", 10), ("median", 50)] {
                if let Some(time) = sorted.get(sorted.len() * percent / 100) {
                    answer = answer.with(&format!("{clock}_{name}_ns"), time.as_nanos());
                }
            }
        }
        answer
    }
}

/// The start of a run.
struct Clock {
    wall: Instant,
    cpu: Duration,
}

impl Clock {
    fn start() -> Self {
        let wall = Instant::now();
        Self { wall, cpu: thread_cpu_time() }
    }
}

/// CPU time of this thread.
#[expect(unsafe_code, reason = "std has no CPU clock, and rustix has it behind a feature")]
fn thread_cpu_time() -> Duration {
    use std::ffi::{c_int, c_long};
    #[repr(C)]
    struct Timespec {
        seconds: c_long,
        nanoseconds: c_long,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int;
    }
    const CLOCK_THREAD_CPUTIME_ID: c_int = 3;
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: it writes one timespec, which is two longs under Linux's own time_t.
    let status = unsafe { clock_gettime(CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(status, 0, "Linux has a CPU clock for each thread");
    Duration::new(time.seconds as u64, time.nanoseconds as u32)
}

/// Reads all words, with many sums, so that no addition waits for the one before it.
#[inline(never)]
fn sum(words: &[u64]) -> u64 {
    let mut sums = [0u64; 16];
    for words in words.as_chunks::<16>().0 {
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().fold(0, |total, sum| total.wrapping_add(*sum))
}

/// Memory of this process that no file backs.
fn anonymous_kib() -> Result<u64> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    kib(line.ok_or("/proc/self/smaps_rollup: no line `Anonymous`")?)
}

/// Size and resident part of this process's mappings of `file`.
fn pages(file: &str) -> Result<Answer> {
    let smaps = std::fs::read_to_string("/proc/self/smaps")?;
    let (mut size, mut resident, mut own) = (0, 0, false);
    for line in smaps.lines() {
        let is_field = line.split_whitespace().next().is_some_and(|word| word.ends_with(':'));
        if !is_field {
            own = line.ends_with(file);
        } else if own && let Some(value) = line.strip_prefix("Size:") {
            size += kib(value)?;
        } else if own && let Some(value) = line.strip_prefix("Rss:") {
            resident += kib(value)?;
        }
    }
    Ok(Answer::default().with("size_kib", size).with("resident_kib", resident))
}

/// `  123 kB` of /proc.
fn kib(value: &str) -> Result<u64> {
    Ok(value.trim().trim_end_matches(" kB").parse()?)
}
