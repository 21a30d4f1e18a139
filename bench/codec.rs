//! What reading and writing one frame costs, with a body of 64 octets. `bench/instructions` runs it
//! under callgrind, which counts only what the functions do whose names begin with `measured`; run by
//! hand it prints nanoseconds. It is a program of its own: were frames parsed in two places of one
//! program, the compiler would treat neither as it treats the broker's.

use std::hint::black_box;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use com_broker::limits::Limits;
use com_broker::stomp::encode as standard;
use com_broker::stomp::{Frame, ScanBounds, Version};
use com_broker::{classic, classic::encode};

#[derive(Debug, Parser)]
#[command(about = "What reading and writing one frame costs, with a body of 64 octets")]
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
    let mut out = Vec::with_capacity(1024);
    #[expect(clippy::disallowed_methods, reason = "this is a clock's place")]
    let started = Instant::now();
    for _ in 0..arguments.iterations {
        match scenario {
            Scenario::ParseClassic => measured_classic_parse(CLASSIC, &limits),
            Scenario::ParseStandard => measured_standard_parse(STANDARD, &bounds),
            Scenario::EncodeClassic => measured_classic_encode(&mut out, &BODY),
            Scenario::EncodeStandard => measured_standard_encode(&mut out, &BODY),
        }
    }
    let ns = started.elapsed().as_nanos() as u64;
    println!(
        "{scenario:?}: {} frames, {} ns each",
        arguments.iterations,
        ns / arguments.iterations.max(1)
    );
}

const BODY: [u8; 64] = [b'x'; 64];

const CLASSIC: &[u8] = b"SEND\ndestination:/agent/receiver-0\n\
    session-id:0123456789abcdef0123456789abcdef\ncontent-type:text/plain\ncontent-length:64\n\n\
    xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\0";

const STANDARD: &[u8] = b"SEND\ndestination:/agent/receiver-0\n\
    content-type:text/plain\ncontent-length:64\n\n\
    xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\0";

#[inline(never)]
fn measured_classic_parse(octets: &[u8], limits: &Limits) {
    let mut frame = classic::Frame::default();
    frame.read(black_box(octets), limits).expect("it is a frame");
    black_box(&frame);
}

#[inline(never)]
fn measured_standard_parse(octets: &[u8], bounds: &ScanBounds) {
    let mut frame = Frame::default();
    frame.scan(black_box(octets), bounds).expect("it is a frame");
    black_box(&frame);
}

#[inline(never)]
fn measured_classic_encode(out: &mut Vec<u8>, body: &[u8]) {
    out.clear();
    encode::begin_message(out, black_box(b"0123456789abcdef0123456789abcdef"));
    encode::plain_header(out, b"origin", black_box(b"sender"));
    encode::plain_header(out, b"destination", black_box(b"/agent/sender"));
    encode::plain_header(out, b"content-type", black_box(b"text/plain"));
    encode::number_header(out, "content-length", body.len() as u64);
    encode::plain_header(out, black_box(b"priority"), black_box(b"4"));
    encode::finish(out, black_box(body));
}

#[inline(never)]
fn measured_standard_encode(out: &mut Vec<u8>, body: &[u8]) {
    let version = black_box(Version::V1_2);
    out.clear();
    standard::begin(out, "MESSAGE");
    standard::plain_header(out, "subscription", black_box(b"inbox"));
    standard::plain_header(out, "message-id", black_box(b"123456"));
    for (name, value) in black_box(HEADERS) {
        black_box(standard::header(out, version, name, value));
    }
    standard::plain_header(out, "content-length", black_box(b"64"));
    standard::finish(out, black_box(body));
}

const HEADERS: [(&[u8], &[u8]); 4] = [
    (b"destination", b"/topic/news"),
    (b"origin", b"sender"),
    (b"content-type", b"text/plain"),
    (b"note", b"a colon: escaped"),
];
