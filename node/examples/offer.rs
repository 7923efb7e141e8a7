//! Offers what a Rust program can do to a mesh: here, to count the words of a text.
//!
//! `cargo run --release -p llamesh-node --example offer [-- ADDRESS]` prints where it can be found, and then
//! `llamesh submit "one two three" --capability text.count --bootstrap …` gets an answer of it.

#![expect(clippy::print_stdout, reason = "an example prints its result")]

use std::error::Error;

use node::sdk::{Mesh, Question, Say, Skill};
use protocol::JobError;

#[derive(Debug)]
struct WordCount;

impl Skill for WordCount {
    async fn answer(&self, question: &Question, say: &Say) -> Result<(), JobError> {
        say.text(&format!("{} words", question.text().split_whitespace().count())).await;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mesh = Mesh::builder().offer("text.count".parse()?, WordCount);
    let mut mesh = match std::env::args().nth(1) {
        Some(address) => mesh.bootstrap(&address).start().await?,
        None => mesh.listen("/ip4/127.0.0.1/tcp/0").start().await?,
    };
    for address in mesh.addresses().await? {
        println!("{address}");
    }
    Ok(mesh.run().await?)
}
