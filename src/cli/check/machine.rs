//! The CPU, its kernels, pages, and memory.

use super::{Failure, Grade, Report};
use crate::engine::kernel;
use crate::repository::memory;

/// Experts begin at multiples of this in a bundle; larger pages read more than the experts.
const ALIGNMENT_BYTES: usize = 16 << 10;

/// What the kernels make use of, as `/proc/cpuinfo` calls it: x86-64, AArch64, ARMv7.
const FEATURES: [&str; 11] = [
    "avx2",
    "avx_vnni",
    "avx512_vnni",
    "fma",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "neon",
    "vfpv4",
    "idiva",
];

pub(super) fn check(report: &mut Report) -> Result<(), Failure> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").ok();
    match cpu.as_deref().map(describe_cpu).filter(|text| !text.is_empty()) {
        Some(text) => report.say(Grade::Ok, "cpu", &text)?,
        None => {
            let text = "/proc/cpuinfo says nothing: a sandbox may hide it; the slower kernels may \
                        be chosen: use ProcSubset=all";
            report.say(Grade::Warn, "cpu", text)?;
        }
    }
    let names: Vec<_> = kernel::available().iter().map(|kernel| kernel.name()).collect();
    match kernel::active() {
        Ok(kernel) if kernel.name() == "scalar" => {
            let text = "scalar: this CPU has no instructions that moed knows: it will be slow";
            report.say(Grade::Warn, "kernel", text)?;
        }
        Ok(kernel) => {
            let text = format!("{} (of {})", kernel.name(), names.join(", "));
            report.say(Grade::Ok, "kernel", &text)?;
        }
        Err(error) => report.say(Grade::Fail, "kernel", &error.to_string())?,
    }
    let bytes = rustix::param::page_size();
    let grade = if bytes <= ALIGNMENT_BYTES { Grade::Ok } else { Grade::Warn };
    let rest =
        if grade == Grade::Ok { "" } else { ": experts share pages: more is read than needed" };
    report.say(grade, "page size", &format!("{bytes} bytes{rest}"))?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    report.say(Grade::Ok, "processors", &processors.to_string())?;
    match memory::available_bytes() {
        Some(bytes) => report.say(Grade::Ok, "memory", &format!("{} MiB available", bytes >> 20)),
        None => {
            let text = "the kernel doesn't say how much is available: models are loaded unchecked";
            report.say(Grade::Warn, "memory", text)
        }
    }
}

/// `AMD EPYC 7763: avx2 fma`, `CPU part 0xd08: asimd`.
fn describe_cpu(cpuinfo: &str) -> String {
    let field = |names: &[&str]| {
        cpuinfo.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            names.contains(&name.trim()).then(|| value.trim())
        })
    };
    let part = || field(&["CPU part"]).map(|part| format!("CPU part {part}"));
    let name = field(&["model name"]).map(str::to_owned).or_else(part);
    let has: Vec<_> = field(&["flags", "Features"])
        .into_iter()
        .flat_map(str::split_whitespace)
        .filter(|feature| FEATURES.contains(feature))
        .collect();
    let texts = [name.unwrap_or_default(), has.join(" ")];
    texts.iter().filter(|text| !text.is_empty()).cloned().collect::<Vec<_>>().join(": ")
}
