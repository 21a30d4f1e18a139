//! Clients of the standard dialect against the engine in its rig: behaviour that depends on the order of
//! frames or on the clock, and properties.

mod commits;
mod consumers;
mod expiry;
mod ids;
mod receivers;
mod shares;
mod slices;
mod stage;
mod tables;
mod takeovers;
mod versions;
