//! The effective configuration as TOML for people, with masked keys.

use std::fmt::Write;
use std::path::Path;

use super::limits::{limit_rows, outbound_name};
use super::{Config, Listener, Performance, TlsSource};
use crate::profile::Profile;
use crate::transport::{Protocols, TlsMode};

const MASK: &str = "\"********\"";

pub(super) fn describe(config: &Config) -> String {
    let mut out = String::new();
    for listener in &config.listeners {
        describe_listener(&mut out, listener);
    }
    describe_keys(&mut out, config.keys_are_development);
    describe_tls(&mut out, config.tls.as_ref());
    describe_limits(&mut out, config);
    describe_performance(&mut out, config.performance);
    describe_messaging(&mut out, config);
    line(&mut out, "\n[latency]");
    if let Some(directory) = &config.latency_directory {
        line(&mut out, &format!("directory = {}", quoted_path(directory)));
    }
    line(&mut out, "\n[log]");
    line(&mut out, &format!("format = {}", quoted(config.log.format.name())));
    let level = config.log.level.as_str().to_ascii_lowercase();
    line(&mut out, &format!("level = {}", quoted(&level)));
    out
}

fn describe_listener(out: &mut String, listener: &Listener) {
    let tls = match listener.policy.tls {
        TlsMode::Optional => "optional",
        TlsMode::Required => "required",
        TlsMode::Off => "off",
    };
    line(out, "[[listener]]");
    if let Some(name) = &listener.name {
        line(out, &format!("name = {}", quoted(name)));
    }
    line(out, &format!("address = {}", quoted(&listener.address.to_string())));
    line(out, &format!("protocols = [{}]", protocol_names(listener.policy.protocols)));
    line(out, &format!("tls = {}\n", quoted(tls)));
}

fn protocol_names(protocols: Protocols) -> String {
    let Protocols { classic, stomp, ws, http } = protocols;
    let all = [(classic, "classic"), (stomp, "stomp"), (ws, "ws"), (http, "http")];
    let served = all.iter().filter(|(is_served, _)| *is_served);
    served.map(|(_, name)| quoted(name)).collect::<Vec<_>>().join(", ")
}

fn describe_keys(out: &mut String, are_development: bool) {
    line(out, "[keys]");
    if are_development {
        line(out, "# none are set: these are the development keys");
    }
    line(out, &format!("application = {MASK}"));
    for profile in Profile::ALL {
        line(out, &format!("{} = {MASK}", profile.key_name()));
    }
}

fn describe_tls(out: &mut String, tls: Option<&TlsSource>) {
    line(out, "\n[tls]");
    match tls {
        None => line(out, "# not used: no listener takes TLS"),
        Some(TlsSource::Files { certificate, key }) => {
            line(out, &format!("certificate = {}", quoted_path(certificate)));
            line(out, &format!("key = {}", quoted_path(key)));
        }
        Some(TlsSource::Development { directory }) => {
            line(out, "# no certificate is set: a development certificate is made and used");
            line(out, &format!("development_directory = {}", quoted_path(directory)));
        }
    }
}

fn describe_messaging(out: &mut String, config: &Config) {
    for (profile, rights) in config.rights.iter() {
        line(out, &format!("\n[rights.{}]", profile.key_name()));
        for (name, allowed) in [("send", &rights.send), ("subscribe", &rights.subscribe)] {
            let allowed: Vec<_> = allowed.iter().map(|one| quoted(one.text())).collect();
            line(out, &format!("{name} = [{}]", allowed.join(", ")));
        }
    }
    let hosts: Vec<_> = config.virtual_hosts.iter().map(|one| quoted(one)).collect();
    line(out, &format!("\n[stomp]\nvirtual_hosts = [{}]", hosts.join(", ")));
    if let Some(queue) = &config.dead_letter_queue {
        line(out, &format!("\n[queues]\ndead_letter_queue = {}", quoted(queue)));
    }
}

fn describe_limits(out: &mut String, config: &Config) {
    line(out, "\n[limits]");
    for (name, value) in limit_rows(&config.limits) {
        line(out, &format!("{name} = {value}"));
    }
    for (profile, limits) in config.limits.outbound.iter() {
        for (name, value) in [
            ("hard_bytes_max", limits.hard_bytes_max),
            ("soft_bytes_max", limits.soft_bytes_max),
            ("soft_ms_max", limits.soft_ms_max),
        ] {
            line(out, &format!("{} = {value}", outbound_name(profile, name)));
        }
    }
}

fn describe_performance(out: &mut String, performance: Performance) {
    line(out, "\n[performance]");
    line(out, &format!("busy_poll = {}", performance.busy_poll));
    if let Some(core) = performance.core {
        line(out, &format!("core = {core}"));
    }
    for (name, value) in [
        ("socket_busy_poll_us", performance.socket_busy_poll_us),
        ("socket_send_buffer_bytes", performance.socket_send_buffer_bytes),
        ("socket_receive_buffer_bytes", performance.socket_receive_buffer_bytes),
    ] {
        line(out, &format!("{name} = {value}"));
    }
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("a string takes everything");
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::{ConfigFile, Overrides};

    #[test]
    fn the_description_is_an_equivalent_configuration() {
        let text = "\
[[listener]]
name = \"the \\\"web\\\" one\"
address = \"[::1]:7000\"
protocols = [\"ws\", \"http\"]
tls = \"required\"
[tls]
certificate = \"a\\\\b.pem\"
key = \"k\"
[latency]
directory = \"/tmp/x\"
[log]
level = \"debug\"
format = \"json\"
[limits]
patterns_max = 7
patterns_per_session_max = 3
[limits.destination_share_bytes_max]
service = 1000000
[limits.outbound.admin]
soft_ms_max = 8
[performance]
busy_poll = true
socket_send_buffer_bytes = \"64 KiB\"
socket_receive_buffer_bytes = 5000
";
        let path = PathBuf::from("broker.toml");
        let read = |text: &str| {
            let file = ConfigFile::parse(&path, text).unwrap();
            Config::resolve(Some((path.clone(), file)), &Overrides::default(), &|_| None).unwrap()
        };
        let core = crate::cores::Cores::of_this_thread().unwrap().numbers()[0];
        let config = read(&format!("{text}core = {core}\n"));
        let description = describe(&config);
        let without_keys: String = description
            .lines()
            .filter(|line| !line.contains("****"))
            .fold(String::new(), |text, line| text + line + "\n");
        let described = read(&without_keys);
        // All but the line numbers.
        let described = Config {
            tls_places: config.tls_places.clone(),
            latency_place: config.latency_place.clone(),
            ..described
        };
        assert_eq!(described, config, "{description}");
    }
}
