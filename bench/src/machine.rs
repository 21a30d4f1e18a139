//! Settings of the process: the core that it is pinned to, and the limit on descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::fault::Fault;

/// Raises the limit on descriptors as far as the system allows, since there are more connections than a
/// process may have by default. If the system refuses, connecting fails later.
pub fn raise_descriptor_limit() {
    // rustix returns `None` for no limit. macOS has no maximum, but refuses to set no limit; its
    // manual promises OPEN_MAX to every process.
    const OPEN_MAX: u64 = 10_240;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(OPEN_MAX);
    if current.is_some_and(|current| current < wanted) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}

/// Pins this thread to a core, by default the last one, which the kernel uses least. "none" does not pin
/// it.
///
/// # Errors
/// There is no such core, or the system does not allow it.
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
        && !pin_this_thread_to(number)
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

/// Pins this thread to an existing core. Returns whether the system allows it.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn pin_this_thread_to(core: usize) -> bool {
    use rustix::thread::{CpuSet, sched_setaffinity};

    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).is_ok()
}

/// No cores, since only Linux has affinity.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn cores_of_this_thread() -> Vec<usize> {
    Vec::new()
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn pin_this_thread_to(_core: usize) -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::thread;

    use super::*;

    /// Pins a new thread, and returns its cores.
    fn pinned(core: Option<&str>) -> Result<Vec<usize>, String> {
        let pinned = || pin(core).map(|()| cores_of_this_thread());
        let result = thread::scope(|scope| scope.spawn(pinned).join().expect("no panic"));
        result.map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_thread_is_pinned_to_the_given_or_the_last_core() {
        let all = cores_of_this_thread();
        for core in &all {
            assert_eq!(pinned(Some(&core.to_string())), Ok(vec![*core]));
        }
        assert_eq!(pinned(None), Ok(vec![*all.last().unwrap()]));
        assert_eq!(pinned(Some("none")), Ok(all));
    }

    #[test]
    fn a_core_that_does_not_exist_is_refused() {
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
