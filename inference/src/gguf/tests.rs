//! Hostile files: truncated, boastful, nested; none may panic or allocate what it claims.

use std::io::Cursor;

use super::*;
use crate::tiny::write_tiny;

/// A header written by hand, field by field.
#[derive(Clone, Default)]
struct Forged(Vec<u8>);

impl Forged {
    fn new(version: u32, tensors: u64, entries: u64) -> Self {
        let mut forged = Self(b"GGUF".to_vec());
        forged.0.extend(version.to_le_bytes());
        forged.u64(tensors).u64(entries).clone()
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.u64(text.len() as u64).0.extend(text.as_bytes());
        self
    }

    fn tensor(&mut self, name: &str, shape: &[u64], kind: u32, start: u64) -> &mut Self {
        self.text(name).u32(shape.len() as u32);
        for extent in shape {
            self.u64(*extent);
        }
        self.u32(kind).u64(start)
    }

    fn check(&self) -> Result<(), LoadError> {
        check(&mut Cursor::new(&self.0), self.0.len() as u64)
    }

    fn hostile(&self) -> String {
        match self.check() {
            Err(LoadError::Hostile { what }) => what,
            other => panic!("expected a hostile file, got {other:?}"),
        }
    }
}

fn tiny() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    write_tiny(&path, 1).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn an_honest_file_passes() {
    Forged(tiny()).check().unwrap();
}

#[test]
fn a_wrong_magic_is_not_gguf() {
    for bytes in [&b""[..], b"GG", b"FUGG\x03\0\0\0", b"<!DOCTYPE html><html>", b"\x7fELF"] {
        assert!(matches!(Forged(bytes.to_vec()).check(), Err(LoadError::NotGguf)));
    }
}

#[test]
fn other_versions_are_named() {
    for version in [0, 1, 4, 0x0300_0000] {
        assert!(matches!(
            Forged::new(version, 0, 0).check(),
            Err(LoadError::UnsupportedVersion { version: v }) if v == version
        ));
    }
}

#[test]
fn wherever_a_file_is_cut_it_is_truncated() {
    let bytes = tiny();
    for length in (4..bytes.len() - 32).step_by(97) {
        let error = Forged(bytes[..length].to_vec()).check().unwrap_err();
        assert!(matches!(error, LoadError::Truncated { .. }), "{length}: {error}");
    }
}

#[test]
fn hostile_counts_are_refused_before_anything_is_allocated() {
    assert!(Forged::new(3, u64::MAX, 0).hostile().contains("tensors"));
    assert!(Forged::new(3, 0, u64::MAX).hostile().contains("metadata"));
    assert!(Forged::new(3, 0, 1).u64(u64::MAX).hostile().contains("key"));
    assert!(Forged::new(3, 0, 1).text("k").u32(STRING).u64(u64::MAX).hostile().contains("text"));
    assert!(Forged::new(3, 0, 1).text("k").u32(ARRAY).u32(U32).u64(u64::MAX).hostile().contains("elements"));
    assert!(Forged::new(3, 0, 1).text("k").u32(ARRAY).u32(ARRAY).u64(1).hostile().contains("arrays"));
    assert!(Forged::new(3, 0, 1).text("k").u32(99).hostile().contains("type 99"));
    // Within the caps, but longer than the file.
    let short = Forged::new(3, 0, 1).text("k").u32(ARRAY).u32(U32).u64(1 << 20).clone();
    assert!(matches!(short.check(), Err(LoadError::Truncated { .. })));
}

#[test]
fn hostile_tensors_are_refused() {
    let one = |shape: &[u64], kind, start| Forged::new(3, 1, 0).tensor("t", shape, kind, start).clone();
    assert!(one(&[], 0, 0).hostile().contains("0 dimensions"));
    assert!(one(&[1; 5], 0, 0).hostile().contains("5 dimensions"));
    assert!(one(&[0], 0, 0).hostile().contains("0 elements"));
    assert!(one(&[u64::MAX, u64::MAX], 0, 0).hostile().contains("elements"));
    assert!(one(&[33], 2, 0).hostile().contains("aligned"));
    assert!(one(&[32], 2, 7).hostile().contains("aligned"));
    assert!(matches!(one(&[32], 99, 0).check(), Err(LoadError::UnsupportedWeights { .. })));
    assert!(
        matches!(one(&[32], 2, 0).check(), Err(LoadError::Truncated { what }) if what.starts_with("tensor `"))
    );
    let mut shared = Forged::new(3, 2, 0).tensor("a", &[64], 0, 0).tensor("b", &[64], 0, 32).clone();
    shared.0.resize(4096, 0);
    assert!(shared.hostile().contains("share"));
}

#[test]
fn a_hostile_alignment_is_refused() {
    for alignment in [0, 1, 3, 1 << 20] {
        let forged = Forged::new(3, 0, 1).text("general.alignment").u32(U32).u32(alignment).clone();
        assert!(forged.hostile().contains("alignment"));
    }
    assert!(Forged::new(3, 0, 1).text("general.alignment").u32(10).u64(32).hostile().contains("alignment"));
}

#[test]
fn every_message_says_what_to_do_next() {
    for error in [
        LoadError::NotGguf,
        LoadError::Truncated { what: "tensor `a`".to_owned() },
        LoadError::Hostile { what: String::new() },
        LoadError::UnsupportedVersion { version: 1 },
    ] {
        let message = error.to_string();
        assert!(message.contains(';'), "{message}");
    }
}
