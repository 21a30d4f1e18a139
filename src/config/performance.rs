//! `[performance]`: settings that lower latency, all of them off by default.

use serde::Deserialize;

use super::fault::{ConfigFault, Offence};
use super::size::Bytes;
use super::source::Source;
use crate::cores::Cores;

/// `[performance]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PerformanceSection {
    busy_poll: Option<bool>,
    core: Option<u64>,
    socket_busy_poll_us: Option<u64>,
    socket_send_buffer_bytes: Option<Bytes>,
    socket_receive_buffer_bytes: Option<Bytes>,
}

/// Settings that lower latency at the cost of something else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Performance {
    /// Whether the loop polls without ever sleeping.
    pub busy_poll: bool,
    /// The core that the loop's thread is pinned to; `None` leaves it to the kernel.
    pub core: Option<usize>,
    /// Time for which an empty read polls the network device, in microseconds.
    pub socket_busy_poll_us: u32,
    /// Size of a socket's send buffer; zero leaves it to the kernel.
    pub socket_send_buffer_bytes: u32,
    /// Size of a socket's receive buffer; zero leaves it to the kernel.
    pub socket_receive_buffer_bytes: u32,
}

impl PerformanceSection {
    /// The defaults with the settings applied, which have to be supported by this machine.
    pub(super) fn resolve(&self, source: &Source<'_>) -> Result<Performance, ConfigFault> {
        let fault = |name, offence| source.fault(&format!("performance.{name}"), offence);
        let size = |name, bytes: Option<Bytes>| {
            buffer_size(bytes.map_or(0, u64::from)).map_err(|offence| fault(name, offence))
        };
        let Self { socket_send_buffer_bytes, socket_receive_buffer_bytes, .. } = *self;
        Ok(Performance {
            busy_poll: self.busy_poll.unwrap_or_default(),
            core: self.core.map(core).transpose().map_err(|offence| fault("core", offence))?,
            socket_busy_poll_us: busy_poll_time(self.socket_busy_poll_us.unwrap_or_default())
                .map_err(|offence| fault("socket_busy_poll_us", offence))?,
            socket_send_buffer_bytes: size("socket_send_buffer_bytes", socket_send_buffer_bytes)?,
            socket_receive_buffer_bytes: size(
                "socket_receive_buffer_bytes",
                socket_receive_buffer_bytes,
            )?,
        })
    }
}

impl Performance {
    /// Checks settings that were made in code, and names the first one that breaks a rule.
    pub(super) fn check(&self) -> Result<(), (&'static str, Offence)> {
        let at = |name| move |offence| (name, offence);
        self.core.map(|one| core(one as u64)).transpose().map_err(at("core"))?;
        busy_poll_time(self.socket_busy_poll_us.into()).map_err(at("socket_busy_poll_us"))?;
        for (name, bytes) in [
            ("socket_send_buffer_bytes", self.socket_send_buffer_bytes),
            ("socket_receive_buffer_bytes", self.socket_receive_buffer_bytes),
        ] {
            buffer_size(bytes.into()).map_err(at(name))?;
        }
        Ok(())
    }
}

/// A core that this process may run on.
fn core(wanted: u64) -> Result<usize, Offence> {
    if cfg!(not(any(target_os = "linux", target_os = "android"))) {
        return Err(Offence::OnlyOn("Linux"));
    }
    let cores = Cores::of_this_thread().map(|cores| cores.numbers()).unwrap_or_default();
    let found = cores.iter().copied().find(|core| *core as u64 == wanted);
    found.ok_or(Offence::NoCore(wanted, cores))
}

fn busy_poll_time(us: u64) -> Result<u32, Offence> {
    match u32::try_from(us) {
        Ok(0) => Ok(0),
        Ok(_) if !cfg!(target_os = "linux") => Err(Offence::OnlyOn("Linux")),
        Ok(us) if us <= BUSY_POLL_US_LARGEST => Ok(us),
        _ => Err(Offence::AtMost(us, BUSY_POLL_US_LARGEST.into(), "a second")),
    }
}

fn buffer_size(bytes: u64) -> Result<u32, Offence> {
    match u32::try_from(bytes) {
        Ok(0) => Ok(0),
        Ok(size) if size < BUFFER_BYTES_SMALLEST => {
            Err(Offence::AtLeast(bytes, BUFFER_BYTES_SMALLEST.into(), "4 KiB"))
        }
        Ok(size) if size <= BUFFER_BYTES_LARGEST => Ok(size),
        _ => Err(Offence::AtMost(bytes, BUFFER_BYTES_LARGEST.into(), "1 GiB")),
    }
}

const BUSY_POLL_US_LARGEST: u32 = 1_000_000;
/// The smallest size that kernels grant. A smaller one would make every write partial.
const BUFFER_BYTES_SMALLEST: u32 = 4 << 10;
/// The kernel stores twice the size in a signed number.
const BUFFER_BYTES_LARGEST: u32 = 1 << 30;
