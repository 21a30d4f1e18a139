//! What one SEND of the classic dialect costs, with a body of 64 octets and one receiver, in memory:
//! parse, dispatch, encode and queue. `bench/instructions` runs it under callgrind, which counts
//! only what [`measured`] does; run by hand it prints nanoseconds, emptying the queues included.

use std::hint::black_box;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use com_broker::broker::peer::{Encoding, Opening, PeerId};
use com_broker::broker::{Broker, Keys, Moment, Options};
use com_broker::config::{DEVELOPMENT_APPLICATION_KEY, DEVELOPMENT_PROFILE_KEYS};
use com_broker::limits::Limits;
use com_broker::outbound::Framing;

#[derive(Debug, Parser)]
#[command(about = "What one classic SEND costs: 64 octets, one receiver, in memory")]
struct Arguments {
    /// What the sender asks for
    #[arg(value_enum, default_value_t = Scenario::Sent)]
    scenario: Scenario,
    /// How many frames to send
    #[arg(long, default_value_t = 1_000_000)]
    iterations: u64,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scenario {
    /// A message, with all headers that clients in the field send but a transaction
    Sent,
    /// The same with a transaction, which is acknowledged
    Acknowledged,
    /// As `sent`, to another receiver each time, so that no lookup is remembered
    Scattered,
}

fn main() {
    let arguments = Arguments::parse();
    let mut world = World::new();
    let frames = world.frames(arguments.scenario);
    #[expect(clippy::disallowed_methods, reason = "this is a clock's place")]
    let started = Instant::now();
    for index in 0..arguments.iterations {
        let frame = &frames[index as usize % frames.len()];
        measured(&mut world.broker, world.sender, frame, Moment { ns: index + 1, unix_ms: 1 });
        world.empty_queues();
    }
    let ns = started.elapsed().as_nanos() as u64;
    let broker = &world.broker;
    assert_eq!(broker.counters.deliveries, arguments.iterations, "everything is delivered");
    println!(
        "{:?}: {} SENDs, {} ns each, queues emptied",
        arguments.scenario,
        arguments.iterations,
        ns / arguments.iterations.max(1)
    );
}

/// What is counted.
#[inline(never)]
fn measured(broker: &mut Broker, sender: PeerId, frame: &[u8], now: Moment) {
    broker.handle_classic(sender, black_box(frame), now);
}

struct World {
    broker: Broker,
    sender: PeerId,
    session: String,
    dirty: Vec<PeerId>,
}

impl World {
    fn new() -> Self {
        let mut secret = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;
        let keys = Keys::new(DEVELOPMENT_APPLICATION_KEY, DEVELOPMENT_PROFILE_KEYS);
        let entropy = Box::new(move || {
            secret += 1;
            secret
        });
        let keys = keys.expect("the development keys are valid");
        let options = Options::new(Limits::default(), keys, entropy);
        let mut broker = Broker::new(options);
        for number in 0..RECEIVERS {
            log_in(&mut broker, number, &format!("receiver-{number}"));
        }
        let sender = log_in(&mut broker, RECEIVERS, "sender");
        let session = session_of(&mut broker, sender);
        let mut world = Self { broker, sender, session, dirty: Vec::new() };
        world.empty_queues();
        world
    }

    fn frames(&self, scenario: Scenario) -> Vec<Vec<u8>> {
        let transaction = match scenario {
            Scenario::Acknowledged => "transaction:1690000000123\n",
            Scenario::Sent | Scenario::Scattered => "",
        };
        let receivers = match scenario {
            Scenario::Scattered => RECEIVERS,
            Scenario::Sent | Scenario::Acknowledged => 1,
        };
        let frame = |number| {
            format!(
                "SEND\ndestination:/agent/receiver-{number}\n{transaction}session-id:{}\n\
                 content-type:text/plain\ncontent-length:64\n\n{:x<64}\0",
                self.session, ""
            )
        };
        (0..receivers).map(|number| frame(number).into_bytes()).collect()
    }

    fn empty_queues(&mut self) {
        self.broker.peers.take_dirty(&mut self.dirty);
        for peer in self.dirty.drain(..) {
            if let Some((arena, outbox)) = self.broker.peers.outbox(peer) {
                arena.discard(&mut outbox.queue);
            }
            self.broker.peers.note_flushed(peer, 0);
        }
        self.broker.peers.arena.end_turn();
    }
}

const RECEIVERS: u64 = 1000;

fn log_in(broker: &mut Broker, number: u64, login: &str) -> PeerId {
    let opening = Opening {
        slot: number as u32,
        number,
        framing: Framing::LengthPrefix,
        encoding: Encoding::Classic,
    };
    let peer = broker.open_peer(opening);
    let frame = format!(
        "CONNECT\naccept-version:1.2\nlogin:{login}\npasscode:{}\nsecret-key:{}\n\n",
        DEVELOPMENT_PROFILE_KEYS[0], DEVELOPMENT_APPLICATION_KEY
    );
    broker.handle_classic(peer, frame.as_bytes(), Moment::default());
    peer
}

/// The session id that CONNECTED told.
fn session_of(broker: &mut Broker, peer: PeerId) -> String {
    let (arena, outbox) = broker.peers.outbox(peer).expect("it is open");
    let frames = arena.only_run(&outbox.queue).expect("it was answered");
    let text = String::from_utf8_lossy(frames.bytes).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("session-id:"));
    line.expect("it was logged in").into()
}
