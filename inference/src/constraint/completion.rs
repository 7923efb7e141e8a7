//! The search for a way to finish: from a place in a grammar to the nearest place where the text may end.
//!
//! Best first, over bytes; brackets that are open count as the bytes that close them. Ways inside one lexeme that lead
//! to the same state are one way; ways that end the same lexemes are too. Beyond that two places cannot be told to
//! be equal (the library does not say), so coming again to a place that *looks* like one seen before, in the lexer
//! and in how many values its brackets hold, only counts extra: that keeps the search going forward where a value may
//! be `0` or `""` or anything, and lets it count to `minItems`.
//!
//! What was known before a token helps: where a tail of the old completion fits, the search is over. Most often that is
//! right where it begins. The search is bounded by places looked at, so it gives the same on every machine.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use llguidance::derivre::StateID;

use super::ConstraintError;
use super::matching::{Matching, Step};
use super::outline::Outline;
use super::words::Words;

/// A way to finish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Completion {
    bytes: Vec<u8>,
    /// The fewest tokens that spell the bytes, the last one first.
    tokens: Vec<u32>,
}

impl Completion {
    fn new(words: &Words, bytes: Vec<u8>) -> Option<Self> {
        let mut tokens = words.spell(&bytes)?;
        tokens.reverse();
        Some(Self { bytes, tokens })
    }

    /// What it adds to the text.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many tokens it takes.
    pub(super) const fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Its first token; none where the text may end as it stands.
    pub(super) fn head(&self) -> Option<u32> {
        self.tokens.last().copied()
    }

    /// What is left after a token that spells its beginning.
    pub(super) fn without(&self, words: &Words, id: u32) -> Option<Self> {
        let rest = self.bytes.strip_prefix(words.text(id))?;
        if self.head() == Some(id) {
            let tokens = self.tokens[..self.tokens.len() - 1].to_vec();
            return Some(Self { bytes: rest.to_vec(), tokens });
        }
        Self::new(words, rest.to_vec())
    }
}

/// What is known where a search begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    /// Whether the text is JSON, so that its outline says something.
    pub(super) json: bool,
    /// The outline of the text.
    pub(super) outline: Outline,
    /// A completion of the text before its last token, and the outline there.
    pub(super) before: Option<(&'a Completion, Outline)>,
}

impl Origin<'_> {
    /// The outline after `bytes`, none if they cannot be; of texts that are not JSON it says nothing.
    fn outline(&self, outline: Outline, bytes: &[u8]) -> Option<Outline> {
        if self.json { outline.after(bytes) } else { Some(outline) }
    }

    /// The shape of the text after `path`; all texts that are not JSON have the same.
    fn shape(&self, path: &[u8]) -> Vec<u32> {
        if self.json { self.outline.shape(path) } else { Vec::new() }
    }

    /// Where the old completion's tails begin, with the outlines where they fit; the shortest first.
    fn tails(&self) -> Vec<(usize, Outline)> {
        let Some((completion, mut outline)) = self.before else { return Vec::new() };
        let mut tails = Vec::with_capacity(completion.bytes.len());
        for (at, &byte) in completion.bytes.iter().enumerate() {
            tails.push((at, outline));
            outline = self.outline(outline, &[byte]).unwrap_or(outline);
        }
        tails.reverse();
        tails
    }
}

/// Looks for a completion at not more than `places` places. The matching comes back as it was given.
pub(super) fn search(
    matching: &mut Matching,
    words: &Words,
    origin: Origin<'_>,
    places: usize,
) -> Result<Option<Completion>, ConstraintError> {
    let mut search = Search {
        matching,
        origin,
        tails: origin.tails(),
        nodes: vec![Node {
            parent: 0,
            piece: Vec::new(),
            length: 0,
            row: 0,
            outline: origin.outline,
            cost: 0,
            look: None,
        }],
        frontier: BinaryHeap::from([Reverse((0, 0))]),
        taken: Vec::new(),
        states: HashSet::new(),
        ends: HashSet::new(),
        visits: HashMap::new(),
    };
    let found = search.run(places);
    search.go_to(&[]);
    search.matching.sound()?;
    Ok(found.and_then(|bytes| Completion::new(words, bytes)))
}

/// A place that was reached.
struct Node {
    parent: usize,
    /// The bytes from the parent.
    piece: Vec<u8>,
    /// All bytes from the beginning.
    length: usize,
    /// Places inside the same lexeme, after the same text, have the same number.
    row: usize,
    outline: Outline,
    /// What its way cost.
    cost: usize,
    /// The lexer's state in a row of its own, until it was compared with the places seen before.
    look: Option<StateID>,
}

/// How a place is reached.
enum Way {
    /// Inside the lexeme of this row.
    Within(usize),
    /// Beyond a lexeme's end, in a row of its own, with the lexer in this state.
    Beyond(StateID),
}

struct Search<'a> {
    matching: &'a mut Matching,
    origin: Origin<'a>,
    tails: Vec<(usize, Outline)>,
    nodes: Vec<Node>,
    /// What it costs, and which node it is: among equals the first found.
    frontier: BinaryHeap<Reverse<(usize, usize)>>,
    /// The bytes that the matching has taken.
    taken: Vec<u8>,
    states: HashSet<(usize, StateID)>,
    ends: HashSet<(usize, Vec<usize>, u8, StateID)>,
    visits: HashMap<(StateID, Vec<u32>), usize>,
}

impl Search<'_> {
    fn run(&mut self, places: usize) -> Option<Vec<u8>> {
        for _ in 0..places {
            let (at, path) = self.nearest()?;
            if !self.go_to(&path) {
                continue;
            }
            if let Some(tail) = self.goal(self.nodes[at].outline) {
                return Some([path, tail].concat());
            }
            let forced = self.matching.forced();
            if forced.is_empty() {
                for step in self.matching.steps() {
                    self.step(at, step);
                }
            } else {
                self.taken.extend_from_slice(&forced);
                let cost = forced.len() * FORCED;
                let (state, _) = self.matching.place();
                self.add(at, forced, Way::Beyond(state), cost);
            }
            if self.matching.sound().is_err() {
                return None;
            }
        }
        None
    }

    /// Takes the cheapest place out of the frontier, and the bytes that lead there. What looks like places taken before
    /// goes back, once, and costs more: only here is it known which of them is the cheapest.
    fn nearest(&mut self) -> Option<(usize, Vec<u8>)> {
        loop {
            let Reverse((price, at)) = self.frontier.pop()?;
            let path = self.path(at);
            let Some(state) = self.nodes[at].look.take() else { return Some((at, path)) };
            let visits = self.visits.entry((state, self.origin.shape(&path))).or_insert(0);
            let extra = VISITED * *visits;
            *visits = MAX_VISITS.min(*visits + 1);
            if extra == 0 {
                return Some((at, path));
            }
            self.nodes[at].cost += extra;
            self.frontier.push(Reverse((price + extra, at)));
        }
    }

    /// What completes the text here: nothing, or a tail of the old completion.
    fn goal(&mut self, outline: Outline) -> Option<Vec<u8>> {
        if self.matching.accepts() {
            return Some(Vec::new());
        }
        let (completion, _) = self.origin.before?;
        let mut fitting: Vec<usize> =
            self.tails.iter().filter(|(_, at)| at.meets(outline)).map(|&(from, _)| from).collect();
        // The whole is what fits most often, so it is always tried.
        let whole = fitting.pop_if(|from| *from == 0);
        fitting.truncate(MAX_TAILS);
        fitting.extend(whole);
        for from in fitting {
            let tail = &completion.bytes[from..];
            if self.origin.outline(outline, tail).is_some() && self.matching.advance(tail) {
                let accepts = self.matching.accepts();
                self.matching.retreat(tail.len());
                if accepts {
                    return Some(tail.to_vec());
                }
            }
        }
        None
    }

    fn step(&mut self, from: usize, step: Step) {
        let row = self.nodes[from].row;
        let Some(ended) = step.ended else {
            if self.states.insert((row, step.to)) {
                self.add(from, vec![step.byte], Way::Within(row), CHOSEN);
            }
            return;
        };
        if self.ends.insert((row, ended, step.byte, step.to)) {
            self.add(from, vec![step.byte], Way::Beyond(step.to), ENDED);
        }
    }

    fn add(&mut self, parent: usize, piece: Vec<u8>, way: Way, cost: usize) {
        let Some(outline) = self.origin.outline(self.nodes[parent].outline, &piece) else { return };
        let length = self.nodes[parent].length + piece.len();
        let cost = self.nodes[parent].cost + cost;
        let at = self.nodes.len();
        if length <= MAX_BYTES && at < MAX_NODES {
            let (row, look) = match way {
                Way::Within(row) => (row, None),
                Way::Beyond(state) => (at, Some(state)),
            };
            self.nodes.push(Node { parent, piece, length, row, outline, cost, look });
            self.frontier.push(Reverse((cost + outline.open() * OPEN, at)));
        }
    }

    fn path(&self, mut at: usize) -> Vec<u8> {
        let mut pieces = Vec::new();
        while at != 0 {
            pieces.push(&self.nodes[at].piece[..]);
            at = self.nodes[at].parent;
        }
        pieces.reverse();
        pieces.concat()
    }

    /// Moves the matching; false, and back at the beginning, where it refuses.
    fn go_to(&mut self, path: &[u8]) -> bool {
        let common = self.taken.iter().zip(path).take_while(|(a, b)| a == b).count();
        self.matching.retreat(self.taken.len() - common);
        self.taken.truncate(common);
        if self.matching.advance(&path[common..]) {
            self.taken.extend_from_slice(&path[common..]);
            return true;
        }
        self.matching.retreat(common);
        self.taken.clear();
        false
    }
}

/// What a byte costs to which there was an alternative.
const CHOSEN: usize = 4;
/// What a byte costs that ends a lexeme: it had to end some time.
const ENDED: usize = 2;
/// What an open bracket costs until it is closed: its other half.
const OPEN: usize = 4;
/// What a byte costs to which there was none: such bytes come in long runs, and long runs take few tokens.
const FORCED: usize = 1;
/// What each earlier visit to a place that looks the same costs: a short value's worth of bytes.
const VISITED: usize = 16;
/// Visits after which it does not cost more: long lists have to come again and again.
const MAX_VISITS: usize = 8;
/// Tails that are tried at a place beside the whole; they are all ends of one text.
const MAX_TAILS: usize = 16;
/// The longest completion. Longer answers have no business being the shortest ones.
const MAX_BYTES: usize = 8 << 10;
/// Bounds the memory of a search.
const MAX_NODES: usize = 100_000;
