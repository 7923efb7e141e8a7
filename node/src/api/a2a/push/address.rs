//! May this address be posted to: is it one of the open internet, by whatever name?
//!
//! A name is looked up by the client itself, through [`Open`], and the connection goes to what was found and nowhere else: what
//! a name means cannot change between the look and the connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Url, redirect};
use tokio::net::lookup_host;
use tokio::time::timeout;

/// How long finding out what a name means may take, and connecting.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an address.
const MAX_URL: usize = 2048;
const REFUSED: &str = "must not lead to this machine, a private network or another special address; \
                       the peer's owner can allow that with --push-private";

/// What may be posted to.
#[derive(Debug)]
pub(in crate::api::a2a) struct Vetting {
    /// Whether addresses that are not of the open internet will do.
    private: bool,
    plain: OnceLock<Option<Client>>,
    secure: OnceLock<Option<Client>>,
}

impl Vetting {
    pub(in crate::api::a2a) fn new(private: bool) -> Self {
        Self { private, plain: OnceLock::new(), secure: OnceLock::new() }
    }

    /// Whether an address may be posted to now; what a name means is looked up.
    pub(in crate::api::a2a) async fn check(&self, url: &str) -> Result<(), String> {
        let url = parsed(url)?;
        if self.private {
            return Ok(());
        }
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let found = match host.parse() {
            Ok(ip) => vec![ip],
            Err(_) => {
                let port = url.port_or_known_default().unwrap_or(0);
                look_up(host, port).await?.iter().map(SocketAddr::ip).collect()
            }
        };
        if !found.is_empty() && found.into_iter().all(is_open) { Ok(()) } else { Err(REFUSED.to_owned()) }
    }

    /// A client that connects to what may be posted to.
    pub(in crate::api::a2a) fn client(&self, url: &str) -> Option<Client> {
        let secure = url.starts_with("https:");
        let place = if secure { &self.secure } else { &self.plain };
        place.get_or_init(|| self.build(secure)).clone()
    }

    fn build(&self, secure: bool) -> Option<Client> {
        let builder =
            Client::builder().redirect(redirect::Policy::none()).no_proxy().connect_timeout(PATIENCE);
        // Without TLS there is no need for the system's certificates, which a container may not have.
        let builder = if secure { builder } else { builder.tls_certs_only([]) };
        let builder = if self.private { builder } else { builder.dns_resolver(Arc::new(Open)) };
        let built = builder.build();
        built.inspect_err(|error| tracing::warn!(%error, "webhooks cannot be told")).ok()
    }
}

fn parsed(url: &str) -> Result<Url, String> {
    let parsed = Some(url).filter(|url| url.len() <= MAX_URL).and_then(|url| Url::parse(url).ok());
    let parsed = parsed.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let parsed = parsed.ok_or("must be an address that begins with https:// or http://")?;
    if parsed.username().is_empty() && parsed.password().is_none() {
        return Ok(parsed);
    }
    Err("must not have a user or a password in it; give them as `authentication`".to_owned())
}

async fn look_up(name: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = timeout(PATIENCE, lookup_host((name, port))).await.ok().and_then(Result::ok);
    found.map(Iterator::collect).ok_or_else(|| "names a host that cannot be found".to_owned())
}

/// Looks names up, and finds only what is of the open internet.
struct Open;

impl Resolve for Open {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = look_up(name.as_str(), 0).await?;
            if found.is_empty() || !found.iter().all(|address| is_open(address.ip())) {
                return Err(REFUSED.into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of the open internet (the special ones are those of RFC 6890 and its registries).
fn is_open(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_open_v4(ip),
        IpAddr::V6(ip) => is_open_v6(ip),
    }
}

fn is_open_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = match (a, b, c) {
        // This network, loopback; multicast, reserved, broadcast.
        (0 | 127 | 224..=255, ..) => true,
        // Carriers' own, protocol assignments, a relay of the past, benchmarks.
        (100, 64..=127, _) | (192, 0, 0) | (192, 88, 99) | (198, 18 | 19, _) => true,
        _ => ip.is_private() || ip.is_link_local() || ip.is_documentation(),
    };
    !special
}

fn is_open_v6(ip: Ipv6Addr) -> bool {
    if let Some(inside) = ip.to_ipv4_mapped() {
        return is_open_v4(inside);
    }
    match ip.segments() {
        // IPv4 inside of something that translates it.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            is_open_v4(Ipv4Addr::new(a, b, c, d))
        }
        // Protocol assignments with Teredo; documentation; 6to4.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // All that is global is in here.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_open_internet_are_open() {
        for open in ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
        {
            assert!(is_open(open.parse().unwrap()), "{open}");
        }
        for closed in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd00::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002:7f00:1::",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "3fff::1",
        ] {
            assert!(!is_open(closed.parse().unwrap()), "{closed}");
        }
    }

    #[tokio::test]
    async fn no_spelling_of_this_machine_gets_through() {
        let vetting = Vetting::new(false);
        for url in [
            "http://localhost/",
            "http://LOCALHOST:80/",
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://017700000001/",
            "http://[::1]/",
            "http://[::ffff:7f00:1]/",
            "https://169.254.169.254/latest",
            "ftp://example.com/",
            "file:///etc/passwd",
            "http://",
            "not an address",
            "http://user:x@example.com/",
            "http://0/",
        ] {
            assert!(vetting.check(url).await.is_err(), "{url}");
        }
        assert!(vetting.check("https://1.1.1.1/hook").await.is_ok());
        assert!(Vetting::new(true).check("http://127.0.0.1:1/").await.is_ok());
    }
}
