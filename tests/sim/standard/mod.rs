//! Clients of the standard dialect against the engine in a box: what depends on the order of frames
//! or on the clock, and what must hold whatever is drawn.

mod commits;
mod consumers;
mod expiry;
mod ids;
mod routes;
mod stage;
mod takeovers;
mod versions;
