//! Well-behaved clients, who must not feel the others: a pair that plays ping-pong, and a visitor who comes again
//! and again and does each thing once.

use com_broker::internal::broker::Profile;

use super::town::{Kind, Town, Who};
use crate::client::Carrier;

/// Two clients: one sends to the other, which answers.
pub(super) struct Pair {
    ana: Who,
    bob: Who,
    number: u32,
    sent_at: u32,
    /// The most turns of a round trip so far.
    pub(super) longest: u32,
}

impl Pair {
    pub(super) fn new(town: &mut Town, carrier: Carrier) -> Self {
        let kind = Kind { profile: Profile::Agent, carrier, is_standard: true };
        let mut join = |login| {
            let who = town.join(login, kind, "inbox:true\n");
            town.listen(who);
            // Little, for which it never is to pay.
            town.say(who, "BEGIN\ntransaction:kept\n\n");
            town.say(who, "SEND\ndestination:/topic/kept\ntransaction:kept\n\n");
            who
        };
        let (ana, bob) = (join("ana"), join("bob"));
        Self { ana, bob, number: 0, sent_at: 0, longest: 0 }
    }

    /// To be called after each turn.
    pub(super) fn act(&mut self, town: &mut Town, turns_max: u32) -> Result<(), String> {
        for who in [self.ana, self.bob] {
            if town.is_gone(who) {
                return Err(format!("one of the pair was cut: {:?}", town.heard(who)));
            }
        }
        for frame in town.heard(self.bob) {
            match body(&frame)? {
                Some(number) if number == self.number => {
                    town.say(self.bob, &format!("SEND\ndestination:/agent/ana\n\n{number}"));
                }
                Some(other) => return Err(format!("{other} arrives instead of {}", self.number)),
                None => {}
            }
        }
        let took = town.turns - self.sent_at;
        for frame in town.heard(self.ana) {
            match body(&frame)? {
                Some(number) if number == self.number => {
                    self.longest = self.longest.max(took);
                    self.send(town);
                }
                Some(other) => {
                    return Err(format!("{other} comes back instead of {}", self.number));
                }
                None => {}
            }
        }
        if self.number == 0 && town.turns > 10 {
            self.send(town);
        }
        let took = town.turns - self.sent_at;
        if self.number > 0 && took > turns_max {
            return Err(format!("a round trip of more than {turns_max} turns"));
        }
        Ok(())
    }

    fn send(&mut self, town: &mut Town) {
        self.number += 1;
        self.sent_at = town.turns;
        town.say(self.ana, &format!("SEND\ndestination:/agent/bob\n\n{}", self.number));
    }
}

/// The number in a MESSAGE; `None` if it is another frame that is expected.
fn body(frame: &str) -> Result<Option<u32>, String> {
    if frame.starts_with("CONNECTED\n") {
        return Ok(None);
    }
    let (head, body) = frame.split_once("\n\n").ok_or_else(|| frame.to_owned())?;
    let number = body.trim_end_matches('\0').parse().ok();
    number.filter(|_| head.starts_with("MESSAGE\n")).map(Some).ok_or_else(|| frame.to_owned())
}

/// A client that logs in, subscribes, sends, gets what it sent, and leaves.
pub(super) struct Visitor {
    carrier: Carrier,
    who: Option<Who>,
    came_at: u32,
    visits: u32,
    /// Bodies that it waits for.
    awaited: Vec<String>,
    /// The most turns of a visit so far.
    pub(super) longest: u32,
}

impl Visitor {
    pub(super) fn new(carrier: Carrier) -> Self {
        Self { carrier, who: None, came_at: 0, visits: 0, awaited: Vec::new(), longest: 0 }
    }

    /// To be called after each turn. If it is away and `comes`, it comes again.
    pub(super) fn act(
        &mut self,
        town: &mut Town,
        turns_max: u32,
        comes: bool,
    ) -> Result<(), String> {
        let Some(who) = self.who else {
            if comes {
                self.come(town);
            }
            return Ok(());
        };
        for frame in town.heard(who) {
            if frame.starts_with("ERROR") {
                return Err(format!("the visitor is refused: {frame}"));
            }
            if frame.starts_with("MESSAGE") {
                let body = frame.split("\n\n").nth(1).unwrap_or_default().trim_end_matches('\0');
                self.awaited.retain(|one| one != body);
                if let Some(id) = frame.lines().find_map(|line| line.strip_prefix("ack:")) {
                    town.say(who, &format!("ACK\nid:{id}\n\n"));
                }
                if self.awaited.is_empty() {
                    town.say(who, "DISCONNECT\nreceipt:bye\n\n");
                }
            }
            if frame.contains("receipt-id:bye") {
                town.leave(who);
            }
        }
        let took = town.turns - self.came_at;
        if town.is_gone(who) {
            if !self.awaited.is_empty() {
                return Err("the visitor is cut".to_owned());
            }
            self.longest = self.longest.max(took);
            self.who = None;
        } else if took > turns_max {
            return Err(format!(
                "a visit of more than {turns_max} turns, {:?} is awaited",
                self.awaited
            ));
        }
        Ok(())
    }

    /// Whether it is not there.
    pub(super) fn is_away(&self) -> bool {
        self.who.is_none()
    }

    fn come(&mut self, town: &mut Town) {
        self.visits += 1;
        let visit = self.visits;
        let kind = Kind { profile: Profile::SuperAgent, carrier: self.carrier, is_standard: true };
        let who = town.join(&format!("visitor-{visit}"), kind, "");
        town.listen(who);
        town.say(who, &format!("SUBSCRIBE\nid:t\ndestination:/topic/visit/{visit}\n\n"));
        town.say(who, &format!("SUBSCRIBE\nid:w\ndestination:/topic/visits/{visit}/*\n\n"));
        let pattern = format!("/agent/visited-{visit}.*");
        town.say(who, &format!("SUBSCRIBE\nid:p\ndestination:{pattern}\ndestination-type:1\n\n"));
        town.say(
            who,
            &format!("SUBSCRIBE\nid:q\ndestination:/queue/visit/{visit}\nack:client\n\n"),
        );
        town.say(who, &format!("SEND\ndestination:/topic/visit/{visit}\n\nt{visit}"));
        town.say(who, &format!("SEND\ndestination:/queue/visit/{visit}\n\nq{visit}"));
        self.awaited = vec![format!("t{visit}"), format!("q{visit}")];
        self.came_at = town.turns;
        self.who = Some(who);
    }
}
