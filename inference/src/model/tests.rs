//! Tiny models end to end, on both engines: load, answer, replay, and files that must not load.

use std::path::PathBuf;

use candle_transformers::models::quantized_llama;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::engine::{GenerateError, Prompt, PromptError, Request};
use crate::generation::{FinishReason, Step, texts};
use crate::replay::Claim;
use crate::sample::Sampling;
use crate::tiny::{TinyArchitecture, write_tiny, write_tiny_as};
use crate::{Chat, Message};

fn tiny_as(architecture: TinyArchitecture, engine: EngineChoice) -> Arc<dyn Engine> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    write_tiny_as(&path, 7, architecture).unwrap();
    load_with(&path, Loading { engine, threads: Some(2), kernel: None }).unwrap()
}

fn tiny() -> Arc<dyn Engine> {
    tiny_as(TinyArchitecture::Llama, EngineChoice::Best)
}

/// A tiny model of each family on each engine that has it.
fn all() -> impl Iterator<Item = Arc<dyn Engine>> {
    let exact =
        [TinyArchitecture::Llama, TinyArchitecture::Qwen2, TinyArchitecture::Qwen3, TinyArchitecture::Gemma3];
    let exact = exact.into_iter().map(|family| tiny_as(family, EngineChoice::Exact));
    let candle = [TinyArchitecture::Llama, TinyArchitecture::Qwen3];
    exact.chain(candle.into_iter().map(|family| tiny_as(family, EngineChoice::Candle)))
}

/// The file's ids and the reason of an answer.
fn answer(model: &dyn Engine, request: &Request) -> (Vec<u32>, String, FinishReason) {
    let (mut ids, mut answer) = (Vec::new(), String::new());
    for step in model.generate(request).unwrap() {
        match step.unwrap() {
            Step::Token { index, id, text, .. } => {
                assert_eq!(index, (request.answered.len() + ids.len()) as u64);
                ids.push(id);
                answer += &text;
            }
            Step::Finished { reason, rest, completion_tokens, .. } => {
                assert_eq!(completion_tokens as usize, request.answered.len() + ids.len());
                return (ids, answer + &rest, reason);
            }
            Step::Prefilled { .. } => {}
        }
    }
    panic!("no last step");
}

fn request(model: &dyn Engine, max_tokens: u32, seed: u64) -> Request {
    let prompt = model.prompt(&Prompt::Text("the thin otter ran over the other one, ".repeat(4))).unwrap();
    Request::new(prompt, Sampling { max_tokens, seed, temperature: 1.0, top_p: 1.0, ..Sampling::default() })
}

#[test]
fn the_card_says_what_the_file_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    write_tiny(&path, 7).unwrap();
    let model = load(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(model.card().digest, Digest::of_content(&bytes));
    assert_eq!(model.card().file_size, bytes.len() as u64);
    assert_eq!((model.card().context, model.card().vocabulary), (512, 267));
    assert_eq!((model.card().name.as_str(), model.card().quantisation.as_str()), ("Tiny", "Q8_0"));
}

#[test]
fn the_tiny_model_is_the_same_file_everywhere() {
    assert_eq!(
        tiny().card().digest.to_string(),
        "ad01fcbca3765df0c0d7b608011fc97e50c5e51c4752eb0946f80714182f4c13"
    );
}

#[test]
fn a_generation_repeats_itself_and_its_replay_is_exact() {
    for model in all() {
        let model = model.as_ref();
        let request = request(model, 40, 5);
        assert!(request.prompt.len() > 64, "candle reads several chunks");
        let (ids, text, reason) = answer(model, &request);
        assert_eq!((ids.clone(), text, reason), answer(model, &request));
        let claim = Claim {
            prompt: request.prompt.clone(),
            answer: ids.clone(),
            sampling: request.sampling.clone(),
            finish: Some(reason),
            activations: Vec::new(),
            constraint: None,
        };
        let replay = model.replay(&claim).unwrap().complete().unwrap();
        assert!(replay.exact() && replay.agree == ids.len() as u32, "{replay:?}");
        if ids.iter().all(|id| *id == ids[0]) {
            // Gemma's scaled embeddings make the tiny one repeat itself whatever the noise.
            continue;
        }
        let other = Claim { sampling: Sampling { seed: 6, ..claim.sampling.clone() }, ..claim };
        assert!(!model.replay(&other).unwrap().complete().unwrap().exact(), "{ids:?} {model:?}");
    }
}

/// Chunks must mean what one pass means, up to rounding: a mask that is wrong in the second chunk shows here.
#[test]
fn reading_in_chunks_changes_rounding_only() {
    for model in all() {
        let model = model.as_ref();
        let tokens: Vec<u32> = (0..90).map(|k| k * 7 % 250).collect();
        let whole = model.sequence().forward(&tokens).unwrap().logits;
        let mut sequence = model.sequence();
        let chunked = tokens.chunks(32).map(|chunk| sequence.forward(chunk).unwrap().logits).last().unwrap();
        let mut sequence = model.sequence();
        let single = tokens.iter().map(|&token| sequence.forward(&[token]).unwrap().logits).last().unwrap();
        for other in [chunked, single] {
            let worst = whole.iter().zip(&other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(if model.is_exact() { worst == 0.0 } else { worst < 0.5 }, "{model:?}: {worst}");
        }
    }
}

#[test]
fn sequences_of_one_model_do_not_see_each_other() {
    for model in all() {
        let model = model.as_ref();
        let (first, second) = (request(model, 12, 1), request(model, 12, 2));
        let alone = [answer(model, &first).0, answer(model, &second).0];
        let (mut a, mut b) = (model.generate(&first).unwrap(), model.generate(&second).unwrap());
        let mut together = [Vec::new(), Vec::new()];
        loop {
            let steps = [a.next(), b.next()];
            if steps.iter().all(Option::is_none) {
                break;
            }
            for (ids, step) in together.iter_mut().zip(steps) {
                if let Some(Ok(Step::Token { id, .. })) = step {
                    ids.push(id);
                }
            }
        }
        assert_eq!(together, alone);
    }
}

#[test]
fn another_peer_continues_where_the_first_stopped() {
    let model = tiny();
    let model = model.as_ref();
    let whole = request(model, 30, 11);
    let (ids, text, reason) = answer(model, &whole);
    for cut in [0, 1, ids.len() / 2, ids.len()] {
        let rest = Request { answered: ids[..cut].to_vec(), ..whole.clone() };
        for check in [false, true] {
            let rest = Request { check, ..rest.clone() };
            let (continued, tail, again) = answer(model, &rest);
            assert_eq!((&continued[..], again), (&ids[cut..], reason));
            assert!(text.ends_with(&tail));
        }
    }
}

#[test]
fn an_answer_that_is_not_this_models_is_not_continued() {
    let model = tiny();
    let model = model.as_ref();
    let whole = request(model, 70, 11);
    let (ids, ..) = answer(model, &whole);
    for wrong in [0, 1, 31, 32, ids.len() - 1] {
        let mut answered = ids.clone();
        answered[wrong] = (answered[wrong] + 1) % 200;
        let rest = Request { answered, check: true, ..whole.clone() };
        let found = model.generate(&rest).unwrap().find_map(Result::err);
        assert!(
            matches!(found, Some(GenerateError::Inherited { index }) if index as usize == wrong),
            "{found:?} at {wrong}"
        );
        let unchecked = Request { check: false, ..rest };
        assert!(model.generate(&unchecked).unwrap().all(|step| step.is_ok()));
    }
}

#[test]
fn the_text_of_each_token_is_known_without_the_model() {
    let model = tiny();
    let request = request(model.as_ref(), 40, 3);
    let steps: Vec<_> = model.generate(&request).unwrap().map(Result::unwrap).collect();
    let token = |step: &Step| match step {
        Step::Token { id, text, .. } => Some((*id, text.clone())),
        _ => None,
    };
    let (ids, said): (Vec<_>, Vec<_>) = steps.iter().filter_map(token).unzip();
    assert_eq!(texts(model.vocabulary(), &request.sampling, &ids), said);
}

#[test]
fn a_prompt_that_does_not_fit_is_refused() {
    let model = tiny();
    let long = model.prompt(&Prompt::Text("x ".repeat(600)));
    assert!(matches!(long, Err(PromptError::TooLong { tokens: 1200, context: 512 })), "{long:?}");
    assert!(matches!(model.prompt(&Prompt::Text(String::new())), Err(PromptError::Empty)));
    let foreign = model.prompt(&Prompt::Tokens(vec![1, 267]));
    assert!(matches!(foreign, Err(PromptError::UnknownToken { id: 267, vocabulary: 267 })));
}

#[test]
fn an_answer_ends_at_the_context() {
    let model = tiny();
    let model = model.as_ref();
    let prompt = vec![50; 509];
    let sampling = Sampling { max_tokens: 100, seed: 1, ..Sampling::default() };
    let (ids, _, reason) = answer(model, &Request::new(prompt.clone(), sampling.clone()));
    if reason == FinishReason::Length {
        assert_eq!(ids.len(), 3);
    }
    let claim = Claim { prompt, answer: ids, sampling, finish: Some(reason), ..Claim::default() };
    assert!(model.replay(&claim).unwrap().complete().unwrap().exact());
}

#[test]
fn a_chat_becomes_tokens_by_the_files_template() {
    let model = tiny();
    let chat = Chat { messages: vec![Message::new("user", "Hé")], ..Chat::default() };
    let ids = model.prompt(&Prompt::Chat(chat)).unwrap();
    assert_eq!((ids[0], ids.iter().filter(|&&id| id < 3).count()), (1, 3));
    assert_eq!(model.vocabulary().decode(&ids), "user\nHé\nassistant\n");
}

#[test]
fn speed_is_measured() {
    let speed = tiny().measure().unwrap();
    assert!(speed.prefill > 1.0 && speed.decode > 1.0, "{speed:?}");
}

fn write(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn tiny_bytes() -> &'static [u8] {
    static BYTES: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    BYTES.get_or_init(|| {
        let (_folder, path) = write(&[]);
        write_tiny(&path, 7).unwrap();
        std::fs::read(path).unwrap()
    })
}

/// A copy of the tiny file in which the number stored for `key` is another.
fn with_number(key: &str, value: u32) -> Vec<u8> {
    let mut bytes = tiny_bytes().to_vec();
    let at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap() + key.len() + 4;
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    bytes
}

#[test]
fn numbers_that_an_engine_would_trust_are_refused() {
    for (key, value) in [
        ("llama.block_count", u32::MAX),
        ("llama.block_count", 0),
        ("llama.embedding_length", 0),
        ("llama.embedding_length", u32::MAX),
        ("llama.attention.head_count", 0),
        ("llama.attention.head_count_kv", 0),
        ("llama.attention.head_count_kv", 3),
        ("llama.rope.dimension_count", u32::MAX),
        ("llama.context_length", 0),
    ] {
        let (_folder, path) = write(&with_number(key, value));
        let error = load(&path).unwrap_err();
        assert!(matches!(error, LoadError::Hostile { .. }), "{key} = {value}: {error}");
    }
    let (_folder, path) = write(&with_number("llama.context_length", u32::MAX));
    let candle = load_with(&path, Loading { engine: EngineChoice::Candle, ..Loading::default() });
    assert_eq!(candle.unwrap().card().context, quantized_llama::MAX_SEQ_LEN, "its table's length");
    assert_eq!(load(&path).unwrap().card().context, 1 << 17);
}

#[test]
fn other_architectures_are_named() {
    let mut bytes = tiny_bytes().to_vec();
    let at = bytes.windows(5).position(|window| window == b"llama").unwrap();
    bytes[at..at + 5].copy_from_slice(b"mamba");
    let (_folder, path) = write(&bytes);
    let error = load(&path).unwrap_err();
    assert_eq!(
        error.to_string(),
        "models of architecture `mamba` are not supported; take one of: gemma3, llama, qwen2, qwen3"
    );
    assert!(matches!(load("/nowhere/model.gguf".as_ref()), Err(LoadError::Io(_))));
}

/// The most memory this process has ever asked for.
#[cfg(target_os = "linux")]
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmPeak:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Whatever happens to a file, loading it ends in a model or an error, and asks for no absurd memory.
    #[test]
    fn mangled_files_neither_panic_nor_devour(
        edits in prop::collection::vec((0.0f64..1.0, any::<u8>()), 0..6),
        length in prop_oneof![3 => Just(1.0f64), 1 => 0.0f64..1.0],
        in_header in prop::bool::weighted(0.9),
    ) {
        let mut bytes = tiny_bytes().to_vec();
        // The header is where the numbers are; most edits go there.
        let reach = if in_header { 9_000.0f64.min(bytes.len() as f64) } else { bytes.len() as f64 };
        for (place, byte) in edits {
            bytes[(place * reach) as usize] = byte;
        }
        bytes.truncate((length * bytes.len() as f64) as usize);
        let (_folder, path) = write(&bytes);
        let loaded = load(&path);
        prop_assert!(!matches!(&loaded, Err(LoadError::Io(_))), "{loaded:?}");
        #[cfg(target_os = "linux")]
        prop_assert!(peak_memory() < 3 << 30);
    }
}
