//! A broker in a process of its own, on a port that the system chooses, ended with its value.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    /// Trusts the broker's certificate.
    pub(crate) tls: Arc<ClientConfig>,
    process: Child,
    directory: PathBuf,
}

impl Broker {
    /// Starts a broker with the keys of development and further lines of configuration.
    pub(crate) fn start(configuration: &str) -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("conformance-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("broker.toml");
        fs::write(&path, format!("{LISTENER}{configuration}")).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_com-broker"))
            .args(["serve", "--config"])
            .arg(&path)
            .current_dir(&directory)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let address = read_address(&mut log);
        // Whoever logs must not wait for us.
        thread::spawn(move || log.lines().count());
        let tls = trust(&directory.join("certs/ca.pem"));
        Self { address, tls, process, directory }
    }

    /// Asks it to tell its clients and to leave.
    pub(crate) fn begin_drain(&self) {
        let process = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &process]).status().unwrap().success());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

const LISTENER: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\n";

fn read_address(log: &mut impl BufRead) -> SocketAddr {
    let mut lines = String::new();
    loop {
        let start = lines.len();
        assert!(log.read_line(&mut lines).unwrap() > 0, "the broker did not start: {lines}");
        if let Some((_, address)) = lines[start..].split_once("listening address=") {
            return address.trim().parse().unwrap();
        }
    }
}

fn trust(authority: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}
