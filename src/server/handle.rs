//! The handle by which a program controls a server.

use std::fmt;
use std::sync::Arc;

use super::identity::{self, IdentityFault};
use super::operator::{HeldNow, Letter, Renewal};
use crate::config::{Config, ConfigFault};
use crate::reactor::{self, PostFault};

/// Controls a server, from any thread. Clones control the same server.
///
/// No method waits: a request is put into the server's mailbox, which it reads in its next turn, or when
/// it begins to run. `Ok` means that it was put there; its result is seen from
/// [`join`](super::Running::join) and the log. Requests that are still in the mailbox when the server ends
/// are dropped.
///
/// Dropping handles does not stop a server: without handles and signals, it runs until the process ends.
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

    /// Drains the server: it accepts no more connections, notifies every client, and ends when all queued
    /// frames are written, or after `drain_ms_max` milliseconds. No effect if it is draining.
    ///
    /// # Errors
    /// It has ended, or its mailbox is full.
    pub fn drain(&self) -> Result<(), PostFault> {
        self.posting.post(Letter::Drain)
    }

    /// Ends the server at once, even with unsent frames.
    ///
    /// # Errors
    /// It has ended, or its mailbox is full.
    pub fn leave(&self) -> Result<(), PostFault> {
        self.posting.post(Letter::Leave)
    }

    /// Replaces keys and certificate by those of another configuration. Nothing else is taken from it;
    /// differences in other settings are logged as a warning. Open connections stay open. The
    /// certificate is read in the calling thread.
    ///
    /// # Errors
    /// The keys are not allowed with the listeners that are open, development keys or a development
    /// certificate would replace your own, the certificate cannot be used, or the server has ended or its
    /// mailbox is full. Then nothing changes.
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

    /// Exports latencies: a table to the log, and files to the configured directory, if there is one.
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
    /// They are not allowed with the listeners that are open.
    Config(ConfigFault),
    /// The certificate or its key cannot be used.
    Identity(IdentityFault),
    /// They could not be posted to the server.
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
