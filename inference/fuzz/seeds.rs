//! Honest inputs to begin with, in the corpus of each target: a tiny model of each family, forms of each kind, calls in each
//! syntax.

use std::path::Path;
use std::{fs, io};

use inference::tiny::{TinyArchitecture, write_tiny_as};
use serde_json::Value;

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
    let schemas: Vec<Value> = serde_json::from_str(SCHEMAS)?;
    let schemas = schemas.iter().map(|case| format!("s{}", case["schema"]));
    plant(&corpus.join("constraint"), schemas.chain(FORMS.map(str::to_owned)))?;
    plant(&corpus.join("calls"), CALLS.map(str::to_owned))
}

fn plant(folder: &Path, seeds: impl IntoIterator<Item = String>) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    seeds
        .into_iter()
        .enumerate()
        .try_for_each(|(number, seed)| fs::write(folder.join(number.to_string()), seed))
}

const SCHEMAS: &str = include_str!("../tests/schemas.json");
const FORMS: [&str; 8] = [
    "r(a|b)*c",
    "r^[A-Z]{3}-\\d{4}$",
    "r(yes|no), .{10,}!",
    "r[0-9]+(\\.[0-9]{2})?",
    "cyes|yes, of course|no",
    "gstart: sum\nsum: term (\"+\" term)*\nterm: NUMBER | \"(\" sum \")\"\nNUMBER: /[0-9]+/\n",
    "gstart: start start | \"a\"\n",
    "gstart: %json {\"type\":\"null\"}\n",
];
const CALLS: [&str; 4] = [
    "One moment. <tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": [1, null]}}\n</tool_call>",
    "{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {}}",
    "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": \"{}\"}]",
    "<|python_tag|>{\"name\": \"f\", \"parameters\": {\"é\": 1.5e3}}",
];
