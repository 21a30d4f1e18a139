//! `com-broker check`: everything that can be known before the broker starts.

use super::{CliFault, ServeArguments, print};
use crate::server::identity;

pub(super) fn run(arguments: &ServeArguments) -> Result<(), CliFault> {
    let config = arguments.resolve().map_err(CliFault::Config)?;
    if let Some(source) = &config.tls {
        identity::check(source).map_err(CliFault::Identity)?;
    }
    print(&config.describe())
}
