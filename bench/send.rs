//! What one SEND costs, with a body of 64 bytes, in memory: parse, dispatch, encode and queue.
//! `bench/instructions` runs it under callgrind, which counts only what the functions do whose names begin with `measured`; run by hand it prints nanoseconds, emptying the
//! queues included.

use std::hint::black_box;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use com_broker::config::{DEVELOPMENT_APPLICATION_KEY, DEVELOPMENT_PROFILE_KEYS};
use com_broker::internal::broker::{Broker, Keys, Moment, Options, Profile};
use com_broker::internal::broker::{Encoding, Opening, PeerId};
use com_broker::internal::outbound::Framing;
use com_broker::internal::stomp::{Frame, ScanBounds, Version};
use com_broker::limits::Limits;

#[derive(Debug, Parser)]
#[command(about = "What one SEND with a body of 64 bytes costs, in memory")]
struct Arguments {
    /// What is done
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
    /// A classic SEND to one receiver, with all headers that clients in the field send but a
    /// transaction
    Sent,
    /// The same with a transaction, which is acknowledged
    Acknowledged,
    /// As `sent`, to another receiver each time, so that no lookup is remembered
    Scattered,
    /// A SEND of the standard dialect to one receiver that speaks it, too
    SentStandard,
    /// A SEND of the standard dialect to a queue, from which a consumer takes it
    Queued,
    /// A classic SEND to a topic with a hundred subscribers
    FanOut,
    /// The same in the standard dialect
    FanOutStandard,
}

impl Scenario {
    /// Deliveries of each frame.
    fn deliveries(self) -> u64 {
        match self {
            Self::Sent
            | Self::Acknowledged
            | Self::Scattered
            | Self::SentStandard
            | Self::Queued => 1,
            Self::FanOut | Self::FanOutStandard => SUBSCRIBERS,
        }
    }
}

fn main() {
    let arguments = Arguments::parse();
    let scenario = arguments.scenario;
    let mut world = World::new();
    let frames = world.frames(scenario);
    #[expect(clippy::disallowed_methods, reason = "this is a clock's place")]
    let started = Instant::now();
    for index in 0..arguments.iterations {
        let frame = frames[index as usize % frames.len()].as_slice();
        let now = Moment { ns: index + 1, unix_ms: 1 };
        match scenario {
            Scenario::Sent | Scenario::Acknowledged | Scenario::Scattered | Scenario::FanOut => {
                measured_classic(&mut world.broker, world.sender, frame, now);
            }
            Scenario::SentStandard | Scenario::Queued | Scenario::FanOutStandard => {
                measured_standard(&mut world, frame, now);
            }
        }
        world.empty_queues();
    }
    let ns = started.elapsed().as_nanos() as u64;
    let deliveries = arguments.iterations * scenario.deliveries();
    assert_eq!(world.broker.counters.deliveries, deliveries, "everything is delivered");
    println!(
        "{scenario:?}: {} SENDs, {} ns each, queues emptied",
        arguments.iterations,
        ns / arguments.iterations.max(1)
    );
}

// What is counted.

#[inline(never)]
fn measured_classic(broker: &mut Broker, sender: PeerId, frame: &[u8], now: Moment) {
    broker.handle_classic(sender, black_box(frame), now);
}

#[inline(never)]
fn measured_standard(world: &mut World, bytes: &[u8], now: Moment) {
    let mut frame = Frame::default();
    frame.scan(black_box(bytes), &world.bounds).expect("it is a frame");
    world.broker.handle_standard(world.standard_sender, &frame, now);
}

struct World {
    broker: Broker,
    sender: PeerId,
    session: String,
    standard_sender: PeerId,
    bounds: ScanBounds,
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
            let peer = log_in(&mut broker, number, &format!("receiver-{number}"));
            if number < SUBSCRIBERS {
                let frame = b"SUBSCRIBE\ndestination:/topic/classic\ndestination-type:0\n\n\0";
                broker.handle_classic(peer, frame, Moment::default());
            }
        }
        let sender = log_in(&mut broker, RECEIVERS, "sender");
        let session = session_of(&mut broker, sender);
        let standard_sender = log_in_standard(&mut broker, RECEIVERS + 1, "standard-sender");
        for number in 0..SUBSCRIBERS {
            let peer = log_in_standard(
                &mut broker,
                RECEIVERS + 2 + number,
                &format!("standard-receiver-{number}"),
            );
            let frame = b"SUBSCRIBE\nid:1\ndestination:/topic/standard\n\n\0";
            handle_standard(&mut broker, peer, frame);
        }
        let number = RECEIVERS + 2 + SUBSCRIBERS;
        let consumer = log_in_standard_as(&mut broker, number, "consumer", Profile::Service);
        let frame = b"SUBSCRIBE\nid:1\ndestination:/queue/standard\n\n\0";
        handle_standard(&mut broker, consumer, frame);
        let bounds = ScanBounds::new(&Limits::default(), true);
        let dirty = Vec::new();
        let mut world = Self { broker, sender, session, standard_sender, bounds, dirty };
        world.empty_queues();
        world
    }

    fn frames(&self, scenario: Scenario) -> Vec<Vec<u8>> {
        let body = format!("{:x<64}", "");
        let classic = |destination: &str, transaction: &str| {
            format!(
                "SEND\ndestination:{destination}\n{transaction}session-id:{}\n\
                 content-type:text/plain\ncontent-length:64\n\n{body}\0",
                self.session
            )
        };
        let standard = |destination: &str| {
            format!(
                "SEND\ndestination:{destination}\ncontent-type:text/plain\ncontent-length:64\n\n\
                 {body}\0"
            )
        };
        let frames = match scenario {
            Scenario::Sent => vec![classic("/agent/receiver-0", "")],
            Scenario::Acknowledged => {
                vec![classic("/agent/receiver-0", "transaction:1690000000123\n")]
            }
            Scenario::Scattered => {
                (0..RECEIVERS).map(|one| classic(&format!("/agent/receiver-{one}"), "")).collect()
            }
            Scenario::FanOut => vec![classic("/topic/classic", "")],
            Scenario::SentStandard => vec![standard("/agent/standard-receiver-0")],
            Scenario::Queued => vec![standard("/queue/standard")],
            Scenario::FanOutStandard => vec![standard("/topic/standard")],
        };
        frames.into_iter().map(String::into_bytes).collect()
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

/// Of a topic.
const SUBSCRIBERS: u64 = 100;

fn log_in_standard(broker: &mut Broker, number: u64, login: &str) -> PeerId {
    log_in_standard_as(broker, number, login, Profile::Agent)
}

fn log_in_standard_as(broker: &mut Broker, number: u64, login: &str, profile: Profile) -> PeerId {
    let encoding = Encoding::Standard(Version::V1_0);
    let framing = Framing::Line;
    let opening = Opening { slot: number as u32, number, framing, encoding };
    let peer = broker.open_peer(opening);
    let frame = format!(
        "CONNECT\naccept-version:1.2\nhost:localhost\ninbox:true\nlogin:{login}\npasscode:{}\n\
         secret-key:{}\n\n\0",
        DEVELOPMENT_PROFILE_KEYS[profile], DEVELOPMENT_APPLICATION_KEY
    );
    handle_standard(broker, peer, frame.as_bytes());
    peer
}

fn handle_standard(broker: &mut Broker, peer: PeerId, bytes: &[u8]) {
    let bounds = ScanBounds::new(&Limits::default(), true);
    let mut frame = Frame::default();
    frame.scan(bytes, &bounds).expect("it is a frame");
    broker.handle_standard(peer, &frame, Moment::default());
}

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
        DEVELOPMENT_PROFILE_KEYS[Profile::Agent],
        DEVELOPMENT_APPLICATION_KEY
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
