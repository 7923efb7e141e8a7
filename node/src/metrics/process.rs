//! What the operating system says of this process: memory, processor, files. Where it says nothing (elsewhere than on
//! Linux), the metric is left out.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The process at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Process {
    /// Bytes that are in memory.
    pub(super) resident: Option<u64>,
    /// Time of processors, its own and the system's for it.
    pub(super) cpu: Option<Duration>,
    /// Open files and sockets.
    pub(super) files: Option<u64>,
    /// When it began, in seconds since 1970.
    pub(super) started: Option<f64>,
}

/// Ticks of a second, in what Linux tells of processes: `USER_HZ`, which its programs may rely on.
const TICKS: f64 = 100.0;

impl Process {
    /// Looks.
    pub(super) fn look() -> Self {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
        let times = times(&read("self/stat"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let began = |times: Times| {
            let up = read("uptime").split(' ').next()?.parse().ok()?;
            let age = Duration::try_from_secs_f64(up).ok()?.checked_sub(times.started)?;
            Some(now.saturating_sub(age).as_secs_f64())
        };
        Self {
            resident: resident(&read("self/status")),
            cpu: times.map(|times| times.cpu),
            files: std::fs::read_dir("/proc/self/fd").map(|files| files.count() as u64).ok(),
            started: times.and_then(began),
        }
    }
}

#[derive(Clone, Copy)]
struct Times {
    cpu: Duration,
    /// Since the machine began.
    started: Duration,
}

/// Of `/proc/PID/stat` (proc(5)). The name, which may hold anything, ends with the last bracket.
fn times(stat: &str) -> Option<Times> {
    let (_, rest) = stat.rsplit_once(')')?;
    // The first field here is the third of the file.
    let field = |number: usize| rest.split_ascii_whitespace().nth(number - 3)?.parse::<u64>().ok();
    let time = |ticks: u64| Duration::from_secs_f64(ticks as f64 / TICKS);
    Some(Times { cpu: time(field(14)?.saturating_add(field(15)?)), started: time(field(22)?) })
}

/// Of `/proc/PID/status`, which counts in KiB.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_it_is_called() {
        let line = "7 (a) b (c) S 1 7 7 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 3 0 1000 99 25 1";
        let Times { cpu, started } = times(line).unwrap();
        assert_eq!((cpu, started), (Duration::from_secs(2), Duration::from_secs(10)));
        assert!(times("").is_none() && times("7 (x) S 1").is_none());
        assert_eq!(resident("Name:\tx\nVmRSS:\t    25 kB\n"), Some(25 * 1024));
        assert_eq!(resident("VmRSS: many kB"), None);
    }
}
