//! An engine on a model file: `cargo bench -p llamesh-inference --bench engine -- FILE [THREADS] [exact|candle]`.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench tells its numbers, or why there are none"
)]

use inference::{EngineChoice, Loading, bench, load_with};

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let Some(path) = arguments.next() else { return println!("no model file was given: nothing measured") };
    let threads = arguments.next().map(|threads| threads.parse().unwrap());
    let engine = match arguments.next().as_deref() {
        Some("candle") => EngineChoice::Candle,
        _ => EngineChoice::Exact,
    };
    let start = std::time::Instant::now();
    let engine = load_with(path.as_ref(), Loading { threads, engine, kernel: None }).unwrap();
    println!("loaded in {:?}: {}", start.elapsed(), engine.profile());
    println!("{:#?}", bench::measure(engine.as_ref()).unwrap());
}
