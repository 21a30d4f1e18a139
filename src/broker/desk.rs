//! The broker as a destination: services subscribe to presence.

use super::fault::{Code, Fault};
use super::ids::{GroupKind, SessionId, SubscriptionIndex};
use super::job::Job;
use super::presence::Snapshot;
use super::subscription::Standard;
use super::{Broker, Moment};
use crate::profile::Profile;

impl Broker {
    /// Subscribes a service to the events of clients whose addresses match.
    pub(super) fn subscribe_presence(
        &mut self,
        session: SessionId,
        text: &[u8],
        standard: Option<Box<Standard>>,
        now: Moment,
    ) -> Result<SubscriptionIndex, Fault> {
        if self.sessions[session].profile != Profile::Service {
            let description = "only services may subscribe to presence";
            return Err(Fault::staying(Code::NoRights, description));
        }
        let index = self.subscribe_group(session, GroupKind::Presence, text, standard, now)?;
        self.number_presence_subscription(index);
        self.await_selection(session, index, now);
        Ok(index)
    }
}

/// Sends an event for each client that is logged in already.
pub(super) fn send_snapshot(broker: &mut Broker, index: SubscriptionIndex, now: Moment) {
    let owner = broker.sessions[broker.subscriptions[index].session].peer;
    let snapshot = Snapshot::new(broker, index);
    broker.start(Some(owner), Job::Snapshot(snapshot), now);
}
