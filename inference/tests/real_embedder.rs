//! The default embedder, when it is at hand: the one test that sees its real weights and its real words.
//!
//! The folder is taken from `LLAMESH_TEST_EMBEDDER`, or from the cache where `llamesh` keeps it. Without it the test says
//! on stderr that nothing was tested.

use std::path::PathBuf;

use inference::Embedder;

fn model_folder() -> Option<PathBuf> {
    let named = std::env::var_os("LLAMESH_TEST_EMBEDDER").map(PathBuf::from);
    let cache = std::env::var_os("LLAMESH_CACHE").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/llamesh"));
    let cached = cache.or(home).map(|cache| cache.join("models/minilm"));
    named.or(cached).filter(|path| path.is_dir())
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn the_default_embedder_says_what_its_authors_say_it_does() {
    let Some(folder) = model_folder() else {
        return eprintln!(
            "SKIPPED: no embedder; `llamesh models pull minilm` brings it, or set LLAMESH_TEST_EMBEDDER to its folder"
        );
    };
    let embedder = Embedder::load(&folder).unwrap();
    assert_eq!((embedder.card().dimensions, embedder.card().context), (384, 256));

    let sentences = ["This is an example sentence", "Each sentence is converted"];
    let [first, second] = embedder.embed(&sentences).unwrap().try_into().unwrap();
    // The values that the model's documentation prints; a plain implementation in 64-bit floats gives the same.
    let published =
        [[0.0676569, 0.0634959, 0.0487131, 0.0793050], [0.0864386, 0.1027626, 0.0053945, 0.0020444]];
    for (found, published) in [&first, &second].into_iter().zip(published) {
        for (found, published) in found.vector.iter().zip(published) {
            assert!((found - published).abs() < 1e-5, "{found} is not {published}");
        }
    }
    assert_eq!(first.tokens, [101, 2023, 2003, 2019, 2742, 6251, 102]);
    assert!((cosine(&first.vector, &second.vector) - 0.404_559).abs() < 1e-4);

    let texts = [
        "A man is eating food.",
        "A man is eating a piece of bread.",
        "Stock markets fell sharply on Monday.",
    ];
    let [food, bread, stocks] = embedder.embed(&texts).unwrap().try_into().unwrap();
    assert!((cosine(&food.vector, &bread.vector) - 0.7553).abs() < 1e-3);
    assert!(cosine(&food.vector, &stocks.vector) < 0.1);
    assert_eq!(food, embedder.embed(&texts[..1]).unwrap().remove(0));

    let long = "word ".repeat(100_000);
    assert_eq!(embedder.embed(&[&long]).unwrap()[0].tokens.len(), 256);
}
