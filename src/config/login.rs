//! Limits below which nobody could log in, for the keys and the protocols that are served.

use super::limits::{Bound, LimitFault};
use super::listener::Listener;
use crate::broker::Keys;
use crate::limits::Limits;

/// The shortest CONNECT that clients have without the keys, and its header lines.
struct Shortest {
    /// Its bytes, without the NUL behind it, which no limit counts.
    bytes: u64,
    lines: u64,
}

impl Shortest {
    /// In the standard dialect, which any WebSocket may speak. Both keys are one value, with a dot between.
    const STANDARD: Self = Self { bytes: "STOMP\nlogin:a\npasscode:.\n\n".len() as u64, lines: 2 };

    const CLASSIC: Self =
        Self { bytes: "CONNECT\nlogin:a\npasscode:\nsecret-key:\n\n".len() as u64, lines: 3 };

    /// That of the listeners, if clients may log in at one of them.
    fn of(listeners: &[Listener]) -> Option<Self> {
        let mut served = listeners.iter().map(|listener| listener.policy.protocols);
        if served.clone().any(|protocols| protocols.stomp || protocols.ws) {
            return Some(Self::STANDARD);
        }
        served.any(|protocols| protocols.classic).then_some(Self::CLASSIC)
    }
}

/// The shortest request for a WebSocket.
const UPGRADE: &str = "GET / HTTP/1.1\r\nHost:a\r\nUpgrade:websocket\r\nConnection:upgrade\r\n\
    Sec-WebSocket-Version:13\r\nSec-WebSocket-Key:AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";

/// Checks that a client of each profile can log in, if its login id is short.
pub(super) fn check(
    limits: &Limits,
    keys: &Keys,
    listeners: &[Listener],
) -> Result<(), LimitFault> {
    if let Some(Shortest { bytes, lines }) = Shortest::of(listeners) {
        let bytes = bytes + keys.bytes_to_log_in() as u64;
        let least = "what the shortest CONNECT takes with the keys that are set";
        Bound("login_frame_bytes_max", limits.login_frame_bytes_max.into(), &[])
            .at_least(bytes, least)?;
        Bound("header_bytes_max", limits.header_bytes_max.into(), &[]).at_least(bytes, least)?;
        Bound("header_count_max", limits.header_count_max.into(), &[])
            .at_least(lines, "the header lines of the shortest CONNECT")?;
    }
    if listeners.iter().any(|listener| listener.policy.protocols.ws) {
        Bound("upgrade_bytes_max", limits.upgrade_bytes_max.into(), &[])
            .at_least(UPGRADE.len() as u64, "what the shortest request for a WebSocket takes")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Protocols;

    fn check_with(limits: &Limits, served: &[Protocols]) -> Result<(), String> {
        let keys = Keys::new("app", ["a", "four", "bb", "ccc"]).unwrap();
        let listener = |protocols: &Protocols| {
            Listener::new("127.0.0.1:0".parse().unwrap()).protocols(*protocols)
        };
        let listeners: Vec<_> = served.iter().map(listener).collect();
        check(limits, &keys, &listeners).map_err(|fault| fault.name)
    }

    /// Limits of which one is set.
    type With = fn(u32) -> Limits;

    #[test]
    fn a_limit_that_lets_nobody_log_in_is_refused() {
        let none = Protocols::NONE;
        let (stomp, classic) =
            (Protocols { stomp: true, ..none }, Protocols { classic: true, ..none });
        let (ws, http) = (Protocols { ws: true, ..none }, Protocols { http: true, ..none });
        let changes: [(_, With); 4] = [
            ("login_frame_bytes_max", |max| Limits {
                login_frame_bytes_max: max,
                ..Limits::default()
            }),
            ("header_bytes_max", |max| Limits { header_bytes_max: max, ..Limits::default() }),
            ("header_count_max", |max| Limits { header_count_max: max, ..Limits::default() }),
            ("upgrade_bytes_max", |max| Limits { upgrade_bytes_max: max, ..Limits::default() }),
        ];
        let standard = "STOMP\nlogin:a\npasscode:app.four\n\n".len() as u32;
        let earlier = "CONNECT\nlogin:a\npasscode:four\nsecret-key:app\n\n".len() as u32;
        let upgrade = UPGRADE.len() as u32;
        for (served, least) in [
            (&[stomp][..], [standard, standard, 2, 1]),
            (&[ws], [standard, standard, 2, upgrade]),
            (&[classic], [earlier, earlier, 3, 1]),
            (&[classic, http, stomp], [standard, standard, 2, 1]),
            (&[http], [1, 1, 1, 1]),
        ] {
            for ((name, change), least) in changes.into_iter().zip(least) {
                assert_eq!(check_with(&change(least), served), Ok(()), "{name}");
                if least > 1 {
                    let less = check_with(&change(least - 1), served);
                    assert_eq!(less, Err(name.to_owned()));
                }
            }
        }
    }
}
