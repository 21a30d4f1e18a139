//! The meaning of frames of the classic dialect that arrive.

use crate::error::ClientError;
use crate::event::{Ack, Event, ListedClient, Message, ServerError, Session, TransactionId};
use crate::frame::Frame;

/// The meaning of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    Connected(Session),
    Event(Event),
    Receipt,
}

impl Incoming {
    pub(crate) fn of(frame: Frame, awaited: &'static str) -> Result<Self, ClientError> {
        match frame.command.as_str() {
            "MESSAGE" => Ok(Self::Event(Event::Message(Message::of(frame)))),
            "ERROR" => Ok(Self::Event(Event::Error(ServerError::of(&frame)))),
            "ACK" => ack_of(frame, awaited).map(Self::Event),
            "CONNECTED" => Ok(Self::Connected(Session::of(&frame))),
            "RECEIPT" => Ok(Self::Receipt),
            _ => Err(ClientError::Unexpected { command: frame.command, awaited }),
        }
    }
}

/// An ACK is a refusal unless its description is `OK`, with which existing clients compare it.
fn ack_of(frame: Frame, awaited: &'static str) -> Result<Event, ClientError> {
    if frame.header("error-desc") != Some("OK") {
        return Ok(Event::Error(ServerError::of(&frame)));
    }
    let Some(transaction) = frame.header("transaction").and_then(TransactionId::parse) else {
        return Err(ClientError::Unexpected { command: frame.command, awaited });
    };
    let text = String::from_utf8_lossy(&frame.body);
    let clients = text.lines().filter_map(ListedClient::parse).collect();
    Ok(Event::Ack(Ack { transaction, clients }))
}
