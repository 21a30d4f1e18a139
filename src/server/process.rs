//! Settings of the process that a server changes if asked to.

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

/// Raises the limit on descriptors, of which each connection needs one. Many systems start programs with
/// a thousand.
pub(super) fn raise_descriptor_limit(limits: &Limits) {
    let connections = u64::from(limits.connections_max) + u64::from(limits.refusals_max);
    let wanted = connections + DESCRIPTORS_OF_OUR_OWN;
    // rustix returns `None` for no limit.
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    let allowed = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum }) {
        let error = error.to_string();
        log::warn!(error; "the number of descriptors cannot be raised");
    } else if allowed < wanted {
        log::warn!(
            allowed, needed = wanted, connections_max = limits.connections_max;
            "the system allows fewer descriptors than connections_max needs, ulimit -n or \
             LimitNOFILE raises that"
        );
    }
}

/// Descriptors of listeners, the poll, its mailbox, signals, logs and exported files.
const DESCRIPTORS_OF_OUR_OWN: u64 = 64;
