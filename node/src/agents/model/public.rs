//! How much of a prompt is nobody's secret.
//!
//! What a worker has computed of a prompt's beginning can serve the next prompt that begins alike. Whoever is answered
//! sooner learns that somebody asked something that began like it. So what one requester said is reused for that requester
//! only; but where the agent's system prompt is public, so is what every chat with it begins with.

use inference::{Chat, Engine, Message, Prompt};

/// How many leading tokens of `prompt` come from the agent's system prompt and the chat template alone: those that it has in
/// common with two other chats under the same system prompt, whose users say nothing alike.
pub fn prefix(engine: &dyn Engine, system: &str, now: i64, prompt: &[u32]) -> usize {
    let chat = |user: &str| {
        let messages = vec![Message::new("system", system), Message::new("user", user)];
        // Whatever is wrong with the system prompt is told for the prompt itself.
        engine.prompt(&Prompt::Chat(Chat { messages, now, ..Chat::default() })).unwrap_or_default()
    };
    let [one, other] = DECOYS.map(chat);
    let common = |a: &[u32], b: &[u32]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
    common(&one[..common(&one, &other)], prompt)
}

/// Users who have nothing in common: not even a first letter, nor a kind of letter that a tokenizer might set apart.
const DECOYS: [&str; 2] = ["What is it?", "0"];

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn tiny() -> Arc<dyn Engine> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        inference::tiny::write_tiny(&path, 7).unwrap();
        inference::load(&path).unwrap()
    }

    fn tokens(engine: &dyn Engine, messages: &[(&str, &str)]) -> Vec<u32> {
        let messages = messages.iter().map(|(role, text)| Message::new(*role, *text)).collect();
        engine.prompt(&Prompt::Chat(Chat { messages, now: 5, ..Chat::default() })).unwrap()
    }

    #[test]
    fn what_is_shared_ends_before_the_users_first_word() {
        let (engine, system) = (tiny(), "You are the otter in the other river.");
        let public = |prompt: &[u32]| prefix(engine.as_ref(), system, 5, prompt);
        let asks = |user: &str| tokens(engine.as_ref(), &[("system", system), ("user", user)]);
        let shared = public(&asks("hello"));
        let text = engine
            .render(&Chat { messages: vec![Message::new("system", system)], now: 5, ..Chat::default() })
            .unwrap();
        let begin = text.find(system).unwrap() + system.len();
        assert!(
            shared >= engine.tokenize(&text[..begin]).unwrap().len(),
            "all of the system prompt is shared"
        );
        for user in ["0", "What is it?", "What", "\n\nhello", "a", "the other"] {
            let prompt = asks(user);
            assert!(public(&prompt) <= shared, "{user}: what a user says is never shared");
            assert_eq!(prompt[..public(&prompt)], asks("hello")[..public(&prompt)], "{user}");
        }
        let more = [("system", system), ("user", "hello"), ("assistant", "yes"), ("user", "and?")];
        assert_eq!(public(&tokens(engine.as_ref(), &more)), shared, "a longer chat begins alike");
    }

    #[test]
    fn another_system_prompt_shares_no_word_of_it() {
        let engine = tiny();
        let prompt = tokens(engine.as_ref(), &[("system", "secret"), ("user", "hello")]);
        let shared = prefix(engine.as_ref(), "public", 5, &prompt);
        let until = engine
            .render(&Chat { messages: vec![Message::new("system", "secret")], now: 5, ..Chat::default() })
            .unwrap();
        let until = &until[..until.find("secret").unwrap()];
        assert!(shared <= engine.tokenize(until).unwrap().len());
    }
}
