//! Values that the configuration gives once for all profiles, or in a table by profile.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, IntoDeserializer, MapAccess, Visitor};

use crate::profile::{ByProfile, Profile};

/// One value for all profiles, or some values by profile, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EachOrAll<T> {
    All(T),
    Each(Each<T>),
}

/// Values by profile. Of a profile without one, the default holds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Each<T> {
    agent: Option<T>,
    super_agent: Option<T>,
    service: Option<T>,
    admin: Option<T>,
}

impl<T: Copy> EachOrAll<T> {
    /// The value for each profile, where there is one.
    pub(super) fn by_profile(&self) -> ByProfile<Option<T>> {
        match self {
            Self::All(value) => ByProfile::all(Some(*value)),
            Self::Each(Each { agent, super_agent, service, admin }) => {
                ByProfile::new([*agent, *super_agent, *service, *admin])
            }
        }
    }

    /// The name under which the value for a profile was given.
    pub(super) fn name_of(&self, bound: &str, profile: Profile) -> String {
        match self {
            Self::All(_) => bound.into(),
            Self::Each(_) => profile_name(bound, profile),
        }
    }
}

impl<T> Default for EachOrAll<T> {
    fn default() -> Self {
        Self::Each(Each { agent: None, super_agent: None, service: None, admin: None })
    }
}

/// The name of a bound for a profile.
pub(super) fn profile_name(bound: &str, profile: Profile) -> String {
    format!("{bound}.{}", profile.key_name())
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for EachOrAll<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EachOrAllVisitor(PhantomData))
    }
}

/// Reads a table as [`Each`], and leaves all else to the type of the values, whose faults say what it takes.
struct EachOrAllVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for EachOrAllVisitor<T> {
    type Value = EachOrAll<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("one value for all, or a table by profile")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<EachOrAll<T>, E> {
        T::deserialize(value.into_deserializer()).map(EachOrAll::All)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<EachOrAll<T>, E> {
        T::deserialize(value.into_deserializer()).map(EachOrAll::All)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<EachOrAll<T>, E> {
        T::deserialize(value.into_deserializer()).map(EachOrAll::All)
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<EachOrAll<T>, E> {
        T::deserialize(value.into_deserializer()).map(EachOrAll::All)
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<EachOrAll<T>, E> {
        T::deserialize(value.into_deserializer()).map(EachOrAll::All)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<EachOrAll<T>, E> {
        T::deserialize(value.into_deserializer()).map(EachOrAll::All)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<EachOrAll<T>, E> {
        T::deserialize(value.into_deserializer()).map(EachOrAll::All)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<EachOrAll<T>, A::Error> {
        Each::deserialize(MapAccessDeserializer::new(map)).map(EachOrAll::Each)
    }
}
