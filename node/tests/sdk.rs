//! The mesh for Rust programs: joined, asked, offered to, and left. No process is started here: one that is being made holds
//! every lock of its parent for a moment, and a folder that was left would seem taken.

use node::request::JobRequest;
use node::sdk::{Mesh, Question, Say, Skill};
use protocol::JobError;

#[derive(Debug)]
struct Backwards;

impl Skill for Backwards {
    async fn answer(&self, question: &Question, say: &Say) -> Result<(), JobError> {
        if question.text() == "nothing" {
            return Err(JobError::invalid("prompt", "is nothing"));
        }
        for letter in question.text().chars().rev() {
            if !say.text(&letter.to_string()).await {
                break;
            }
        }
        Ok(())
    }
}

fn asking(prompt: &str) -> JobRequest {
    let capability = Some("text.backwards".parse().expect("a capability"));
    JobRequest { prompt: Some(prompt.to_owned()), capability, ..JobRequest::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_offers_what_another_one_asks_for() {
    let skill = ("text.backwards".parse().expect("a capability"), Backwards);
    let offering = Mesh::builder().network("sdk").listen("/ip4/127.0.0.1/tcp/0").offer(skill.0, skill.1);
    let offering = offering.start().await.expect("a peer");
    let address = offering.addresses().await.expect("addresses").remove(0);
    let folder = tempfile::tempdir().expect("a folder");
    let asking_peer = || Mesh::builder().network("sdk").bootstrap(&address).folder(folder.path()).start();
    let mesh = asking_peer().await.expect("a mesh");

    let mut answer = mesh.submit(&asking("abc")).await.expect("a job");
    assert_eq!(answer.next().await, Some(Ok("c".to_owned())), "piece by piece");
    assert_eq!(answer.provider(), None);
    assert_eq!(answer.text().await, Ok("ba".to_owned()));
    assert_eq!((answer.provider(), answer.next().await), (Some(offering.id()), None));
    assert_eq!(answer.cost(), Some(protocol::Credits::ZERO));
    let receipt = answer.completion().expect("a receipt").receipt.digest();
    assert!(node::receipts::path_of(&folder.path().join("receipts"), receipt).exists());

    let short = JobRequest { max_tokens: Some(2), ..asking("abc") };
    let mut answer = mesh.submit(&short).await.expect("a job");
    assert_eq!(answer.text().await, Ok("cb".to_owned()));
    let mut refused = mesh.submit(&asking("nothing")).await.expect("a job");
    assert_eq!(refused.text().await, Err(JobError::invalid("prompt", "is nothing")));

    let id = mesh.id();
    mesh.leave().await.expect("an end");
    let again = asking_peer().await.expect("the folder is free");
    assert_eq!(again.id(), id, "a folder keeps the key");
}
