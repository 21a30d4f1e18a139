//! Servers in this process: started from code and controlled through their handles.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};

use com_broker::config::{Builder, Config, Listener, Performance, TlsMode};
use com_broker::limits::{Limits, OutboundLimits};
use com_broker::server::{Outcome, PostFault, ReloadFault, Report, Running, ServeFault, Server};
use com_broker::{ByProfile, Keys};
use com_broker_client::{ClientError, Options, SendOptions, StandardClient, StandardTarget};

use crate::support::{Directory, PATIENCE};

#[path = "../../examples/embedded.rs"]
#[allow(dead_code, reason = "its main function is for those who start it")]
mod example;

#[test]
fn the_example_runs() {
    example::run().unwrap();
}

const APPLICATION: &str = "it-app";

fn keys(agent: &str) -> Keys {
    Keys::new(APPLICATION, [agent, "it-super", "it-service", "it-admin"]).unwrap()
}

fn loopback() -> Listener {
    Listener::new(SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn builder() -> Builder {
    Config::builder(keys("it-agent")).listener(loopback())
}

fn bind(builder: Builder) -> Server {
    Server::bind(builder.build().unwrap()).unwrap()
}

fn log_in(address: SocketAddr, login: &str, key: &str) -> Result<StandardClient, ClientError> {
    let options = Options::new(format!("tcp://{address}")).login(login).keys(APPLICATION, key);
    StandardClient::connect(&options)
}

fn drain(running: Running) -> Report {
    running.handle().drain().unwrap();
    running.join().unwrap()
}

#[test]
fn several_brokers_in_one_process_are_independent() {
    let (one, other) = (bind(builder()).spawn().unwrap(), bind(builder()).spawn().unwrap());
    let mut clients: Vec<_> = [&one, &other]
        .map(|running| log_in(running.addresses()[0], "ana", "it-agent").unwrap())
        .into_iter()
        .collect();
    for client in &mut clients {
        client.subscribe("1", StandardTarget::Destination("/topic/a")).unwrap();
    }
    let sent = clients[0].send("/topic/a", "x", &SendOptions::default()).unwrap();
    assert_eq!(sent, 1, "the other broker's client is not there");
    assert_eq!(clients[0].next(PATIENCE).unwrap().unwrap().body, b"x");
    // A drain of one does not affect the other.
    let report = drain(one);
    assert_eq!((report.outcome, report.connections), (Outcome::Drained, 1));
    assert_eq!(report.connections_cut, 0);
    clients[1].send("/topic/a", "y", &SendOptions::default()).unwrap();
    assert_eq!(clients[1].next(PATIENCE).unwrap().unwrap().body, b"y");
    drain(other);
}

#[test]
fn letters_posted_before_the_start_are_handled_at_the_start() {
    let server = bind(builder());
    let address = server.addresses()[0];
    let waiting = TcpStream::connect(address).unwrap();
    server.handle().drain().unwrap();
    assert_eq!(server.run().unwrap().outcome, Outcome::Drained);
    drop(waiting);
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_full_mailbox_and_an_ended_server_refuse_letters() {
    let limits = Limits { mailbox_letters_max: 2, ..Limits::default() };
    let server = bind(builder().limits(limits));
    let handle = server.handle();
    handle.export_latencies().unwrap();
    handle.export_latencies().unwrap();
    assert_eq!(handle.drain(), Err(PostFault::Full));
    let running = server.spawn().unwrap();
    // It reads two letters a turn, so that there is room soon.
    while let Err(fault) = handle.drain() {
        assert_eq!(fault, PostFault::Full);
        std::thread::yield_now();
    }
    let clone = handle.clone();
    assert_eq!(running.join().unwrap().outcome, Outcome::Drained);
    assert_eq!(clone.drain(), Err(PostFault::Ended));
    assert_eq!(handle.leave(), Err(PostFault::Ended));
    let config = builder().build().unwrap();
    let fault = handle.reload(&config).unwrap_err();
    assert!(matches!(fault, ReloadFault::Post(PostFault::Ended)), "{fault}");
}

#[test]
fn dropping_handles_does_not_stop_a_server() {
    let running = bind(builder()).spawn().unwrap();
    drop(running.handle().clone());
    let address = running.addresses()[0];
    let mut ana = log_in(address, "ana", "it-agent").unwrap();
    let handle = running.handle().clone();
    let thread = std::thread::spawn(move || running.join().unwrap().outcome);
    ana.send("/topic/a", "x", &SendOptions::default()).unwrap();
    handle.drain().unwrap();
    assert_eq!(thread.join().unwrap(), Outcome::Drained);
}

#[test]
fn a_second_drain_has_no_effect_and_leave_ends_the_server() {
    // A client that does not read keeps it from ending by itself.
    let outbound =
        OutboundLimits { hard_bytes_max: 64 << 20, soft_bytes_max: 64 << 20, soft_ms_max: 600_000 };
    let limits = Limits {
        drain_ms_max: 600_000,
        close_flush_ms_max: 600_000,
        outbound: ByProfile::all(outbound),
        ..Limits::default()
    };
    let running = bind(builder().limits(limits)).spawn().unwrap();
    let address = running.addresses()[0];
    let mut late = log_in(address, "late", "it-agent").unwrap();
    late.subscribe("1", StandardTarget::Destination("/topic/a")).unwrap();
    let mut publisher = log_in(address, "publisher", "it-agent").unwrap();
    for _ in 0..200 {
        assert_eq!(
            publisher.send("/topic/a", vec![b'x'; 64 << 10], &SendOptions::default()).unwrap(),
            1
        );
    }
    running.handle().drain().unwrap();
    running.handle().drain().unwrap();
    assert!(matches!(publisher.next(PATIENCE), Err(ClientError::Refused(_))), "it is told");
    assert!(!running.is_finished());
    running.handle().leave().unwrap();
    let report = running.join().unwrap();
    assert_eq!((report.outcome, report.connections_cut), (Outcome::Abandoned, 1));
    drop(late);
}

#[test]
fn keys_are_replaced_and_open_connections_stay() {
    let running = bind(builder()).spawn().unwrap();
    let address = running.addresses()[0];
    let mut ana = log_in(address, "ana", "it-agent").unwrap();
    let new = Config::builder(keys("it-new")).listener(loopback()).build().unwrap();
    running.handle().reload(&new).unwrap();
    // Letters are read in the order of posting, and so are frames of a client.
    let answer = loop {
        match log_in(address, "bob", "it-new") {
            Err(ClientError::Refused(_)) => {}
            other => break other,
        }
    };
    answer.unwrap();
    assert!(matches!(log_in(address, "bob", "it-agent"), Err(ClientError::Refused(_))));
    ana.send("/topic/a", "x", &SendOptions::default()).unwrap();
    drain(running);
}

#[test]
fn secrets_that_do_not_fit_the_open_listeners_are_refused() {
    let scratch = Directory::new();
    let own = scratch.path().join("own");
    crate::support::server::make_certificates(&own);
    let files = |name: &str| (own.join(format!("{name}.pem")), own.join(format!("{name}.key")));
    let (chain, key) = files("server");
    let secured = || loopback().tls(TlsMode::Required);
    let start = Config::builder(keys("it-agent")).listener(secured()).certificate(&chain, &key);
    let running = bind(start).spawn().unwrap();
    let reload = |config: Builder| running.handle().reload(&config.build().unwrap());
    let told = |config: Builder| reload(config).unwrap_err().to_string();
    let fault = told(builder());
    assert!(fault.starts_with("tls: no certificate is set, and the listener at "), "{fault}");
    let development = scratch.path().join("development");
    let fault = told(builder().listener(secured()).development_certificate(&development));
    assert!(
        fault.starts_with("tls: no certificate is set, and the broker runs with one"),
        "{fault}"
    );
    assert!(!development.exists(), "nothing was made");
    let fault = told(builder().certificate(&chain, files("ca").1));
    assert!(fault.contains("ca.key: not the private key of the certificate in "), "{fault}");
    reload(builder().certificate(&chain, &key)).unwrap();
    let options = Options::new(format!("tls://{}", running.addresses()[0]))
        .login("ana")
        .keys(APPLICATION, "it-agent")
        .ca(own.join("ca.pem"));
    let mut ana = StandardClient::connect(&options).unwrap();
    ana.send("/topic/a", "x", &SendOptions::default()).unwrap();
    drain(running);
}

#[test]
fn a_reload_does_not_bring_well_known_keys_to_exposed_listeners() {
    let known = Keys::new(APPLICATION, ["my_agent_secret_key", "b", "c", "d"]).unwrap();
    let all = Listener::new(SocketAddr::from(([0, 0, 0, 0], 0)));
    let server = bind(Config::builder(keys("it-agent")).listener(all));
    let next = Config::builder(known).listener(loopback()).build().unwrap();
    let fault = server.handle().reload(&next).unwrap_err();
    assert!(matches!(fault, ReloadFault::Config(_)), "{fault}");
    assert!(fault.to_string().starts_with("keys: this is a well-known"), "{fault}");
}

#[test]
fn a_reload_does_not_go_back_from_own_keys_to_known_ones() {
    let known = || {
        let keys = Keys::new(APPLICATION, ["my_agent_secret_key", "b", "c", "d"]).unwrap();
        Config::builder(keys).listener(loopback())
    };
    let own = || Config::builder(keys("it-agent")).listener(loopback());
    let server = bind(known());
    let reload = |config: Builder| server.handle().reload(&config.build().unwrap());
    reload(known()).unwrap();
    reload(own()).unwrap();
    let fault = reload(known()).unwrap_err();
    assert!(matches!(fault, ReloadFault::Config(_)), "{fault}");
    assert!(fault.to_string().starts_with("keys: these would be the development keys"), "{fault}");
    reload(own()).unwrap();
    let server = bind(own());
    server.handle().reload(&known().build().unwrap()).unwrap_err();
}

#[test]
fn a_failed_bind_is_explained_and_leaves_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = builder().listener(Listener::new(address).named("web")).build().unwrap();
    let fault = Server::bind(config).unwrap_err();
    assert!(
        matches!(&fault, ServeFault::Bind(at, Some(name), _) if *at == address && name == "web")
    );
    let fault = fault.to_string();
    assert!(
        fault.starts_with(&format!("cannot listen on {address} (listener \"web\"): ")),
        "{fault}"
    );
}

#[test]
fn a_busy_polling_loop_handles_letters() {
    let performance = Performance { busy_poll: true, ..Performance::default() };
    let running = bind(builder().performance(performance)).spawn().unwrap();
    log_in(running.addresses()[0], "ana", "it-agent").unwrap();
    assert_eq!(drain(running).outcome, Outcome::Drained);
}
