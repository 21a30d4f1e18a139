//! The command line: what `com-broker send` and `com-broker watch` do.

pub mod login;
pub mod send;
pub mod watch;
