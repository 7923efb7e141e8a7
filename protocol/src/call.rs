//! Calls: arguments in, text out, and what names the tool between them (SPEC §8.10).
//!
//! A tool takes the place of a model in an offer and a receipt, but nothing can be computed again from its digest: it
//! only says that two answers came from the same tool, as far as its provider is believed.

use crypto::{Digest, Hasher};

/// The engine that offers and receipts of tools name.
pub const ENGINE: &str = "tool-1";

/// The digest of a program with the arguments that are always given to it. `content` is that of its file.
pub fn program(content: Digest, arguments: &[String]) -> Digest {
    let hasher = Hasher::new("tool/program").part(content.as_bytes());
    arguments.iter().fold(hasher, |hasher, argument| hasher.part(argument.as_bytes())).finish()
}

/// The digest of a tool that is only known by what its server tells of it; `schema` is the JSON text of that of its
/// arguments.
pub fn described(name: &str, description: &str, schema: &str) -> Digest {
    let parts = [name, description, schema];
    parts.iter().fold(Hasher::new("tool/described"), |hasher, part| hasher.part(part.as_bytes())).finish()
}
