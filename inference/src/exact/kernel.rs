//! Which path the engine takes on this processor: chosen at run time, or forced for a test.
//!
//! The paths give the same bits; they differ in speed only. `LLAMESH_KERNEL` forces one, and one that the processor
//! or this build does not have is an error, never a silent fallback: whoever forces a path wants to test it.

use std::fmt;

use super::lanes::{Lanes, Scalar};
#[cfg(target_arch = "x86_64")]
use super::lanes::{avx2::Avx2, avx512::Avx512};

/// A path through the kernels.
#[derive(Clone, Copy, Debug)]
pub struct Kernel(Path);

#[derive(Clone, Copy, Debug)]
enum Path {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

/// A path that was asked for by name and cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// The name is known, the path is not available.
    #[error(
        "LLAMESH_KERNEL asks for `{name}`, which this processor or this build does not have; leave it unset, or take one of: {available}"
    )]
    Missing {
        /// The path.
        name: String,
        /// Those that can be taken.
        available: String,
    },
    /// No such name.
    #[error("LLAMESH_KERNEL is `{name}`, which is no kernel; leave it unset, or take one of: {available}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Those that can be taken.
        available: String,
    },
}

impl Kernel {
    /// The fastest path that this processor has, unless `LLAMESH_KERNEL` names another.
    pub fn choose() -> Result<Self, KernelError> {
        match std::env::var(VARIABLE) {
            Ok(name) if !name.is_empty() => Self::named(&name),
            _ => Ok(Self::fastest()),
        }
    }

    /// The fastest path that this processor has.
    #[must_use]
    pub fn fastest() -> Self {
        Self::available().pop().unwrap_or(Self(Path::Scalar))
    }

    /// The path of a name.
    pub fn named(name: &str) -> Result<Self, KernelError> {
        let found = Self::available();
        if let Some(kernel) = found.iter().find(|kernel| kernel.name() == name) {
            return Ok(*kernel);
        }
        let available = found.iter().map(|kernel| kernel.name()).collect::<Vec<_>>().join(", ");
        let name = name.to_owned();
        Err(if NAMES.contains(&name.as_str()) {
            KernelError::Missing { name, available }
        } else {
            KernelError::Unknown { name, available }
        })
    }

    /// All paths that this processor has, the slowest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        #[cfg_attr(
            not(target_arch = "x86_64"),
            expect(unused_mut, reason = "other processors have one path")
        )]
        let mut paths = vec![Self(Path::Scalar)];
        #[cfg(target_arch = "x86_64")]
        {
            paths.extend(Avx2::detect().map(|lanes| Self(Path::Avx2(lanes))));
            paths.extend(Avx512::detect().map(|lanes| Self(Path::Avx512(lanes))));
        }
        paths
    }

    /// The name, as `LLAMESH_KERNEL` has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            Path::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Path::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Path::Avx512(_) => "avx512",
        }
    }

    /// Runs a routine on this path.
    pub(super) fn run<R: Routine>(self, routine: R) -> R::Output {
        match self.0 {
            Path::Scalar => routine.run(Scalar),
            #[cfg(target_arch = "x86_64")]
            Path::Avx2(lanes) => lanes.run(routine),
            #[cfg(target_arch = "x86_64")]
            Path::Avx512(lanes) => lanes.run(routine),
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something to compute, written once for all paths. `run` and all that it calls must be `#[inline(always)]`, or it
/// is compiled for the least processor.
pub(super) trait Routine {
    /// What comes out.
    type Output;

    /// Computes it.
    fn run<L: Lanes>(self, lanes: L) -> Self::Output;
}

const VARIABLE: &str = "LLAMESH_KERNEL";
/// All names there are, on whatever processor.
const NAMES: [&str; 4] = ["scalar", "avx2", "avx512", "amx"];
