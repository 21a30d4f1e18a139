//! `com-broker check`: all checks that are possible before the broker starts.

use super::{CliFault, ServeArguments, print};
use crate::config::{Config, TlsMode};
use crate::limits::MemoryPart;
use crate::server::{self, identity};

pub(super) fn run(arguments: &ServeArguments) -> Result<(), CliFault> {
    let config = arguments.resolve().map_err(CliFault::Config)?;
    let checked = config.tls.as_ref().map(|source| identity::check(source, &config.tls_places));
    let exposure = checked.transpose().map_err(CliFault::Identity)?.flatten();
    server::check_latency_directory(&config).map_err(CliFault::Serve)?;
    let exposures = config.exposures.iter().chain(&exposure).map(ToString::to_string);
    for warning in exposures.chain(server::warning_of_descriptors(&config.limits)) {
        eprintln!("warning: {warning}");
    }
    print(&(config.describe() + &describe_memory(&memory_parts(&config))))
}

/// The parts of the memory that clients can occupy, with those for TLS if some listener takes it.
fn memory_parts(config: &Config) -> Vec<MemoryPart> {
    let takes_tls = config.listeners().iter().any(|listener| listener.policy.tls != TlsMode::Off);
    match takes_tls {
        true => config.limits().memory_parts(),
        false => config.limits().memory_parts_without_tls(),
    }
}

/// The memory that clients can occupy, part by part, as comments behind the configuration.
fn describe_memory(parts: &[MemoryPart]) -> String {
    let sum: u64 = parts.iter().map(|part| part.bytes).sum();
    let mut text = format!(
        "\n# Memory that clients can occupy within these limits, each number of MiB rounded up:\n\
         # memory_bytes_max = {sum} ({} MiB)\n",
        sum.div_ceil(MIB)
    );
    for MemoryPart { bounds, bytes } in parts {
        text += &format!("#   {:>6} MiB  {bounds}\n", bytes.div_ceil(MIB));
    }
    text
}

const MIB: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Keys;
    use crate::config::Listener;
    use crate::limits::Limits;
    use crate::profile::ByProfile;

    #[test]
    fn the_sum_has_every_bound_on_memory_and_is_a_comment() {
        let limits = Limits::default();
        let text = describe_memory(&limits.memory_parts());
        assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{text}");
        let sum = text.split_once("memory_bytes_max = ").unwrap().1;
        let sum: u64 = sum.split(' ').next().unwrap().parse().unwrap();
        let more = 9 << 27;
        for change in [
            |limits: &mut Limits, more| limits.inbound_total_bytes_max += more,
            |limits: &mut Limits, more| limits.outbound_total_bytes_max += more,
            // Messages, and the queues that they keep alive.
            |limits: &mut Limits, more| limits.queues_bytes_max += more / 2,
            // Those that are open, and those that are being freed.
            |limits: &mut Limits, more| limits.transactions_total_bytes_max += more / 9 * 8,
            |limits: &mut Limits, more| limits.destinations_bytes_max += more,
        ] {
            let mut larger = limits.clone();
            change(&mut larger, more);
            let parts = larger.memory_parts();
            assert_eq!(parts.iter().map(|part| part.bytes).sum::<u64>(), sum + more);
        }
        // Products are what their labels say.
        let bytes = |start: &str| {
            let parts = limits.memory_parts();
            parts.iter().find(|part| part.bounds.starts_with(start)).unwrap().bytes
        };
        let connections = 16_384 + 64;
        assert_eq!(bytes("(connections_max + refusals_max) × 9 KiB"), connections * 9 * 1024);
        assert_eq!(
            bytes("(connections_max + refusals_max) × (4 × login_id_bytes_max + 256 bytes)"),
            connections * (4 * 2048 + 256)
        );
        assert_eq!(bytes("subscriptions_max × (subscription_id_bytes_max + 320 "), 250_000 * 576);
        assert_eq!(
            bytes("patterns_max × (pattern_compiled_bytes_max + 4 × pattern_bytes_max + 1 KiB)"),
            1000 * (65_536 + 4 * 1024 + 1024)
        );
        assert_eq!(bytes("wildcards_max × 2 × destination_bytes_max"), 1000 * 2 * 4096);
        // What one session may have at best of a table is a part of the table.
        let shares = Limits {
            subscriptions_per_session_max: ByProfile::all(1 << 30),
            patterns_per_session_max: ByProfile::all(1 << 30),
            wildcards_per_session_max: ByProfile::all(1 << 30),
            destination_share_bytes_max: ByProfile::all(more),
            ..limits
        };
        assert_eq!(shares.memory_parts().iter().map(|part| part.bytes).sum::<u64>(), sum);
    }

    #[test]
    fn tls_is_in_the_sum_only_where_a_listener_takes_it() {
        let keys = || Keys::new("app", ["a", "b", "c", "d"]).unwrap();
        let listener = |tls| Listener::new("127.0.0.1:0".parse().unwrap()).tls(tls);
        let (off, optional) = (listener(TlsMode::Off), listener(TlsMode::Optional));
        let builder = |listener| Config::builder(keys()).listener(listener);
        let plain = builder(off.clone()).build().unwrap();
        let mixed = builder(off).listener(optional).development_certificate("certs");
        let sum = |config: &Config| memory_parts(config).iter().map(|part| part.bytes).sum::<u64>();
        let mixed = mixed.build().unwrap();
        let of_tls = memory_parts(&mixed).into_iter().filter(|part| part.bounds.contains("TLS"));
        let of_tls: u64 = of_tls.map(|part| part.bytes).sum();
        assert_eq!(sum(&mixed) - sum(&plain), of_tls - (16_384 + 64) * 1024);
        assert!(!describe_memory(&memory_parts(&plain)).contains("TLS"));
    }
}
