//! The formats of quantised weights: how a tile of them is laid out, and how it becomes bytes and scales again.
//!
//! GGUF stores a row of weights as blocks of 32 (or 256), each with its scales. The kernels want sixteen rows side
//! by side, so a tensor is packed once, when it is loaded, into *tiles* of sixteen rows that have exactly the bits of
//! the file in another order (K-quants spend three percent more: their six-bit scales become bytes):
//!
//! ```text
//! tile  = groups of blocks, each a head and the bodies of its blocks
//! head  = scales of the group, sixteen rows side by side
//! body  = 32 columns of sixteen rows:
//!           four bits: 4 × 64 bytes; vector i has columns 4i… in the low and 16+4i… in the high half-bytes
//!           eight bits: 8 × 64 bytes; vector g has columns 4g…
//!           the fifth bit: 8 × 64 bits, one mask a vector; the fifth and sixth: 2 × 64 bytes, four vectors in each
//! ```
//!
//! A product reads a tile from its first byte to its last. Heads and bodies in two places, two streams through memory,
//! made it read at less than half the speed.
//!
//! A weight is `scale · (byte − ZERO) + offset`. The layouts of the file are those of ggml (`ggml-common.h`).

use half::f16;

use super::lanes::{BLOCK, GROUPS, LANES, Lanes};

/// The unpacked bytes of a block: 32 columns of sixteen rows.
pub(super) type Unpacked<L> = [<L as Lanes>::Bytes; GROUPS];

/// A format of weights in blocks.
pub(super) trait Format {
    /// Bytes of one row's group of blocks in a file.
    const FILE: usize;
    /// Blocks that share a head.
    const GROUP: usize = 1;
    /// Bytes of a head.
    const HEAD: usize;
    /// Bytes of a body.
    const BODY: usize;
    /// The unpacked byte that means zero.
    const ZERO: i32 = 0;
    /// Whether each half of a block has a scale of its own.
    const HALVES: bool = false;
    /// Whether there is an offset.
    const OFFSET: bool = false;

    /// Packs the same group of sixteen rows. `head` and `bodies` are zeros.
    fn pack(rows: &[&[u8]; LANES], head: &mut [u8], bodies: &mut [u8]);

    /// The bytes of a block.
    fn unpack<L: Lanes>(lanes: L, body: &[u8]) -> Unpacked<L>;

    /// `Σ (byte − ZERO) · activation` over the given vectors, for each of some rows.
    fn dots<L: Lanes, const ROWS: usize>(
        lanes: L,
        weights: &[L::Bytes],
        activations: [&[i8]; ROWS],
        sums: [i32; ROWS],
    ) -> [L::Ints; ROWS];

    /// The scale of the `at`th block of a group, or of its half.
    fn scale<L: Lanes>(lanes: L, head: &[u8], at: usize, half: usize) -> L::Floats;

    /// The offset of the `at`th block of a group.
    #[inline(always)]
    fn offset<L: Lanes>(lanes: L, _head: &[u8], _at: usize) -> L::Floats {
        lanes.splat(0.0)
    }
}

/// Four bits, or five, and a scale for each block; an offset, or a zero in the middle.
pub(super) struct Simple<const FIFTH: bool, const OFFSET: bool>;
/// The file's `Q4_0`.
pub(super) type Q4_0 = Simple<false, false>;
/// The file's `Q4_1`.
pub(super) type Q4_1 = Simple<false, true>;
/// The file's `Q5_0`.
pub(super) type Q5_0 = Simple<true, false>;
/// The file's `Q5_1`.
pub(super) type Q5_1 = Simple<true, true>;
/// Eight bits and a scale.
pub(super) struct Q8_0;
/// Four bits, or five; scales and offsets in six bits.
pub(super) struct K<const FIFTH: bool>;
/// The file's `Q4_K`.
pub(super) type Q4K = K<false>;
/// The file's `Q5_K`.
pub(super) type Q5K = K<true>;
/// Six bits; scales in eight bits, one for each half of a block.
pub(super) struct Q6K;

impl<const FIFTH: bool, const OFFSET: bool> Simple<FIFTH, OFFSET> {
    /// Where the fifth bits begin in the file's block, and where the half-bytes.
    const BITS: usize = if OFFSET { 4 } else { 2 };
    const NIBBLES: usize = Self::BITS + if FIFTH { 4 } else { 0 };
}

impl<const FIFTH: bool, const OFFSET: bool> Format for Simple<FIFTH, OFFSET> {
    const FILE: usize = Self::NIBBLES + BLOCK / 2;
    const HEAD: usize = if OFFSET { 2 * HALVES16 } else { HALVES16 };
    const BODY: usize = if FIFTH { NIBBLES + FIFTHS } else { NIBBLES };
    const ZERO: i32 = match (FIFTH, OFFSET) {
        (_, true) => 0,
        (false, false) => 8,
        (true, false) => 16,
    };
    const OFFSET: bool = OFFSET;

    fn pack(rows: &[&[u8]; LANES], head: &mut [u8], body: &mut [u8]) {
        pack_half_floats(rows, 0, head);
        if OFFSET {
            pack_half_floats(rows, 2, &mut head[HALVES16..]);
        }
        if FIFTH {
            let bit = |row: usize, column: usize| rows[row][Self::BITS + column / 8] >> (column % 8) & 1;
            pack_fifths(bit, &mut body[NIBBLES..]);
        }
        pack_nibbles(rows, Self::NIBBLES, body);
    }

    #[inline(always)]
    fn unpack<L: Lanes>(lanes: L, body: &[u8]) -> Unpacked<L> {
        unpacked::<L, FIFTH>(lanes, body)
    }

    #[inline(always)]
    fn dots<L: Lanes, const ROWS: usize>(
        lanes: L,
        weights: &[L::Bytes],
        activations: [&[i8]; ROWS],
        sums: [i32; ROWS],
    ) -> [L::Ints; ROWS] {
        match (FIFTH, OFFSET) {
            (false, false) => lanes.dots::<15, 8, ROWS>(weights, activations, sums),
            (false, true) => lanes.dots::<15, 0, ROWS>(weights, activations, sums),
            (true, false) => lanes.dots::<31, 16, ROWS>(weights, activations, sums),
            (true, true) => lanes.dots::<31, 0, ROWS>(weights, activations, sums),
        }
    }

    #[inline(always)]
    fn scale<L: Lanes>(lanes: L, head: &[u8], _at: usize, _half: usize) -> L::Floats {
        half_floats(lanes, head)
    }

    #[inline(always)]
    fn offset<L: Lanes>(lanes: L, head: &[u8], _at: usize) -> L::Floats {
        if OFFSET { half_floats(lanes, &head[HALVES16..]) } else { lanes.splat(0.0) }
    }
}

impl Format for Q8_0 {
    const FILE: usize = 34;
    const HEAD: usize = HALVES16;
    const BODY: usize = GROUPS * VECTOR;
    const ZERO: i32 = 128;

    fn pack(rows: &[&[u8]; LANES], head: &mut [u8], bodies: &mut [u8]) {
        pack_half_floats(rows, 0, head);
        for (row, bytes) in rows.iter().enumerate() {
            for column in 0..BLOCK {
                bodies[column / 4 * VECTOR + 4 * row + column % 4] = bytes[2 + column] ^ 0x80;
            }
        }
    }

    #[inline(always)]
    fn unpack<L: Lanes>(lanes: L, body: &[u8]) -> Unpacked<L> {
        let vectors = body.as_chunks::<VECTOR>().0;
        let mut unpacked = [lanes.load_bytes(&vectors[0]); GROUPS];
        for (unpacked, vector) in unpacked.iter_mut().zip(vectors) {
            *unpacked = lanes.load_bytes(vector);
        }
        unpacked
    }

    #[inline(always)]
    fn dots<L: Lanes, const ROWS: usize>(
        lanes: L,
        weights: &[L::Bytes],
        activations: [&[i8]; ROWS],
        sums: [i32; ROWS],
    ) -> [L::Ints; ROWS] {
        lanes.dots::<255, { Self::ZERO }, ROWS>(weights, activations, sums)
    }

    #[inline(always)]
    fn scale<L: Lanes>(lanes: L, head: &[u8], _at: usize, _half: usize) -> L::Floats {
        half_floats(lanes, head)
    }
}

impl<const FIFTH: bool> Format for K<FIFTH> {
    const FILE: usize = if FIFTH { 176 } else { 144 };
    const GROUP: usize = 8;
    const HEAD: usize = K_HEAD;
    const BODY: usize = if FIFTH { NIBBLES + FIFTHS } else { NIBBLES };
    const OFFSET: bool = true;

    fn pack(rows: &[&[u8]; LANES], head: &mut [u8], bodies: &mut [u8]) {
        pack_k_head(rows, head);
        let fifths = 16;
        let nibbles = if FIFTH { fifths + BLOCK } else { fifths };
        for (block, body) in bodies.chunks_exact_mut(Self::BODY).enumerate() {
            pack_k_nibbles(rows, nibbles, block, body);
            if FIFTH {
                pack_fifths(|row, column| rows[row][fifths + column] >> block & 1, &mut body[NIBBLES..]);
            }
        }
    }

    #[inline(always)]
    fn unpack<L: Lanes>(lanes: L, body: &[u8]) -> Unpacked<L> {
        unpacked::<L, FIFTH>(lanes, body)
    }

    #[inline(always)]
    fn dots<L: Lanes, const ROWS: usize>(
        lanes: L,
        weights: &[L::Bytes],
        activations: [&[i8]; ROWS],
        sums: [i32; ROWS],
    ) -> [L::Ints; ROWS] {
        if FIFTH {
            lanes.dots::<31, 0, ROWS>(weights, activations, sums)
        } else {
            lanes.dots::<15, 0, ROWS>(weights, activations, sums)
        }
    }

    #[inline(always)]
    fn scale<L: Lanes>(lanes: L, head: &[u8], at: usize, _half: usize) -> L::Floats {
        k_factor(lanes, head, at, 0)
    }

    #[inline(always)]
    fn offset<L: Lanes>(lanes: L, head: &[u8], at: usize) -> L::Floats {
        k_factor(lanes, head, at, 1)
    }
}

impl Format for Q6K {
    const FILE: usize = 210;
    const GROUP: usize = 8;
    const HEAD: usize = HALVES16 + 8 * 2 * LANES;
    const BODY: usize = NIBBLES + 2 * VECTOR;
    const ZERO: i32 = 32;
    const HALVES: bool = true;

    fn pack(rows: &[&[u8]; LANES], head: &mut [u8], bodies: &mut [u8]) {
        pack_half_floats(rows, 208, head);
        for (row, bytes) in rows.iter().enumerate() {
            for (at, &scale) in bytes[192..208].iter().enumerate() {
                head[HALVES16 + at * LANES + row] = scale;
            }
        }
        for (block, body) in bodies.chunks_exact_mut(Self::BODY).enumerate() {
            // Four blocks share 64 bytes of low and 32 bytes of high bits.
            let (half, quarter) = (block / 4, block % 4);
            for (row, bytes) in rows.iter().enumerate() {
                for column in 0..BLOCK {
                    let low = bytes[64 * half + 32 * (quarter % 2) + column] >> (4 * (quarter / 2)) & 15;
                    let high = bytes[128 + 32 * half + column] >> (2 * quarter) & 3;
                    let (group, byte) = (column / 4, 4 * row + column % 4);
                    body[group % 4 * VECTOR + byte] |= low << (4 * (group / 4));
                    body[NIBBLES + group / 4 * VECTOR + byte] |= high << (2 * (group % 4));
                }
            }
        }
    }

    #[inline(always)]
    fn unpack<L: Lanes>(lanes: L, body: &[u8]) -> Unpacked<L> {
        let mut unpacked = nibbles(lanes, body);
        let planes = body[NIBBLES..].as_chunks::<VECTOR>().0;
        for (four, plane) in unpacked.as_chunks_mut::<4>().0.iter_mut().zip(planes) {
            let plane = lanes.load_bytes(plane);
            let first = lanes.and_bytes(plane, lanes.splat_byte(0x03));
            let second = lanes.and_bytes(plane, lanes.splat_byte(0x0c));
            let fourth = lanes.shift_bytes_right::<2>(plane);
            four[0] = lanes.or_bytes(four[0], lanes.shift_bytes_left::<4>(first));
            four[1] = lanes.or_bytes(four[1], lanes.shift_bytes_left::<2>(second));
            four[2] = lanes.or_bytes(four[2], lanes.and_bytes(plane, lanes.splat_byte(0x30)));
            four[3] = lanes.or_bytes(four[3], lanes.and_bytes(fourth, lanes.splat_byte(0x30)));
        }
        unpacked
    }

    #[inline(always)]
    fn dots<L: Lanes, const ROWS: usize>(
        lanes: L,
        weights: &[L::Bytes],
        activations: [&[i8]; ROWS],
        sums: [i32; ROWS],
    ) -> [L::Ints; ROWS] {
        lanes.dots::<63, { Self::ZERO }, ROWS>(weights, activations, sums)
    }

    #[inline(always)]
    fn scale<L: Lanes>(lanes: L, head: &[u8], at: usize, half: usize) -> L::Floats {
        let scales = head[HALVES16..].as_chunks::<LANES>().0[2 * at + half].map(u8::cast_signed);
        lanes.mul(half_floats(lanes, head), lanes.to_floats(lanes.load_signed_bytes(&scales)))
    }
}

/// Sixteen half floats at `at` of each row.
fn pack_half_floats(rows: &[&[u8]; LANES], at: usize, to: &mut [u8]) {
    for (row, bytes) in rows.iter().enumerate() {
        to[2 * row..2 * row + 2].copy_from_slice(&bytes[at..at + 2]);
    }
}

/// Sixteen bytes at `at` of each row: the half-bytes of columns `c` and `c + 16`, as they are in the file.
fn pack_nibbles(rows: &[&[u8]; LANES], at: usize, to: &mut [u8]) {
    for (row, bytes) in rows.iter().enumerate() {
        for (vector, four) in bytes[at..at + 16].chunks_exact(4).enumerate() {
            to[vector * VECTOR + 4 * row..][..4].copy_from_slice(four);
        }
    }
}

/// One bit of 32 columns of each row.
fn pack_fifths(bit: impl Fn(usize, usize) -> u8, to: &mut [u8]) {
    for row in 0..LANES {
        for column in 0..BLOCK {
            let place = 4 * row + column % 4;
            to[column / 4 * 8 + place / 8] |= bit(row, column) << (place % 8);
        }
    }
}

/// Scales and offsets of a K-quant with six bits each become bytes; the offset's factor changes its sign, so that
/// offsets are added.
fn pack_k_head(rows: &[&[u8]; LANES], head: &mut [u8]) {
    pack_half_floats(rows, 0, head);
    for (row, bytes) in rows.iter().enumerate() {
        let offset = f16::from_le_bytes([bytes[2], bytes[3]]);
        head[HALVES16 + 2 * row..][..2].copy_from_slice(&(-offset).to_le_bytes());
        let packed = &bytes[4..16];
        for block in 0..8 {
            let (scale, offset) = if block < 4 {
                (packed[block] & 63, packed[block + 4] & 63)
            } else {
                let both = packed[block + 4];
                (both & 15 | packed[block - 4] >> 6 << 4, both >> 4 | packed[block] >> 6 << 4)
            };
            let factors = &mut head[2 * HALVES16 + block * 2 * LANES..];
            factors[row] = scale;
            factors[LANES + row] = offset;
        }
    }
}

/// Two blocks of a K-quant share 32 bytes: one has the low, the other the high half-bytes.
fn pack_k_nibbles(rows: &[&[u8]; LANES], at: usize, block: usize, body: &mut [u8]) {
    for (row, bytes) in rows.iter().enumerate() {
        let columns = &bytes[at + BLOCK * (block / 2)..][..BLOCK];
        let half = 4 * (block % 2);
        for column in 0..BLOCK / 2 {
            let (low, high) = (columns[column] >> half & 15, columns[column + 16] >> half & 15);
            body[column / 4 * VECTOR + 4 * row + column % 4] = low | high << 4;
        }
    }
}

#[inline(always)]
fn half_floats<L: Lanes>(lanes: L, from: &[u8]) -> L::Floats {
    lanes.load_half(&from.as_chunks::<HALVES16>().0[0])
}

#[inline(always)]
fn k_factor<L: Lanes>(lanes: L, head: &[u8], at: usize, which: usize) -> L::Floats {
    let factors = &head[2 * HALVES16..].as_chunks::<LANES>().0[2 * at + which];
    lanes.mul(
        half_floats(lanes, &head[which * HALVES16..]),
        lanes.to_floats(lanes.load_unsigned_bytes(factors)),
    )
}

#[inline(always)]
fn nibbles<L: Lanes>(lanes: L, body: &[u8]) -> Unpacked<L> {
    let (vectors, mask) = (body.as_chunks::<VECTOR>().0, lanes.splat_byte(15));
    let low = lanes.load_bytes(&vectors[0]);
    let mut unpacked = [low; GROUPS];
    for at in 0..GROUPS / 2 {
        let both = lanes.load_bytes(&vectors[at]);
        unpacked[at] = lanes.and_bytes(both, mask);
        unpacked[at + GROUPS / 2] = lanes.and_bytes(lanes.shift_bytes_right::<4>(both), mask);
    }
    unpacked
}

/// Half-bytes, and the fifth bit where there is one.
#[inline(always)]
fn unpacked<L: Lanes, const FIFTH: bool>(lanes: L, body: &[u8]) -> Unpacked<L> {
    let mut unpacked = nibbles(lanes, body);
    if FIFTH {
        for (vector, mask) in unpacked.iter_mut().zip(body[NIBBLES..].as_chunks::<8>().0) {
            *vector = lanes.set_where(*vector, u64::from_le_bytes(*mask), 16);
        }
    }
    unpacked
}

/// Bytes of a vector: four columns of sixteen rows.
const VECTOR: usize = 4 * LANES;
/// Bytes of sixteen half floats.
const HALVES16: usize = 2 * LANES;
/// Bytes of 32 columns of sixteen rows in half-bytes.
const NIBBLES: usize = BLOCK * LANES / 2;
/// Bytes of one bit for each of them.
const FIFTHS: usize = BLOCK * LANES / 8;
/// Two half floats, and for each of eight blocks a scale and an offset.
const K_HEAD: usize = 2 * HALVES16 + 8 * 2 * LANES;
