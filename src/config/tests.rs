//! Arguments, environment and file together.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::profile::Profile;
use crate::transport::TlsMode;

const OWN_KEYS: &str = "[keys]\napplication = \"own-app\"\nagent = \"own-agent\"\n\
    super_agent = \"own-super\"\nservice = \"own-service\"\nadmin = \"own-admin\"\n";

const EXPOSED: &str = "[[listener]]\naddress = \"0.0.0.0:6661\"\ntls = \"off\"\n";

fn resolve_with(
    text: &str,
    overrides: &Overrides,
    environment: &[(&str, &str)],
) -> Result<Config, ConfigFault> {
    let path = Path::new("etc/broker.toml");
    let file = ConfigFile::parse(path, text)?;
    let environment = |name: &str| {
        environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    };
    let result = Config::resolve(Some((path.into(), file)), overrides, &environment);
    assert_shows_no_key(&result);
    result
}

fn resolve(text: &str) -> Result<Config, ConfigFault> {
    resolve_with(text, &Overrides::default(), &[])
}

fn fault(text: &str) -> String {
    resolve(text).unwrap_err().to_string()
}

#[test]
fn rights_that_match_no_destination_are_refused() {
    for none in ["/topics/>", "topic/a", "news", "/topic", "*", "/*", "/news.>", "STOMP-SERVER"] {
        let fault = fault(&format!("[rights.agent]\nsend = [\"/topic/>\", {none:?}]\n"));
        let expected = format!("etc/broker.toml:2: rights.agent.send: {none:?} stands for no ");
        assert!(fault.starts_with(&expected) && fault.contains("/queue/"), "{fault}");
    }
    for some in [">", "/>", "*/>", "/*/ana", "/agent/>", "/admin/a.*", "/topic.a", "/queue/a"] {
        let text = format!("[rights.service]\nsend = [{some:?}]\n");
        assert!(resolve(&text).is_ok(), "{some}");
        let subscribed = resolve(&text.replace("send", "subscribe"));
        let is_of_clients = some.starts_with("/a");
        assert_eq!(subscribed.is_err(), is_of_clients, "{some}");
    }
    let fault = fault("[rights.agent]\nsubscribe = [\"/agent/>\"]\n");
    let expected =
        "etc/broker.toml:2: rights.agent.subscribe: \"/agent/>\" stands for no topic and no";
    assert!(fault.starts_with(expected), "{fault}");
}

fn listen(address: &str) -> Overrides {
    Overrides { listen: vec![address.into()], ..Overrides::default() }
}

fn assert_shows_no_key(result: &Result<Config, ConfigFault>) {
    let shown = match result {
        Ok(config) => format!("{config:?}{}", config.describe()),
        Err(fault) => format!("{fault:?}{fault}"),
    };
    for secret in keys::well_known_keys().chain(["own-", "env-", "file-"]) {
        assert!(!shown.contains(secret), "{shown}");
    }
}

/// A directory with files, removed after the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, files: &[(&str, &[u8])]) -> Self {
        let name = format!("com-broker-config-{}-{name}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
        Self(directory)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn without_settings_there_is_development_mode_on_loopback() {
    let config = Config::resolve(None, &Overrides::default(), &|_| None).unwrap();
    let addresses: Vec<_> = config.listeners.iter().map(|l| l.address.to_string()).collect();
    assert_eq!(addresses, ["127.0.0.1:6661", "127.0.0.1:6662"]);
    assert!(config.listeners.iter().all(|listener| listener.policy == Default::default()));
    assert!(config.keys_are_development && config.is_development());
    assert!(config.keys.opens_application(DEVELOPMENT_APPLICATION_KEY.as_bytes()));
    assert_eq!(config.tls, Some(TlsSource::Development { directory: "certs".into() }));
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.log.level, log::LevelFilter::Info);
    assert_eq!(config.path(), None);
}

#[test]
fn listeners_are_those_of_the_first_source_that_has_any() {
    let text = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:1\"\nprotocols = [\"ws\"]\n\
        tls = \"required\"\n";
    let config = resolve(text).unwrap();
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].name.as_deref(), Some("web"));
    assert_eq!(config.listeners[0].policy.tls, TlsMode::Required);
    let protocols = config.listeners[0].policy.protocols;
    assert!(protocols.ws && !protocols.classic && !protocols.stomp && !protocols.http);
    let config = resolve_with(text, &listen("[::1]:2"), &[]).unwrap();
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].name, None);
    assert_eq!(config.listeners[0].policy, Default::default());
}

#[test]
fn bad_listeners_are_refused_with_their_line() {
    for (text, expected) in [
        (
            "[[listener]]\naddress = \"localhost:1\"\n",
            "etc/broker.toml:2: listener[0].address: not",
        ),
        ("[[listener]]\naddress = \"127.0.0.1\"\n", "etc/broker.toml:2: listener[0].address: not"),
        ("[[listener]]\ntls = \"off\"\n", "etc/broker.toml:1: listener[0].address: missing"),
        ("listener = []\n", "etc/broker.toml:1: listener: there is no"),
        (
            "[[listener]]\naddress = \"127.0.0.1:1\"\nprotocols = []\n",
            "etc/broker.toml:3: listener[0].protocols: ",
        ),
        (
            "[[listener]]\naddress = \"127.0.0.1:1\"\n[[listener]]\naddress = \"127.0.0.1:1\"\n",
            "etc/broker.toml:4: listener[1].address: 127.0.0.1:1 is listed twice",
        ),
        (
            "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:1\"\n\
             [[listener]]\naddress = \"127.0.0.1:2\"\nname = \"web\"\n",
            "etc/broker.toml:6: listener[1].name: another listener is called \"web\" already",
        ),
    ] {
        let fault = fault(text);
        assert!(fault.starts_with(expected), "{fault}");
    }
    let fault = resolve_with("", &listen("localhost:1"), &[]).unwrap_err().to_string();
    assert!(fault.starts_with("--listen: not an address"), "{fault}");
    let both = Overrides { listen: vec!["[::1]:0".into(), "[::1]:0".into()], ..Default::default() };
    assert_eq!(resolve_with("", &both, &[]).unwrap().listeners.len(), 2);
}

#[test]
fn keys_come_from_the_environment_then_the_file() {
    let config = resolve(OWN_KEYS).unwrap();
    assert!(!config.keys_are_development);
    assert_eq!(config.keys.profile_of(b"own-agent"), Some(Profile::Agent));
    let environment = [("COM_BROKER_KEY_AGENT", "env-agent")];
    let config = resolve_with(OWN_KEYS, &Overrides::default(), &environment).unwrap();
    assert_eq!(config.keys.profile_of(b"env-agent"), Some(Profile::Agent));
    assert_eq!(config.keys.profile_of(b"own-agent"), None);
    assert_eq!(config.keys.profile_of(b"own-admin"), Some(Profile::Admin));
}

#[test]
fn keys_may_stand_in_files_beside_the_configuration() {
    let scratch = Scratch::new("files", &[("agent", b"file-agent\r\n"), ("admin", b"file-admin")]);
    let path = scratch.0.join("broker.toml");
    let text = OWN_KEYS
        .replace("agent = \"own-agent\"", "agent_file = \"agent\"")
        .replace("admin = \"own-admin\"", "admin_file = \"admin\"");
    let file = ConfigFile::parse(&path, &text).unwrap();
    let config = Config::resolve(Some((path, file)), &Overrides::default(), &|_| None).unwrap();
    assert_eq!(config.keys.profile_of(b"file-agent"), Some(Profile::Agent));
    assert_eq!(config.keys.profile_of(b"file-admin"), Some(Profile::Admin));
}

#[test]
fn files_that_are_not_a_key_are_refused() {
    let scratch = Scratch::new("bad", &[("large", &[b'x'; 5000]), ("binary", b"file-\xff")]);
    for (name, expected) in [
        ("large", "too large: more than 4096 bytes"),
        ("binary", "not UTF-8 text"),
        ("absent", "there is no such file; its name is not shown"),
    ] {
        let path = scratch.0.join(name);
        let line = format!("agent_file = {:?}", path.to_str().unwrap());
        let fault = fault(&OWN_KEYS.replace("agent = \"own-agent\"", &line));
        assert!(fault.starts_with("etc/broker.toml:3: keys.agent_file: "), "{fault}");
        assert!(fault.contains(expected), "{fault}");
    }
}

#[test]
fn bad_keys_are_refused_with_their_line() {
    for (from, to, expected) in [
        (
            "agent = \"own-agent\"\n",
            "",
            "etc/broker.toml:1: keys: some keys are set but not agent;",
        ),
        ("own-agent", "own.agent", "etc/broker.toml:3: keys.agent: the agent key holds a colon"),
        ("own-agent", "", "etc/broker.toml:3: keys.agent: the agent key is empty"),
        ("own-service", "own-agent", "etc/broker.toml:5: keys.service: the agent key and the"),
        ("own-app", "own-agent", "etc/broker.toml:3: keys.agent: the application key and the"),
        ("own-app", "own-admin", "etc/broker.toml:6: keys.admin: the application key and the"),
        (
            "admin = ",
            "admin_file = \"x\"\nadmin = ",
            "etc/broker.toml:6: keys.admin_file: the key and the file that holds it are both given",
        ),
    ] {
        let fault = fault(&OWN_KEYS.replacen(from, to, 1));
        assert!(fault.starts_with(expected), "{fault}");
    }
    let environment = [("COM_BROKER_KEY_ADMIN", "")];
    let fault = resolve_with(OWN_KEYS, &Overrides::default(), &environment).unwrap_err();
    assert_eq!(fault.to_string(), "COM_BROKER_KEY_ADMIN: the admin key is empty");
}

#[test]
fn well_known_keys_are_for_loopback_addresses() {
    let fault = fault(EXPOSED);
    assert!(fault.starts_with("etc/broker.toml: keys: no keys are set"), "{fault}");
    assert!(fault.contains("0.0.0.0:6661") && fault.contains("COM_BROKER_KEY_ADMIN"), "{fault}");
    let exposed = format!("{OWN_KEYS}{EXPOSED}");
    resolve(&exposed).unwrap();
    for known in keys::well_known_keys() {
        // From every source, and in every role.
        let in_file = exposed.replace("own-service", known);
        let fault = resolve(&in_file).unwrap_err().to_string();
        assert!(fault.starts_with("etc/broker.toml:5: keys.service: this is a well"), "{fault}");
        let environment = [("COM_BROKER_KEY_AGENT", known)];
        let fault = resolve_with(&exposed, &Overrides::default(), &environment).unwrap_err();
        assert!(fault.to_string().starts_with("COM_BROKER_KEY_AGENT: this is a well"), "{fault}");
        resolve(&OWN_KEYS.replace("own-service", known)).unwrap();
    }
    let fault = resolve_with("", &listen("192.0.2.1:0"), &[]).unwrap_err().to_string();
    assert!(fault.contains("192.0.2.1:0 is not a loopback address"), "{fault}");
    for loopback in ["127.9.9.9:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
        resolve_with("", &listen(loopback), &[]).unwrap();
    }
}

#[test]
fn a_listener_that_others_reach_needs_a_certificate_or_no_tls() {
    let text = format!("{OWN_KEYS}{}", EXPOSED.replace("off", "optional"));
    let fault = fault(&text);
    assert!(fault.starts_with("etc/broker.toml: tls: no certificate is set"), "{fault}");
    let config = resolve(&format!("{text}[tls]\ncertificate = \"c\"\nkey = \"/k\"\n")).unwrap();
    let files = TlsSource::Files { certificate: "etc/c".into(), key: "/k".into() };
    assert_eq!(config.tls, Some(files));
    assert!(!config.is_development());
    assert_eq!(resolve(&format!("{OWN_KEYS}{EXPOSED}")).unwrap().tls, None);
}

#[test]
fn certificate_and_key_belong_together() {
    let fault = fault("\n[tls]\ncertificate = \"c\"\n");
    assert!(fault.starts_with("etc/broker.toml:2: tls: the certificate"), "{fault}");
    let overrides = Overrides { tls_key: Some("k".into()), ..Default::default() };
    let fault = resolve_with("", &overrides, &[]).unwrap_err().to_string();
    assert!(fault.starts_with("--tls-key: ") && fault.ends_with("certificate is missing"));
    let config = resolve_with("[tls]\ncertificate = \"c\"\n", &overrides, &[]).unwrap();
    let files = TlsSource::Files { certificate: "etc/c".into(), key: "k".into() };
    assert_eq!(config.tls, Some(files));
}

#[test]
fn development_mode_is_all_or_nothing() {
    let development = Overrides { development: true, ..Default::default() };
    resolve_with("", &development, &[]).unwrap();
    for (text, expected) in [
        (OWN_KEYS, "--dev: development mode was asked for, but"),
        ("[tls]\ncertificate = \"c\"\nkey = \"k\"\n", "--dev: development mode was asked for, but"),
        (EXPOSED, "--dev: development keys and certificates are for loopback addresses"),
    ] {
        let fault = resolve_with(text, &development, &[]).unwrap_err().to_string();
        assert!(fault.starts_with(expected), "{fault}");
    }
}

#[test]
fn bad_limits_are_refused_with_their_line() {
    let zero = fault("\n[limits]\npatterns_max = 5\nconnections_max = 0\n");
    assert_eq!(zero, "etc/broker.toml:4: limits.connections_max: must not be zero");
    let soft = fault("[limits.outbound.agent]\nsoft_bytes_max = \"9 MiB\"\n");
    assert!(soft.starts_with("etc/broker.toml:2: limits.outbound.agent.soft_bytes_max: 9437184"));
}

#[test]
fn settings_for_latency_are_off_by_default() {
    let config = resolve("").unwrap();
    assert_eq!(config.performance, Performance::default());
    let core = *crate::cores::Cores::of_this_thread().unwrap().numbers().last().unwrap();
    let text = format!(
        "[performance]\nbusy_poll = true\ncore = {core}\nsocket_send_buffer_bytes = \"1 MiB\"\n\
         socket_receive_buffer_bytes = 8192\n"
    );
    let expected = Performance {
        busy_poll: true,
        core: Some(core),
        socket_busy_poll_us: 0,
        socket_send_buffer_bytes: 1 << 20,
        socket_receive_buffer_bytes: 8192,
    };
    assert_eq!(resolve(&text).unwrap().performance, expected);
}

#[cfg(target_os = "linux")]
#[test]
fn the_kernel_polls_devices_for_a_second_at_most() {
    let config = resolve("[performance]\nsocket_busy_poll_us = 1_000_000\n").unwrap();
    assert_eq!(config.performance.socket_busy_poll_us, 1_000_000);
    for (us, shown) in [("1_000_001", "1000001"), ("5_000_000_000", "5000000000")] {
        let fault = fault(&format!("[performance]\nsocket_busy_poll_us = {us}\n"));
        let expected =
            format!("etc/broker.toml:2: performance.socket_busy_poll_us: {shown} is more");
        assert!(fault.starts_with(&expected), "{fault}");
    }
}

#[cfg(not(target_os = "linux"))]
#[test]
fn the_kernel_polls_devices_only_where_it_can() {
    resolve("[performance]\nsocket_busy_poll_us = 0\n").unwrap();
    let fault = fault("[performance]\nsocket_busy_poll_us = 50\n");
    assert!(fault.starts_with("etc/broker.toml:2: performance.socket_busy_poll_us: only Linux"));
}

#[test]
fn what_cannot_be_done_for_latency_is_refused_on_its_line() {
    for (line, expected) in [
        ("busy_poll = 1", "busy_poll: invalid type: integer"),
        ("core = 99_999", "core: there is no core 99999 that the broker may run on; there are "),
        ("core = -1", "core: "),
        ("socket_busy_poll_us = \"fast\"", "socket_busy_poll_us: "),
        (
            "socket_send_buffer_bytes = 4095",
            "socket_send_buffer_bytes: 4095 is less than 4096, 4 KiB",
        ),
        (
            "socket_receive_buffer_bytes = \"2 GiB\"",
            "socket_receive_buffer_bytes: 2147483648 is more than 1073741824, 1 GiB",
        ),
        ("spin = true", "spin: there is no such setting"),
    ] {
        let fault = fault(&format!("\n[performance]\n{line}\n"));
        let expected = format!("etc/broker.toml:3: performance.{expected}");
        assert!(fault.starts_with(&expected), "{fault}");
    }
}

#[test]
fn arguments_override_the_file() {
    let text = "[latency]\ndirectory = \"l\"\n[log]\nformat = \"json\"\nlevel = \"error\"\n";
    let config = resolve(text).unwrap();
    assert_eq!(config.latency_directory, Some("etc/l".into()));
    let log = LogOptions { format: LogFormat::Json, level: log::LevelFilter::Error };
    assert_eq!(config.log, log);
    let overrides = Overrides {
        latency_directory: Some("m".into()),
        log_format: Some(LogFormat::Plain),
        log_level: Some(LogLevel::Off),
        ..Default::default()
    };
    let config = resolve_with(text, &overrides, &[]).unwrap();
    assert_eq!(config.latency_directory, Some("m".into()));
    let log = LogOptions { format: LogFormat::Plain, level: log::LevelFilter::Off };
    assert_eq!(config.log, log);
}

#[test]
fn secrets_are_read_again_under_the_same_rules() {
    let text = format!("{OWN_KEYS}{EXPOSED}");
    let scratch = Scratch::new("reload", &[("broker.toml", text.as_bytes())]);
    let path = scratch.0.join("broker.toml");
    let file = ConfigFile::load(&path).unwrap();
    let config =
        Config::resolve(Some((path.clone(), file)), &Overrides::default(), &|_| None).unwrap();

    fs::write(&path, text.replace("own-agent", "own-new")).unwrap();
    let secrets = config.reload_secrets(&|_| None, config.held).unwrap().unwrap();
    assert_eq!(secrets.keys.profile_of(b"own-new"), Some(Profile::Agent));

    // The rules apply to the listeners that are open, whatever the file has now.
    fs::write(&path, "").unwrap();
    let fault = config.reload_secrets(&|_| None, config.held).unwrap().unwrap_err().to_string();
    assert!(fault.contains("0.0.0.0:6661 is not a loopback address"), "{fault}");
    fs::write(&path, text.replace("own-agent", DEVELOPMENT_PROFILE_KEYS[Profile::Agent])).unwrap();
    let fault = config.reload_secrets(&|_| None, config.held).unwrap().unwrap_err().to_string();
    assert!(fault.contains("broker.toml:3: keys.agent: this is a well-known"), "{fault}");
    assert!(!fault.contains(DEVELOPMENT_PROFILE_KEYS[Profile::Agent]), "{fault}");
    fs::remove_file(&path).unwrap();
    config.reload_secrets(&|_| None, config.held).unwrap().unwrap_err();
}

#[test]
fn a_reload_reports_the_tables_that_it_does_not_apply() {
    let text = format!("{OWN_KEYS}[[listener]]\naddress = \"127.0.0.1:1\"\ntls = \"off\"\n");
    let scratch = Scratch::new("unapplied", &[("broker.toml", text.as_bytes())]);
    let path = scratch.0.join("broker.toml");
    let file = ConfigFile::load(&path).unwrap();
    let config =
        Config::resolve(Some((path.clone(), file)), &Overrides::default(), &|_| None).unwrap();
    let unapplied = |now: &str| {
        fs::write(&path, now).unwrap();
        config.reload_secrets(&|_| None, config.held).unwrap().unwrap().unapplied
    };
    assert_eq!(unapplied(&text.replace("own-agent", "own-new")), Unapplied::Nothing);
    for (tables, added) in [
        (vec!["listener"], "[[listener]]\naddress = \"127.0.0.1:2\"\ntls = \"off\"\n"),
        (vec!["limits"], "[limits]\nconnections_max = 7\n"),
        (vec!["performance", "log"], "[performance]\nbusy_poll = true\n[log]\nlevel = \"off\"\n"),
        (vec!["rights"], "[rights.agent]\nsend = []\n"),
        (vec!["stomp"], "[stomp]\nvirtual_hosts = [\"a\"]\n"),
        (vec!["queues"], "[queues]\ndead_letter_queue = \"/queue/a\"\n"),
        (vec!["latency"], "[latency]\ndirectory = \"l\"\n"),
    ] {
        assert_eq!(unapplied(&format!("{text}{added}")), Unapplied::Tables(tables));
    }
    // The secrets are valid, but the next start would fail.
    let Unapplied::Refused(fault) = unapplied(&format!(
        "{text}[limits]\npatterns_max = 1\n\
        connections_max = 0\n"
    )) else {
        panic!("a limit of zero is refused")
    };
    assert!(fault.to_string().ends_with("limits.connections_max: must not be zero"), "{fault}");
}

#[test]
fn a_secret_in_place_of_the_name_of_its_file_is_not_shown() {
    let text = OWN_KEYS.replacen("application = ", "application_file = ", 1);
    let scratch = Scratch::new("misplaced", &[("broker.toml", text.as_bytes())]);
    let path = scratch.0.join("broker.toml");
    let file = ConfigFile::load(&path).unwrap();
    let fault =
        Config::resolve(Some((path.clone(), file)), &Overrides::default(), &|_| None).unwrap_err();
    let fault = fault.to_string();
    assert!(
        fault.contains("broker.toml:2: keys.application_file: there is no such file"),
        "{fault}"
    );
    assert!(!fault.contains("own-app"), "{fault}");
    // Nor if it has a slash or a dot, goes through a file, or is too long for a name.
    let long = "s3cret".repeat(100);
    for secret in ["s3/cret", "/s3cret==/s3cret", "s3cret.7", "broker.toml/s3cret", &long] {
        let text = text.replace("own-app", secret);
        let file = ConfigFile::parse(&path, &text).unwrap();
        let file = Some((path.clone(), file));
        let fault = Config::resolve(file, &Overrides::default(), &|_| None).unwrap_err();
        let fault = format!("{fault} {fault:?}");
        assert!(fault.contains(":2: keys.application_file: "), "{fault}");
        assert!(!fault.contains("cret"), "{fault}");
    }
    // A file that is there and cannot be read has another reason.
    fs::create_dir(scratch.0.join("own-app")).unwrap();
    let path = scratch.0.join("broker.toml");
    let file = ConfigFile::load(&path).unwrap();
    let fault = Config::resolve(Some((path, file)), &Overrides::default(), &|_| None).unwrap_err();
    assert!(fault.to_string().ends_with("own-app: a directory, and not a regular file"), "{fault}");
}

#[test]
fn a_reload_does_not_replace_own_secrets_by_well_known_ones() {
    let certificate = "[tls]\ncertificate = \"c\"\nkey = \"k\"\n";
    let text = format!("{OWN_KEYS}{certificate}");
    let scratch = Scratch::new("held", &[("broker.toml", text.as_bytes())]);
    let path = scratch.0.join("broker.toml");
    let load = || {
        let file = ConfigFile::load(&path).unwrap();
        Config::resolve(Some((path.clone(), file)), &Overrides::default(), &|_| None).unwrap()
    };
    let config = load();
    assert_eq!(config.held, Held { own_keys: true, own_certificate: true, some_own_keys: true });
    let known = text.replace("own-agent", DEVELOPMENT_PROFILE_KEYS[Profile::Agent]);
    for (now, expected) in [
        ("", "broker.toml: keys: these would be the development keys"),
        (&known, "broker.toml:3: keys.agent: these would be the development keys"),
        (OWN_KEYS, "broker.toml: tls: no certificate is set, and the broker runs with one"),
    ] {
        fs::write(&path, now).unwrap();
        let fault = config.reload_secrets(&|_| None, config.held).unwrap().unwrap_err().to_string();
        assert!(fault.contains(expected), "{fault}");
        assert!(fault.ends_with("start it again"), "{fault}");
    }
    // A mixture of own and well-known keys may stay, but not give way to all well-known ones.
    fs::write(&path, &known).unwrap();
    let mixed = load();
    assert!(!mixed.held.own_keys && mixed.held.some_own_keys);
    mixed.reload_secrets(&|_| None, mixed.held).unwrap().unwrap();
    fs::write(&path, certificate).unwrap();
    let fault = mixed.reload_secrets(&|_| None, mixed.held).unwrap().unwrap_err().to_string();
    assert!(fault.contains("keys: these would be the development keys"), "{fault}");
    // A restart does, and after it a reload can lead to own keys, but not back.
    fs::write(&path, "").unwrap();
    let config = load();
    assert_eq!(config.held, Held::default());
    fs::write(&path, OWN_KEYS).unwrap();
    let secrets = config.reload_secrets(&|_| None, config.held).unwrap().unwrap();
    fs::write(&path, "").unwrap();
    config.reload_secrets(&|_| None, secrets.held).unwrap().unwrap_err();
}

#[test]
fn a_file_with_keys_that_others_can_read_is_noticed() {
    use std::os::unix::fs::PermissionsExt;

    let scratch = Scratch::new("exposed", &[("agent", b"file-agent"), ("broker.toml", b"")]);
    let path = scratch.0.join("broker.toml");
    let exposed = |text: &str, modes: [u32; 2]| {
        fs::write(&path, text).unwrap();
        for (name, mode) in ["broker.toml", "agent"].into_iter().zip(modes) {
            fs::set_permissions(scratch.0.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let file = ConfigFile::load(&path).unwrap();
        let config =
            Config::resolve(Some((path.clone(), file)), &Overrides::default(), &|_| None).unwrap();
        let names = config.exposures.iter().map(|one| one.path.file_name().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    let text = OWN_KEYS.replace("agent = \"own-agent\"", "agent_file = \"agent\"");
    assert!(exposed(&text, [0o600, 0o600]).is_empty());
    assert_eq!(exposed(&text, [0o600, 0o640]), ["agent"]);
    assert_eq!(exposed(&text, [0o644, 0o604]), ["agent", "broker.toml"]);
    // A configuration without a key is not secret.
    assert!(exposed("[log]\nlevel = \"info\"\n", [0o644, 0o644]).is_empty());
}

#[test]
fn a_misspelt_name_is_refused_with_a_suggestion() {
    for (text, expected) in [
        (
            "[limits]\nbody_byte_max = 5\n",
            "limits.body_byte_max: there is no such setting; did you mean body_bytes_max?",
        ),
        (
            "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = []\n",
            "listener[0].protocol: there is no such setting; did you mean protocols?",
        ),
        (
            "body_bytes_max = 5\n",
            "body_bytes_max: there is no such setting; did you mean limits.body_bytes_max?",
        ),
        ("[limit]\nbody_bytes_max = 5\n", "limit: there is no such setting; did you mean limits?"),
        (
            "[limits.outbound.agnt]\nsoft_ms_max = 5\n",
            "limits.outbound.agnt: there is no such setting; did you mean agent?",
        ),
        ("[log]\nxyz = 5\n", "log.xyz: there is no such setting; known are format, level"),
        (
            "[limits.queue_share_bytes_max]\nroot = 1\n",
            "root: there is no such setting; known are admin, agent, service, super_agent",
        ),
        (
            "[limits]\nwildcards_per_session_max = { default = 1 }\n",
            "default: there is no such setting; known are admin, agent, service, super_agent",
        ),
        (
            "[limits.outbound]\nhard_bytes_max = 5\n",
            "hard_bytes_max: there is no such setting; did you mean outbound.PROFILE.hard_bytes_max?",
        ),
        (
            "queue_share_bytes_max = 5\n",
            "there is no such setting; did you mean limits.queue_share_bytes_max?",
        ),
        (
            "[keys]\nagnet = \"own-x\"\n",
            "keys: not a key that exists, or not text in quotes; known are application, agent, super_agent, service, admin, and each of them with _file; did you mean agent?",
        ),
    ] {
        let fault = fault(text);
        assert!(fault.ends_with(expected), "{fault}");
        assert_eq!(fault.lines().count(), 1);
    }
}

#[test]
fn a_value_of_another_form_is_refused_at_its_key() {
    for (text, expected) in [
        (
            "[limits]\nturn_units_max = { agent = 1 }\n",
            "2: limits.turn_units_max: a table where one value",
        ),
        ("[limits.pause_ms_max]\n", "1: limits.pause_ms_max: a table where one value belongs"),
        (
            "[limits.queue_share_bytes_max.agent]\nx = 1\n",
            "queue_share_bytes_max.agent: a table where",
        ),
        (
            "[limits]\noutbound = 5\n",
            "2: limits.outbound: invalid type: integer `5`, expected a table by profile",
        ),
        (
            "[limits.outbound]\nagent = 5\n",
            "2: limits.outbound.agent: invalid type: integer `5`, expected a table with",
        ),
        (
            "[limits]\nwildcards_per_session_max = 99999999999999999999\n",
            "2: limits.wildcards_per_session_max: ",
        ),
        ("[limits]\ntransaction_bytes_max = 0\n", "2: limits.transaction_bytes_max: "),
    ] {
        let fault = fault(text);
        assert!(fault.contains(expected), "{fault}");
        assert!(!fault.contains("i128") && !fault.contains("struct"), "{fault}");
    }
}

#[test]
fn a_variable_that_names_no_key_is_refused() {
    let check = |name: &str| {
        let names = ["PATH", "COM_BROKER_PORT", "COM_BROKER_KEY_ADMIN", name];
        check_key_variables(names.into_iter().map(String::from))
    };
    check("COM_BROKER_KEY_SUPER_AGENT").unwrap();
    let fault = check("COM_BROKER_KEY_AGNET").unwrap_err().to_string();
    assert_eq!(
        fault,
        "COM_BROKER_KEY_AGNET: no key is set by this variable; did you mean COM_BROKER_KEY_AGENT?"
    );
}

#[test]
fn hosts_and_names_are_not_blank() {
    for (text, expected) in [
        (
            "[stomp]\nvirtual_hosts = [\"a\", \"\"]\n",
            "etc/broker.toml:2: stomp.virtual_hosts[1]: not a host",
        ),
        (
            "[stomp]\nvirtual_hosts = [\"a b\"]\n",
            "etc/broker.toml:2: stomp.virtual_hosts[0]: not a host",
        ),
        (
            "[[listener]]\nname = \" \"\naddress = \"127.0.0.1:0\"\n",
            "etc/broker.toml:2: listener[0].name: a name needs",
        ),
    ] {
        let fault = fault(text);
        assert!(fault.starts_with(expected), "{fault}");
    }
}

#[test]
fn a_dead_letter_queue_that_nobody_could_consume_is_refused() {
    let path = Path::new("b.toml");
    let resolve = |text: &str| {
        let file = ConfigFile::parse(path, text).unwrap();
        Config::resolve(Some((path.into(), file)), &Overrides::default(), &|_| None)
    };
    let queue = |letters: usize| {
        format!("[queues]\ndead_letter_queue = \"/queue/{}\"\n", "d".repeat(letters))
    };
    resolve(&queue(4096 - "/queue/".len())).unwrap();
    let services = "[rights.super_agent]\nsubscribe = []\n[rights.admin]\nsubscribe = []\n";
    resolve(&(queue(4) + services)).unwrap();
    let nobody = "[rights.service]\nsubscribe = [\"/queue/other\", \"/topic/>\"]\n";
    for (text, expected) in [
        (queue(4096), "b.toml:2: queues.dead_letter_queue: longer than the 4096 bytes"),
        (
            queue(4) + services + nobody,
            "b.toml:2: queues.dead_letter_queue: no profile may subscribe to this queue",
        ),
    ] {
        let fault = resolve(&text).unwrap_err().to_string();
        assert!(fault.starts_with(expected), "{fault}");
    }
}

#[test]
fn keys_in_part_are_told_with_the_variables_that_are_set() {
    for (value, expected) in [
        (
            "s3cret",
            "keys: some keys are set but not application, super_agent, service, admin; COM_BROKER_KEY_AGENT is set in \
             the environment; set all five",
        ),
        (
            "",
            "keys: some keys are set but not application, super_agent, service, admin; COM_BROKER_KEY_AGENT is set in \
             the environment, and is empty; set all five",
        ),
    ] {
        let environment = |name: &str| (name == "COM_BROKER_KEY_AGENT").then(|| value.to_owned());
        let fault = Config::resolve(None, &Overrides::default(), &environment).unwrap_err();
        assert!(fault.to_string().starts_with(expected), "{fault}");
        assert!(!format!("{fault:?}").contains("s3cret"));
    }
}

#[test]
fn a_fault_of_several_bounds_is_told_at_one_that_is_set() {
    let path = Path::new("b.toml");
    for (text, expected) in [
        (
            "body_bytes_max = \"64 MiB\"",
            "b.toml:2: limits.body_bytes_max: needs more room, set these as well: \
             limits.outbound.agent.hard_bytes_max (now 8 MiB), limits.outbound.super_agent.hard_bytes_max (now 8 MiB), \
             limits.outbound.service.hard_bytes_max (now 32 MiB), limits.outbound.admin.hard_bytes_max (now 32 MiB), \
             each at least 65552 KiB",
        ),
        (
            "subscription_id_bytes_max = \"16 KiB\"\nsubscriptions_max = 4_294_967_295\n\
             patterns_max = 4_294_967_295\npattern_compiled_bytes_max = 4_294_967_295",
            "b.toml:4: limits.patterns_max: patterns_max × (pattern_compiled_bytes_max + 4 × pattern_bytes_max + 1 KiB) \
             is more than 256 TiB",
        ),
        (
            "pattern_compiled_bytes_max = 4_294_967_295\nqueues_bytes_max = \"256 TiB\"\npatterns_max = 65_537",
            "b.toml:4: limits.patterns_max: patterns_max × (pattern_compiled_bytes_max + 4",
        ),
    ] {
        let file = ConfigFile::parse(path, &format!("[limits]\n{text}\n")).unwrap();
        let file = Some((path.into(), file));
        let fault = Config::resolve(file, &Overrides::default(), &|_| None).unwrap_err();
        assert!(fault.to_string().starts_with(expected), "{fault}");
    }
}

#[test]
fn bounds_that_contradict_a_default_are_at_fault_themselves() {
    let path = Path::new("b.toml");
    for (text, expected) in [
        ("header_bytes_max = 100", "b.toml:2: limits.header_bytes_max: needs limits.destination_"),
        (
            "turn_units_max = 320",
            "b.toml:2: limits.turn_units_max: needs limits.share_units_max of at most 320, and that is 800",
        ),
        (
            "login_frame_bytes_max = 10",
            "b.toml:2: limits.login_frame_bytes_max: needs limits.login_id_bytes_max of at most 10 bytes",
        ),
        (
            "[limits.outbound.admin]\nhard_bytes_max = \"1 GiB\"",
            "b.toml:3: limits.outbound.admin.hard_bytes_max: needs limits.outbound_total_bytes_max of at least",
        ),
        (
            "transaction_bytes_max.service = \"65 MiB\"",
            "b.toml:2: limits.transaction_bytes_max.service: needs limits.transactions_total_bytes_max",
        ),
        (
            "body_bytes_max = \"64 MiB\"\n[limits.outbound.agent]\nhard_bytes_max = \"1 MiB\"",
            "b.toml:4: limits.outbound.agent.hard_bytes_max: 1048576 is less than",
        ),
        (
            "login_id_bytes_max = 1\nlogin_frame_bytes_max = 67",
            "b.toml:3: limits.login_frame_bytes_max: 67 is less than 68, what the shortest CONNECT takes with",
        ),
        (
            "header_count_max = 1",
            "b.toml:2: limits.header_count_max: 1 is less than 2, the header lines of the shortest CONNECT",
        ),
        (
            "upgrade_bytes_max = 1",
            "b.toml:2: limits.upgrade_bytes_max: 1 is less than 135, what the shortest request for a WebSocket",
        ),
        (
            "transactions_total_bytes_max = \"1 MiB\"",
            "b.toml:2: limits.transactions_total_bytes_max: 1048576 is less than 8388608, what one",
        ),
    ] {
        let file = ConfigFile::parse(path, &format!("[limits]\n{text}\n")).unwrap();
        let file = Some((path.into(), file));
        let fault = Config::resolve(file, &Overrides::default(), &|_| None).unwrap_err();
        assert!(fault.to_string().starts_with(expected), "{fault}");
    }
}
