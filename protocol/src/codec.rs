//! Bytes ↔ values: the one place that knows the encoding (bincode 2, little endian, variable-length integers).
//!
//! Every message travels as one version byte and the encoded value. The codec proves nothing: nearly every mutation
//! of a message still decodes, integrity comes from signatures alone. What the codec does guarantee: no panic, no
//! trailing bytes, a cap per kind of message that is checked before anything is decoded, and no single allocation over
//! one MiB on the word of a length (serde's own bound), however short the input. No wire type is recursive, so no input
//! can exhaust the stack.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version that this build writes and the only one that it reads.
pub const VERSION: u8 = 1;

/// Nothing longer is decoded, whatever its kind: the largest input, the longest answer that is continued, the largest
/// constraint and what surrounds them.
pub const MAX_MESSAGE: usize = (2 << 20) + (128 << 10);

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Nothing that this build writes has this form.
    #[error("the message does not decode")]
    Malformed,
    /// Longer than its kind may be.
    #[error("the message is longer than its kind allows")]
    OverCap,
    /// A protocol version that this build does not speak.
    #[error("the message has protocol version {0}, this build speaks {VERSION}")]
    UnknownVersion(u8),
}

/// A message: an enum whose variants have caps of their own.
pub trait Message: Serialize + DeserializeOwned {
    /// Largest encoding, version byte included, of the variant whose number is `variant`; `None` for none such.
    fn cap(variant: u8) -> Option<usize>;

    /// The bytes to send.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(USUAL);
        bytes.push(VERSION);
        write(self, &mut bytes);
        bytes
    }

    /// Reads what a peer sent.
    ///
    /// # Errors
    /// [`DecodeError`]; the sender gets the blame.
    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes {
            [VERSION, body @ ..] => {
                // The number of a variant below 251 is one byte.
                let cap = body.first().copied().and_then(Self::cap).ok_or(DecodeError::Malformed)?;
                if bytes.len() > cap { Err(DecodeError::OverCap) } else { decode(body) }
            }
            [version, ..] => Err(DecodeError::UnknownVersion(*version)),
            [] => Err(DecodeError::Malformed),
        }
    }
}

/// Room that holds most messages, a token's frame above all, without growing.
const USUAL: usize = 128;

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_MESSAGE>()
}

/// Encodes a value of our own.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(USUAL);
    write(value, &mut bytes);
    bytes
}

fn write<T: Serialize>(value: &T, bytes: &mut Vec<u8>) {
    // Only maps of unknown length and hand-written impls can fail, and no wire type has either; half an encoding
    // decodes nowhere.
    let _ = bincode::serde::encode_into_std_write(value, bytes, config());
}

/// Decodes all of `bytes`.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match bincode::serde::decode_from_slice(bytes, config()) {
        Ok((value, used)) if used == bytes.len() => Ok(value),
        _ => Err(DecodeError::Malformed),
    }
}
