//! `com-broker check`: all checks that are possible before the broker starts.

use super::{CliFault, ServeArguments, print};
use crate::limits::{Limits, MemoryPart};
use crate::server::identity;

pub(super) fn run(arguments: &ServeArguments) -> Result<(), CliFault> {
    let config = arguments.resolve().map_err(CliFault::Config)?;
    let checked = config.tls.as_ref().map(|source| identity::check(source, &config.tls_places));
    let exposure = checked.transpose().map_err(CliFault::Identity)?.flatten();
    for exposure in config.exposures.iter().chain(&exposure) {
        eprintln!("warning: {exposure}");
    }
    print(&(config.describe() + &describe_memory(&config.limits)))
}

/// The memory that clients can occupy, part by part, as comments behind the configuration.
fn describe_memory(limits: &Limits) -> String {
    let parts = limits.memory_parts();
    let sum: u64 = parts.iter().map(|part| part.bytes).sum();
    let mut text = format!(
        "\n# Memory that clients can occupy within these limits:\n\
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
    use crate::profile::ByProfile;

    #[test]
    fn the_sum_has_every_bound_on_memory_and_is_a_comment() {
        let limits = Limits::default();
        let text = describe_memory(&limits);
        assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{text}");
        let sum = text.split_once("memory_bytes_max = ").unwrap().1;
        let sum: u64 = sum.split(' ').next().unwrap().parse().unwrap();
        let more = 1 << 30;
        for change in [
            |limits: &mut Limits, more| limits.inbound_total_bytes_max += more,
            |limits: &mut Limits, more| limits.outbound_total_bytes_max += more,
            // Messages, and the queues that they keep alive.
            |limits: &mut Limits, more| limits.queues_bytes_max += more / 2,
            |limits: &mut Limits, more| limits.transactions_total_bytes_max += more,
            |limits: &mut Limits, more| limits.destinations_bytes_max += more,
        ] {
            let mut larger = limits.clone();
            change(&mut larger, more);
            let parts = larger.memory_parts();
            assert_eq!(parts.iter().map(|part| part.bytes).sum::<u64>(), sum + more);
        }
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
}
