//! The Rust example of README.md, word for word.

use std::time::Duration;

use com_broker_client::{Client, ClientError, Event, Options, SendOptions};

/// Logs in at `url`, says something to itself, and gives back what it heard.
pub(crate) fn say_hello(url: &str) -> Result<Option<String>, ClientError> {
    let options = Options::new(url)
        .login("rosa")
        .keys("my_app_secret_key", "my_agent_secret_key")
        .ca("certs/ca.pem");
    let mut rosa = Client::connect(&options)?;
    rosa.send_and_wait("/agent/rosa", "hello, me", &SendOptions::default())?;
    let heard = match rosa.next(Duration::from_secs(5))? {
        Some(Event::Message(message)) => Some(String::from_utf8_lossy(&message.body).into_owned()),
        _ => None,
    };
    rosa.disconnect()?;
    Ok(heard)
}
