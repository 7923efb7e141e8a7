//! What the cache says that it has, and that only this gets deleted.

use super::*;
use crate::models::inventory::Entry;

fn names(models: &Models) -> Vec<(String, bool)> {
    models.list().into_iter().map(|entry| (entry.name, entry.present)).collect()
}

#[tokio::test]
async fn what_is_known_and_what_is_here_is_listed_by_the_name_that_means_it() {
    let hub = Hub::with([Reply::File, Reply::File, Reply::Cut(1000), Reply::Cut(0)]).await;
    let (cache, models) = models(&hub);
    assert_eq!(names(&models), [("tiny".to_owned(), false)]);

    let file = models.obtain("tiny", &Silent).await.unwrap();
    models.obtain("some/where/b.gguf", &Silent).await.unwrap();
    models.obtain("some/where/cut.gguf", &Silent).await.unwrap_err();
    fs::write(cache.path().join("models/mine.gguf"), b"GGUF of somebody").unwrap();
    fs::write(cache.path().join("models/notes.txt"), b"no model").unwrap();
    let listed = models.list();
    let expected = Entry {
        name: "tiny".to_owned(),
        form: Form::Gguf,
        size: tiny().size(),
        digest: Some(tiny().digest()),
        from: vec!["hub some/where@abc/tiny-Q4.gguf".to_owned(), "wheel llamesh-tiny==0.1.0".to_owned()],
        present: true,
        path: file.path,
    };
    assert_eq!(listed[0], expected);
    let others: Vec<_> = listed[1..]
        .iter()
        .map(|entry| (entry.name.as_str(), entry.size, entry.digest, entry.present))
        .collect();
    let expected = [
        ("some/where/b.gguf", tiny().size(), Some(tiny().digest()), true),
        ("some/where/cut.gguf", 1000, None, false),
        ("mine.gguf", 16, None, true),
    ];
    assert_eq!(others, expected);
}

#[tokio::test]
async fn what_is_deleted_is_gone_with_all_that_lay_beside_it() {
    let hub = Hub::with([Reply::File, Reply::File, Reply::Changed]).await;
    let (cache, models) = models(&hub);
    models.obtain("tiny", &Silent).await.unwrap();
    let file = models.obtain("some/where/b.gguf", &Silent).await.unwrap();
    let wrong = cache.path().join("models/tiny.gguf.wrong");
    fs::write(&wrong, b"12345").unwrap();

    assert_eq!(models.remove("tiny").unwrap(), tiny().size() + 5);
    assert!(!wrong.exists());
    assert!(matches!(models.remove("tiny").unwrap_err(), RemoveError::Absent(_)));
    let note = fs::metadata(file.path.with_extension("gguf.b3")).unwrap().len();
    assert_eq!(models.remove("some/where/b.gguf").unwrap(), tiny().size() + note);
    assert_eq!(names(&models), [("tiny".to_owned(), false)]);
    let forgotten = models.obtain("some/where/b.gguf", &Silent).await.unwrap();
    assert_eq!(forgotten.digest, Digest::of_content(&changed()), "what was remembered is gone, too");
}

#[tokio::test]
async fn nothing_outside_of_the_cache_can_be_deleted() {
    let hub = Hub::with([]).await;
    let (cache, models) = models(&hub);
    let outside = cache.path().join("mine.gguf");
    fs::write(&outside, content()).unwrap();
    fs::create_dir_all(cache.path().join("models/hub")).unwrap();
    for name in [outside.to_str().unwrap(), "../mine.gguf", "hub/../../mine.gguf", "", "hub", "models"] {
        let refused = models.remove(name).unwrap_err();
        assert!(matches!(refused, RemoveError::Unknown(_)), "{name}: {refused}");
    }
    let refused = models.remove("some/where/a.gguf").unwrap_err();
    assert!(matches!(refused, RemoveError::Absent(_)), "{refused}");
    std::os::unix::fs::symlink(cache.path(), cache.path().join("models/hub/out")).unwrap();
    std::os::unix::fs::symlink(&outside, cache.path().join("models/link.gguf")).unwrap();
    assert_eq!(names(&models), [("tiny".to_owned(), false), ("link.gguf".to_owned(), true)]);
    models.remove("link.gguf").unwrap();
    assert!(outside.exists());
}

#[tokio::test]
async fn what_is_being_fetched_is_not_deleted() {
    let hub = Hub::with([]).await;
    let (cache, models) = models(&hub);
    let folder = cache.path().join("models");
    fs::create_dir(&folder).unwrap();
    let _held = lock(&folder.join("tiny.gguf.lock"), &Silent).await.unwrap();
    fs::write(folder.join("tiny.gguf.part"), b"GGUF").unwrap();
    assert!(matches!(models.remove("tiny").unwrap_err(), RemoveError::Busy(_)));
    assert!(folder.join("tiny.gguf.part").exists());
}
