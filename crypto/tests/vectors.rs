//! Known answers: the bytes that other implementations must reproduce, and that must never drift.

use crypto::{
    Digest, Manifest, Network, Payload, PeerId, SecretKey, Signed, Transcript, manifest::Item,
    signed::Malformed, signed::VerifyError,
};
use proptest::prelude::*;

/// A statement of one string, as small as a payload can be.
#[derive(Clone, Debug, PartialEq)]
struct Note(String);

impl Payload for Note {
    const KIND: &'static str = "note";
    const MAX_LEN: usize = 64;

    fn encode(&self) -> Vec<u8> {
        self.0.clone().into_bytes()
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        String::from_utf8(bytes.to_vec()).map(Self).map_err(|_| Malformed)
    }
}

/// The same form under another name.
#[derive(Debug)]
struct Other;

impl Payload for Other {
    const KIND: &'static str = "other";
    const MAX_LEN: usize = 64;

    fn encode(&self) -> Vec<u8> {
        Vec::new()
    }

    fn decode(_: &[u8]) -> Result<Self, Malformed> {
        Ok(Self)
    }
}

fn key() -> SecretKey {
    SecretKey::from_seed(&[1; 32])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn identity() {
    // Public key of the seed 01…01 by RFC 8032; the peer id and the did are spellings of the same bytes.
    let peer = key().peer_id();
    assert_eq!(hex(peer.as_bytes()), "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c");
    assert_eq!(peer.to_string(), "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5");
    assert_eq!(peer.did_key(), "did:key:z6Mkon3Necd6NkkyfoGoHxid2znGc59LU3K7mubaRcFbLfLX");
}

#[test]
fn digests() {
    // Plain BLAKE3 of the empty input, from the specification's test vectors.
    let empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    assert_eq!(Digest::of_content(b"").to_string(), empty);
    assert_eq!(Digest::of("test", b"abc").to_string(), DIGEST);
}

#[test]
fn manifest() {
    let item = |name: &str, content: &[u8]| Item {
        name: name.to_owned(),
        size: content.len() as u64,
        digest: Digest::of_content(content),
    };
    let (one, two) = (item("a", b"abc"), item("b", b""));
    let digest = Manifest::new([one.clone(), two.clone()]).digest();
    assert_eq!(digest.to_string(), MANIFEST);
    assert_eq!(Manifest::new([two.clone(), one.clone()]).digest(), digest, "in any order");
    let renamed = Item { name: "c".to_owned(), ..two };
    assert_ne!(Manifest::new([one.clone(), renamed]).digest(), digest);
    assert_ne!(Manifest::new([one]).digest(), digest);
}

#[test]
fn signature() {
    let note = Signed::sign(&Network::default(), &key(), Note("hello".into()));
    assert_eq!(hex(note.signed().signature()), SIGNATURE);
    assert_eq!(note.digest().to_string(), STATEMENT);
}

#[test]
fn transcript() {
    let mut transcript = Transcript::new(b"job");
    transcript.push(Some(7), "hé");
    assert_eq!(transcript.push(None, "").0.to_string(), TRANSCRIPT);
}

const MANIFEST: &str = "55e6c3b49ae8f294ea76fd48cda6a5c33daee8bd5ac98425c1c16e7ac9801806";
const DIGEST: &str = "0281ad3f1e46e328572b5e3492cbebca754fdd2bbab9e52afd0e4e9c3443c903";
const SIGNATURE: &str = concat!(
    "ac3b8be2f044fc4e852f1870e3e3f1371fb46bd5f91d79d89da8b51a015848a9",
    "af8db9e4b2c1fc71eaf5fe5f7132ca64abb863566cab1df245be3ab14f76f60a"
);
const STATEMENT: &str = "83e707fdcdef50126b5ecdfa7cf26e38c95b287558574463c849ffb7f150541d";
const TRANSCRIPT: &str = "6811a79cf16cbfe502d590142c5f9f22536a6cf13d456bff7fe88793e56041cd";

#[test]
fn a_statement_is_bound_to_signer_kind_and_network() {
    let main = Network::default();
    let test: Network = "test".parse().unwrap();
    let note = Signed::sign(&main, &key(), Note("hello".into())).into_signed();
    assert!(note.clone().verify(&main).is_ok());
    assert_eq!(note.clone().verify(&test), Err(VerifyError::BadSignature));

    let (payload, signature) = (note.payload().to_vec(), *note.signature());
    let renamed = Signed::<Other>::from_parts(note.signer(), payload.clone(), signature);
    assert_eq!(renamed.verify(&main).map(|_| ()), Err(VerifyError::BadSignature));
    let stranger = SecretKey::from_seed(&[2; 32]).peer_id();
    let claimed = Signed::<Note>::from_parts(stranger, payload, signature);
    assert_eq!(claimed.verify(&main), Err(VerifyError::BadSignature));
}

#[test]
fn too_long_is_refused_before_the_signature_is_looked_at() {
    let long = Signed::sign(&Network::default(), &key(), Note("x".repeat(65))).into_signed();
    assert_eq!(long.verify(&Network::default()), Err(VerifyError::TooLong));
}

#[test]
fn a_universal_forgery_under_a_weak_key_has_no_peer() {
    let mut weak = [0; 32];
    weak[0] = 1;
    assert!(PeerId::from_bytes(&weak).is_err());
    assert!(
        serde_json::from_str::<PeerId>("\"12D3KooW9tGaPdJo5jmCpadQ971nfiq4kLcQjeBPYTfutBTtckPH\"").is_err()
    );
}

proptest! {
    #[test]
    fn no_flipped_bit_survives(bit in 0usize..(5 + 64) * 8) {
        let network = Network::default();
        let note = Signed::sign(&network, &key(), Note("hello".into())).into_signed();
        let (mut payload, mut signature) = (note.payload().to_vec(), *note.signature());
        match bit / 8 {
            byte @ 0..5 => payload[byte] ^= 1 << (bit % 8),
            byte => signature[byte - 5] ^= 1 << (bit % 8),
        }
        let changed = Signed::<Note>::from_parts(note.signer(), payload, signature);
        prop_assert_eq!(changed.verify(&network), Err(VerifyError::BadSignature));
    }
}
