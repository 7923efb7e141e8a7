//! The default embedder, through the mesh: texts that mean similar things are close, and the receipt replays.
//!
//! Where it is neither in the cache nor to be had, this says so and tests nothing.

use std::time::Duration;

use node::models::{Models, Silent, known::MINILM};

use crate::support::{ANYWHERE, Home, Peer, shown, text};

/// A loaded machine takes its time to read a hundred megabytes.
const PATIENCE: Duration = Duration::from_secs(240);

#[test]
fn the_default_embedder_answers_through_the_mesh() {
    let cache = match obtained() {
        Ok(cache) => cache,
        Err(why) => return eprintln!("SKIPPED: minilm cannot be had here: {why}"),
    };
    // By its name, from the cache where the test has just seen it.
    let home = Home::patient(PATIENCE);
    let mut up = home.command(&["up", "--listen", ANYWHERE, "--api", "127.0.0.1:0", "--model", "minilm"]);
    up.env("LLAMESH_CACHE", &cache);
    let provider = Peer::of(home, up);
    let requester = Home::patient(PATIENCE).up(&["--model", "-", "--bootstrap", &provider.address()]);

    let embed = |words: &str| {
        let outcome = requester.submit(&[words, "--capability", "text.embedding", "--model", "minilm"]);
        let vector: Vec<f32> = serde_json::from_str(&text(&outcome.done()["text"])).unwrap();
        (vector, text(&outcome.done()["receipt_file"]))
    };
    let (food, file) = embed("A man is eating food.");
    let (bread, _) = embed("A man is eating a piece of bread.");
    let (stocks, _) = embed("Stock markets fell sharply on Monday.");
    let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    assert_eq!(food.len(), 384);
    assert!(cosine(&food, &bread) > 0.7 && cosine(&food, &stocks) < 0.1);

    let mut verify = requester.home.command(&["verify", "--replay", &file]);
    verify.env("LLAMESH_CACHE", &cache);
    let verdict = requester.home.spawn(verify).finish();
    assert_eq!(verdict.document()["verdict"], "consistent", "{verdict:?}");
    assert_eq!(verdict.document()["of"], 384);
    let view = requester.run(&["receipts"]);
    assert!(view.lines.iter().all(|line| line["view"]["model"] == MINILM.digest().to_string()), "{view:?}");
}

/// The cache with the model in it, fetched like `llamesh up` does.
fn obtained() -> Result<String, String> {
    let models = Models::from_env().map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let folder = runtime.block_on(models.obtain("minilm", &Silent)).map_err(|error| error.to_string())?.path;
    // <cache>/models/minilm
    let cache = folder.ancestors().nth(2).ok_or("the cache has no folder of its own")?;
    Ok(shown(cache))
}
