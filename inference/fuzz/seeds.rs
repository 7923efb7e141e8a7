//! Honest files to begin with: a tiny model of each family in the corpus of each target.

use std::path::Path;
use std::{fs, io};

use inference::tiny::{TinyArchitecture, write_tiny_as};

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in ["header", "load"] {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        for (name, family) in [
            ("gemma3", TinyArchitecture::Gemma3),
            ("llama", TinyArchitecture::Llama),
            ("qwen2", TinyArchitecture::Qwen2),
            ("qwen3", TinyArchitecture::Qwen3),
        ] {
            write_tiny_as(&folder.join(name), 7, family)?;
        }
    }
    Ok(())
}
