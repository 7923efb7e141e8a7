//! What is found is the longest beginning that its scope may see, and nothing else.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::engine::{ForwardError, Position};

/// A sequence that remembers what it has read, and nothing of what it means.
#[derive(Clone, Debug)]
struct Memory(Vec<u32>);

impl Sequence for Memory {
    fn forward(&mut self, tokens: &[u32]) -> Result<Position, ForwardError> {
        self.0.extend(tokens);
        Ok(Position { logits: self.0.iter().map(|&id| id as f32).collect(), state: None })
    }

    fn fork(&self, length: usize) -> Option<Box<dyn Sequence>> {
        Some(Box::new(Self(self.0[..length].to_vec())))
    }
}

fn keep(prefixes: &mut Prefixes, scope: Scope, tokens: &[u32]) {
    prefixes.keep(scope, tokens, Box::new(Memory(tokens.to_vec())));
}

/// What a found sequence has read.
fn read(found: Option<(Box<dyn Sequence>, usize)>) -> Vec<u32> {
    let Some((mut sequence, length)) = found else { return Vec::new() };
    let mut read: Vec<_> = sequence.forward(&[7]).unwrap().logits.into_iter().map(|x| x as u32).collect();
    assert_eq!((read.pop(), read.len()), (Some(7), length));
    read
}

const MINE: Scope = Scope::Private(Tenant([1; 32]));
const THEIRS: Scope = Scope::Private(Tenant([2; 32]));

fn counting(length: usize) -> Vec<u32> {
    (0..length as u32).collect()
}

proptest! {
    /// Against the plain definition: the longest common beginning with anything kept, from a block on.
    #[test]
    fn the_longest_beginning_is_found(
        kept in vec((vec(0u32..2, 0..5), 0usize..40), 1..12),
        (blocks, tail) in (vec(0u32..2, 0..5), 0usize..40),
        most in 0usize..200,
    ) {
        // Blocks of two kinds make beginnings in common likely; a tail is part of a block.
        let tokens = |(blocks, tail): &(Vec<u32>, usize)| {
            let mut tokens: Vec<u32> = blocks.iter().flat_map(|&kind| [kind; BLOCK]).collect();
            tokens.extend(vec![3; *tail]);
            tokens
        };
        let mut prefixes = Prefixes::default();
        kept.iter().for_each(|one| keep(&mut prefixes, MINE, &tokens(one)));
        let wanted = tokens(&(blocks, tail));
        let longest = kept.iter().map(tokens).filter(|one| one.len() >= BLOCK)
            .map(|one| common(&one, &wanted)).max().unwrap_or(0).min(most);
        let found = read(prefixes.find(&[MINE], &wanted, most));
        prop_assert_eq!(&found[..], if longest < BLOCK { &[][..] } else { &wanted[..longest] });
    }
}

#[test]
fn what_one_tenant_read_serves_no_other() {
    let mut prefixes = Prefixes::default();
    keep(&mut prefixes, MINE, &counting(100));
    assert!(prefixes.find(&[THEIRS, Scope::Public], &counting(100), 99).is_none());
    assert_eq!(read(prefixes.find(&[MINE, Scope::Public], &counting(100), 99)).len(), 99);
    keep(&mut prefixes, Scope::Public, &counting(50));
    assert_eq!(read(prefixes.find(&[THEIRS, Scope::Public], &counting(100), 99)).len(), 50);
}

#[test]
fn a_longer_conversation_replaces_the_shorter_and_the_unused_goes_first() {
    let mut prefixes = Prefixes::default();
    keep(&mut prefixes, MINE, &counting(40));
    keep(&mut prefixes, MINE, &counting(80));
    keep(&mut prefixes, MINE, &counting(60));
    assert_eq!(prefixes.len(), 1);
    keep(&mut prefixes, THEIRS, &counting(40));
    assert!(prefixes.find(&[MINE], &counting(80), 80).is_some());
    assert!(prefixes.evict());
    assert!(prefixes.find(&[THEIRS], &counting(40), 40).is_none());
    assert!(prefixes.evict() && !prefixes.evict() && prefixes.is_empty());
    assert!(prefixes.blocks.is_empty(), "nothing is left of what is gone");
}
