//! A client of the classic dialect that writes to itself.

use std::time::Duration;

use com_broker_client::{Client, ClientError, Event, Options, SendOptions};

fn main() -> Result<(), ClientError> {
    let options = Options::new("tls://localhost:6661")
        .login("rosa")
        .keys("my_app_secret_key", "my_agent_secret_key")
        .ca("certs/ca.pem");
    println!("{}", say_hello(&options)?); // hello, me
    Ok(())
}

/// Logs in, says something to itself, and gives back what it heard.
pub fn say_hello(options: &Options) -> Result<String, ClientError> {
    let mut rosa = Client::connect(options)?;
    rosa.send_and_wait("/agent/rosa", "hello, me", &SendOptions::default())?;
    let heard = match rosa.next(Duration::from_secs(5))? {
        Some(Event::Message(message)) => String::from_utf8_lossy(&message.body).into_owned(),
        other => format!("no message: {other:?}"),
    };
    rosa.disconnect()?;
    Ok(heard)
}
