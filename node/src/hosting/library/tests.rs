//! Tiny models under a limit: they come, go, are shared, and fail for themselves only.

use std::fs;
use std::path::Path;
use std::sync::Weak;

use inference::Engine;

use super::*;
use crate::config::Memory;
use crate::hosting::Resources;
use crate::hosting::speeds::Speeds;
use crate::models::{Form, ModelFile};

/// Room for one tiny model and the caches of its jobs: those take whatever is left.
const ROOM_FOR_ONE: u64 = 64 << 20;

fn resources(memory: u64) -> Resources {
    let threads = std::num::NonZeroUsize::new(1);
    Resources { memory: Memory::of_bytes(memory).unwrap(), threads, ..Resources::default() }
}

fn library(resources: &Resources) -> Library {
    Library::open(resources.policy())
}

/// A tiny model in a file of `folder`.
fn volume(folder: &Path, seed: u64, resources: Resources) -> Volume {
    let path = folder.join(format!("tiny-{seed}.gguf"));
    inference::tiny::write_tiny(&path, seed).unwrap();
    let digest = Digest::of_content(&fs::read(&path).unwrap());
    let file = ModelFile { path, form: Form::Gguf, digest, name: format!("tiny-{seed}") };
    Volume::open(file, resources, Arc::new(Speeds::default())).unwrap()
}

fn engine(lease: &Lease) -> Weak<dyn Engine> {
    Arc::downgrade(lease.worker().unwrap().engine())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_that_do_not_fit_together_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    let resources = resources(ROOM_FOR_ONE);
    let library = library(&resources);
    let mut models = Vec::new();
    for seed in [1, 2] {
        models.push(library.enrol(volume(folder.path(), seed, resources)).await.unwrap());
    }
    let mut before: Option<Weak<dyn Engine>> = None;
    for turn in 0..4 {
        let model = &models[turn % 2];
        let lease = model.lease().await.unwrap();
        assert_eq!(lease.worker().unwrap().engine().card().digest, model.volume().digest());
        assert!(before.is_none_or(|engine| engine.strong_count() == 0), "the other one left memory first");
        before = Some(engine(&lease));
    }
    assert_eq!(*library.loads().borrow(), 4);
    assert!(models.iter().all(|model| model.speed().decode > 0), "both are measured");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_keeps_a_model_when_the_lease_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let resources = resources(ROOM_FOR_ONE);
    let library = library(&resources);
    let first = library.enrol(volume(folder.path(), 1, resources)).await.unwrap();
    let second = library.enrol(volume(folder.path(), 2, resources)).await.unwrap();
    let lease = first.lease().await.unwrap();
    let (hold, engine) = (lease.hold(), engine(&lease));
    drop(lease);
    let mut other = Box::pin(second.lease());
    // The ask is with the library when a later one has been answered.
    assert!(futures::poll!(&mut other).is_pending());
    first.lease().await.unwrap();
    assert!(engine.strong_count() > 0 && futures::poll!(&mut other).is_pending());
    drop(hold);
    other.await.unwrap();
    assert_eq!(engine.strong_count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_under_two_names_is_loaded_once() {
    let folder = tempfile::tempdir().unwrap();
    let resources = resources(ROOM_FOR_ONE);
    let library = library(&resources);
    let one = library.enrol(volume(folder.path(), 1, resources)).await.unwrap();
    let other = library.enrol(volume(folder.path(), 1, resources)).await.unwrap();
    let (one, other) = futures::join!(one.lease(), other.lease());
    let (one, other) = (one.unwrap(), other.unwrap());
    assert!(Arc::ptr_eq(one.worker().unwrap().engine(), other.worker().unwrap().engine()));
    assert_eq!(*library.loads().borrow(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_takes_the_ask_back() {
    let folder = tempfile::tempdir().unwrap();
    let resources = resources(ROOM_FOR_ONE);
    let library = library(&resources);
    let first = library.enrol(volume(folder.path(), 1, resources)).await.unwrap();
    let second = library.enrol(volume(folder.path(), 2, resources)).await.unwrap();
    let lease = first.lease().await.unwrap();
    let mut other = Box::pin(second.lease());
    assert!(futures::poll!(&mut other).is_pending());
    drop(other);
    drop(lease);
    // Nobody wants the second one any more, so the first stays where it is.
    first.lease().await.unwrap();
    assert_eq!(*library.loads().borrow(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_exchanged_is_not_loaded_and_harms_no_other_model() {
    let folder = tempfile::tempdir().unwrap();
    let resources = resources(ROOM_FOR_ONE);
    let library = library(&resources);
    let first = library.enrol(volume(folder.path(), 1, resources)).await.unwrap();
    let second = library.enrol(volume(folder.path(), 2, resources)).await.unwrap();
    fs::copy(first.volume().path(), second.volume().path()).unwrap();
    first.lease().await.unwrap();
    for _ in 0..2 {
        let refused = second.lease().await.map(|_| ()).unwrap_err();
        assert!(matches!(&refused, LeaseError::Load(_)), "{refused}");
        assert_eq!(JobError::from(refused), JobError::Engine);
    }
    first.lease().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_beyond_the_limit_is_not_enrolled() {
    let folder = tempfile::tempdir().unwrap();
    let resources = resources(1000);
    let library = library(&resources);
    let refused = library.enrol(volume(folder.path(), 1, resources)).await.map(|_| ());
    assert_eq!(refused.unwrap_err(), TooLarge);
}
