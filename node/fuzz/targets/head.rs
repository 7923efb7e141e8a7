//! The headers by which the local API decides whom to let in: a line each of host, origin and authorization.
#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use node::api::keys::Keys;
use node::api::means_us;

fuzz_target!(|text: &str| {
    let mut lines = text.splitn(3, '\n').map(|line| line.trim_end_matches('\r'));
    let (host, origin, token) = (lines.next(), lines.next(), lines.next());
    let local = SocketAddr::from(([192, 0, 2, 7], 5264));
    let names = ["mesh.example".to_owned()];
    if means_us(local, &names, host, origin).is_ok() {
        let host = host.unwrap_or_default().to_ascii_lowercase();
        assert!(host.starts_with("192.0.2.7:5264") || host.starts_with("mesh.example"), "{host}");
    }
    assert!(Keys::default().authenticate(token).is_err(), "nobody is known");
});
