//! Asks a model file for an answer: text on stdout, speed on stderr.
//!
//! ```sh
//! cargo run --release --example generate -p llamesh-inference -- model.gguf "Why is the sky blue?" [MAX_TOKENS [SEED]]
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example that talks")]

use std::error::Error;
use std::io::{Write, stdout};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use inference::{Chat, Message, Prompt, Request, Sampling, Step};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(question)) = (arguments.next(), arguments.next()) else {
        return Err("give a model file and a question".into());
    };
    let max_tokens = arguments.next().map_or(Ok(128), |text| text.parse())?;
    let seed = arguments.next().map_or(Ok(0), |text| text.parse())?;

    let start = Instant::now();
    let model = inference::load(file.as_ref())?;
    eprintln!("{:?}\n{} loaded in {:.2?}", model.card(), model.profile(), start.elapsed());
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as i64;
    let chat = Chat { messages: vec![Message::new("user", question)], now, ..Chat::default() };
    let prompt = model.prompt(&Prompt::Chat(chat))?;
    stream(model.as_ref(), &Request::new(prompt, Sampling { max_tokens, seed, ..Sampling::default() }))
}

fn stream(model: &dyn inference::Engine, request: &Request) -> Result<(), Box<dyn Error>> {
    let (start, mut first) = (Instant::now(), None);
    for step in model.generate(request)? {
        match step? {
            Step::Prefilled { .. } => {}
            Step::Token { text, .. } => {
                first.get_or_insert_with(Instant::now);
                print!("{text}");
                stdout().flush()?;
            }
            Step::Finished { reason, rest, prompt_tokens, completion_tokens } => {
                println!("{rest}");
                let first = first.unwrap_or_else(Instant::now);
                let prefill = f64::from(prompt_tokens) / (first - start).as_secs_f64();
                let decode = f64::from(completion_tokens.saturating_sub(1)) / first.elapsed().as_secs_f64();
                eprintln!(
                    "{reason:?}: {prompt_tokens} tokens read at {prefill:.1}/s, {completion_tokens} written at {decode:.1}/s"
                );
            }
        }
    }
    Ok(())
}
