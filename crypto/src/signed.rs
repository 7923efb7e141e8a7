//! `Signed<T>` → `Verified<T>`: the only door from bytes of a stranger to a statement that a machine may act on.
//!
//! The signature covers `llamesh/<network>/<kind>/v1` ‖ length of the payload (u64, little endian) ‖ payload. The
//! payload stays the opaque bytes that its author wrote: it is hashed and verified as received and decoded only
//! after the signature held, so a codec with two spellings for one value cannot be used against anybody.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::{Digest, Hasher, Network, PeerId, SecretKey};

/// A kind of statement: its name in the signature and its byte form.
pub trait Payload: Sized {
    /// The `<kind>` of the signed bytes; one per type, for ever.
    const KIND: &'static str;
    /// Largest payload accepted, in bytes.
    const MAX_LEN: usize;

    /// The bytes that get signed.
    fn encode(&self) -> Vec<u8>;

    /// Reads a payload; strict, and only ever called on bytes whose signature held.
    ///
    /// # Errors
    /// [`Malformed`] for anything that [`Payload::encode`] does not write.
    fn decode(bytes: &[u8]) -> Result<Self, Malformed>;
}

/// The payload does not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signed payload does not decode")]
pub struct Malformed;

/// A statement as it travels: who, what, signature. Nothing in it is to be believed before [`Signed::verify`].
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Signed<T> {
    signer: PeerId,
    payload: Vec<u8>,
    signature: Signature,
    #[serde(skip)]
    kind: PhantomData<fn() -> T>,
}

impl<T: Payload> Signed<T> {
    /// Signs `value` for `network`. The result is verified by construction.
    pub fn sign(network: &Network, key: &SecretKey, value: T) -> Verified<T> {
        let payload = value.encode();
        let signature = Signature(key.sign(&signed_bytes::<T>(network, &payload)));
        Verified::new(Self { signer: key.peer_id(), payload, signature, kind: PhantomData }, value)
    }

    /// Puts a statement together again from stored parts. It has to be verified like any other.
    pub fn from_parts(signer: PeerId, payload: Vec<u8>, signature: [u8; 64]) -> Self {
        Self { signer, payload, signature: Signature(signature), kind: PhantomData }
    }

    /// Checks size, signature and form.
    ///
    /// # Errors
    /// [`VerifyError`], in that order, so that no stranger's bytes are decoded unsigned.
    pub fn verify(self, network: &Network) -> Result<Verified<T>, VerifyError> {
        if self.payload.len() > T::MAX_LEN {
            return Err(VerifyError::TooLong);
        }
        if !self.signer.verifies(&signed_bytes::<T>(network, &self.payload), &self.signature.0) {
            return Err(VerifyError::BadSignature);
        }
        let value = T::decode(&self.payload).map_err(|Malformed| VerifyError::Malformed)?;
        Ok(Verified::new(self, value))
    }

    /// The name of this statement: over kind, signer and payload, not over the signature, so that nobody can give
    /// one statement two names.
    pub fn digest(&self) -> Digest {
        Hasher::new("statement")
            .part(T::KIND.as_bytes())
            .part(self.signer.as_bytes())
            .part(&self.payload)
            .finish()
    }
}

impl<T> Signed<T> {
    /// Who claims to have signed.
    pub fn signer(&self) -> PeerId {
        self.signer
    }

    /// The payload as received.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The signature's 64 bytes.
    pub fn signature(&self) -> &[u8; 64] {
        &self.signature.0
    }
}

/// Why a statement was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// Wrong signer, wrong kind, wrong network, or changed on the way.
    #[error("the signature does not hold for this signer, kind and network")]
    BadSignature,
    /// Signed, but not a value of this kind.
    #[error("the signed payload does not decode")]
    Malformed,
    /// Over the cap of its kind.
    #[error("the payload is longer than its kind allows")]
    TooLong,
}

/// A statement whose signature held. Dereferences to its value. Cheap to clone: nobody can change it.
pub struct Verified<T>(Arc<Statement<T>>);

struct Statement<T> {
    signed: Signed<T>,
    value: T,
    /// Found when it is first asked for, and asked for several times of most.
    digest: OnceLock<Digest>,
}

impl<T> Verified<T> {
    /// Who said it.
    pub fn signer(&self) -> PeerId {
        self.0.signed.signer
    }

    /// What was said.
    pub fn value(&self) -> &T {
        &self.0.value
    }

    /// The statement in its travelling form.
    pub fn signed(&self) -> &Signed<T> {
        &self.0.signed
    }

    /// Gives up the proof and keeps the travelling form.
    pub fn into_signed(self) -> Signed<T> {
        Arc::try_unwrap(self.0).map_or_else(|shared| shared.signed.clone(), |own| own.signed)
    }
}

impl<T: Payload> Verified<T> {
    fn new(signed: Signed<T>, value: T) -> Self {
        Self(Arc::new(Statement { signed, value, digest: OnceLock::new() }))
    }

    /// The name of the statement; see [`Signed::digest`].
    pub fn digest(&self) -> Digest {
        *self.0.digest.get_or_init(|| self.0.signed.digest())
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value()
    }
}

fn signed_bytes<T: Payload>(network: &Network, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u64).to_le_bytes();
    let (network, kind) = (network.as_str().as_bytes(), T::KIND.as_bytes());
    [b"llamesh/", network, b"/", kind, b"/v1", &len, payload].concat()
}

// Derives would demand `T: Clone` and the like of a type that is only named, or hide that the value is compared by
// what was signed.

impl<T> Clone for Signed<T> {
    fn clone(&self) -> Self {
        let Self { signer, payload, signature, kind } = self;
        Self { signer: *signer, payload: payload.clone(), signature: *signature, kind: *kind }
    }
}

impl<T> PartialEq for Signed<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.signer, &self.payload, self.signature.0) == (other.signer, &other.payload, other.signature.0)
    }
}

impl<T> Eq for Signed<T> {}

impl<T: Payload> fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed<{}>(by …{}, {} bytes)", T::KIND, self.signer.short(), self.payload.len())
    }
}

impl<T> Clone for Verified<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> PartialEq for Verified<T> {
    fn eq(&self, other: &Self) -> bool {
        self.signed() == other.signed()
    }
}

impl<T> Eq for Verified<T> {}

impl<T: fmt::Debug> fmt::Debug for Verified<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verified(by …{}, {:?})", self.signer().short(), self.value())
    }
}

/// Serde knows arrays up to 32 elements; a signature travels as its two halves.
#[derive(Clone, Copy)]
struct Signature([u8; 64]);

impl Serialize for Signature {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (mut r, mut s) = ([0; 32], [0; 32]);
        r.copy_from_slice(&self.0[..32]);
        s.copy_from_slice(&self.0[32..]);
        (r, s).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (r, s) = <([u8; 32], [u8; 32])>::deserialize(deserializer)?;
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&r);
        bytes[32..].copy_from_slice(&s);
        Ok(Self(bytes))
    }
}
