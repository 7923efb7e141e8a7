//! Files of the hub without a pin: the first bytes are taken, and none but them from then on.

use super::*;

const NAME: &str = "some/where/tiny.gguf";

fn refused(error: ObtainError) -> Failure {
    let ObtainError::Hub { selector, failure } = error else { panic!("{error:?}") };
    assert!(selector.starts_with("some/where"), "{selector}");
    failure
}

#[tokio::test]
async fn a_file_is_fetched_by_name_and_its_digest_remembered() {
    let hub = Hub::with([Reply::File, Reply::File]).await;
    let (cache, models) = models(&hub);
    let counted = Counted::default();
    let file = models.obtain(NAME, &counted).await.unwrap();
    assert_eq!((file.digest, file.name.as_str()), (tiny().digest(), "tiny"));
    assert_eq!(file.path, cache.path().join("models/hub/some/where/tiny.gguf"));
    assert_eq!(*counted.0.lock().unwrap(), (tiny().size(), 0));
    let note = fs::read_to_string(file.path.with_extension("gguf.b3")).unwrap();
    assert_eq!(note, format!("{}  tiny.gguf\n", file.digest), "as b3sum prints it");

    assert_eq!(models.clone().offline().obtain(NAME, &Silent).await.unwrap(), file);
    assert_eq!(models.by_digest(&file.digest), Some(file.path));
    let pinned = models.obtain("some/where@v2/deep/tiny.gguf", &Silent).await.unwrap();
    assert_eq!(pinned.path, cache.path().join("models/hub/some/where@v2/deep/tiny.gguf"));
    let paths: Vec<_> = hub.asked().into_iter().map(|asked| asked.path).collect();
    assert_eq!(paths, ["/some/where/resolve/main/tiny.gguf", "/some/where/resolve/v2/deep/tiny.gguf"]);
}

#[tokio::test]
async fn a_cut_download_goes_on_while_the_tag_holds() {
    let hub = Hub::with([Reply::Cut(100_000), Reply::Cut(0), Reply::File]).await;
    let (_cache, models) = models(&hub);
    let failure = refused(models.obtain(NAME, &Silent).await.unwrap_err());
    assert!(matches!(failure, Failure::Cut(_) | Failure::Short { .. }), "{failure:?}");
    // As another process would, from what lies in the cache.
    let file = models.clone().obtain(NAME, &Silent).await.unwrap();
    assert_eq!(fs::read(&file.path).unwrap(), content());
    assert_eq!(hub.starts(), [0, 100_000, 100_000]);
    assert_eq!(hub.asked()[2].condition.as_deref(), Some("\"first\""));
    let mut left: Vec<_> = fs::read_dir(file.path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["tiny.gguf", "tiny.gguf.b3", "tiny.gguf.lock"]);
}

#[tokio::test]
async fn two_halves_of_two_files_are_never_put_together() {
    let hub = Hub::with([Reply::Cut(100_000), Reply::Changed]).await;
    let (_cache, models) = models(&hub);
    let file = models.obtain(NAME, &Silent).await.unwrap();
    assert_eq!(fs::read(file.path).unwrap(), changed());
}

#[tokio::test]
async fn without_a_tag_a_file_is_begun_again() {
    let hub = Hub::with([Reply::Whole]).await;
    let (cache, models) = models(&hub);
    let folder = cache.path().join("models/hub/some/where");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("tiny.gguf.part"), b"GGUF of yesterday").unwrap();
    fs::write(folder.join("tiny.gguf.told"), format!("{{\"size\":{},\"tag\":null}}", tiny().size())).unwrap();
    let file = models.obtain(NAME, &Silent).await.unwrap();
    assert_eq!(fs::read(file.path).unwrap(), content());
    assert_eq!(hub.starts(), [0]);
}

#[tokio::test]
async fn later_uses_are_checked_against_the_first() {
    let hub = Hub::with([Reply::File, Reply::File, Reply::Changed]).await;
    let (_cache, models) = models(&hub);
    let file = models.obtain(NAME, &Silent).await.unwrap();

    let mut spoiled = content();
    spoiled[1000] ^= 1;
    fs::write(&file.path, &spoiled).unwrap();
    assert_eq!(models.by_digest(&Digest::of_content(&spoiled)), None, "it is not what was remembered");
    assert_eq!(models.obtain(NAME, &Silent).await.unwrap(), file, "the right bytes are fetched again");
    assert_eq!(fs::read(file.path.with_extension("gguf.wrong")).unwrap(), spoiled);

    fs::remove_file(&file.path).unwrap();
    let error = models.obtain(NAME, &Silent).await.unwrap_err();
    assert!(error.to_string().contains(&format!("llamesh models rm {NAME}")), "{error}");
    assert!(matches!(refused(error), Failure::Wrong { .. }));
    assert!(!file.path.exists());
}

#[tokio::test]
async fn what_is_no_model_is_not_kept() {
    let hub = Hub::with([Reply::Page, Reply::Status("404 Not Found")]).await;
    let (cache, models) = models(&hub);
    let failure = refused(models.obtain(NAME, &Silent).await.unwrap_err());
    assert!(matches!(failure, Failure::NotGguf), "{failure:?}");
    let error = models.obtain(NAME, &Silent).await.unwrap_err();
    assert!(error.to_string().contains("check owner"), "{error}");
    assert!(matches!(refused(error), Failure::Status(StatusCode::NOT_FOUND)));
    let error = models.clone().offline().obtain(NAME, &Silent).await.unwrap_err();
    assert!(matches!(refused(error), Failure::Offline));
    assert!(!cache.path().join("models/hub/some/where/tiny.gguf.b3").exists());
}

#[tokio::test]
async fn a_path_that_exists_is_meant_before_the_hub() {
    let hub = Hub::with([]).await;
    let (cache, models) = models(&hub);
    let path = cache.path().join("some.gguf");
    fs::write(&path, content()).unwrap();
    assert_eq!(models.obtain(path.to_str().unwrap(), &Silent).await.unwrap().path, path);
    assert!(hub.starts().is_empty());
}
