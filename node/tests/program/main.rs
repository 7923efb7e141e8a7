//! The program as people and scripts meet it: processes, folders, networks; one binary, because each takes its time to build.

mod api;
mod approval;
mod bad_input;
mod contract;
mod examples;
mod failover;
mod hosting;
mod keys;
mod lan;
mod plans;
mod sessions;
#[path = "../support/support.rs"]
mod support;
mod tools;
mod watching;
