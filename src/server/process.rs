//! Settings of the process that a server changes if asked to.

use std::io;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::ServeFault;
use crate::cores::Cores;
use crate::limits::Limits;

/// Pins this thread, which is the loop's, to a core. The log's threads may use the cores that this one
/// could use before.
pub(super) fn pin(core: usize) -> Result<(), ServeFault> {
    let is_pinned = Cores::one(core).is_some_and(|cores| cores.pin_this_thread());
    is_pinned.then_some(()).ok_or(ServeFault::Core(core))
}

/// Raises the limit on descriptors, of which each connection needs one, and makes their table as large. Many systems
/// start programs with a thousand.
pub(super) fn raise_descriptor_limit(limits: &Limits) {
    let allowed = raise_limit(limits);
    // While it grows, Linux has a program with several threads wait for all cores: up to 15 ms for each doubling. The
    // table is as long as its highest descriptor needs, and never shrinks.
    let highest = i32::try_from(allowed).unwrap_or(i32::MAX) - 1;
    if let Err(error) = fcntl_dupfd_cloexec(io::stderr(), highest) {
        log::debug!(error:% = error; "the table of descriptors grows later");
    }
}

/// Raises the limit. Returns how many descriptors connections may need, and are allowed.
fn raise_limit(limits: &Limits) -> u64 {
    let wanted = needed_descriptors(limits);
    // rustix returns `None` for no limit.
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return wanted;
    }
    let allowed = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum }) {
        let error = error.to_string();
        log::warn!(error; "the number of descriptors cannot be raised");
        return current.unwrap_or(wanted);
    } else if allowed < wanted {
        log::warn!(
            allowed, needed = wanted, connections_max = limits.connections_max;
            "the system allows fewer descriptors than connections_max needs, ulimit -n or \
             LimitNOFILE raises that"
        );
    }
    allowed
}

/// The descriptors that all connections and the process itself need.
fn needed_descriptors(limits: &Limits) -> u64 {
    let connections = u64::from(limits.connections_max) + u64::from(limits.refusals_max);
    connections + DESCRIPTORS_OF_OUR_OWN
}

/// What [`raise_descriptor_limit`] would warn of in a process that is started as this one was.
pub(crate) fn warning_of_descriptors(limits: &Limits) -> Option<String> {
    let (allowed, needed) = (getrlimit(Resource::Nofile).maximum?, needed_descriptors(limits));
    let connections_max = limits.connections_max;
    (allowed < needed).then(|| {
        format!(
            "the system allows fewer descriptors than connections_max needs, ulimit -n or LimitNOFILE raises that \
             allowed={allowed} needed={needed} connections_max={connections_max}"
        )
    })
}

/// Descriptors of listeners, the poll, its mailbox, signals, logs and exported files.
const DESCRIPTORS_OF_OUR_OWN: u64 = 64;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_descriptors_does_not_grow_while_clients_connect() {
        let size = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
            size.trim().parse::<u64>().unwrap()
        };
        let limits = Limits { connections_max: 3_000, ..Limits::default() };
        let maximum = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        raise_descriptor_limit(&limits);
        assert!(size() >= maximum.min(3_000), "{} of {maximum}", size());
    }
}
