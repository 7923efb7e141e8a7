//! The time and the chance that the pure machines are given.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::Timestamp;
use tokio::time::Instant;

/// Now, as the protocol counts.
pub fn now() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

/// The runtime's instant for a moment of the protocol; a moment that has passed is now.
pub(crate) fn instant(at: Timestamp) -> Instant {
    Instant::now() + Duration::from_millis(at.since(now()))
}

/// The operating system has no entropy to give. Nothing can be signed or salted then.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the operating system gives no random bytes: {0}")]
pub struct NoEntropy(getrandom::Error);

/// Random bytes from the operating system.
///
/// # Errors
/// [`NoEntropy`].
pub fn random<const N: usize>() -> Result<[u8; N], NoEntropy> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(NoEntropy)?;
    Ok(bytes)
}
