//! TLS records as they arrive, before they are decrypted: how much work they are, and how much of them TLS keeps.
//! rustls tells neither.

use crate::work;

/// The records of one connection's input.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// The beginning of the record that is under way, as far as it has arrived.
    header: [u8; HEADER_BYTES],
    header_len: u8,
    /// Bytes of its content, and how many of these are still to come.
    length: u16,
    left: u16,
    /// Records that ended since the last [`Self::take_units`], and the bytes of their content.
    ended: u32,
    ended_bytes: u32,
    /// Bytes that arrived since TLS last had something to say: a part of a message that it keeps.
    kept: u32,
}

/// Bytes of a record's type, version and length (RFC 8446, 5.1).
const HEADER_BYTES: usize = 5;

/// Bytes of an encrypted record besides what is sent in it: its inner type and its tag (RFC 8446, 5.2).
const SEALED_BYTES: u32 = 17;

/// Bytes of the shortest message between ends, such as to change keys (RFC 8446, 4).
const MESSAGE_BYTES: u32 = 5;

/// The most that TLS keeps: a message of 64 KiB, and a record that has not ended. What does not bring data may be the
/// padding of records, which it drops.
const KEPT_BYTES_MAX: u32 = (64 << 10) + (18 << 10);

/// Bytes of the largest first flight: those of clients with keys for many groups, a ticket and a long list of protocols
/// are below 4 KiB. To parse one of 64 KiB with tens of thousands of names takes 1.7 ms, and cannot be sliced.
const HANDSHAKE_BYTES_MAX: u32 = 16 << 10;

/// What records are part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// A handshake, whose answers are counted elsewhere.
    Handshake,
    /// Data, between which either end may change its keys (TLS 1.3) or not.
    Data { may_change_keys: bool },
}

impl Records {
    /// Notes bytes that TLS has taken.
    pub(super) fn take_in(&mut self, mut bytes: &[u8]) {
        self.kept = self.kept.saturating_add(bytes.len() as u32);
        while !bytes.is_empty() {
            if self.left == 0 {
                let have = usize::from(self.header_len);
                let (new, rest) = bytes.split_at(bytes.len().min(HEADER_BYTES - have));
                self.header[have..have + new.len()].copy_from_slice(new);
                bytes = rest;
                if have + new.len() < HEADER_BYTES {
                    self.header_len = (have + new.len()) as u8;
                    return;
                }
                let [.., high, low] = self.header;
                self.length = u16::from_be_bytes([high, low]);
                (self.left, self.header_len) = (self.length, 0);
            }
            let count = bytes.len().min(self.left.into());
            self.left -= count as u16;
            bytes = &bytes[count..];
            if self.left == 0 {
                self.ended += 1;
                self.ended_bytes += u32::from(self.length);
            }
        }
    }

    /// Units of work of the records that have ended, which brought so many plain bytes.
    pub(super) fn take_units(&mut self, plain_bytes: usize, stage: Stage) -> u32 {
        let (ended, bytes) = (self.ended, self.ended_bytes);
        (self.ended, self.ended_bytes) = (0, 0);
        if plain_bytes > 0 {
            self.note_answered();
        }
        match stage {
            Stage::Handshake => ended * work::TLS_PART,
            Stage::Data { may_change_keys } => {
                let silent = bytes.saturating_sub(ended * SEALED_BYTES + plain_bytes as u32);
                let changes = if may_change_keys { ended.min(silent / MESSAGE_BYTES) } else { 0 };
                ended * work::TLS_RECORD + changes * work::TLS_KEYS
            }
        }
    }

    /// Notes that TLS has handled all that was whole.
    pub(super) fn note_answered(&mut self) {
        self.kept = match self.left {
            0 => self.header_len.into(),
            left => HEADER_BYTES as u32 + u32::from(self.length - left),
        };
    }

    /// Bytes that TLS keeps until a record, or a message of several records, is whole; at most.
    pub(super) fn kept_bytes(&self) -> usize {
        self.kept.min(KEPT_BYTES_MAX) as usize
    }

    /// Whether a message of the handshake, which has not ended, is larger than any that a client needs.
    pub(super) fn is_too_large(&self) -> bool {
        self.kept > HANDSHAKE_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: Stage = Stage::Data { may_change_keys: true };

    fn record(length: u16) -> Vec<u8> {
        let mut bytes = vec![23, 3, 3];
        bytes.extend(length.to_be_bytes());
        bytes.extend(vec![0; length.into()]);
        bytes
    }

    #[test]
    fn records_are_counted_however_they_are_cut() {
        let bytes = [record(0), record(18), record(300), record(1)].concat();
        for size in 1..bytes.len() {
            let mut records = Records::default();
            bytes.chunks(size).for_each(|chunk| records.take_in(chunk));
            assert_eq!((records.ended, records.ended_bytes), (4, 319));
            records.note_answered();
            assert_eq!(records.kept_bytes(), 0);
            records.take_in(&record(300)[..100]);
            records.note_answered();
            assert_eq!(records.kept_bytes(), 100);
        }
    }

    #[test]
    fn a_message_of_the_handshake_has_a_bound_and_so_has_what_is_counted() {
        let mut records = Records::default();
        records.take_in(&record(16_000));
        assert!(!records.is_too_large());
        records.take_in(&record(1_000));
        assert!(records.is_too_large());
        records.note_answered();
        assert!(!records.is_too_large());
        // Records that bring nothing, however many.
        (0..1_000).for_each(|_| records.take_in(&record(1_000)));
        assert_eq!(records.kept_bytes(), 82 << 10);
    }

    #[test]
    fn what_brings_no_data_costs_more_than_data_or_padding() {
        let units = |lengths: &[u16], plain| {
            let mut records = Records::default();
            lengths.iter().for_each(|length| records.take_in(&record(*length)));
            records.take_units(plain, DATA)
        };
        assert_eq!(units(&[17 + 100], 100), work::TLS_RECORD);
        assert_eq!(units(&[17 + 5; 32], 0), 32 * (work::TLS_RECORD + work::TLS_KEYS));
        // A heart-beat behind them does not hide them.
        let lengths: Vec<_> = std::iter::repeat_n(17 + 5, 32).chain([17 + 1]).collect();
        assert_eq!(units(&lengths, 1), 33 * work::TLS_RECORD + 32 * work::TLS_KEYS);
        assert_eq!(units(&[17 + 16_000], 10), work::TLS_RECORD + work::TLS_KEYS);
    }

    #[test]
    fn what_belongs_to_a_message_is_kept_until_there_is_an_answer() {
        let mut records = Records::default();
        (0..10).for_each(|_| records.take_in(&record(1_000)));
        records.take_in(&record(1_000)[..10]);
        assert_eq!(records.take_units(0, Stage::Handshake), 10 * work::TLS_PART);
        assert_eq!(records.kept_bytes(), 10 * 1_005 + 10);
        records.note_answered();
        assert_eq!(records.kept_bytes(), 10);
    }
}
