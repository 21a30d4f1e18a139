//! `[limits]`: every bound under its name in the code, applied to the defaults and checked.

use serde::Deserialize;

use super::by_profile::{EachOrAll, profile_name};
use super::fault::{ConfigFault, Offence};
use super::size::Bytes;
use super::source::Source;
use crate::limits::{Limits, MemoryPart, OutboundLimits};
use crate::profile::{ByProfile, Profile};

/// Declares [`LimitsSection`] and its functions that need a line per bound. If a field of [`Limits`]
/// is missing from the list, this does not compile.
macro_rules! limits_section {
    (one { $($name:ident: $kind:ty,)* } by_profile { $($share:ident: $each:ty,)* }) => {
        /// `[limits]`
        #[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct LimitsSection {
            $($name: Option<$kind>,)*
            $($share: EachOrAll<$each>,)*
            outbound: OutboundSection,
        }

        impl LimitsSection {
            fn apply_plain_to(&self, limits: &mut Limits) -> Result<(), LimitFault> {
                $(if let Some(value) = self.$name {
                    limits.$name = narrow(value.into(), || stringify!($name).into())?;
                })*
                Ok(())
            }

            fn apply_by_profile_to(&self, limits: &mut Limits) -> Result<(), LimitFault> {
                $(for (profile, value) in self.$share.by_profile().iter() {
                    if let Some(value) = *value {
                        let name = || self.$share.name_of(stringify!($share), profile);
                        limits.$share[profile] = narrow(value.into(), name)?;
                    }
                })*
                Ok(())
            }
        }

        impl LimitsSection {
            /// Whether a bound by profile was given as one value for all.
            fn is_for_all(&self, bound: &str) -> bool {
                match bound {
                    $(stringify!($share) => matches!(self.$share, EachOrAll::All(_)),)*
                    _ => false,
                }
            }
        }

        /// Name and value of every bound except those on outbound queues. A bound by profile has a row for each.
        pub(super) fn limit_rows(limits: &Limits) -> Vec<(String, u64)> {
            let Limits { $($name,)* $($share,)* outbound: _ } = limits;
            let mut rows = vec![$((stringify!($name).into(), (*$name).into()),)*];
            $(rows.extend($share.iter().map(|(profile, value)| {
                (profile_name(stringify!($share), profile), (*value).into())
            }));)*
            rows
        }

        /// Bounds that may be given as one value for all or as a table by profile.
        pub(super) const BY_PROFILE: &[&str] = &[$(stringify!($share),)*];
    };
}

limits_section! {
    one {
        connections_max: u64,
        refusals_max: u64,
        refusal_ms_max: u64,
        tls_handshake_ms_max: u64,
        upgrade_ms_max: u64,
        connect_ms_max: u64,
        upgrade_bytes_max: Bytes,
        websocket_ping_ms: u64,
        websocket_pong_ms_max: u64,
        tcp_keepalive_ms: u64,
        tcp_user_timeout_ms: u64,
        close_flush_ms_max: u64,
        linger_ms_max: u64,
        drain_ms_max: u64,
        login_frame_bytes_max: Bytes,
        body_bytes_max: Bytes,
        header_bytes_max: Bytes,
        header_count_max: u64,
        frame_ms_max: u64,
        inbound_total_bytes_max: Bytes,
        login_id_bytes_max: Bytes,
        takeovers_max: u64,
        takeover_window_ms: u64,
        subscriptions_max: u64,
        destinations_max: u64,
        destinations_bytes_max: Bytes,
        destination_bytes_max: Bytes,
        patterns_max: u64,
        wildcards_max: u64,
        wildcard_levels_max: u64,
        pattern_bytes_max: Bytes,
        pattern_compiled_bytes_max: Bytes,
        heart_beat_ms_min: u64,
        heart_beat_margin_ms: u64,
        transactions_max: u64,
        transactions_total_bytes_max: Bytes,
        subscription_id_bytes_max: Bytes,
        idle_topics_max: u64,
        queue_messages_max: u64,
        queues_bytes_max: Bytes,
        prefetch_max: u64,
        queue_ms_max: u64,
        deliveries_max: u64,
        outbound_total_bytes_max: Bytes,
        turn_units_max: u64,
        share_units_max: u64,
        pause_ms_max: u64,
        read_bytes_per_turn_max: Bytes,
        write_bytes_per_turn_max: Bytes,
        accepts_per_turn_max: u64,
        mailbox_letters_max: u64,
    }
    by_profile {
        subscriptions_per_session_max: u64,
        patterns_per_session_max: u64,
        wildcards_per_session_max: u64,
        destination_share_bytes_max: Bytes,
        transaction_bytes_max: Bytes,
        queue_share_bytes_max: Bytes,
    }
}

impl LimitsSection {
    /// The defaults with the settings applied.
    pub(super) fn resolve(&self) -> Result<Limits, LimitFault> {
        let mut limits = Limits::default();
        self.apply_plain_to(&mut limits)?;
        for (profile, section) in self.outbound.by_profile().iter() {
            section.apply_to(profile, &mut limits.outbound[profile])?;
        }
        limits.queue_share_bytes_max = Limits::queue_shares(limits.queues_bytes_max);
        self.apply_by_profile_to(&mut limits)?;
        check(&limits).map_err(|fault| {
            let bound = fault.name.split('.').next().unwrap_or_default();
            let name = if self.is_for_all(bound) { bound.into() } else { fault.name };
            LimitFault { name, ..fault }
        })?;
        Ok(limits)
    }
}

/// A bound that breaks a rule, dotted below `limits`, and the offence.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LimitFault {
    pub(super) name: String,
    pub(super) offence: Offence,
    /// The bounds that it contradicts.
    others: Vec<String>,
    /// Further bounds that are too small for the same reason, with their values.
    alike: Box<[(String, u64)]>,
}

impl LimitFault {
    fn alone(name: String, offence: Offence) -> Self {
        Self { name, offence, others: Vec::new(), alike: Box::default() }
    }

    /// The fault at the bound that the file sets. A default that does not fit with it is not at fault.
    pub(super) fn placed(self, source: &Source<'_>) -> ConfigFault {
        let is_set = |name: &String| source.lines.line_of(&format!("limits.{name}")).is_some();
        let set = self.others.iter().find(|name| is_set(name));
        let (key, offence) = match (set, self.offence) {
            (Some(set), Offence::AtMost(value, max, _)) if !is_set(&self.name) => {
                (set, Offence::NeedsAtMost(self.name, value, max))
            }
            (Some(set), Offence::AtLeast(value, min, _)) if !is_set(&self.name) => {
                let first = (self.name, value);
                (
                    set,
                    Offence::NeedsAtLeast(std::iter::once(first).chain(self.alike).collect(), min),
                )
            }
            (Some(set), Offence::Memory(bounds)) if !is_set(&self.name) => {
                (set, Offence::Memory(bounds))
            }
            (_, offence) => (&self.name, offence),
        };
        source.fault(&format!("limits.{key}"), offence)
    }
}

/// `[limits.outbound.…]`, by profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(
    deny_unknown_fields,
    default,
    expecting = "a table by profile, such as [limits.outbound.agent]"
)]
struct OutboundSection {
    agent: OutboundProfileSection,
    super_agent: OutboundProfileSection,
    service: OutboundProfileSection,
    admin: OutboundProfileSection,
}

impl OutboundSection {
    fn by_profile(&self) -> ByProfile<&OutboundProfileSection> {
        ByProfile::new([&self.agent, &self.super_agent, &self.service, &self.admin])
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(
    deny_unknown_fields,
    default,
    expecting = "a table with hard_bytes_max, soft_bytes_max and soft_ms_max"
)]
struct OutboundProfileSection {
    hard_bytes_max: Option<Bytes>,
    soft_bytes_max: Option<Bytes>,
    soft_ms_max: Option<u64>,
}

impl OutboundProfileSection {
    fn apply_to(&self, profile: Profile, limits: &mut OutboundLimits) -> Result<(), LimitFault> {
        if let Some(bytes) = self.hard_bytes_max {
            limits.hard_bytes_max =
                narrow(bytes.into(), || outbound_name(profile, "hard_bytes_max"))?;
        }
        if let Some(bytes) = self.soft_bytes_max {
            limits.soft_bytes_max =
                narrow(bytes.into(), || outbound_name(profile, "soft_bytes_max"))?;
        }
        if let Some(ms) = self.soft_ms_max {
            limits.soft_ms_max = narrow(ms, || outbound_name(profile, "soft_ms_max"))?;
        }
        Ok(())
    }
}

/// The name of an outbound bound below `limits`.
pub(super) fn outbound_name(profile: Profile, name: &str) -> String {
    format!("outbound.{}.{name}", profile.key_name())
}

fn narrow<T: TryFrom<u64>>(value: u64, name: impl Fn() -> String) -> Result<T, LimitFault> {
    T::try_from(value).map_err(|_| {
        let offence = Offence::AtMost(value, u32::MAX.into(), "the largest number here");
        LimitFault::alone(name(), offence)
    })
}

/// The least number that a setting below `limits` takes, dotted as in the file.
pub(super) fn least(name: &str) -> u64 {
    let bound = name.split('.').next().unwrap_or_default();
    u64::from(bound != "outbound" && !MAY_BE_ZERO.contains(&bound))
}

/// Bounds that may be zero, which means never, none, or without waiting.
const MAY_BE_ZERO: [&str; 18] = [
    "refusals_max",
    "websocket_ping_ms",
    "close_flush_ms_max",
    "linger_ms_max",
    "drain_ms_max",
    "takeovers_max",
    "subscriptions_per_session_max",
    "patterns_max",
    "patterns_per_session_max",
    "wildcards_max",
    "wildcards_per_session_max",
    "heart_beat_ms_min",
    "queue_ms_max",
    "heart_beat_margin_ms",
    "transactions_max",
    "idle_topics_max",
    "queue_share_bytes_max",
    "pause_ms_max",
];

// Positions in what a turn encodes have 31 bits: two copies of the largest frame fit, or the longest answer.
const BODY_BYTES_LARGEST: u64 = 512 << 20;
const OUTBOUND_BYTES_LARGEST: u64 = 1 << 30;
const HEADER_BYTES_LARGEST: u64 = 16 << 20;

/// The largest memory of all clients together that may be named, so that sums of such bounds do not overflow.
const MEMORY_BYTES_LARGEST: u64 = 1 << 48;

/// Units of a turn of which each stage gets some.
const TURN_UNITS_LEAST: u64 = 320;

/// Units of a turn, for as long as which everybody else may have to wait.
const TURN_UNITS_LARGEST: u64 = 1_000_000;

/// Letters, of which each has its place from the start.
const LETTERS_LARGEST: u64 = 1 << 16;

/// Destinations with the longest names for which there has to be room: with fewer, few could log in.
const DESTINATIONS_LEAST: u64 = 4;

/// What a destination takes besides its name, at most.
const DESTINATION_BYTES: u64 = 1024;

/// Checks that bounds do not contradict each other, and that the broker can work with them.
pub(super) fn check(limits: &Limits) -> Result<(), LimitFault> {
    for (name, value) in limit_rows(limits) {
        let bound = name.split('.').next().unwrap_or_default();
        if value == 0 && !MAY_BE_ZERO.contains(&bound) {
            return Err(LimitFault::alone(name, Offence::Zero));
        }
    }
    check_frames(limits)?;
    check_names(limits)?;
    check_totals(limits)?;
    check_products(limits)?;
    let turn = Bound("turn_units_max", limits.turn_units_max.into(), &[]);
    turn.at_least(TURN_UNITS_LEAST, "what each stage of a turn needs")?;
    turn.at_most(TURN_UNITS_LARGEST, "about 0.1 s, for which everybody else may have to wait")?;
    Bound("mailbox_letters_max", limits.mailbox_letters_max.into(), &[])
        .at_most(LETTERS_LARGEST, "as memory for all of them is taken at the start")?;
    Bound("share_units_max", limits.share_units_max.into(), &["turn_units_max"])
        .at_most(limits.turn_units_max.into(), "turn_units_max")?;
    check_outbound(limits)?;
    for (profile, share) in limits.transaction_bytes_max.iter() {
        let of_profile = profile_name("transaction_bytes_max", profile);
        Bound(
            "transactions_total_bytes_max",
            limits.transactions_total_bytes_max,
            &[&of_profile, "transaction_bytes_max"],
        )
        .at_least((*share).into(), "what one session may hold: transaction_bytes_max")?;
    }
    Ok(())
}

/// Checks that there may be names and patterns of each kind: a limit of zero is how to rule a kind out.
fn check_names(limits: &Limits) -> Result<(), LimitFault> {
    for (name, value, shortest, why) in [
        (
            "destination_bytes_max",
            limits.destination_bytes_max,
            SHORTEST_TOPIC.len(),
            "what the shortest topic takes, such as /topic/a",
        ),
        (
            "pattern_bytes_max",
            limits.pattern_bytes_max,
            SHORTEST_PATTERN.len(),
            "what the shortest regular expression takes that matches an address, .*",
        ),
        (
            "wildcard_levels_max",
            limits.wildcard_levels_max,
            SHORTEST_WILDCARD.split('/').count(),
            "the levels of the shortest topic with wildcards, /topic/>",
        ),
    ] {
        Bound(name, value.into(), &[]).at_least(shortest as u64, why)?;
    }
    Ok(())
}

const SHORTEST_TOPIC: &str = "/topic/a";
const SHORTEST_PATTERN: &str = ".*";
const SHORTEST_WILDCARD: &str = "/topic/>";

/// Checks bounds on the memory of all clients together.
fn check_totals(limits: &Limits) -> Result<(), LimitFault> {
    let longest = u64::from(limits.destination_bytes_max.max(limits.login_id_bytes_max));
    Bound(
        "destinations_bytes_max",
        limits.destinations_bytes_max,
        &["destination_bytes_max", "login_id_bytes_max"],
    )
    .at_least(
        DESTINATIONS_LEAST * (longest + DESTINATION_BYTES),
        "what four destinations with the longest names take",
    )?;
    for (name, value) in limit_rows(limits) {
        Bound(&name, value, &[]).at_most(MEMORY_BYTES_LARGEST, "256 TiB")?;
    }
    Ok(())
}

/// Checks that no part of the sum that `com-broker check` prints is absurdly large. What it follows from is named.
fn check_products(limits: &Limits) -> Result<(), LimitFault> {
    let parts = limits.memory_parts();
    let Some(MemoryPart { bounds, .. }) =
        parts.iter().find(|part| part.bytes > MEMORY_BYTES_LARGEST)
    else {
        return Ok(());
    };
    let product = bounds.split(':').next().unwrap_or_default();
    let words = product.split(|c: char| !c.is_ascii_lowercase() && c != '_');
    let mut names = words.filter(|word| word.ends_with("_max")).map(str::to_owned);
    let fault = LimitFault::alone(names.next().unwrap_or_default(), Offence::Memory(product));
    Err(LimitFault { others: names.collect(), ..fault })
}

/// Bounds that the largest frame follows from.
const OF_FRAME: &[&str] = &["body_bytes_max", "header_bytes_max"];

/// What a total has to have room for.
const LARGEST_FRAME: &str = "the largest frame: body_bytes_max and header_bytes_max";

fn check_frames(limits: &Limits) -> Result<(), LimitFault> {
    let (frame, header) = (limits.frame_bytes_max().into(), limits.header_bytes_max.into());
    let login = limits.login_frame_bytes_max.into();
    let body = Bound("body_bytes_max", limits.body_bytes_max.into(), &[]);
    body.at_most(BODY_BYTES_LARGEST, "512 MiB")?;
    Bound("header_bytes_max", header, &[]).at_most(HEADER_BYTES_LARGEST, "16 MiB")?;
    Bound("login_frame_bytes_max", login, OF_FRAME)
        .at_most(frame, "the largest frame after login")?;
    Bound("login_id_bytes_max", limits.login_id_bytes_max.into(), &["login_frame_bytes_max"])
        .at_most(login, "login_frame_bytes_max")?;
    for (name, value) in [
        ("destination_bytes_max", limits.destination_bytes_max),
        ("pattern_bytes_max", limits.pattern_bytes_max),
        ("subscription_id_bytes_max", limits.subscription_id_bytes_max),
    ] {
        let bound = Bound(name, value.into(), &["header_bytes_max"]);
        bound.at_most(header, "header_bytes_max")?;
    }
    check_room(limits, frame)
}

/// Checks that the largest frame fits wherever it has to, and names all bounds that are too small for it.
fn check_room(limits: &Limits, frame: u64) -> Result<(), LimitFault> {
    let inbound = ("inbound_total_bytes_max".into(), limits.inbound_total_bytes_max);
    let outbound = ("outbound_total_bytes_max".into(), limits.outbound_total_bytes_max);
    let of_profile = limits.outbound.iter().map(|(profile, outbound)| {
        (outbound_name(profile, "hard_bytes_max"), u64::from(outbound.hard_bytes_max))
    });
    let all = std::iter::once(inbound).chain(of_profile).chain([outbound]);
    let mut small = all.filter(|(_, value)| *value < frame);
    let Some((name, value)) = small.next() else { return Ok(()) };
    let alike = small.collect();
    let fault = Bound(&name, value, OF_FRAME).fault(Offence::AtLeast(value, frame, LARGEST_FRAME));
    Err(LimitFault { alike, ..fault })
}

fn check_outbound(limits: &Limits) -> Result<(), LimitFault> {
    for (profile, outbound) in limits.outbound.iter() {
        let OutboundLimits { hard_bytes_max, soft_bytes_max, soft_ms_max: _ } = *outbound;
        let hard = outbound_name(profile, "hard_bytes_max");
        let soft = outbound_name(profile, "soft_bytes_max");
        Bound(&hard, hard_bytes_max.into(), &[]).at_most(OUTBOUND_BYTES_LARGEST, "1 GiB")?;
        Bound(&soft, soft_bytes_max.into(), &[&hard])
            .at_most(hard_bytes_max.into(), "hard_bytes_max of the same profile")?;
        if soft_bytes_max == 0 {
            return Err(LimitFault::alone(soft, Offence::Zero));
        }
    }
    let hard = |profile: Profile| limits.outbound[profile].hard_bytes_max;
    // Of equal ones the first.
    let largest = Profile::ALL.into_iter().rev().max_by_key(|profile| hard(*profile));
    let largest = largest.unwrap_or(Profile::Agent);
    let name = outbound_name(largest, "hard_bytes_max");
    Bound("outbound_total_bytes_max", limits.outbound_total_bytes_max, &[&name])
        .at_least(hard(largest).into(), LARGEST_QUEUE[largest])
}

/// What the total of outbound queues has to have room for, by the profile of the largest.
const LARGEST_QUEUE: ByProfile<&str> = ByProfile::new([
    "what one connection may hold: outbound.agent.hard_bytes_max",
    "what one connection may hold: outbound.super_agent.hard_bytes_max",
    "what one connection may hold: outbound.service.hard_bytes_max",
    "what one connection may hold: outbound.admin.hard_bytes_max",
]);

/// The name of a bound, its value, and the bounds that say what it may be.
pub(super) struct Bound<'n>(pub(super) &'n str, pub(super) u64, pub(super) &'n [&'n str]);

impl Bound<'_> {
    fn at_most(&self, max: u64, why: &'static str) -> Result<(), LimitFault> {
        let Self(_, value, _) = *self;
        if value <= max { Ok(()) } else { Err(self.fault(Offence::AtMost(value, max, why))) }
    }

    pub(super) fn at_least(&self, min: u64, why: &'static str) -> Result<(), LimitFault> {
        let Self(_, value, _) = *self;
        if value >= min { Ok(()) } else { Err(self.fault(Offence::AtLeast(value, min, why))) }
    }

    fn fault(&self, offence: Offence) -> LimitFault {
        let others = self.2.iter().map(|name| (*name).into()).collect();
        LimitFault { name: self.0.into(), offence, others, alike: Box::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::size::NotASize;
    use super::*;

    fn resolve(text: &str) -> Result<Limits, LimitFault> {
        toml::from_str::<LimitsSection>(text).unwrap().resolve()
    }

    #[test]
    fn without_settings_there_are_the_defaults() {
        assert_eq!(resolve("").unwrap(), Limits::default());
    }

    #[test]
    fn sizes_are_numbers_or_text_with_a_unit() {
        for (text, bytes) in [
            ("65536", Some(65_536)),
            ("65536 B", Some(65_536)),
            ("64 KiB", Some(65_536)),
            ("64KiB", Some(65_536)),
            ("4 MiB", Some(4 << 20)),
            ("1 GiB", Some(1 << 30)),
            ("", None),
            ("KiB", None),
            ("4 MB", None),
            ("-4 KiB", None),
            ("4.5 KiB", None),
            ("1.5 MiB", None),
            ("4 kib", None),
            (" 4 KiB", None),
            ("256 TiB", Some(256 << 40)),
            ("99999999999 GiB", None),
        ] {
            assert_eq!(Bytes::parse(text).ok().map(u64::from), bytes, "{text}");
        }
        assert_eq!(Bytes::parse("99999999999 GiB"), Err(NotASize::TooLarge));
        assert_eq!(Bytes::parse("18446744073709551616"), Err(NotASize::TooLarge));
        assert_eq!(resolve("body_bytes_max = \"2 MiB\"").unwrap().body_bytes_max, 2 << 20);
        assert!(toml::from_str::<LimitsSection>("patterns_max = \"2 KiB\"").is_err());
        assert!(toml::from_str::<LimitsSection>("body_bytes_max = -2").is_err());
    }

    #[test]
    fn a_profile_has_outbound_bounds_of_its_own() {
        let limits = resolve("[outbound.super_agent]\nhard_bytes_max = \"16 MiB\"").unwrap();
        assert_eq!(limits.outbound[Profile::SuperAgent].hard_bytes_max, 16 << 20);
        assert_eq!(limits.outbound[Profile::Agent], Limits::default().outbound[Profile::Agent]);
    }

    #[test]
    fn shares_follow_the_memory_of_queues_unless_they_are_set() {
        let limits = resolve("queues_bytes_max = \"8 MiB\"\n[queue_share_bytes_max]\nagent = 7");
        let shares = limits.unwrap().queue_share_bytes_max;
        assert_eq!(shares, ByProfile::new([7, 2 << 20, 4 << 20, 4 << 20]));
    }

    #[test]
    fn a_share_is_one_value_for_all_or_one_by_profile() {
        let all = resolve("wildcards_per_session_max = 7\ntransaction_bytes_max = \"1 MiB\"");
        let all = all.unwrap();
        assert_eq!(all.wildcards_per_session_max, ByProfile::all(7));
        assert_eq!(all.transaction_bytes_max, ByProfile::all(1 << 20));
        assert_eq!(all.patterns_per_session_max, Limits::default().patterns_per_session_max);
        let some = resolve(
            "queue_share_bytes_max = 9\npatterns_per_session_max.agent = 0\n\
             [destination_share_bytes_max]\nservice = \"2 MiB\"\nadmin = 5",
        );
        let some = some.unwrap();
        assert_eq!(some.queue_share_bytes_max, ByProfile::all(9));
        assert_eq!(some.patterns_per_session_max, ByProfile::new([0, 250, 250, 250]));
        let shares = ByProfile::new([4 << 20, 4 << 20, 2 << 20, 5]);
        assert_eq!(some.destination_share_bytes_max, shares);
    }

    #[test]
    fn bounds_that_cannot_work_are_refused_by_name() {
        for (text, name) in [
            ("connections_max = 0", "connections_max"),
            ("turn_units_max = 1", "turn_units_max"),
            ("destinations_bytes_max = 1", "destinations_bytes_max"),
            ("destinations_bytes_max = \"17179869183 GiB\"", "destinations_bytes_max"),
            ("queue_share_bytes_max.agent = \"1048576 GiB\"", "queue_share_bytes_max.agent"),
            ("outbound_total_bytes_max = \"17179869183 GiB\"", "outbound_total_bytes_max"),
            ("connections_max = 4294967296", "connections_max"),
            ("body_bytes_max = \"513 MiB\"", "body_bytes_max"),
            ("header_bytes_max = \"17 MiB\"", "header_bytes_max"),
            ("login_frame_bytes_max = \"5 MiB\"", "login_frame_bytes_max"),
            ("login_id_bytes_max = \"16 KiB\"", "login_id_bytes_max"),
            ("destination_bytes_max = \"17 KiB\"", "destination_bytes_max"),
            ("pattern_bytes_max = \"17 KiB\"", "pattern_bytes_max"),
            ("pattern_bytes_max = 1", "pattern_bytes_max"),
            ("destination_bytes_max = 7", "destination_bytes_max"),
            ("wildcard_levels_max = 2", "wildcard_levels_max"),
            ("inbound_total_bytes_max = \"4 MiB\"", "inbound_total_bytes_max"),
            ("outbound_total_bytes_max = \"31 MiB\"", "outbound_total_bytes_max"),
            ("transactions_total_bytes_max = 1", "transactions_total_bytes_max"),
            ("transaction_bytes_max.service = \"65 MiB\"", "transactions_total_bytes_max"),
            ("transaction_bytes_max.agent = 0", "transaction_bytes_max.agent"),
            ("destination_share_bytes_max = 0", "destination_share_bytes_max"),
            ("wildcards_per_session_max = 4294967296", "wildcards_per_session_max"),
            ("wildcards_per_session_max.admin = 4294967296", "wildcards_per_session_max.admin"),
            ("[outbound.agent]\nhard_bytes_max = 1", "outbound.agent.hard_bytes_max"),
            ("[outbound.agent]\nhard_bytes_max = \"1025 MiB\"", "outbound.agent.hard_bytes_max"),
            ("[outbound.admin]\nsoft_bytes_max = 0", "outbound.admin.soft_bytes_max"),
            ("[outbound.service]\nsoft_bytes_max = \"33 MiB\"", "outbound.service.soft_bytes_max"),
        ] {
            assert_eq!(resolve(text).unwrap_err().name, name, "{text}");
        }
        for least in
            ["pattern_bytes_max = 2", "destination_bytes_max = 8", "wildcard_levels_max = 3"]
        {
            resolve(least).unwrap();
        }
        for name in MAY_BE_ZERO {
            resolve(&format!("{name} = 0")).unwrap();
        }
    }

    #[test]
    fn bounds_have_a_largest_value_that_works() {
        for (text, name) in [
            ("turn_units_max = 1_000_001", "turn_units_max"),
            ("mailbox_letters_max = 65_537", "mailbox_letters_max"),
            ("mailbox_letters_max = 4_294_967_295", "mailbox_letters_max"),
            ("subscription_id_bytes_max = \"17 KiB\"", "subscription_id_bytes_max"),
            ("pattern_compiled_bytes_max = \"3 GiB\"\npatterns_max = 100_000", "patterns_max"),
        ] {
            assert_eq!(resolve(text).unwrap_err().name, name, "{text}");
        }
        for largest in [
            "turn_units_max = 1_000_000",
            "mailbox_letters_max = 65_536",
            "subscription_id_bytes_max = \"16 KiB\"",
        ] {
            resolve(largest).unwrap();
        }
    }

    #[test]
    fn no_product_overflows_and_one_that_is_too_large_names_its_bounds() {
        const MOST: u32 = u32::MAX;
        let with = |change: fn(&mut Limits)| {
            let mut limits = Limits::default();
            change(&mut limits);
            limits
        };
        for (limits, expected) in [
            (
                with(|limits| {
                    (limits.subscriptions_max, limits.subscription_id_bytes_max) = (MOST, MOST);
                }),
                &["subscriptions_max", "subscription_id_bytes_max"][..],
            ),
            (
                with(|limits| {
                    (limits.patterns_max, limits.pattern_compiled_bytes_max) = (MOST, MOST);
                }),
                &["patterns_max", "pattern_compiled_bytes_max", "pattern_bytes_max"],
            ),
            (
                with(|limits| (limits.wildcards_max, limits.destination_bytes_max) = (MOST, MOST)),
                &["wildcards_max", "destination_bytes_max"],
            ),
            (
                with(|limits| (limits.connections_max, limits.login_id_bytes_max) = (MOST, MOST)),
                &["connections_max", "refusals_max", "login_id_bytes_max"],
            ),
        ] {
            let fault = check_products(&limits).unwrap_err();
            let names: Vec<_> = std::iter::once(&fault.name).chain(&fault.others).collect();
            assert_eq!(names, expected);
            assert!(fault.offence.to_string().ends_with(" is more than 256 TiB"));
        }
        check_products(&Limits::default()).unwrap();
        // With as many parts at that size, their sum does not overflow.
        assert!((Limits::default().memory_parts().len() as u64) < u64::MAX / MEMORY_BYTES_LARGEST);
    }

    #[test]
    fn the_total_of_queues_is_compared_with_the_largest_of_them() {
        let fault = resolve(
            "outbound_total_bytes_max = \"16 MiB\"\n[outbound.service]\nhard_bytes_max = \"48 MiB\"",
        );
        let fault = fault.unwrap_err();
        assert_eq!(fault.name, "outbound_total_bytes_max");
        let expected = "16777216 is less than 50331648, what one connection may hold: \
                        outbound.service.hard_bytes_max";
        assert_eq!(fault.offence.to_string(), expected);
    }
}
