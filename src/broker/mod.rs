//! Sessions, destinations, subscriptions and delivery.

pub mod keys;
pub mod profile;

pub use keys::{KeyFault, Keys};
pub use profile::Profile;
