//! Plans become agents: weights are shared, damage is its own agent's only, and what cannot be is said at once.

use std::fs;
use std::path::{Path, PathBuf};

use protocol::Price;

use super::*;
use crate::models::Silent;

/// Room for one tiny model and the caches of its jobs: those take whatever is left.
const ROOM_FOR_ONE: u64 = 64 << 20;

fn tiny(folder: &Path, seed: u64) -> PathBuf {
    let path = folder.join(format!("tiny-{seed}.gguf"));
    inference::tiny::write_tiny(&path, seed).unwrap();
    path
}

fn plan(name: &str, model: &Path) -> AgentPlan {
    AgentPlan {
        name: Some(name.to_owned()),
        capability: None,
        backend: Backend::Model(model.to_str().unwrap().to_owned()),
        system: None,
        public_system: false,
        price: Price::default(),
    }
}

fn resources(memory: u64) -> Resources {
    Resources {
        threads: NonZeroUsize::new(1),
        memory: Memory::of_bytes(memory).unwrap(),
        ..Resources::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_of_one_model_share_one_load_that_is_done_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (model, copy) = (tiny(folder.path(), 1), folder.path().join("copy.gguf"));
    fs::copy(&model, &copy).unwrap();
    let models = Models::new(folder.path());
    let mut host = Host::new(&models, &Silent, resources(1 << 40));
    let plans = vec![plan("a", &model), plan("b", &model), plan("c", &copy)];
    let agents = host.host(plans).await.unwrap();
    assert_eq!((agents.offers().len(), *host.library().loads().borrow()), (3, 1));
    assert!(agents.offers().iter().all(|offer| offer.speed.decode > 0), "all know how fast it is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_beside_the_first_waits_for_its_first_job_and_is_offered_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (tiny(folder.path(), 1), tiny(folder.path(), 2));
    let models = Models::new(folder.path());
    let speeds = folder.path().join("speeds.json");
    let host = || Host::new(&models, &Silent, resources(ROOM_FOR_ONE)).with_speeds(speeds.clone());
    let plans = || vec![plan("a", &first), plan("b", &second)];

    let mut start = host();
    let offers = start.host(plans()).await.unwrap().offers();
    assert_eq!(*start.library().loads().borrow(), 1);
    let model = offers[1].model.as_ref().unwrap();
    assert_eq!(model.digest, crypto::Digest::of_content(&fs::read(&second).unwrap()));
    assert!(model.context > 0 && model.engine == offers[0].model.as_ref().unwrap().engine);
    assert_eq!(offers[1].speed.decode, 0, "nobody knows yet");
    let second = start.model(second.to_str().unwrap()).await.unwrap();
    drop(second.lease().await.unwrap());

    let mut again = host();
    let offers = again.host(plans()).await.unwrap().offers();
    assert_eq!(*again.library().loads().borrow(), 1);
    assert_eq!((offers[1].speed, offers[1].speed.decode > 0), (second.speed(), true), "the disk knows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_model_takes_its_own_agent_away_only() {
    let folder = tempfile::tempdir().unwrap();
    let (sound, cut) = (tiny(folder.path(), 1), tiny(folder.path(), 2));
    let bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let models = Models::new(folder.path());
    let mut host = Host::new(&models, &Silent, resources(1 << 40));
    let agents = host.host(vec![plan("cut", &cut), plan("sound", &sound)]).await.unwrap();
    assert!(agents.named("sound").is_some() && agents.named("cut").is_none());
    let alone = Host::new(&models, &Silent, resources(1 << 40)).host(vec![plan("cut", &cut)]).await;
    let failure = alone.unwrap_err();
    assert_eq!(failure.class, Class::Model);
    assert!(failure.message.contains("tiny-2.gguf"), "{failure}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_beyond_the_limit_is_refused_with_both_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny(folder.path(), 1);
    let models = Models::new(folder.path());
    let refused = Host::new(&models, &Silent, resources(1 << 10)).host(vec![plan("a", &model)]).await;
    let failure = refused.unwrap_err();
    assert_eq!(failure.class, Class::Usage);
    for part in ["tiny-1.gguf", "1.0 KiB", "--memory"] {
        assert!(failure.message.contains(part), "`{part}` is missing in: {failure}");
    }
}
