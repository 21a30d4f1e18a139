//! The cost of a server: CPU time and memory of its process, as the kernel counts them.

use std::fs;
use std::path::PathBuf;

use crate::fault::Fault;

/// A process under observation.
#[derive(Clone, Debug)]
pub struct Server {
    pid: u32,
    directory: PathBuf,
}

impl Server {
    /// Looks up a process.
    ///
    /// # Errors
    /// There is no such process, or its cost cannot be read.
    pub fn of(pid: u32) -> Result<Self, Fault> {
        let server = Self { pid, directory: PathBuf::from(format!("/proc/{pid}")) };
        if server.cpu_ns().is_none() {
            return Err(Fault::Usage(format!("--server-pid {pid}: no such process in /proc")));
        }
        Ok(server)
    }

    /// Looks up the process that listens on a port of this machine.
    ///
    /// # Errors
    /// There is none, or it belongs to another user.
    pub fn listening_on(port: u16) -> Result<Self, Fault> {
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
        let tables: String =
            tables.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
        let sockets: Vec<_> = tables.lines().filter_map(|line| listener(line, port)).collect();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let found = pids.into_iter().find(|pid: &u32| holds_one_of(*pid, &sockets));
        let pid = found.ok_or_else(|| {
            let text = "no process that we may look into listens there";
            Fault::Usage(format!("--server-pid auto: {text}: port {port}"))
        })?;
        Self::of(pid)
    }

    /// CPU time of all its threads, including ended ones, in user and kernel mode.
    ///
    /// The kernel has a clock in nanoseconds for every process; the ticks of `/proc/PID/stat` would be
    /// too coarse for short runs.
    #[cfg(target_os = "linux")]
    pub fn cpu_ns(&self) -> Option<u64> {
        use std::time::Duration;

        use nix::time::{clock_getcpuclockid, clock_gettime};
        use nix::unistd::Pid;

        let clock = clock_getcpuclockid(Pid::from_raw(self.pid.try_into().ok()?)).ok()?;
        u64::try_from(Duration::from(clock_gettime(clock).ok()?).as_nanos()).ok()
    }

    /// CPU time of all its threads, which is not known on this system.
    #[cfg(not(target_os = "linux"))]
    pub fn cpu_ns(&self) -> Option<u64> {
        None
    }

    /// Resets the peak of its memory, if the system allows it.
    pub fn reset_peak(&self) {
        // Linux, proc(5): 5 resets VmHWM. Without permission, the peak may be older.
        let _ = fs::write(self.directory.join("clear_refs"), "5");
    }

    /// Resident memory, and its peak since the last reset.
    pub fn memory_bytes(&self) -> Option<Memory> {
        let status = fs::read_to_string(self.directory.join("status")).ok()?;
        Some(Memory {
            resident: kibibytes(&status, "VmRSS:")? * 1_024,
            peak: kibibytes(&status, "VmHWM:")? * 1_024,
        })
    }
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident memory.
    pub resident: u64,
    /// Its peak.
    pub peak: u64,
}

/// The socket in a line of `/proc/net/tcp` if it listens on a port, with its name in `/proc/PID/fd`.
fn listener(line: &str, port: u16) -> Option<String> {
    const LISTENING: &str = "0A";
    let words: Vec<_> = line.split_whitespace().collect();
    let (_, local_port) = words.get(1)?.rsplit_once(':')?;
    let is_it = words[3] == LISTENING && u16::from_str_radix(local_port, 16) == Ok(port);
    is_it.then(|| words.get(9).map(|inode| format!("socket:[{inode}]")))?
}

fn holds_one_of(pid: u32, sockets: &[String]) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = files.filter_map(|file| fs::read_link(file.path()).ok());
    links.into_iter().any(|link| sockets.iter().any(|socket| link.as_os_str() == socket.as_str()))
}

fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_parsed() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(kibibytes(status, "VmRSS:"), Some(1_024));
        assert_eq!(kibibytes(status, "VmSwap:"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_cpu_time_and_memory() {
        let server = Server::of(std::process::id()).unwrap();
        assert!(server.memory_bytes().unwrap().resident > 100_000);
        assert!(Server::of(u32::MAX).is_err());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn cpu_time_includes_ended_threads() {
        let server = Server::of(std::process::id()).unwrap();
        let before_ns = server.cpu_ns().unwrap();
        let thread = std::thread::spawn(move || {
            while server.cpu_ns().unwrap() < before_ns + 20_000_000 {}
            server
        });
        let server = thread.join().unwrap();
        assert!(server.cpu_ns().unwrap() >= before_ns + 20_000_000);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_that_listens_on_a_port_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Server::listening_on(port).unwrap();
        assert!(server.directory.ends_with(std::process::id().to_string()), "{server:?}");
        drop(listener);
        assert!(Server::listening_on(port).is_err());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_peak_can_be_reset() {
        let server = Server::of(std::process::id()).unwrap();
        let before = server.memory_bytes().unwrap();
        let mut block = vec![1_u8; 64 << 20];
        std::hint::black_box(&mut block);
        assert!(server.memory_bytes().unwrap().peak >= before.resident + (60 << 20));
        drop(block);
        server.reset_peak();
        let memory = server.memory_bytes().unwrap();
        assert!(memory.peak < before.resident + (40 << 20), "{before:?} {memory:?}");
    }
}
