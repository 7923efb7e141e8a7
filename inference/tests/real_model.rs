//! The default model, when it is at hand: the one test that sees real weights, a real vocabulary, a real template.

mod model_file;

use inference::{Chat, Claim, FinishReason, Message, Prompt, Request, Sampling, Step};

fn greedy(max_tokens: u32) -> Sampling {
    Sampling { max_tokens, temperature: 0.0, ..Sampling::default() }
}

#[test]
fn the_default_model_knows_a_capital_and_its_answer_replays() {
    let Some(path) = model_file::find() else { return };
    let model = inference::load(&path).unwrap();
    assert_eq!((model.card().vocabulary, model.card().context), (49_152, 8_192));

    let plain = model.tokenize("Hello world 2025<|im_end|>").unwrap();
    let names: Vec<_> = plain.iter().map(|&id| model.vocabulary().decode(&[id])).collect();
    assert_eq!(
        names,
        ["Hello", " world", " ", "2", "0", "2", "5", ""],
        "words as trained, digits one by one"
    );

    let system = Message::new("system", "You are a helpful assistant.");
    let question = Message::new("user", "What is the capital of France?");
    let chat = Chat { messages: vec![system, question], ..Chat::default() };
    let request = Request::new(model.prompt(&Prompt::Chat(chat)).unwrap(), greedy(24));
    let (mut ids, mut text, mut finish) = (Vec::new(), String::new(), None);
    for step in model.generate(&request).unwrap() {
        match step.unwrap() {
            Step::Prefilled { .. } => {}
            Step::Token { id, text: piece, .. } => {
                ids.push(id);
                text += &piece;
            }
            Step::Finished { reason, rest, .. } => {
                text += &rest;
                finish = Some(reason);
            }
        }
    }
    assert_eq!(text, "The capital of France is Paris.");
    assert_eq!(finish, Some(FinishReason::EndOfText));

    let claim = Claim {
        prompt: request.prompt,
        answer: ids,
        sampling: request.sampling,
        finish,
        activations: Vec::new(),
    };
    let replay = model.replay(&claim).unwrap().complete().unwrap();
    assert!(replay.exact() && replay.worst_margin == 0.0, "{replay:?}");
}
