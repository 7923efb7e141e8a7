//! Golden vectors: the bytes that another implementation must read and write, in `tests/wire/*.hex`.
//!
//! Each file has lines of `name value`. A message has its value as JSON and its bytes. A statement has its signer, its
//! value, its payload, its signature and its digest. Drift fails here; `BLESS=1 cargo test --release -p llamesh-protocol wire`
//! writes the files anew, which is a new version of the protocol and not a formality.

use std::fmt::{Debug, Write};
use std::path::PathBuf;

use crypto::{Network, Payload, Signed, Verified};
use protocol::Message;
use serde::Serialize;

use crate::samples;

/// Bytes in a line of a vector.
const WIDTH: usize = 48;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn lines(name: &str, bytes: &[u8]) -> String {
    bytes.chunks(WIDTH).map(|chunk| format!("{name} {}\n", hex(chunk))).collect()
}

/// The bytes of all lines of that name.
fn bytes(text: &str, name: &str) -> Vec<u8> {
    let values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let digits: String = values.collect();
    (0..digits.len() / 2).map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// Compares with the file, or writes it; returns what the file says.
fn golden(name: &str, found: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/wire").join(name).with_extension("hex");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == found,
        "the wire drifted: {name}.hex says\n{golden}\nthis build writes\n{found}\nif that is meant, raise the version \
         and run: BLESS=1 cargo test --release -p llamesh-protocol wire"
    );
    golden
}

fn check_message<M: Message + PartialEq + Debug>(name: &str, message: &M) {
    let json = serde_json::to_string(message).unwrap();
    let text = golden(name, &format!("value {json}\n{}", lines("bytes", &message.to_bytes())));
    assert_eq!(M::from_bytes(&bytes(&text, "bytes")).as_ref(), Ok(message));
}

fn check_statement<T: Payload + Serialize>(statement: &Verified<T>) {
    let signed = statement.signed();
    let json = serde_json::to_string(statement.value()).unwrap();
    let mut found = format!("signer {}\nvalue {json}\n", signed.signer());
    found += &lines("payload", signed.payload());
    found += &lines("signature", signed.signature());
    found += &format!("digest {}\n", signed.digest());

    let text = golden(&format!("statement-{}", T::KIND), &found);
    let signature = bytes(&text, "signature").try_into().unwrap();
    let read = Signed::<T>::from_parts(signed.signer(), bytes(&text, "payload"), signature);
    let read = read.verify(&Network::default()).unwrap();
    assert_eq!(hex(read.digest().as_bytes()), hex(&bytes(&text, "digest")));
    assert_eq!(serde_json::to_string(read.value()).unwrap(), json);
}

#[test]
fn messages_never_drift() {
    samples::requests().iter().for_each(|(name, message)| check_message(name, message));
    samples::responses().iter().for_each(|(name, message)| check_message(name, message));
    samples::announcements().iter().for_each(|(name, message)| check_message(name, message));
    samples::frames().iter().for_each(|(name, message)| check_message(name, message));
}

#[test]
fn statements_never_drift() {
    check_statement(&samples::bid());
    check_statement(&samples::profile());
    check_statement(&samples::order());
    check_statement(&samples::segment());
    check_statement(&samples::receipt());
    check_statement(&samples::acknowledgement());
}

#[test]
fn digests_and_commitments_never_drift() {
    let [(_, ask), ..] = samples::requests();
    let protocol::Request::Ask(ask) = ask else { panic!("an ask") };
    let receipt = samples::receipt();
    let found = format!(
        "input-commitment {}\nconstraint {}\nprompt-1-2-3-4-5 {}\ntranscript-0 {}\ntranscript-32 {}\ntranscript-33 {}\ntool-described {}\ntool-program {}\n",
        ask.input,
        samples::constraint().digest(),
        receipt.prompt.unwrap(),
        samples::beginning().0,
        samples::segment().commitment.0,
        receipt.output.0,
        protocol::call::described("add", "Adds two numbers.", "{\"type\":\"object\"}"),
        protocol::call::program(crypto::Digest::of_content(b"#!/bin/sh\ncat\n"), &["-u".to_owned()]),
    );
    golden("digests", &found);
}
