//! The part of ed25519-dalek that `crypto` uses, with signatures that cost nothing and prove nothing: a signature is its signer's
//! name. A peer's public key is its seed.

/// Who is said to have signed.
#[derive(Clone, Copy, Debug)]
pub struct Signature([u8; 64]);

impl Signature {
    /// Takes any bytes.
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        Self(*bytes)
    }

    pub fn to_bytes(self) -> [u8; 64] {
        self.0
    }
}

/// What does not verify.
#[derive(Clone, Copy, Debug)]
pub struct SignatureError;

/// Signs with its name.
pub trait Signer<S> {
    /// Looks at nothing.
    fn sign(&self, message: &[u8]) -> S;
}

/// A seed.
#[derive(Clone)]
pub struct SigningKey([u8; 32]);

impl SigningKey {
    /// Takes any bytes.
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        Self(*seed)
    }

    pub fn to_bytes(&self) -> [u8; 32] {
        self.0
    }

    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.0)
    }
}

impl Signer<Signature> for SigningKey {
    fn sign(&self, _message: &[u8]) -> Signature {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.0);
        Signature(bytes)
    }
}

/// A name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyingKey([u8; 32]);

impl VerifyingKey {
    /// Takes any bytes.
    ///
    /// # Errors
    /// Never.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, SignatureError> {
        Ok(Self(*bytes))
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub fn to_bytes(&self) -> [u8; 32] {
        self.0
    }

    /// No key is.
    pub fn is_weak(&self) -> bool {
        false
    }

    /// Looks at the name alone.
    ///
    /// # Errors
    /// [`SignatureError`] if it is another one's.
    pub fn verify_strict(&self, _message: &[u8], signature: &Signature) -> Result<(), SignatureError> {
        if signature.0[..32] == self.0 { Ok(()) } else { Err(SignatureError) }
    }
}
