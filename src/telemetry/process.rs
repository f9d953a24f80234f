//! What the kernel says of this process, from `/proc/self`.

use std::fs;

/// Figures of this process; each is missing where the kernel does not tell it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Process {
    /// User and system time of all threads.
    pub cpu_seconds: Option<f64>,
    /// Memory in RAM, shared pages included.
    pub resident_bytes: Option<u64>,
    /// Address space.
    pub virtual_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// As many as there may be.
    pub max_fds: Option<u64>,
    /// When it started, in seconds since 1970.
    pub start_seconds: Option<f64>,
}

/// Clock ticks of `/proc` in a second: fixed at 100 for user space on every Linux we build for (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

impl Process {
    pub(super) fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let fds = fs::read_dir("/proc/self/fd").ok();
        Process {
            // The folder itself is open while it is read.
            open_fds: fds.map(|entries| (entries.count() as u64).saturating_sub(1)),
            ..Process::parse(
                &text("/proc/self/stat"),
                &text("/proc/self/status"),
                &text("/proc/self/limits"),
                &text("/proc/stat"),
            )
        }
    }

    /// Field numbers are those of proc(5), less what stands before the closing parenthesis of the name.
    fn parse(stat: &str, status: &str, limits: &str, host_stat: &str) -> Self {
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let field = |number: usize| after_name.split_ascii_whitespace().nth(number - 3)?.parse::<f64>().ok();
        let (user_ticks, system_ticks, start_ticks) = (field(14), field(15), field(22));
        let kilobytes = |key| Some(number_after(status, key)? * 1024);
        Process {
            cpu_seconds: user_ticks.zip(system_ticks).map(|(user, system)| (user + system) / TICKS_PER_SECOND),
            resident_bytes: kilobytes("VmRSS:"),
            virtual_bytes: kilobytes("VmSize:"),
            open_fds: None,
            max_fds: number_after(limits, "Max open files"),
            start_seconds: start_ticks
                .zip(number_after(host_stat, "btime"))
                .map(|(ticks, boot)| boot as f64 + ticks / TICKS_PER_SECOND),
        }
    }
}

/// The number that follows `key` at the beginning of a line.
fn number_after(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_a_name_with_spaces_and_parentheses() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 3 0 2000 5 6";
        let process = Process::parse(
            stat,
            "Name:\tx\nVmSize:\t  20 kB\nVmRSS:\t  10 kB\n",
            "Limit  Soft Limit  Hard Limit  Units\nMax open files   1024   4096   files\n",
            "cpu 1 2\nbtime 1000\n",
        );
        let expected = Process {
            cpu_seconds: Some(2.0),
            resident_bytes: Some(10240),
            virtual_bytes: Some(20480),
            open_fds: None,
            max_fds: Some(1024),
            start_seconds: Some(1020.0),
        };
        assert_eq!(process, expected);
    }

    #[test]
    fn nothing_to_read_is_nothing_known() {
        assert_eq!(Process::parse("", "", "", ""), Process::default());
    }

    #[test]
    fn this_process_is_described() {
        let process = Process::read();
        assert!(process.resident_bytes.unwrap() > 100_000);
        assert!(process.open_fds.unwrap() >= 3 && process.open_fds <= process.max_fds);
        assert!(process.start_seconds.unwrap() > 1.6e9);
    }
}
