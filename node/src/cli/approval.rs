//! Asking whoever sits at the terminal whether a job that is held may begin.
//!
//! Without a terminal a running peer keeps the job until somebody says `llamesh approve` or `llamesh cancel`, or asks its
//! API for the same; a peer of the moment has nobody else to ask, so there the job is cancelled.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};

use clap::Args;
use protocol::JobId;
use protocol::approval::Rule;

use super::print;
use super::session::{Client, Peer, busy};
use crate::failure::Failure;
use crate::handle::NodeHandle;

/// Of which jobs somebody is asked first.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Approval {
    /// Ask before a job begins that may cost more, is delegated so deep, or calls a tool: cost:MICRO-CREDITS, depth:LEVELS,
    /// tool, tool:CAPABILITY (repeatable)
    #[arg(long = "approve", value_name = "RULE", value_delimiter = ',')]
    pub(super) rules: Vec<Rule>,
}

/// Where what was decided is said.
#[derive(Clone, Debug)]
pub(super) enum Approver {
    Api(Client),
    Own(NodeHandle),
}

impl Approver {
    pub(super) fn of(peer: &Peer) -> Self {
        match peer {
            Peer::Api(client) => Self::Api(client.clone()),
            Peer::Own(node) => Self::Own(node.handle().clone()),
        }
    }

    /// Asks, and does what was answered. Whoever is asked may take their time; nothing waits for it but the job.
    pub(super) fn ask(&self, job: JobId, rule: &Rule, what: &str) {
        if !is_attended() && matches!(self, Self::Api(_)) {
            return print::say(&hint(job, rule));
        }
        let question = format!("{what} needs approval ({rule}). May it begin? [y/N]");
        let approver = self.clone();
        tokio::spawn(async move {
            let asked = tokio::task::spawn_blocking(move || confirmed(&question)).await;
            if let Err(failure) = approver.decide(job, asked.unwrap_or(false)).await {
                print::say(&failure.message);
            }
        });
    }

    async fn decide(&self, job: JobId, approved: bool) -> Result<(), Failure> {
        match (self, approved) {
            (Self::Api(client), true) => client.act(&format!("/control/jobs/{job}/approve")).await,
            (Self::Api(client), false) => client.delete(&format!("/control/jobs/{job}")).await,
            (Self::Own(node), true) => node.approve(job).map_err(busy),
            (Self::Own(node), false) => node.cancel(job).map_err(busy),
        }
    }
}

/// What to do about a job that is held where nobody can be asked.
pub(super) fn hint(job: JobId, rule: &Rule) -> String {
    format!("job {job} needs approval ({rule}): `llamesh approve {job}` or `llamesh cancel {job}`")
}

/// Asks on the terminal; without one nobody can say yes. One question at a time.
pub(super) fn confirmed(question: &str) -> bool {
    static ASKING: Mutex<()> = Mutex::new(());
    let _one = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
    if !is_attended() {
        print::say(&format!("{question} no: there is no terminal to ask on"));
        return false;
    }
    print::say(question);
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

fn is_attended() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}
