//! What this program asks of the machine that it runs on: a core to stay on, and descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::fault::Fault;

/// Raises the number of descriptors that may be open as far as the system lets us: there are more
/// connections than a process commonly may have. Where the system refuses, connecting will tell.
pub fn raise_descriptor_limit() {
    // No limit is what rustix gives as absent. macOS names no maximum, but refuses to do without a
    // limit: what its manual promises for every process is OPEN_MAX.
    const OPEN_MAX: u64 = 10_240;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(OPEN_MAX);
    if current.is_some_and(|current| current < wanted) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}

/// Keeps this thread on one core, by default the last, which the kernel bothers least. "none" lets it
/// run anywhere.
///
/// # Errors
/// There is no such core, or the system does not let us stay on the one that is asked for.
pub fn pin(core: Option<&str>) -> Result<(), Fault> {
    if core == Some("none") {
        return Ok(());
    }
    let cores = cores_of_this_thread();
    let number = match core {
        None => cores.last().copied(),
        Some(text) => {
            let wanted: usize = text.parse().map_err(|_| Fault::Usage(format!("--core {text}")))?;
            if !cores.contains(&wanted) {
                return Err(Fault::Usage(format!("--core {text}: no such core")));
            }
            Some(wanted)
        }
    };
    if let Some(number) = number
        && !keep_this_thread_on(number)
        && core.is_some()
    {
        return Err(Fault::Usage(format!("--core {number}: the system refuses")));
    }
    Ok(())
}

/// The cores that this thread may run on, in ascending order.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn cores_of_this_thread() -> Vec<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity};

    let Ok(cores) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|core| cores.is_set(*core)).collect()
}

/// Keeps this thread on a core that there is. Says whether the system agrees.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn keep_this_thread_on(core: usize) -> bool {
    use rustix::thread::{CpuSet, sched_setaffinity};

    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).is_ok()
}

/// None that could be chosen: only Linux offers it.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn cores_of_this_thread() -> Vec<usize> {
    Vec::new()
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn keep_this_thread_on(_core: usize) -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::thread;

    use super::*;

    /// Pins a thread of its own, and says which cores that has then.
    fn pinned(core: Option<&str>) -> Result<Vec<usize>, String> {
        let pinned = || pin(core).map(|()| cores_of_this_thread());
        let result = thread::scope(|scope| scope.spawn(pinned).join().expect("no panic"));
        result.map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_thread_stays_on_the_core_that_it_is_given_or_on_the_last() {
        let all = cores_of_this_thread();
        for core in &all {
            assert_eq!(pinned(Some(&core.to_string())), Ok(vec![*core]));
        }
        assert_eq!(pinned(None), Ok(vec![*all.last().unwrap()]));
        assert_eq!(pinned(Some("none")), Ok(all));
    }

    #[test]
    fn a_core_that_there_is_not_is_refused() {
        assert_eq!(pinned(Some("99999")).unwrap_err(), "--core 99999: no such core");
        assert_eq!(pinned(Some("first")).unwrap_err(), "--core first");
    }

    #[test]
    fn descriptors_may_be_as_many_as_the_system_allows() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let fewer = maximum.map(|maximum| maximum - 1);
        setrlimit(Resource::Nofile, Rlimit { current: fewer, maximum }).unwrap();
        raise_descriptor_limit();
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
    }
}
