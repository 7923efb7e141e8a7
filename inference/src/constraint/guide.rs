//! One answer's way through its constraint.

use std::fmt;
use std::sync::Arc;

use llguidance::toktrie::SimpleVob;

use super::completion::{Completion, Origin, search};
use super::matching::{Matching, guarded};
use super::outline::Outline;
use super::words::Words;
use super::{BARRED, ConstraintError};

/// One answer's way through its constraint: [`Guide::settle`] says which token comes next, [`Guide::push`] that it came.
pub struct Guide {
    words: Arc<Words>,
    matching: Matching,
    json: bool,
    outline: Outline,
    known: Completion,
    complete: bool,
    over: bool,
    /// What the last settled token leads to.
    settled: Option<(u32, Completion)>,
}

impl Guide {
    pub(super) fn new(words: &Arc<Words>, matching: Matching, json: bool) -> Result<Self, ConstraintError> {
        let mut guide = Self {
            words: Arc::clone(words),
            matching,
            json,
            outline: Outline::default(),
            known: Completion::default(),
            complete: false,
            over: false,
            settled: None,
        };
        guarded(|| {
            guide.matching.refuel();
            let origin = Origin { json, outline: guide.outline, before: None };
            let found = search(&mut guide.matching, &guide.words, origin, FIRST_PLACES)?;
            guide.known = found.ok_or(ConstraintError::Unfinishable)?;
            guide.look()
        })?;
        Ok(guide)
    }

    /// How many tokens the answer takes at least from here, as far as is known.
    #[must_use]
    pub fn needs(&self) -> usize {
        self.known.len()
    }

    /// Whether the answer is valid as it stands.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether the answer is valid and nothing may follow.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.over
    }

    /// Draws the next token: one that may follow, and after which the answer can be completed.
    ///
    /// `left` is how many tokens the answer may still have, with this one. Every token that may not follow is set to
    /// [`BARRED`] in `logits`, then `draw` is asked; if after its token no completion that fits `left` is known, the
    /// token is barred too and `draw` is asked again, a few times; then only the known completion's next token is left.
    /// On return `draw(logits)` is the token returned. Tokens that end the answer are allowed exactly when it is complete.
    ///
    /// `draw` must be the same function of the logits each time, and must choose a token that is not barred while
    /// there is one: as [`Sampling::choose`](crate::Sampling::choose) is and does.
    pub fn settle(
        &mut self,
        logits: &mut [f32],
        left: usize,
        mut draw: impl FnMut(&[f32]) -> u32,
    ) -> Result<u32, ConstraintError> {
        guarded(|| self.settle_soundly(logits, left, &mut draw))
    }

    /// Takes a token into the answer: the one that was settled, or one of an answer that somebody else began.
    /// When it is refused, nothing has changed.
    pub fn push(&mut self, id: u32) -> Result<(), ConstraintError> {
        guarded(|| self.push_soundly(id))
    }

    fn settle_soundly(
        &mut self,
        logits: &mut [f32],
        left: usize,
        draw: &mut impl FnMut(&[f32]) -> u32,
    ) -> Result<u32, ConstraintError> {
        if self.known.len() > left {
            return Err(ConstraintError::Budget { needs: self.known.len(), budget: left });
        }
        let allowed = self.allowed(left)?;
        bar(logits, &allowed);
        for _ in 0..MAX_DRAWS {
            let id = draw(logits);
            if self.follows(id, &allowed, logits) && self.leads_on(id, left)? {
                return Ok(id);
            }
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = BARRED;
            }
        }
        self.way_out(logits)?;
        let id = draw(logits);
        if self.leads_on(id, left)? { Ok(id) } else { Err(ConstraintError::NotAllowed { id }) }
    }

    /// Whether a token that was drawn is among those that were not barred.
    fn follows(&self, id: u32, allowed: &SimpleVob, logits: &[f32]) -> bool {
        let at = id as usize;
        at < allowed.len() && allowed.get(at) && logits.get(at).is_some_and(|&logit| logit > BARRED)
    }

    /// The tokens that may follow.
    fn allowed(&mut self, left: usize) -> Result<SimpleVob, ConstraintError> {
        let mut allowed = if self.over || left == 0 {
            self.words.trie().alloc_token_set()
        } else {
            self.matching.mask()?
        };
        let steering: Vec<_> = allowed.iter().filter(|&id| self.words.text(id).is_empty()).collect();
        steering.into_iter().for_each(|id| allowed.disallow_token(id));
        if self.complete {
            self.words.ends().for_each(|id| allowed.allow_token(id));
        }
        if allowed.is_zero() { Err(ConstraintError::Over) } else { Ok(allowed) }
    }

    /// Bars all but the known completion: its next token or, where it is empty, the tokens that end the answer.
    fn way_out(&self, logits: &mut [f32]) -> Result<(), ConstraintError> {
        let out: Vec<u32> = self.known.head().map_or_else(|| self.words.ends().collect(), |head| vec![head]);
        if out.is_empty() {
            return Err(ConstraintError::Over);
        }
        logits.fill(BARRED);
        for id in out {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = 0.0;
            }
        }
        Ok(())
    }

    /// Whether the answer can be completed in time after a token; remembers how.
    fn leads_on(&mut self, id: u32, left: usize) -> Result<bool, ConstraintError> {
        if self.words.is_end(id) {
            return Ok(self.complete);
        }
        let Some(rest) = left.checked_sub(1) else { return Ok(false) };
        // Where little is left the old completion must do: searching would only find longer ones.
        let places = if rest <= self.known.len() { 1 } else { NEXT_PLACES };
        let next = self.next(id, places)?.filter(|next| next.len() <= rest);
        let leads_on = next.is_some();
        self.settled = next.map(|next| (id, next));
        Ok(leads_on)
    }

    /// The completion that is known after a token, the same whatever the budget: none if the token may not follow.
    fn next(&mut self, id: u32, places: usize) -> Result<Option<Completion>, ConstraintError> {
        let words = Arc::clone(&self.words);
        let text = words.text(id);
        let Some(outline) = self.outline_after(text) else { return Ok(None) };
        if let Some(rest) = self.known.without(&words, id) {
            return Ok(Some(rest));
        }
        let before = self.matching.place();
        if !self.matching.advance(text) {
            return self.matching.sound().map(|()| None);
        }
        let found = if self.matching.place() == before {
            // Only the outline of a number can tell the two places apart.
            let fits = !self.json || outline.after(self.known.bytes()).is_some();
            Ok(fits.then(|| self.known.clone()))
        } else {
            let origin = Origin { json: self.json, outline, before: Some((&self.known, self.outline)) };
            search(&mut self.matching, &words, origin, places)
        };
        self.matching.retreat(text.len());
        found
    }

    fn outline_after(&self, text: &[u8]) -> Option<Outline> {
        if self.json { self.outline.after(text) } else { Some(self.outline) }
    }

    fn push_soundly(&mut self, id: u32) -> Result<(), ConstraintError> {
        let settled = self.settled.take();
        if self.words.is_end(id) {
            self.over |= self.complete;
            return if self.complete { Ok(()) } else { Err(ConstraintError::NotAllowed { id }) };
        }
        let words = Arc::clone(&self.words);
        let text = words.text(id);
        if text.is_empty() || self.over {
            return Err(ConstraintError::NotAllowed { id });
        }
        let next = match settled {
            Some((settled, next)) if settled == id => Some(next),
            _ => {
                self.matching.refuel();
                self.next(id, NEXT_PLACES)?
            }
        };
        let (Some(next), Some(outline)) = (next, self.outline_after(text)) else {
            return Err(ConstraintError::NotAllowed { id });
        };
        let before = self.matching.place();
        if !self.matching.advance(text) {
            return Err(ConstraintError::NotAllowed { id });
        }
        if self.matching.place() != before {
            self.matching.forget_mask();
        }
        (self.known, self.outline) = (next, outline);
        self.look()
    }

    /// Looks whether the answer is complete here, and whether it is over.
    fn look(&mut self) -> Result<(), ConstraintError> {
        self.complete = self.matching.accepts();
        self.over = self.complete && self.matching.steps().is_empty();
        self.matching.sound()
    }
}

impl fmt::Debug for Guide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guide")
            .field("known", &self.known)
            .field("complete", &self.complete)
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

/// Sets to [`BARRED`] what is not allowed, and lifts above it what is.
fn bar(logits: &mut [f32], allowed: &SimpleVob) {
    for (at, logit) in logits.iter_mut().enumerate() {
        if at >= allowed.len() || !allowed.get(at) {
            *logit = BARRED;
        } else {
            // What is not a number, or too low to be told from what is barred, becomes the lowest that can be told.
            *logit = logit.max(LOWEST_ALLOWED);
        }
    }
}

/// Far below every logit of a model, far above [`BARRED`] whatever the sampler's penalties do to both.
const LOWEST_ALLOWED: f32 = -1e30;
/// How often another token is drawn before only the known completion is left. Each costs a search.
const MAX_DRAWS: usize = 8;
/// Places that the first search looks at: some hundred bytes of completion with choices on the way.
const FIRST_PLACES: usize = 8_192;
/// Places that the search after a token looks at: it has to find the way back to what was known.
const NEXT_PLACES: usize = 256;
