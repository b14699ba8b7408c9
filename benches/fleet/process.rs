//! What a process has spent, as Linux counts it.

use std::fmt;
use std::time::Duration;

/// CPU, memory, threads and open files.
pub(crate) struct Spent {
    /// Share of one core.
    cores: f64,
    resident_mib: u64,
    threads: u64,
    files: usize,
}

/// CPU time of all its threads.
pub(crate) fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks: u64 = [11, 12].iter().filter_map(|field| fields.get(*field)?.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

impl Spent {
    /// In that time, at whose beginning it had spent so much.
    pub(crate) fn since(pid: u32, before: Duration, time: Duration) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let number = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
        };
        Self {
            cores: (cpu(pid) - before).as_secs_f64() / time.as_secs_f64(),
            resident_mib: number("VmRSS:") >> 10,
            threads: number("Threads:"),
            files: std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count),
        }
    }
}

impl fmt::Display for Spent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cores, resident_mib, threads, files } = self;
        write!(
            formatter,
            "{:6.2} % of a core, {resident_mib} MiB, {threads} threads, {files} files",
            cores * 100.0
        )
    }
}
