//! `com-broker certs`: makes development certificates and prints how to trust them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use rustls_pki_types::DnsName;

use super::{CliFault, print};
use crate::server::certificates::{self, Order, Paths, Receipt};

/// `com-broker certs`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Writes ca.pem and ca.key (the authority) and server.pem and server.key (the broker). Files that
exist are kept. To renew only the broker's, delete server.pem and server.key first: clients that
trust the authority trust the new ones too.

Examples:
  com-broker certs
  com-broker certs --name broker.lan --name 192.168.1.20 --days 90")]
pub struct CertsArguments {
    /// Where the files are
    #[arg(long, value_name = "DIRECTORY", default_value = "certs")]
    pub directory: PathBuf,
    /// Another host name or address of the broker; localhost, 127.0.0.1 and ::1 are always there
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub name: Vec<String>,
    /// Days that the broker's certificate is valid
    #[arg(
        long,
        value_name = "DAYS",
        default_value_t = certificates::SERVER_DAYS,
        value_parser = parse_days
    )]
    pub days: u32,
    /// Make everything new, the authority included
    #[arg(long)]
    pub force: bool,
}

fn parse_name(text: &str) -> Result<String, String> {
    let is_host = DnsName::try_from(text.strip_prefix("*.").unwrap_or(text)).is_ok();
    if is_host || text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    Err("use a host name such as broker.lan, or an IP address".to_owned())
}

fn parse_days(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(days @ 1..=certificates::SERVER_DAYS_MAX) => Ok(days),
        _ => Err(format!("use a number of days from 1 to {}", certificates::SERVER_DAYS_MAX)),
    }
}

impl CertsArguments {
    fn asks_for_other_certificate(&self) -> bool {
        !self.name.is_empty() || self.days != certificates::SERVER_DAYS
    }
}

pub(super) fn run(arguments: &CertsArguments) -> Result<(), CliFault> {
    let paths = Paths::within(&arguments.directory);
    let order =
        Order { names: arguments.name.clone(), days: arguments.days, force: arguments.force };
    let receipt = certificates::make(&paths, &order).map_err(CliFault::Certificates)?;
    print(&report(&paths, receipt, arguments.asks_for_other_certificate()))
}

/// `asked` is whether names or days were given, which do not affect a certificate that is kept.
fn report(paths: &Paths, receipt: Receipt, asked: bool) -> String {
    let Paths { authority_certificate, authority_key, server_certificate, server_key } = paths;
    let authority = authority_certificate.display();
    [
        entry(receipt.authority_made, authority_certificate, "the authority, for clients to trust"),
        entry(receipt.authority_made, authority_key, "its private key; keep it here"),
        entry(receipt.server_made, server_certificate, "the broker's certificate"),
        entry(receipt.server_made, server_key, "its private key; keep it here"),
        match asked && !receipt.server_made {
            true => format!(
                "
The broker's certificate is the one that was there, without the names and days given now. To have
those in it, delete {} and {} first.
",
                server_certificate.display(),
                server_key.display()
            ),
            false => String::new(),
        },
        format!(
            "
To trust them, tell clients where the authority is:

  openssl s_client -connect 127.0.0.1:6661 -CAfile {authority}
  python    ssl.create_default_context(cafile=\"{authority}\")
  node      NODE_EXTRA_CA_CERTS={authority} node client.js
  browsers  import {authority} as an authority for web sites

These are for development. Do not install the authority on machines of others.
"
        ),
    ]
    .concat()
}

fn entry(made: bool, path: &Path, what: &str) -> String {
    let verb = if made { "made" } else { "kept" };
    format!("{verb}  {}  {what}\n", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_certificate_can_have_are_refused() {
        for name in
            ["broker.lan", "*.example.com", "192.168.1.20", "fe80::1", "xn--bcher-kva.example"]
        {
            assert_eq!(parse_name(name).as_deref(), Ok(name));
        }
        for name in ["bad name", "", "a..b", "-a-.", "*", "a/b", "1.2.3.4.5:6"] {
            assert!(parse_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_report_has_the_files_and_how_to_trust_them() {
        let paths = Paths::within(Path::new("certs"));
        let receipt = Receipt { authority_made: false, server_made: true };
        let report = report(&paths, receipt, true);
        assert!(report.starts_with("kept  certs/ca.pem  "), "{report}");
        assert!(report.contains("\nmade  certs/server.pem  "), "{report}");
        assert!(report.contains("-CAfile certs/ca.pem\n"), "{report}");
        assert!(!report.contains("delete"), "{report}");
    }

    #[test]
    fn names_for_a_certificate_that_is_kept_are_not_ignored_silently() {
        let paths = Paths::within(Path::new("certs"));
        let kept = Receipt { authority_made: false, server_made: false };
        assert!(
            report(&paths, kept, true).contains("delete certs/server.pem and certs/server.key")
        );
        assert!(!report(&paths, kept, false).contains("delete"));
    }
}
