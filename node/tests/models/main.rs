//! Real models, and tiny ones without meaning: what is promised of their answers.

mod embedding;
mod exact;
mod guided;
mod real_embedder;
mod real_model;
#[path = "../support/support.rs"]
mod support;
