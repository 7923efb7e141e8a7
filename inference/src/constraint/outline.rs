//! What can be said of a JSON text without its grammar: how deep it is, and that its numbers stay readable.

/// Where in a JSON text its end is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Outline {
    /// Brackets and braces that are open.
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// Digits of the number at the end, and of its exponent.
    digits: u8,
    exponent: Option<u8>,
}

impl Outline {
    /// After `bytes`; none if a number has become longer than every reader takes it.
    pub(super) fn after(mut self, bytes: &[u8]) -> Option<Self> {
        bytes.iter().all(|&byte| self.push(byte)).then_some(self)
    }

    /// Whether a text that fits here in one place may fit in the other.
    pub(super) const fn meets(self, other: Self) -> bool {
        self.depth == other.depth && self.in_string == other.in_string && self.escaped == other.escaped
    }

    /// How many bytes it takes at least to close what is open.
    pub(super) const fn open(self) -> usize {
        self.depth as usize + self.in_string as usize
    }

    /// What is open after `bytes` that was not open before: for each bracket its kind and how many values are behind.
    pub(super) fn shape(mut self, bytes: &[u8]) -> Vec<u32> {
        let mut shape = vec![0];
        for &byte in bytes {
            if !self.in_string {
                match byte {
                    b'[' => shape.push(0),
                    b'{' => shape.push(BRACE),
                    b']' | b'}' if shape.len() > 1 => drop(shape.pop()),
                    // A bracket from before is closed: what follows is not where the text began.
                    b']' | b'}' => shape[0] += CLOSED,
                    b',' => {
                        if let Some(values) = shape.last_mut() {
                            *values += 1;
                        }
                    }
                    _ => {}
                }
            }
            self.push(byte);
        }
        shape
    }

    fn push(&mut self, byte: u8) -> bool {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return true;
        }
        match byte {
            b'0'..=b'9' => return self.digit(),
            b'e' | b'E' if self.digits > 0 => self.exponent = Some(0),
            b'.' | b'+' | b'-' => {}
            _ => (self.digits, self.exponent) = (0, None),
        }
        match byte {
            b'"' => self.in_string = true,
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        true
    }

    fn digit(&mut self) -> bool {
        let (count, most) = match &mut self.exponent {
            Some(exponent) => (exponent, MAX_EXPONENT_DIGITS),
            None => (&mut self.digits, MAX_DIGITS),
        };
        *count += 1;
        *count <= most
    }
}

/// Marks a brace in a shape: more than a completion has values.
const BRACE: u32 = 1 << 31;
/// Counts brackets that are closed in a shape, likewise.
const CLOSED: u32 = 1 << 16;
/// As many as a 64-bit float holds of any number.
const MAX_DIGITS: u8 = 16;
/// A float's exponent has up to three, but not all of three.
const MAX_EXPONENT_DIGITS: u8 = 2;
