//! How the files that this process may have open are shared out: clients' connections come first, probes get the rest, so that
//! a thousand endpoints that hang can never keep a client out.

use std::{num::NonZero, thread};

use crate::{
    config::model::{Encrypted, Server},
    health::{Endpoint, Targets},
    sys::limits::raise_open_files,
};

/// What the program itself has open at most: logs, event queues, databases and state files while they are read or written, the
/// admin interface's connections.
const OWN: u64 = 128;
/// A process that may have few files open gives this share of them to probes, even so.
const PROBES_SHARE_MIN: u64 = 4;
/// What a host name is counted as: each of its addresses is probed, and most names have few. One that has more takes what is free.
const SOCKETS_OF_NAME: u64 = 4;
/// What is advised is rounded up to a multiple of this.
const ADVICE_STEP: u64 = 1024;

/// The files of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    /// Most that may be open.
    limit: u64,
    /// Most that clients may hold.
    connections: u64,
    /// Sockets that are open all the time, each with a second handle for whoever takes over, and [`OWN`].
    fixed: u64,
}

impl OpenFiles {
    /// Raises the limit as far as this user may, and counts what a server needs.
    pub fn of(server: &Server) -> OpenFiles {
        let cores = || thread::available_parallelism().map_or(1, NonZero::get);
        let workers = if server.threads == 0 { cores() } else { server.threads };
        let none = Vec::new();
        let list = |of: fn(&Encrypted) -> &Vec<_>| server.encrypted.as_ref().map_or(&none, of);
        let (dot, doq, doh) = (list(|e| &e.dot), list(|e| &e.doq), list(|e| &e.doh));
        // DNS over TLS and over HTTPS have as many connections each, of their own.
        let kinds = 1 + usize::from(!dot.is_empty()) + usize::from(!doh.is_empty());
        let sockets = server.listen.len() * (workers + 1) + dot.len() + doq.len() + doh.len();
        OpenFiles {
            limit: raise_open_files(),
            connections: (kinds * server.limits.tcp_connections) as u64,
            fixed: OWN + 2 * sockets as u64,
        }
    }

    /// How many probes may be under way: what clients and the program itself leave.
    pub fn probes_max(&self) -> usize {
        let left = self.limit.saturating_sub(self.connections + self.fixed);
        left.max(self.limit / PROBES_SHARE_MIN).try_into().unwrap_or(usize::MAX)
    }

    /// One log line where all targets, hanging at once, would need more than there is.
    pub fn tell_if_short(&self, targets: &Targets) {
        let Some(enough) = self.short_of(sockets_of(targets)) else { return };
        tracing::warn!(
            limit = self.limit,
            targets = targets.list().len(),
            connections = self.connections,
            others = self.fixed,
            probes_at_a_time = self.probes_max(),
            "few open files: when all endpoints hang at once, probes wait for one another and come late. Allow {enough} files \
             (LimitNOFILE={enough} in the systemd unit, `ulimit -Hn {enough}` in a shell, `--ulimit nofile={enough}` for a \
             container), or lower `tcp-connections` in [server.limits]"
        );
    }

    /// The limit to ask for, when so many sockets of probes at once are more than fit.
    fn short_of(&self, sockets: u64) -> Option<u64> {
        let needed = self.connections + self.fixed + sockets;
        (sockets > self.probes_max() as u64 || needed > self.limit).then(|| needed.next_multiple_of(ADVICE_STEP))
    }
}

/// How many connections probes have when all hang at once.
fn sockets_of(targets: &Targets) -> u64 {
    let of = |endpoint: &Endpoint| match endpoint {
        Endpoint::Address(_) => 1,
        Endpoint::Name(_) => SOCKETS_OF_NAME,
    };
    targets.list().iter().filter(|target| target.check().kind.is_probed()).map(|target| of(target.endpoint())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_get_what_clients_and_the_program_leave_and_never_nothing() {
        for (limit, connections, targets, probes_max, advised) in [
            (1_048_576, 1_000, 10_000, 1_047_436, None),
            (16_384, 1_000, 10_000, 15_244, None),
            (4_096, 1_000, 10_000, 2_956, Some(11_264)),
            (4_096, 1_000, 2_956, 2_956, None),
            (4_096, 1_000, 2_957, 2_957 - 1, Some(5_120)),
            (1_024, 1_000, 3, 256, Some(2_048)),
            (1_024, 100, 3, 784, None),
        ] {
            let files = OpenFiles { limit, connections, fixed: OWN + 12 };
            assert_eq!((files.probes_max(), files.short_of(targets)), (probes_max, advised), "{limit} {connections}");
        }
    }
}
