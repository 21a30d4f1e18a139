//! The handle of a server: how the program around it tells it what to do.

use std::fmt;
use std::sync::Arc;

use super::identity::{self, IdentityFault};
use super::operator::{HeldNow, Letter, Renewal};
use crate::config::{Config, ConfigFault};
use crate::reactor::{self, PostFault};

/// Tells a server what to do, from any thread. Clones tell the same server.
///
/// Nothing here waits: what is asked for is put into the server's mailbox, which it reads in its next
/// turn, or when it begins to run. `Ok` means that it was put there; what has become of it is seen from
/// [`join`](super::Running::join) and the log. What the mailbox still holds when the server ends is not
/// done.
///
/// Dropping a handle does nothing; nor does dropping all of them, after which a server without signals
/// runs until the process ends.
#[derive(Clone, Debug)]
pub struct Handle {
    posting: reactor::Handle<Letter>,
    config: Arc<Config>,
    held: HeldNow,
}

impl Handle {
    pub(super) fn new(
        posting: reactor::Handle<Letter>,
        config: Arc<Config>,
        held: HeldNow,
    ) -> Self {
        Self { posting, config, held }
    }

    /// Stops it: it accepts nobody any more, tells every client, and ends when all have taken what was
    /// queued to them, or after `drain_ms_max` milliseconds. A second time changes nothing.
    ///
    /// # Errors
    /// It has ended, or its mailbox is full.
    pub fn drain(&self) -> Result<(), PostFault> {
        self.posting.post(Letter::Drain)
    }

    /// Ends it at once, whatever clients still have to get.
    ///
    /// # Errors
    /// It has ended, or its mailbox is full.
    pub fn leave(&self) -> Result<(), PostFault> {
        self.posting.post(Letter::Leave)
    }

    /// Replaces its keys and its certificate by those of another configuration, of which nothing else is
    /// taken: listeners, limits and all the rest stay as they are, with a warning in the log where they
    /// are different. Connections that are open stay open. The certificate is read here, not in the
    /// server's thread.
    ///
    /// # Errors
    /// The keys are not for the listeners that are open; or they, or the certificate, are those of
    /// development, and would replace your own; or the certificate cannot be used; or the server has
    /// ended, or its mailbox is full. Then nothing changes.
    pub fn reload(&self, config: &Config) -> Result<(), ReloadFault> {
        self.config.check_secrets_of(config, *self.held.lock()).map_err(ReloadFault::Config)?;
        let tls = config.tls.as_ref().map(|source| identity::load(source, &config.tls_places));
        let tls = tls.transpose().map_err(ReloadFault::Identity)?;
        config.exposures.iter().for_each(identity::warn_of);
        let renewal = Renewal {
            keys: config.keys.clone(),
            keys_are_development: config.keys_are_development,
            tls,
            unapplied: self.config.unapplied(config),
        };
        // Again: another thread may have reloaded while the certificate was read.
        let mut held = self.held.lock();
        self.config.check_secrets_of(config, *held).map_err(ReloadFault::Config)?;
        self.posting.post(Letter::Reload(Box::new(renewal))).map_err(ReloadFault::Post)?;
        held.add(config.held);
        Ok(())
    }

    /// Exports latencies: a table to the log, and files to the directory that the configuration names, if
    /// it names one.
    ///
    /// # Errors
    /// It has ended, or its mailbox is full.
    pub fn export_latencies(&self) -> Result<(), PostFault> {
        self.posting.post(Letter::ExportLatencies)
    }
}

/// Why keys and certificate were not replaced.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReloadFault {
    /// They are not for the listeners that are open.
    Config(ConfigFault),
    /// The certificate or its key cannot be used.
    Identity(IdentityFault),
    /// The server did not get them.
    Post(PostFault),
}

impl fmt::Display for ReloadFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(fault) => fault.fmt(out),
            Self::Identity(fault) => fault.fmt(out),
            Self::Post(fault) => fault.fmt(out),
        }
    }
}

impl std::error::Error for ReloadFault {}
