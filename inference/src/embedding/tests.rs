//! A tiny embedder end to end: load, embed, cut, and files that must not load.

use tempfile::TempDir;

use super::tiny::write_tiny;
use super::*;

fn tiny() -> Embedder {
    Embedder::load(written().path()).unwrap()
}

fn written() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_tiny(folder.path(), 7).unwrap();
    folder
}

fn one(embedder: &Embedder, text: &str) -> Embedding {
    embedder.embed(&[text]).unwrap().remove(0)
}

#[test]
fn a_vector_has_length_one_and_depends_on_its_text_only() {
    let embedder = tiny();
    let together = embedder.embed(&["an otter", "a much longer text", "an otter"]).unwrap();
    for embedding in &together {
        let length: f64 = embedding.vector.iter().map(|x| f64::from(*x).powi(2)).sum();
        assert!((length - 1.0).abs() < 1e-6, "{length}");
        assert_eq!(embedding.vector.len(), embedder.card().dimensions);
    }
    assert_eq!(together[0], together[2]);
    assert_eq!(together[0], one(&embedder, "an otter"), "company makes no difference");
    assert_ne!(together[0].vector, together[1].vector);
    assert_eq!(together[0], one(&tiny(), "an otter"), "nor does loading it again");
}

#[test]
fn a_long_text_is_cut_at_its_end() {
    let embedder = tiny();
    let context = embedder.card().context;
    // The model's own two tokens take two places.
    let fits = "b ".repeat(context - 2);
    let longer = format!("{fits}and more that is not read");
    let (fits, longer) = (one(&embedder, &fits), one(&embedder, &longer));
    assert_eq!(fits.tokens.len(), context);
    assert_eq!(fits, longer);
    let shorter = one(&embedder, &"b ".repeat(context - 3));
    assert_ne!(shorter.vector, fits.vector, "what fits is read to its end");
    let spaces = " ".repeat(MAX_TEXT - 1);
    assert_eq!(one(&embedder, &format!("{spaces}ab")).tokens.len(), 3, "so far it is looked at");
    assert_eq!(one(&embedder, &format!("{spaces}éb")).tokens.len(), 2, "and no character is cut in two");
    let empty = one(&embedder, "");
    assert_eq!(empty.tokens, [2, 3], "no text is a text, too");
}

#[test]
fn texts_at_once_are_bounded() {
    let embedder = tiny();
    let refused = embedder.embed(&vec![""; MAX_TEXTS + 1]).unwrap_err();
    assert!(matches!(refused, EmbedError::TooMany { count } if count == MAX_TEXTS + 1), "{refused}");
}

#[test]
fn the_digest_is_that_of_all_files() {
    let folder = written();
    let item = |name: &str| {
        let bytes = std::fs::read(folder.path().join(name)).unwrap();
        Item { name: name.to_owned(), size: bytes.len() as u64, digest: Digest::of_content(&bytes) }
    };
    let digest = || Embedder::load(folder.path()).unwrap().card().digest;
    let before = digest();
    assert_eq!(before, Manifest::new(FILES.map(item)).digest());
    std::fs::write(folder.path().join(SENTENCES), "{\"max_seq_length\": 9}").unwrap();
    assert_ne!(digest(), before);
}

#[test]
fn files_that_are_not_credible_are_refused_in_words() {
    let with = |name: &str, from: &str, to: &str| {
        let folder = written();
        let path = folder.path().join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        Embedder::load(folder.path()).unwrap_err().to_string()
    };
    let cases = [
        (CONFIG, "\"hidden_size\":16", "\"hidden_size\":4000000000", "hidden_size"),
        (CONFIG, "\"num_hidden_layers\":2", "\"num_hidden_layers\":0", "num_hidden_layers"),
        (CONFIG, "\"num_attention_heads\":2", "\"num_attention_heads\":3", "heads"),
        (CONFIG, "\"hidden_size\":16", "\"hidden_size\":32", "shape"),
        (CONFIG, "\"vocab_size\":56", "\"vocab_size\":55", "more tokens than embeddings"),
        (CONFIG, "\"bert\"", "\"llama\"", "`llama`"),
        (SENTENCES, "16", "0", "max_seq_length"),
        (SENTENCES, "16", "\"many\"", SENTENCES),
        (TOKENIZER, "WordPiece", "Wordless", "inconsistent"),
    ];
    for (file, from, to, expected) in cases {
        let said = with(file, from, to);
        assert!(said.contains(expected), "{from} -> {to}: {said}");
    }
}

#[test]
fn weights_that_are_cut_short_or_missing_are_refused() {
    let folder = written();
    let path = folder.path().join(WEIGHTS);
    let bytes = std::fs::read(&path).unwrap();
    for len in [0, 7, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..len]).unwrap();
        let refused = Embedder::load(folder.path()).unwrap_err();
        assert!(matches!(refused, LoadError::Broken { .. }), "{len}: {refused}");
    }
    std::fs::remove_file(&path).unwrap();
    let refused = Embedder::load(folder.path()).unwrap_err();
    assert!(refused.to_string().contains(WEIGHTS), "{refused}");
}

#[test]
fn the_profile_names_the_candle_that_is_linked() {
    let lock = include_str!("../../../Cargo.lock");
    assert!(lock.contains(&format!("name = \"candle-nn\"\nversion = \"{CANDLE}\"")));
    assert!(tiny().profile().starts_with("candle-"));
}

#[test]
fn ids_are_read_as_they_stand() {
    let embedder = tiny();
    let text = one(&embedder, "an otter");
    assert_eq!(embedder.embed_ids(&text.tokens).unwrap(), text);
    let long = vec![text.tokens[1]; embedder.card().context + 1];
    assert_eq!(embedder.embed_ids(&long).unwrap().tokens.len(), embedder.card().context);
    for wrong in [vec![], vec![u32::MAX]] {
        assert!(matches!(embedder.embed_ids(&wrong), Err(EmbedError::Ids { .. })));
    }
}
