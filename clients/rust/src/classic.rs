//! The client of the classic dialect: it gets an ACK for each request, and copies of the messages to
//! clients that it watches.

use std::collections::VecDeque;
use std::time::Duration;

use crate::BROKER;
use crate::connection::{Arrival, Connection, Dialect};
use crate::error::ClientError;
use crate::event::{Ack, Event, ListedClient, Message, Session, TransactionId};
use crate::frame::{EncodeFault, Frame};
use crate::incoming::Incoming;
use crate::login::{CONNECTED, log_in};
use crate::options::{Options, SendOptions};
use crate::queue::WeighedQueue;
use crate::wire::Deadline;

/// A client that is logged in.
///
/// Dropping it closes the connection without a logout; use [`disconnect`](Self::disconnect) for that.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
    session: Session,
    answer_timeout: Duration,
    next_transaction: TransactionId,
    /// Unanswered requests in the order of sending, which is the order of answers.
    unanswered: VecDeque<TransactionId>,
    /// Events that arrived while an answer was awaited.
    queue: WeighedQueue<Event>,
}

impl Client {
    /// Connects and logs in.
    ///
    /// # Errors
    /// There is no connection, or the broker refuses the login: [`ClientError::Refused`] tells
    /// whether to try again.
    pub fn connect(options: &Options) -> Result<Self, ClientError> {
        let (connection, answer) = log_in(options, Dialect::Classic)?;
        let session = await_connected(answer)?;
        Ok(Self {
            connection,
            session,
            answer_timeout: options.answer_timeout,
            next_transaction: TransactionId::FIRST,
            unanswered: VecDeque::new(),
            queue: WeighedQueue::new(options.queued_bytes_max),
        })
    }

    /// Sends a message without waiting for the answer, which [`next`](Self::next) or
    /// [`wait_ack`](Self::wait_ack) returns.
    ///
    /// # Errors
    /// The message cannot be sent. Whether its destination exists is only known from the answer.
    pub fn send(
        &mut self,
        destination: &str,
        body: impl AsRef<[u8]>,
        options: &SendOptions,
    ) -> Result<TransactionId, ClientError> {
        let body = body.as_ref();
        let mut frame = self
            .request("SEND")
            .with("destination", destination)
            .with("content-type", options.content_type_of(body))
            .with("content-length", body.len().to_string());
        for (key, value) in options.user_headers()? {
            // This dialect has no escaping, and receivers drop blanks around a value.
            if value.trim_matches(' ') != value {
                return Err(ClientError::Unsendable(EncodeFault::Padded(key.clone())));
            }
            frame.headers.push((key.clone(), value.clone()));
        }
        frame.body = body.to_vec();
        self.send_request(&frame)
    }

    /// Sends a message and waits until the broker has passed it on.
    ///
    /// # Errors
    /// Those of [`send`](Self::send) and [`wait_ack`](Self::wait_ack).
    pub fn send_and_wait(
        &mut self,
        destination: &str,
        body: impl AsRef<[u8]>,
        options: &SendOptions,
    ) -> Result<Ack, ClientError> {
        let transaction = self.send(destination, body, options)?;
        self.wait_ack(transaction, self.answer_timeout)
    }

    /// Waits for the answer to a request. Other events that arrive before it are kept for
    /// [`next`](Self::next).
    ///
    /// # Errors
    /// [`ClientError::Refused`] if the request is refused, or the broker closes the connection instead.
    pub fn wait_ack(
        &mut self,
        transaction: TransactionId,
        timeout: Duration,
    ) -> Result<Ack, ClientError> {
        let deadline = Deadline::after(timeout);
        let mut answer = self.queue.take(|event| event.answers(transaction));
        loop {
            match answer {
                Some(Event::Ack(ack)) if ack.transaction == transaction => return Ok(ack),
                Some(Event::Error(error))
                    if error.transaction == Some(transaction) || error.closes() =>
                {
                    return Err(ClientError::Refused(Box::new(error)));
                }
                Some(Event::Closed) => return Err(ClientError::Ended { awaited: "ACK" }),
                Some(other) => self.queue.push(other),
                None => {}
            }
            if self.queue.is_full() {
                return Err(ClientError::QueueFull { transaction });
            }
            answer = self.receive(deadline, "ACK")?;
            if answer.is_none() {
                return Err(ClientError::NoAnswer { awaited: "ACK" });
            }
        }
    }

    /// Watches clients: messages to them arrive here as copies. Returns the clients that are watched
    /// from now on.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if the profile has no right, no client is at the address, or the
    /// pattern is malformed.
    pub fn subscribe(&mut self, target: Target<'_>) -> Result<Vec<ListedClient>, ClientError> {
        let (kind, destination) = match target {
            Target::Client(destination) => ("0", destination),
            Target::Pattern(pattern) => ("1", pattern),
        };
        let frame = self
            .request("SUBSCRIBE")
            .with("destination-type", kind)
            .with("destination", destination);
        Ok(self.send_and_await(&frame)?.clients)
    }

    /// Ends one subscription, or all of them. Returns the clients that are no longer watched.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if the broker refuses.
    pub fn unsubscribe(
        &mut self,
        destination: Option<&str>,
    ) -> Result<Vec<ListedClient>, ClientError> {
        let mut frame = self.request("UNSUBSCRIBE");
        if let Some(destination) = destination {
            frame = frame.with("destination", destination);
        }
        Ok(self.send_and_await(&frame)?.clients)
    }

    /// Subscribes to presence: [`BROKER`] sends a message whenever an agent or super agent whose
    /// address matches `pattern` logs in or leaves; with `snapshot`, first one for each that is
    /// logged in.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if the profile has no right, or the pattern is malformed.
    pub fn subscribe_presence(&mut self, pattern: &str, snapshot: bool) -> Result<(), ClientError> {
        let mut frame = self
            .request("SUBSCRIBE")
            .with("destination-type", "0")
            .with("destination", BROKER)
            .with("destination-id", pattern);
        if snapshot {
            frame = frame.with("snapshot", "true");
        }
        self.send_and_await(&frame).map(drop)
    }

    /// Ends the subscription that [`subscribe_presence`](Self::subscribe_presence) began with the same
    /// pattern.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if the broker refuses.
    pub fn unsubscribe_presence(&mut self, pattern: &str) -> Result<(), ClientError> {
        let frame =
            self.request("UNSUBSCRIBE").with("destination", BROKER).with("destination-id", pattern);
        self.send_and_await(&frame).map(drop)
    }

    /// The next event in order of arrival; `None` if there is none in time. Without a timeout it
    /// waits for ever; with [`Duration::ZERO`] it does not wait.
    ///
    /// # Errors
    /// The connection broke, or an unexpected frame arrived.
    pub fn next(
        &mut self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Option<Event>, ClientError> {
        if let Some(event) = self.queue.take_first() {
            return Ok(Some(event));
        }
        let deadline = timeout.into().map_or(Deadline::NEVER, Deadline::after);
        self.receive(deadline, "a message")
    }

    /// Logs out: sends DISCONNECT, waits until the broker has confirmed it and closed the
    /// connection. Returns the events that were not taken yet, up to `queued_bytes_max`; later ones
    /// are dropped.
    ///
    /// # Errors
    /// The broker did not confirm. The client is logged out all the same, since the connection is
    /// closed.
    pub fn disconnect(mut self) -> Result<Vec<Event>, ClientError> {
        let deadline = Deadline::after(self.answer_timeout);
        self.connection.send(&Frame::new("DISCONNECT").with("receipt-id", "DISCONNECTED"))?;
        let mut confirmed = false;
        loop {
            let awaited = if confirmed { "the end of the stream" } else { "RECEIPT" };
            match self.connection.next_until(deadline)? {
                Arrival::Frame(frame) => match Incoming::of(frame, awaited)? {
                    Incoming::Receipt => confirmed = true,
                    Incoming::Event(Event::Error(error)) if error.closes() => {
                        return Err(ClientError::Refused(Box::new(error)));
                    }
                    // Events beyond the bound are dropped: the caller wants to log out.
                    Incoming::Event(event) if !self.queue.is_full() => self.queue.push(event),
                    Incoming::Event(_) | Incoming::Connected(_) => {}
                },
                Arrival::End if confirmed => break,
                Arrival::End => return Err(ClientError::Ended { awaited }),
                Arrival::NotYet => return Err(ClientError::NoAnswer { awaited }),
            }
        }
        Ok(std::iter::from_fn(|| self.queue.take_first()).collect())
    }

    /// The session of this client.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Whether a message is addressed to this client, rather than a copy of one to a watched client.
    pub fn is_addressee(&self, message: &Message) -> bool {
        message.session_id == self.session.session_id
    }

    /// A frame that asks for an answer.
    fn request(&self, command: &str) -> Frame {
        Frame::new(command)
            .with("transaction", self.next_transaction.to_string())
            .with("session-id", &self.session.session_id)
    }

    fn send_and_await(&mut self, frame: &Frame) -> Result<Ack, ClientError> {
        let transaction = self.send_request(frame)?;
        self.wait_ack(transaction, self.answer_timeout)
    }

    fn send_request(&mut self, frame: &Frame) -> Result<TransactionId, ClientError> {
        if self.unanswered.len() >= UNANSWERED_MAX {
            return Err(ClientError::TooManyUnanswered);
        }
        self.connection.send(frame)?;
        let transaction = self.next_transaction;
        self.next_transaction = transaction.following();
        self.unanswered.push_back(transaction);
        Ok(transaction)
    }

    fn receive(
        &mut self,
        deadline: Deadline,
        awaited: &'static str,
    ) -> Result<Option<Event>, ClientError> {
        let frame = match self.connection.next_until(deadline)? {
            Arrival::Frame(frame) => frame,
            Arrival::NotYet => return Ok(None),
            Arrival::End => return Ok(Some(Event::Closed)),
        };
        let command = match Incoming::of(frame, awaited)? {
            Incoming::Event(event) => return Ok(Some(self.note_answer(event))),
            Incoming::Connected(_) => "CONNECTED",
            Incoming::Receipt => "RECEIPT",
        };
        Err(ClientError::Unexpected { command: command.to_owned(), awaited })
    }

    /// Removes the request that an event answers.
    ///
    /// An ERROR may name no transaction, but the broker answers in order: unless it closes the
    /// connection, it is about the oldest unanswered request.
    fn note_answer(&mut self, mut event: Event) -> Event {
        let answered = match &mut event {
            Event::Ack(ack) => Some(ack.transaction),
            Event::Error(error) => {
                if error.transaction.is_none() && !error.closes() {
                    error.transaction = self.unanswered.front().copied();
                }
                error.transaction
            }
            Event::Message(_) | Event::Closed => None,
        };
        if let Some(index) = self.unanswered.iter().position(|id| Some(*id) == answered) {
            self.unanswered.remove(index);
        }
        event
    }
}

/// The clients to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// The client at this address, which has to be logged in, such as `/agent/ana`.
    Client(&'a str),
    /// All clients, now and later, whose whole address matches this regular expression, such as
    /// `/agent/.*`.
    Pattern(&'a str),
}

/// Bound on unanswered requests.
const UNANSWERED_MAX: usize = 65_536;

fn await_connected(frame: Frame) -> Result<Session, ClientError> {
    let command = frame.command.clone();
    match Incoming::of(frame, CONNECTED)? {
        Incoming::Connected(session) => Ok(session),
        Incoming::Event(Event::Error(error)) => Err(ClientError::Refused(Box::new(error))),
        _ => Err(ClientError::Unexpected { command, awaited: CONNECTED }),
    }
}
