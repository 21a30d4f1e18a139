//! A broker in a process of its own: configured, started on free ports, observed through its log, and
//! ended with the test.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Directory, PATIENCE};

/// The application key of all brokers.
pub(crate) const APPLICATION_KEY: &str = "it-application-8c1fd0";

/// The profile keys of all brokers.
pub(crate) const PROFILE_KEYS: [(&str, &str); 4] = [
    ("agent", "it-agent-57ab3e"),
    ("super_agent", "it-super-agent-c0ffee"),
    ("service", "it-service-91d2b4"),
    ("admin", "it-admin-e4a771"),
];

/// The settings of a broker.
pub(crate) struct Setup {
    directory: Directory,
    listeners: String,
    listeners_len: usize,
    limits: String,
    outbound: String,
    keys: [String; 5],
    has_keys: bool,
    tls: &'static str,
    sections: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    descriptors_max: Option<u32>,
}

impl Setup {
    /// One listener on loopback for all protocols, with default limits.
    pub(crate) fn new() -> Self {
        let mut keys = vec![APPLICATION_KEY.to_owned()];
        keys.extend(PROFILE_KEYS.map(|(_, key)| key.to_owned()));
        Self {
            directory: Directory::new(),
            listeners: String::new(),
            listeners_len: 0,
            limits: String::new(),
            outbound: String::new(),
            keys: keys.try_into().unwrap(),
            has_keys: true,
            tls: "development_directory = \"certs\"",
            sections: String::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            descriptors_max: None,
        }
    }

    /// Adds a listener: the lines of its table, without the address.
    pub(crate) fn listener(mut self, lines: &str) -> Self {
        writeln!(self.listeners, "[[listener]]\naddress = \"127.0.0.1:0\"\n{lines}").unwrap();
        self.listeners_len += 1;
        self
    }

    /// Adds lines to `[limits]`.
    pub(crate) fn limits(mut self, lines: &str) -> Self {
        writeln!(self.limits, "{lines}").unwrap();
        self
    }

    /// Sets the same outbound limits for all profiles.
    pub(crate) fn outbound(mut self, hard_bytes: u32, soft_bytes: u32, soft_ms: u32) -> Self {
        let tables = PROFILE_KEYS.map(|(profile, _)| {
            format!(
                "[limits.outbound.{profile}]\nhard_bytes_max = {hard_bytes}\n\
                 soft_bytes_max = {soft_bytes}\nsoft_ms_max = {soft_ms}\n"
            )
        });
        self.outbound = tables.concat();
        self
    }

    /// Adds whole sections.
    pub(crate) fn sections(mut self, lines: &str) -> Self {
        self.sections.push_str(lines);
        self
    }

    /// Adds lines to `[performance]`.
    pub(crate) fn performance(mut self, lines: &str) -> Self {
        write!(self.sections, "[performance]\n{lines}\n").unwrap();
        self
    }

    /// Sets a directory for latency files below that of the configuration.
    pub(crate) fn latency_files(mut self) -> Self {
        self.sections.push_str("[latency]\ndirectory = \"latency\"\n");
        self
    }

    /// Sets an own certificate, at the path of the development certificate.
    pub(crate) fn own_certificate(mut self) -> Self {
        make_certificates(&self.directory.path().join("certs"));
        self.tls = "certificate = \"certs/server.pem\"\nkey = \"certs/server.key\"";
        self
    }

    /// Sets no keys, so that the broker uses development keys until one is rewritten.
    pub(crate) fn without_keys(mut self) -> Self {
        self.has_keys = false;
        self
    }

    /// Sets an environment variable.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Adds an argument.
    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Bounds the number of descriptors.
    pub(crate) fn descriptors_max(mut self, count: u32) -> Self {
        self.descriptors_max = Some(count);
        self
    }

    /// Starts the broker and waits until it listens.
    pub(crate) fn start(mut self) -> Server {
        if self.listeners_len == 0 {
            self = self.listener("");
        }
        let path = self.config_path();
        fs::write(&path, self.document()).unwrap();
        let mut command = match self.descriptors_max {
            None => Command::new(BINARY),
            Some(count) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!("ulimit -n {count}; exec \"$0\" \"$@\"")).arg(BINARY);
                shell
            }
        };
        command.arg("serve").arg("--config").arg(&path).args(&self.arguments);
        self.run(&mut command)
    }

    /// Starts the broker in an empty directory, without a configuration.
    pub(crate) fn start_unconfigured(mut self) -> Server {
        self.listeners_len = 1;
        let mut command = Command::new(BINARY);
        command.args(["--listen", "127.0.0.1:0"]).args(&self.arguments);
        self.run(&mut command)
    }

    fn run(self, command: &mut Command) -> Server {
        command.current_dir(self.directory.path());
        let mut server = Server::spawn(command, self);
        let wanted = server.setup.listeners_len;
        server.addresses = wait_for("listeners", PATIENCE, || {
            assert_eq!(server.child.try_wait().unwrap(), None, "the broker runs");
            Some(addresses(&server.log.text())).filter(|found| found.len() == wanted)
        });
        server
    }

    fn config_path(&self) -> PathBuf {
        self.directory.path().join("broker.toml")
    }

    fn document(&self) -> String {
        let Self { listeners, limits, outbound, tls, sections, keys, .. } = self;
        let [application, agent, super_agent, service, admin] = keys;
        let keys = format!(
            "[keys]\napplication = \"{application}\"\nagent = \"{agent}\"\n\
             super_agent = \"{super_agent}\"\nservice = \"{service}\"\nadmin = \"{admin}\"\n"
        );
        let keys = if self.has_keys { &keys } else { "" };
        format!(
            "{listeners}\n{keys}\
             [tls]\n{tls}\n{sections}\n[log]\nlevel = \"debug\"\n\
             [limits]\n{limits}\n{outbound}"
        )
    }
}

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_com-broker");

/// A running broker.
pub(crate) struct Server {
    setup: Setup,
    child: Child,
    readers: Vec<JoinHandle<()>>,
    addresses: Vec<SocketAddr>,
    /// Its output.
    pub(crate) log: Log,
}

impl Server {
    /// Starts a broker with defaults.
    pub(crate) fn start() -> Self {
        Setup::new().start()
    }

    fn spawn(command: &mut Command, setup: Setup) -> Self {
        forget_environment(command);
        command.envs(setup.environment.iter().map(|(name, value)| (name, value)));
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Log::default();
        let readers = vec![
            log.follow(child.stdout.take().unwrap()),
            log.follow(child.stderr.take().unwrap()),
        ];
        Self { setup, child, readers, addresses: Vec::new(), log }
    }

    /// The address of the first listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// The addresses of all listeners, in the order of the configuration.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The certificate of the authority that clients trust.
    pub(crate) fn authority(&self) -> PathBuf {
        self.path("certs/ca.pem")
    }

    /// A path relative to the configuration file.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.setup.directory.path().join(relative)
    }

    /// Replaces a key in the configuration.
    pub(crate) fn rewrite_key(&mut self, index: usize, key: &str) {
        self.setup.keys[index] = key.into();
        self.setup.has_keys = true;
        fs::write(self.setup.config_path(), self.setup.document()).unwrap();
    }

    /// Replaces the configuration by malformed text.
    pub(crate) fn break_config(&self) {
        fs::write(self.setup.config_path(), "[keys]\napplication = no quotes\n").unwrap();
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let line = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").arg("-c").arg(line).status().unwrap().success());
    }

    /// Waits until the process has ended and its output is read.
    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        let status = wait_for("the end of the broker", PATIENCE, || self.child.try_wait().unwrap());
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        status
    }

    /// Stops the broker, and returns its counters. All clients have to be disconnected or disconnecting.
    pub(crate) fn stop(mut self) -> Totals {
        self.signal("TERM");
        let status = self.wait_for_exit();
        assert_eq!(status.code(), Some(0), "the exit code after SIGTERM");
        self.totals()
    }

    /// The counters of the broker, once it has ended.
    pub(crate) fn totals(&self) -> Totals {
        let log = self.log.text();
        let line = log.lines().find(|line| line.contains(" totals ")).expect("a line of totals");
        Totals(line.to_owned())
    }

    /// The cores that the thread of the loop may run on, as the kernel lists them.
    pub(crate) fn cores(&self) -> String {
        self.status("Cpus_allowed_list:")
    }

    /// Resident memory of the process, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.status("VmRSS:").trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// CPU time that the process has used, in ticks of the kernel.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // proc(5): utime and stime are the fourteenth and the fifteenth field. The name before them
        // may hold any character.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let times = fields.split_whitespace().skip(11).take(2);
        times.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    /// The environment of the process.
    pub(crate) fn environment(&self) -> String {
        fs::read_to_string(format!("/proc/{}/environ", self.child.id())).unwrap()
    }

    fn status(&self, name: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.child.try_wait().ok().flatten();
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        let log = self.log.text();
        if thread::panicking() {
            eprintln!("--- the broker's output ---\n{log}--- its exit: {ended:?} ---");
            return;
        }
        assert!(!log.contains("panicked"), "the broker panicked:\n{log}");
        assert_shows_no_key(&log, &self.setup.keys);
    }
}

/// Removes variables of the tests' environment that would affect the broker.
pub(crate) fn forget_environment(command: &mut Command) {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("COM_BROKER_")) {
        command.env_remove(name);
    }
}

/// Makes an authority and a certificate, and replaces existing ones.
pub(crate) fn make_certificates(directory: &Path) {
    let mut command = Command::new(BINARY);
    command.args(["certs", "--force", "--directory"]).arg(directory).stdout(Stdio::null());
    assert!(command.status().unwrap().success());
}

/// Checks that no key is shown.
pub(crate) fn assert_shows_no_key(text: &str, keys: &[impl AsRef<str>]) {
    for key in keys {
        assert!(!text.contains(key.as_ref()), "a key is shown:\n{text}");
    }
}

/// The counters in the last line of the log.
pub(crate) struct Totals(String);

impl Totals {
    /// One of the counters.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let prefix = format!("{name}=");
        let value = self.0.split(' ').find_map(|pair| pair.strip_prefix(&prefix));
        value.unwrap_or_else(|| panic!("no {name} in {}", self.0)).parse().unwrap()
    }
}

/// The output of a process so far.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<(Mutex<String>, Condvar)>);

impl Log {
    /// All of it.
    pub(crate) fn text(&self) -> String {
        self.lock().clone()
    }

    /// Waits until a condition holds for it.
    pub(crate) fn wait_for(&self, what: &str, condition: impl Fn(&str) -> bool) {
        let (_, grown) = &*self.0;
        let deadline = Instant::now() + PATIENCE;
        let mut text = self.lock();
        while !condition(&text) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(text);
                panic!("the log never showed {what}");
            }
            text = grown.wait_timeout(text, left).unwrap().0;
        }
    }

    /// Waits for a line that holds all of these texts, and returns it.
    pub(crate) fn wait_for_line(&self, parts: &[&str]) -> String {
        let found = |text: &str| {
            let mut lines = text.lines();
            lines.find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned)
        };
        self.wait_for(&format!("{parts:?}"), |text| found(text).is_some());
        found(&self.text()).unwrap()
    }

    fn lock(&self) -> MutexGuard<'_, String> {
        self.0.0.lock().unwrap()
    }

    fn follow(&self, stream: impl Read + Send + 'static) -> JoinHandle<()> {
        let log = self.clone();
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|count| count > 0) {
                log.lock().push_str(&line);
                log.0.1.notify_all();
                line.clear();
            }
        })
    }
}

/// Polls until there is a result.
pub(crate) fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut question: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// The addresses of listeners in a plain or JSON log.
fn addresses(log: &str) -> Vec<SocketAddr> {
    let beginnings = [" listening address=", "\"message\":\"listening\",\"address\":\""];
    log.lines()
        .filter_map(|line| beginnings.iter().find_map(|beginning| line.split_once(beginning)))
        .map(|(_, rest)| rest.split([' ', '"']).next().unwrap().parse().unwrap())
        .collect()
}
