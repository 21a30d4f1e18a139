//! `com-broker check`: all checks that are possible before the broker starts.

use super::{CliFault, ServeArguments, print};
use crate::server::identity;

pub(super) fn run(arguments: &ServeArguments) -> Result<(), CliFault> {
    let config = arguments.resolve().map_err(CliFault::Config)?;
    let checked = config.tls.as_ref().map(|source| identity::check(source, &config.tls_places));
    let exposure = checked.transpose().map_err(CliFault::Identity)?.flatten();
    for exposure in config.exposures.iter().chain(&exposure) {
        eprintln!("warning: {exposure}");
    }
    print(&config.describe())
}
