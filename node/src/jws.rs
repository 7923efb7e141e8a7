//! The peer's signature in the form of other protocols: a JSON Web Signature (RFC 7515) with EdDSA (RFC 8037) over bytes
//! that stand elsewhere.
//!
//! What is signed consists of the letters of base64url and one dot, so it is never a statement of the mesh, all of which
//! begin with `llamesh/`: the slash is not among them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crypto::{PeerId, SecretKey};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

/// A signature without what it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jws {
    /// The protected header, in base64url.
    pub protected: String,
    /// The 64 bytes, in base64url.
    pub signature: String,
}

impl Jws {
    /// Signs `payload` under a header, the text of a JSON object that says `"alg": "EdDSA"`.
    pub fn sign(key: &SecretKey, header: &str, payload: &[u8]) -> Self {
        let protected = URL_SAFE_NO_PAD.encode(header);
        let signed = SigningKey::from_bytes(&key.seed()).sign(&input(&protected, payload));
        Self { protected, signature: URL_SAFE_NO_PAD.encode(signed.to_bytes()) }
    }

    /// True when it is this peer's over exactly `payload`. What the header says is for the reader to look at.
    pub fn verifies(&self, signer: PeerId, payload: &[u8]) -> bool {
        let bytes = URL_SAFE_NO_PAD.decode(&self.signature).ok();
        let bytes: Option<[u8; 64]> = bytes.and_then(|bytes| bytes.try_into().ok());
        let (Some(bytes), Ok(key)) = (bytes, VerifyingKey::from_bytes(signer.as_bytes())) else {
            return false;
        };
        key.verify_strict(&input(&self.protected, payload), &Signature::from_bytes(&bytes)).is_ok()
    }
}

/// The bytes that are signed.
fn input(protected: &str, payload: &[u8]) -> Vec<u8> {
    format!("{protected}.{}", URL_SAFE_NO_PAD.encode(payload)).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_8037_comes_out() {
        let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let key = SecretKey::from_seed(&seed.try_into().unwrap());
        let jws = Jws::sign(&key, r#"{"alg":"EdDSA"}"#, b"Example of Ed25519 signing");
        assert_eq!(jws.protected, "eyJhbGciOiJFZERTQSJ9");
        assert_eq!(
            jws.signature,
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
        );
    }

    #[test]
    fn nothing_of_it_can_be_changed() {
        let key = SecretKey::from_seed(&[1; 32]);
        let jws = Jws::sign(&key, r#"{"alg":"EdDSA"}"#, b"payload");
        assert!(jws.verifies(key.peer_id(), b"payload"));
        assert!(!jws.verifies(key.peer_id(), b"Payload"));
        assert!(!jws.verifies(SecretKey::from_seed(&[2; 32]).peer_id(), b"payload"));
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        assert!(!Jws { protected: header, ..jws.clone() }.verifies(key.peer_id(), b"payload"));
        assert!(!Jws { signature: "x".to_owned(), ..jws }.verifies(key.peer_id(), b"payload"));
    }
}
