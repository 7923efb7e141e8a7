//! Puts what the tests know to be right into the corpora: golden vectors and plans. A fuzzer would not find its way past
//! the first length on its own.

use std::error::Error;
use std::fs;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = here.parent().ok_or("no crate around")?.join("tests");
    for (corpus, line) in [("wire", "bytes "), ("payload", "payload ")] {
        let folder = here.join("corpus").join(corpus);
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(tests.join("wire"))? {
            let path = entry?.path();
            let text = fs::read_to_string(&path)?;
            let digits: String = text.lines().filter_map(|text| text.strip_prefix(line)).collect();
            let bytes: Result<Vec<u8>, _> =
                (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16)).collect();
            let (bytes, name) = (bytes?, path.file_stem().ok_or("no name")?.to_owned());
            if corpus == "wire" {
                fs::write(folder.join(&name), &bytes)?;
                continue;
            }
            for kind in 0..6 {
                let name = format!("{}-{kind}", name.to_string_lossy());
                fs::write(folder.join(name), [&[kind], bytes.as_slice()].concat())?;
            }
        }
    }
    let folder = here.join("corpus/plan");
    fs::create_dir_all(&folder)?;
    for entry in fs::read_dir(tests.join("plans"))? {
        let path = entry?.path();
        fs::copy(&path, folder.join(path.file_name().ok_or("no name")?))?;
    }
    Ok(())
}
