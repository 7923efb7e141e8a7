//! Tokens: 32 random bytes as text, shown once. What is kept of a key's is its digest alone.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use blake3::Hash;
use serde::{Deserialize, Serialize};

use crate::clock::{self, NoEntropy};

/// Before every token, so that people and scanners for lost secrets know what it is.
const PREFIX: &str = "llamesh_";

/// A key's name in lists and in its token; no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(pub [u8; 4]);

/// A token in clear: on its way to whoever will use it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new one for the owner.
    ///
    /// # Errors
    /// [`NoEntropy`].
    pub fn of_owner() -> Result<Self, NoEntropy> {
        Ok(Self(format!("{PREFIX}{}", secret()?)))
    }

    /// A new one for a key.
    ///
    /// # Errors
    /// [`NoEntropy`].
    pub fn of_key(id: KeyId) -> Result<Self, NoEntropy> {
        Ok(Self(format!("{PREFIX}{id}_{}", secret()?)))
    }

    /// What is kept of it. Two of them are compared in constant time.
    pub fn digest(text: &str) -> Hash {
        blake3::hash(text.as_bytes())
    }

    /// Which key's it claims to be.
    pub fn key(text: &str) -> Option<KeyId> {
        text.strip_prefix(PREFIX)?.split_once('_')?.0.parse().ok()
    }

    /// In clear.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// A secret must not get into a log by accident.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

fn secret() -> Result<String, NoEntropy> {
    Ok(URL_SAFE_NO_PAD.encode(clock::random::<32>()?))
}

impl KeyId {
    /// A new one.
    ///
    /// # Errors
    /// [`NoEntropy`].
    pub fn new() -> Result<Self, NoEntropy> {
        clock::random().map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

/// A text that is no key's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is named by 8 hexadecimal digits, as `llamesh keys list` shows them")]
pub struct NoKeyId;

impl FromStr for KeyId {
    type Err = NoKeyId;

    fn from_str(text: &str) -> Result<Self, NoKeyId> {
        let hexadecimal = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u32::from_str_radix(text, 16).ok().filter(|_| hexadecimal).ok_or(NoKeyId)?;
        Ok(Self(number.to_be_bytes()))
    }
}

impl TryFrom<String> for KeyId {
    type Error = NoKeyId;

    fn try_from(text: String) -> Result<Self, NoKeyId> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_its_key_and_hides_its_secret() {
        let id = KeyId::new().unwrap();
        let token = Token::of_key(id).unwrap();
        assert_eq!(Token::key(token.text()), Some(id));
        assert_ne!(token, Token::of_key(id).unwrap());
        assert!(!format!("{token:?}").contains(token.text()));
        assert!(token.text().len() > PREFIX.len() + 9 + 42, "32 bytes of secret");
    }

    #[test]
    fn texts_that_are_no_token_name_no_key() {
        let owner = Token::of_owner().unwrap();
        // An owner's secret may hold a `_`, but what stands before it is never 8 digits and then the end of an id by
        // design; where it is by chance, no such key is known.
        assert!(Token::key("llamesh_").is_none() && Token::key("").is_none() && Token::key("sk-x").is_none());
        assert!(Token::key("llamesh_+1234567_x").is_none(), "a sign is no digit");
        assert_eq!(Token::digest(owner.text()), Token::digest(owner.text()));
        assert!("0000000g".parse::<KeyId>().is_err() && "00".parse::<KeyId>().is_err());
    }
}
