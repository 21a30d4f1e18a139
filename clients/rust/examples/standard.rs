//! A client of the standard dialect that hears a topic, and learns how many got what it sent.

use std::time::Duration;

use com_broker_client::{ClientError, Options, SendOptions, StandardClient, StandardTarget};

fn main() -> Result<(), ClientError> {
    let options = Options::new("tcp://127.0.0.1:6662")
        .login("billing")
        .keys("my_app_secret_key", "my_service_secret_key");
    println!("{}", publish(&options)?); // 1: paid
    Ok(())
}

/// Subscribes to topics, publishes on one of them, and gives back how many got it, and what it heard.
pub fn publish(options: &Options) -> Result<String, ClientError> {
    let mut billing = StandardClient::connect(options)?;
    billing.subscribe("invoices", StandardTarget::Destination("/topic/invoices/*"))?;
    let delivered = billing.send("/topic/invoices/7", "paid", &SendOptions::default())?;
    let message = billing.next(Duration::from_secs(5))?;
    billing.disconnect()?;
    let body = message.map(|message| message.body).unwrap_or_default();
    Ok(format!("{delivered}: {}", String::from_utf8_lossy(&body)))
}
