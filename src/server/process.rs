//! What a server asks of the process that it runs in, where it was told to.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::ServeFault;
use crate::cores::Cores;
use crate::limits::Limits;

/// Keeps this thread, which is the loop's, on a core. The log's threads go where this one could before.
pub(super) fn pin(core: usize) -> Result<(), ServeFault> {
    let is_pinned = Cores::one(core).is_some_and(|cores| cores.keep_this_thread());
    is_pinned.then_some(()).ok_or(ServeFault::Core(core))
}

/// Each connection needs a descriptor; many systems start programs with a thousand.
pub(super) fn raise_descriptor_limit(limits: &Limits) {
    let connections = u64::from(limits.connections_max) + u64::from(limits.refusals_max);
    let wanted = connections + DESCRIPTORS_OF_OUR_OWN;
    // No limit is what rustix gives as absent.
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    let allowed = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum }) {
        let error = error.to_string();
        log::warn!("the number of descriptors cannot be raised error={error:?}");
    } else if allowed < wanted {
        log::warn!(
            "the system allows fewer descriptors than connections_max needs, ulimit -n or \
             LimitNOFILE raises that allowed={allowed} needed={wanted} connections_max={}",
            limits.connections_max
        );
    }
}

/// Listeners, the poll, its mailbox, signals, logs, files that are exported.
const DESCRIPTORS_OF_OUR_OWN: u64 = 64;
