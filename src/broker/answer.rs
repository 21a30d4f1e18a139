//! The answer to a request: sent at once, or when the job that the request began has ended.

use super::Broker;
use super::ids::{PeerId, SessionId};
use crate::classic::encode::number_header;
use crate::stomp::encode;

/// The answer that a client gets once its request is done.
#[derive(Debug)]
pub(super) enum Answer<'a> {
    /// The ACK of a classic SEND with this transaction.
    Acknowledgement(&'a [u8]),
    /// A RECEIPT with this id, escaped as the client wrote it, and for a SEND with the number of sessions that
    /// it was queued to.
    Receipt(&'a [u8], Option<u32>),
}

/// An answer that waits for the end of a job.
#[derive(Debug)]
pub(super) enum Later {
    Acknowledgement(Box<[u8]>),
    Receipt(Box<[u8]>),
}

impl Broker {
    /// Answers a SEND of a classic client that named a transaction.
    #[inline]
    pub(super) fn acknowledge(&mut self, client: PeerId, session: SessionId, transaction: &[u8]) {
        if self.is_busy(client) {
            return self.answer_later(client, Later::Acknowledgement(transaction.into()));
        }
        self.acknowledge_now(client, session, transaction);
    }

    #[inline]
    fn acknowledge_now(&mut self, client: PeerId, session: SessionId, transaction: &[u8]) {
        let token = self.sessions[session].token();
        self.peers.reply(client, |out| {
            out.extend_from_slice(b"ACK\nsession-id:");
            out.extend_from_slice(token);
            out.extend_from_slice(b"\ntransaction:");
            out.extend_from_slice(transaction);
            out.extend_from_slice(b"\nerror-desc:OK\n\n\0");
        });
    }

    /// Answers a client, unless a job of its own runs, which then answers when it ends.
    #[inline]
    pub(super) fn answer(&mut self, client: PeerId, answer: Answer<'_>) {
        if self.is_busy(client) {
            return self.answer_later(client, Later::from(answer));
        }
        self.answer_now(client, answer);
    }

    /// Answers a client.
    pub(super) fn answer_now(&mut self, client: PeerId, answer: Answer<'_>) {
        match answer {
            Answer::Acknowledgement(transaction) => {
                if let Some(session) = self.peers.peer(client).session() {
                    self.acknowledge_now(client, session, transaction);
                }
            }
            Answer::Receipt(receipt, delivered) => self.peers.reply(client, |out| {
                encode::begin(out, "RECEIPT");
                encode::plain_header(out, "receipt-id", receipt);
                if let Some(delivered) = delivered {
                    number_header(out, "delivered", u64::from(delivered));
                }
                encode::finish(out, b"");
            }),
        }
    }
}

impl From<Answer<'_>> for Later {
    fn from(answer: Answer<'_>) -> Self {
        match answer {
            Answer::Acknowledgement(transaction) => Self::Acknowledgement(transaction.into()),
            Answer::Receipt(receipt, _) => Self::Receipt(receipt.into()),
        }
    }
}

impl Later {
    /// The id of the receipt that was asked for.
    pub(super) fn receipt(&self) -> Option<&[u8]> {
        match self {
            Self::Acknowledgement(_) => None,
            Self::Receipt(receipt) => Some(receipt),
        }
    }

    /// The answer, with what the job has achieved.
    pub(super) fn answer(&self, delivered: Option<u32>) -> Answer<'_> {
        match self {
            Self::Acknowledgement(transaction) => Answer::Acknowledgement(transaction),
            Self::Receipt(receipt) => Answer::Receipt(receipt, delivered),
        }
    }
}
