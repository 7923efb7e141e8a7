//! Honest inputs to begin with, in the corpus of each target: what the tests ask, and the receipts whose files are named.

use std::error::Error;
use std::fs;
use std::path::Path;

use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let folder = |target: &str| -> Result<_, Box<dyn Error>> {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    };
    let requests: Vec<Value> = serde_json::from_str(REQUESTS)?;
    for (number, request) in requests.iter().enumerate() {
        let path = request["path"].as_str().ok_or("a path")?;
        fs::write(folder("request")?.join(number.to_string()), format!("{path}\n{}", request["body"]))?;
    }
    for (number, head) in HEADS.iter().enumerate() {
        fs::write(folder("head")?.join(number.to_string()), head)?;
    }
    for (number, receipt) in std::env::args().skip(1).enumerate() {
        fs::copy(receipt, folder("receipt")?.join(number.to_string()))?;
    }
    Ok(())
}

const REQUESTS: &str = include_str!("../tests/gateways/requests.json");
const HEADS: [&str; 2] = [
    "192.0.2.7:5264\nhttp://192.0.2.7:5264\nllamesh_00000000_x",
    "mesh.example\nhttps://mesh.example\nllamesh_x",
];
