//! A broker within a program: in a thread of its own, on a port that is free, configured in code,
//! spoken to, and drained through its handle.
//!
//! `cargo run --example embedded`

use std::error::Error;
use std::time::Duration;

use com_broker::Keys;
use com_broker::config::{Config, Listener};
use com_broker::limits::Limits;
use com_broker::server::{Outcome, Server};
use com_broker_client::{Options, SendOptions, StandardClient, StandardTarget};

fn main() -> Result<(), Box<dyn Error>> {
    run()
}

/// Starts a broker, sends a message through it, and ends it.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    // The keys that clients log in with: that of the application, then one for each profile.
    let keys = Keys::new("app-8c1f", ["agent-57ab", "super-c0ff", "service-91d2", "admin-e4a7"])?;
    let config = Config::builder(keys)
        // Port 0 lets the system choose. TLS is off unless a listener asks for it.
        .listener(Listener::new("127.0.0.1:0".parse()?).named("embedded"))
        .limits(Limits { connections_max: 100, ..Limits::default() })
        .build()?;

    // Clients may connect as soon as it is bound; it serves them once it runs.
    let running = Server::bind(config)?.spawn()?;
    let address = running.addresses()[0];
    println!("the broker listens on {address}");

    let options = |login: &str| {
        Options::new(format!("tcp://{address}")).login(login).keys("app-8c1f", "agent-57ab")
    };
    let mut ana = StandardClient::connect(&options("ana"))?;
    let mut bob = StandardClient::connect(&options("bob"))?;
    ana.subscribe("news", StandardTarget::Destination("/topic/news"))?;
    bob.send("/topic/news", "hello from bob", &SendOptions::default())?;
    let message = ana.next(Duration::from_secs(10))?.ok_or("nothing arrived")?;
    println!("ana got {:?}", String::from_utf8_lossy(&message.body));
    assert_eq!(message.body, b"hello from bob");
    bob.disconnect()?;

    // Every client is told, and what was queued to it is written; then the thread ends.
    running.handle().drain()?;
    let report = running.join()?;
    println!("the broker has ended: {report:?}");
    assert_eq!(report.outcome, Outcome::Drained);
    Ok(())
}
