//! Joins a mesh, asks it, and reads the answer as it comes.
//!
//! `cargo run --release -p llamesh-node --example ask -- ADDRESS "Why is the sky blue?"`, with the address that `llamesh up` prints.

#![expect(clippy::print_stdout, reason = "an example prints its result")]

use std::error::Error;
use std::io::Write;

use node::sdk::Mesh;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("say where: ask ADDRESS QUESTION")?;
    let question = arguments.next().ok_or("say what: ask ADDRESS QUESTION")?;

    let mesh = Mesh::join(&address).await?;
    let mut answer = mesh.ask(&question).await?;
    while let Some(piece) = answer.next().await {
        print!("{}", piece?);
        std::io::stdout().flush()?;
    }
    println!("\n(by {}, for {})", answer.provider().ok_or("nobody")?, answer.cost().unwrap_or_default());
    Ok(mesh.leave().await?)
}
