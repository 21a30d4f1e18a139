//! Placeholder until the telemetry branch is merged.
/// Counters.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// .
    pub frames_in: u64,
    /// .
    pub logins: u64,
    /// .
    pub takeovers: u64,
    /// .
    pub deliveries: u64,
    /// .
    pub slow_consumers: u64,
    /// .
    pub limit_exceeded: u64,
    /// .
    pub protocol_errors: u64,
}
