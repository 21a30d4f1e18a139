//! Cost of one SEND with a body of 64 bytes, in memory: parse, dispatch, encode and queue.
//! `bench/instructions` runs it under callgrind, which counts only the functions whose names begin with
//! `measured`. Run by hand, it prints nanoseconds, which include emptying the queues.

use std::hint::black_box;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use com_broker::config::{DEVELOPMENT_APPLICATION_KEY, DEVELOPMENT_PROFILE_KEYS};
use com_broker::internal::broker::{Broker, Keys, Moment, Options, Profile};
use com_broker::internal::broker::{Data, Dialect, Opening, PeerId, Speaker, Verdict};
use com_broker::internal::outbound::Framing;
use com_broker::limits::Limits;

#[derive(Debug, Parser)]
#[command(about = "The cost of one SEND with a body of 64 bytes, in memory")]
struct Arguments {
    /// The kind of SEND
    #[arg(value_enum, default_value_t = Scenario::Sent)]
    scenario: Scenario,
    /// The number of frames
    #[arg(long, default_value_t = 1_000_000)]
    iterations: u64,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scenario {
    /// A classic SEND to one receiver, with the headers of common clients, except a transaction
    Sent,
    /// The same with a transaction, which is acknowledged
    Acknowledged,
    /// As `sent`, to another receiver each time, so that no remembered lookup fits
    Scattered,
    /// A SEND of the standard dialect to one receiver of the same dialect
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

    fn is_standard(self) -> bool {
        matches!(self, Self::SentStandard | Self::Queued | Self::FanOutStandard)
    }
}

fn main() {
    let arguments = Arguments::parse();
    let scenario = arguments.scenario;
    let mut world = World::new();
    let frames = world.frames(scenario);
    #[expect(clippy::disallowed_methods, reason = "the benchmark reads the clock itself")]
    let started = Instant::now();
    for index in 0..arguments.iterations {
        let frame = frames[index as usize % frames.len()].as_slice();
        let now = Moment { ns: index + 1, unix_ms: 1 };
        let World { broker, sender, standard_sender, .. } = &mut world;
        let sender = if scenario.is_standard() { standard_sender } else { sender };
        measured_send(broker, sender, frame, now);
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

/// The function that callgrind counts.
#[inline(never)] // so that it has a name in the binary
fn measured_send(broker: &mut Broker, sender: &mut Speaker, frame: &[u8], now: Moment) {
    let data = Data::unshared(black_box(frame));
    let done = broker.handle(sender, data, now);
    assert!(matches!(done.verdict, Verdict::Stays));
}

struct World {
    broker: Broker,
    sender: Speaker,
    session: String,
    standard_sender: Speaker,
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
            let login = format!("receiver-{number}");
            let mut receiver = log_in(&mut broker, Dialect::Classic, number, &login);
            if number < SUBSCRIBERS {
                let frame = "SUBSCRIBE\ndestination:/topic/classic\ndestination-type:0\n\n\0";
                assert_eq!(say(&mut broker, &mut receiver, frame), Verdict::Stays);
            }
        }
        let sender = log_in(&mut broker, Dialect::Classic, RECEIVERS, "sender");
        let session = session_of(&mut broker, sender.peer);
        let standard_sender =
            log_in(&mut broker, Dialect::Standard, RECEIVERS + 1, "standard-sender");
        for number in 0..SUBSCRIBERS {
            let login = format!("standard-receiver-{number}");
            let number = RECEIVERS + 2 + number;
            let mut receiver = log_in(&mut broker, Dialect::Standard, number, &login);
            let frame = "SUBSCRIBE\nid:1\ndestination:/topic/standard\n\n\0";
            assert_eq!(say(&mut broker, &mut receiver, frame), Verdict::Stays);
        }
        let number = RECEIVERS + 2 + SUBSCRIBERS;
        let mut consumer =
            log_in_as(&mut broker, Dialect::Standard, number, "consumer", Profile::Service);
        let frame = "SUBSCRIBE\nid:1\ndestination:/queue/standard\n\n\0";
        assert_eq!(say(&mut broker, &mut consumer, frame), Verdict::Stays);
        let dirty = Vec::new();
        let mut world = Self { broker, sender, session, standard_sender, dirty };
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

/// Subscribers of the topic.
const SUBSCRIBERS: u64 = 100;

fn log_in(broker: &mut Broker, dialect: Dialect, number: u64, login: &str) -> Speaker {
    log_in_as(broker, dialect, number, login, Profile::Agent)
}

fn log_in_as(
    broker: &mut Broker,
    dialect: Dialect,
    number: u64,
    login: &str,
    profile: Profile,
) -> Speaker {
    let framing = match dialect {
        Dialect::Classic => Framing::LengthPrefix,
        Dialect::Standard => Framing::Line,
    };
    let mut speaker = broker.open_peer(Opening { slot: number as u32, number, framing, dialect });
    let frame = format!(
        "CONNECT\naccept-version:1.2\nhost:localhost\ninbox:true\nlogin:{login}\npasscode:{}\n\
         secret-key:{}\n\n\0",
        DEVELOPMENT_PROFILE_KEYS[profile], DEVELOPMENT_APPLICATION_KEY
    );
    assert_eq!(say(broker, &mut speaker, &frame), Verdict::LoggedIn);
    speaker
}

/// Handles a frame of a client.
fn say(broker: &mut Broker, speaker: &mut Speaker, frame: &str) -> Verdict {
    let data = Data::unshared(frame.as_bytes());
    broker.handle(speaker, data, Moment::default()).verdict
}

/// The session id in CONNECTED.
fn session_of(broker: &mut Broker, peer: PeerId) -> String {
    let (arena, outbox) = broker.peers.outbox(peer).expect("the connection is open");
    let frames = arena.only_run(&outbox.queue).expect("CONNECTED is queued");
    let text = String::from_utf8_lossy(frames.bytes).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("session-id:"));
    line.expect("CONNECTED has a session id").into()
}
