//! The allocator of the C library, told to give large pieces of memory back one by one, and to keep the others.
//!
//! By itself glibc gives back what is free at the end of its heap in one go. That may be hundreds of MiB, once the last
//! piece behind them is freed, and takes tens of milliseconds of a turn of the loop. As long it takes to join small
//! pieces, of which it keeps any number in lists until then. It reads its settings from the environment when a process
//! starts, so the program replaces itself once.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Starts this program again with the settings, in the same process, unless it has them or others were set. Nothing
/// may have been opened yet. If it cannot be started again it goes on without them.
pub(super) fn settle() {
    let is_told = [MARK, OLD_VARIABLE].into_iter().any(|name| env::var_os(name).is_some());
    if !cfg!(all(target_os = "linux", target_env = "gnu")) || is_told {
        return;
    }
    let Some(tunables) = tunables(env::var_os(VARIABLE).as_deref()) else { return };
    let Ok(program) = env::current_exe() else { return };
    let mut arguments = env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // It returns only if that fails.
    let _ = command.args(arguments).env(VARIABLE, tunables).env(MARK, "1").exec();
}

/// The variable with the settings; `None` if it has them already.
fn tunables(present: Option<&OsStr>) -> Option<OsString> {
    let Some(present) = present.filter(|present| !present.is_empty()) else {
        return Some(SETTINGS.into());
    };
    if present.to_string_lossy().contains(THRESHOLD) {
        return None;
    }
    let mut tunables = present.to_owned();
    tunables.push(":");
    tunables.push(SETTINGS);
    Some(tunables)
}

/// The C library's variable. It is not there any more after a start with rights that the user does not have.
const VARIABLE: &str = "GLIBC_TUNABLES";

/// An older variable for one of the settings.
const OLD_VARIABLE: &str = "MALLOC_MMAP_THRESHOLD_";

/// Set once the program was started again.
const MARK: &str = "COM_BROKER_ALLOCATOR_IS_SET";

const THRESHOLD: &str = "glibc.malloc.mmap_threshold";

/// Pieces from 128 KiB on are the kernel's, one by one. What is free of the others stays for the next burst: 1 TiB of it
/// would be given back. Small pieces are joined with their free neighbours when they are freed, instead of being kept in
/// lists that are joined in one go.
const SETTINGS: &str = "glibc.malloc.mmap_threshold=131072:glibc.malloc.trim_threshold=1099511627776\
                        :glibc.malloc.mxfast=0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_operator_stay() {
        let of = |present: &str| tunables(Some(OsStr::new(present)));
        assert_eq!(tunables(None).unwrap(), SETTINGS);
        assert_eq!(of("").unwrap(), SETTINGS);
        let both = of("glibc.malloc.arena_max=1").unwrap();
        assert_eq!(both.to_str().unwrap(), format!("glibc.malloc.arena_max=1:{SETTINGS}"));
        assert_eq!(of("glibc.malloc.mmap_threshold=4096"), None);
        assert_eq!(of(both.to_str().unwrap()), None);
    }
}
