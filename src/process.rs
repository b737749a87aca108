//! What this process knows of itself: its age, its memory, and the time of day.

use std::path::Path;
use std::time::{Duration, SystemTime};

/// Time since this process started, which includes the loading of its libraries; zero where Linux's
/// /proc is not available.
pub fn process_age() -> Duration {
    let age = || {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // Field 22 of the line. We count from the last parenthesis, because the command's name
        // (field 2, in parentheses) may hold spaces and parentheses.
        let started: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        let uptime: f64 = std::fs::read_to_string("/proc/uptime")
            .ok()?
            .split_whitespace()
            .next()?
            .parse()
            .ok()?;
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        Duration::try_from_secs_f64(uptime - started / ticks).ok()
    };
    age().unwrap_or_default()
}

/// Peak resident memory of this process so far, in MiB; 0 where Linux's /proc is not available.
///
/// Unlike getrusage's figure, it does not start from the parent's peak when a process is spawned.
pub fn peak_rss_mib() -> u64 {
    of_status("VmHWM:")
}

/// Resident memory of this process now, in MiB; 0 where Linux's /proc is not available.
pub fn rss_mib() -> u64 {
    of_status("VmRSS:")
}

/// Reads a line of /proc/self/status, which is in kB, and returns it in MiB.
fn of_status(key: &str) -> u64 {
    let read = || {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    read().unwrap_or(0) / 1024
}

/// The bytes of memory that this process may have: the machine's, or the least limit of its control
/// groups (version 2).
pub fn memory_limit() -> u64 {
    let machine = || {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    let groups = || {
        let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let group = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let of = |group: &Path| {
            let limit = Path::new("/sys/fs/cgroup").join(group).join("memory.max");
            std::fs::read_to_string(limit).ok()?.trim().parse::<u64>().ok()
        };
        Path::new(group).ancestors().filter_map(of).min()
    };
    machine().unwrap_or(u64::MAX).min(groups().unwrap_or(u64::MAX))
}

/// The time of day in seconds since 1970.
pub fn unix_seconds() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs())
}

/// The time of day, for messages and for timestamps in files. No computed result depends on it.
#[allow(clippy::disallowed_methods)]
pub fn time_of_day() -> SystemTime {
    SystemTime::now()
}
