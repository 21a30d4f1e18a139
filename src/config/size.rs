//! Sizes in bytes, as they are written in the configuration.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Expected, Visitor};

/// A size: a number of bytes, or text such as `"64 KiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bytes(u64);

impl Bytes {
    pub(super) fn parse(text: &str) -> Result<Self, NotASize> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim() {
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "TiB" => 40,
            _ => return Err(NotASize::Malformed),
        };
        if number.is_empty() {
            return Err(NotASize::Malformed);
        }
        // Digits alone fail only because they are too many.
        let number = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
        number.map(Self).ok_or(NotASize::TooLarge)
    }
}

/// Why text is no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotASize {
    /// It is not a whole number and a unit.
    Malformed,
    /// No bound is that large.
    TooLarge,
}

impl NotASize {
    /// The fault of a value, which is shown as it is.
    fn fault<E: Error>(self, value: impl fmt::Display, visitor: &BytesVisitor) -> E {
        match self {
            Self::TooLarge => E::custom(format_args!("{value} is too large a number of bytes")),
            Self::Malformed => {
                E::custom(format_args!("{value} is not {}", visitor as &dyn Expected))
            }
        }
    }
}

impl From<Bytes> for u64 {
    fn from(bytes: Bytes) -> Self {
        bytes.0
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BytesVisitor)
    }
}

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(
            "a number of bytes, or text such as \"64 KiB\": a whole number and B, KiB, MiB, GiB or TiB",
        )
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Bytes, E> {
        let bytes = u64::try_from(value);
        bytes.map(Bytes).map_err(|_| NotASize::Malformed.fault(value, &self))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Bytes, E> {
        let why = if value < 0 { NotASize::Malformed } else { NotASize::TooLarge };
        Err(why.fault(value, &self))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Bytes, E> {
        Err(NotASize::TooLarge.fault(value, &self))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Bytes, E> {
        Ok(Bytes(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Bytes, E> {
        Bytes::parse(value).map_err(|why| why.fault(format_args!("{value:?}"), &self))
    }
}
