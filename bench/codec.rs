//! Cost of parsing and encoding one frame with a body of 64 bytes. `bench/instructions` runs it
//! under callgrind, which counts only functions whose names begin with `measured`; run by hand, it
//! prints nanoseconds. It is a program of its own: if frames were parsed at two places of one
//! program, the compiler would inline neither as it does in the broker.

use std::hint::black_box;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use com_broker::internal::broker::Encoding;
use com_broker::internal::broker::{Content, Head, Message, Origin, UserLines};
use com_broker::internal::classic;
use com_broker::internal::stomp::{Frame, ScanBounds, Version};
use com_broker::limits::Limits;

#[derive(Debug, Parser)]
#[command(about = "What reading and writing one frame costs, with a body of 64 bytes")]
struct Arguments {
    /// What is done
    #[arg(value_enum, default_value_t = Scenario::ParseClassic)]
    scenario: Scenario,
    /// How often
    #[arg(long, default_value_t = 1_000_000)]
    iterations: u64,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scenario {
    /// Parsing a classic SEND
    ParseClassic,
    /// Parsing a SEND of the standard dialect
    ParseStandard,
    /// Writing a classic MESSAGE
    EncodeClassic,
    /// Writing a MESSAGE of the standard dialect
    EncodeStandard,
}

fn main() {
    let arguments = Arguments::parse();
    let scenario = arguments.scenario;
    let limits = Limits::default();
    let bounds = ScanBounds::new(&limits, true);
    let origin = Origin::new(b"sender", b"/agent/sender");
    let message =
        Message { number: 123_456, is_redelivered: false, origin: &origin, content: &CONTENT };
    let mut out = Vec::with_capacity(1024);
    #[expect(clippy::disallowed_methods, reason = "this is a clock's place")]
    let started = Instant::now();
    for _ in 0..arguments.iterations {
        match scenario {
            Scenario::ParseClassic => measured_classic_parse(CLASSIC, &limits),
            Scenario::ParseStandard => measured_standard_parse(STANDARD, &bounds),
            Scenario::EncodeClassic => measured_classic_encode(&mut out, &message),
            Scenario::EncodeStandard => measured_standard_encode(&mut out, &message),
        }
    }
    let ns = started.elapsed().as_nanos() as u64;
    println!(
        "{scenario:?}: {} frames, {} ns each",
        arguments.iterations,
        ns / arguments.iterations.max(1)
    );
}

const CLASSIC: &[u8] = b"SEND\ndestination:/agent/receiver-0\n\
    session-id:0123456789abcdef0123456789abcdef\ncontent-type:text/plain\ncontent-length:64\n\n\
    xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\0";

const STANDARD: &[u8] = b"SEND\ndestination:/agent/receiver-0\n\
    content-type:text/plain\ncontent-length:64\n\n\
    xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\0";

#[inline(never)]
fn measured_classic_parse(bytes: &[u8], limits: &Limits) {
    let mut frame = classic::Frame::default();
    frame.read(black_box(bytes), limits).expect("it is a frame");
    black_box(&frame);
}

#[inline(never)]
fn measured_standard_parse(bytes: &[u8], bounds: &ScanBounds) {
    let mut frame = Frame::default();
    frame.scan(black_box(bytes), bounds).expect("it is a frame");
    black_box(&frame);
}

#[inline(never)]
fn measured_classic_encode(out: &mut Vec<u8>, message: &Message<'_>) {
    let head = Head::Session(black_box(b"0123456789abcdef0123456789abcdef"));
    out.clear();
    black_box(message).write(Encoding::Classic, head, out);
}

#[inline(never)]
fn measured_standard_encode(out: &mut Vec<u8>, message: &Message<'_>) {
    out.clear();
    black_box(message).write(Encoding::Standard(Version::V1_2), Head::Inbox, out);
}

const CONTENT: Content<'_> = Content {
    transaction: None,
    destination: b"/topic/news",
    content_type: Some(b"text/plain"),
    has_escapes: false,
    user_lines: UserLines::Own(&[(b"priority", b"4")]),
    body: &[b'x'; 64],
    shared: None,
};
