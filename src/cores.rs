//! The affinity of threads to cores. Only Linux has it; on other systems the set of cores is not known.

/// A set of cores.
#[derive(Clone, Debug)]
pub(crate) struct Cores(
    #[cfg(any(target_os = "linux", target_os = "android"))] rustix::thread::CpuSet,
);

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Cores {
    /// The cores that this thread may run on; `None` if the system does not tell.
    pub(crate) fn of_this_thread() -> Option<Self> {
        rustix::thread::sched_getaffinity(None).ok().map(Self)
    }

    /// The core of this number; `None` if the number is too large.
    pub(crate) fn one(core: usize) -> Option<Self> {
        let mut cores = rustix::thread::CpuSet::new();
        (core < rustix::thread::CpuSet::MAX_CPU).then(|| {
            cores.set(core);
            Self(cores)
        })
    }

    /// Their numbers, counted from zero, in ascending order.
    pub(crate) fn numbers(&self) -> Vec<usize> {
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| self.0.is_set(*core)).collect()
    }

    /// Pins this thread to them. Returns whether the system allows it.
    pub(crate) fn pin_this_thread(&self) -> bool {
        rustix::thread::sched_setaffinity(None, &self.0).is_ok()
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Cores {
    pub(crate) fn of_this_thread() -> Option<Self> {
        None
    }

    pub(crate) fn one(_core: usize) -> Option<Self> {
        None
    }

    #[expect(clippy::unused_self, reason = "the system has no sets of cores")]
    pub(crate) fn numbers(&self) -> Vec<usize> {
        Vec::new()
    }

    #[expect(clippy::unused_self, reason = "the system has no sets of cores")]
    pub(crate) fn pin_this_thread(&self) -> bool {
        false
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_is_pinned_to_a_core() {
        let all = Cores::of_this_thread().unwrap().numbers();
        for core in all {
            thread::spawn(move || {
                assert!(Cores::one(core).unwrap().pin_this_thread());
                assert_eq!(Cores::of_this_thread().unwrap().numbers(), [core]);
            })
            .join()
            .unwrap();
        }
        assert!(Cores::one(usize::MAX).is_none());
    }
}
