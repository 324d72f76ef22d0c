//! Short texts as words: a lookup that compares two numbers instead of bytes.
//!
//! Venue names, sides and symbols are short, and rows of a few hundred of them come in any order. [`Packed`] holds a text
//! of up to 16 bytes exactly; [`Recent`] remembers what was found for the texts seen lately.

/// A text of at most 16 bytes: its first and last bytes, which may overlap, and its length. Equal only for equal texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    first: u64,
    last: u64,
    length: usize,
}

impl Packed {
    /// Packs a text; `None` if it is longer than 16 bytes.
    #[inline(always)]
    pub fn of(text: &[u8]) -> Option<Self> {
        let length = text.len();
        let (first, last) = match (text.first_chunk::<8>(), text.last_chunk::<8>()) {
            (Some(first), Some(last)) if length <= 16 => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
            (Some(_), _) => return None,
            _ => match (text.first_chunk::<4>(), text.last_chunk::<4>()) {
                (Some(first), Some(last)) => (u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into()),
                _ => (text.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0),
            },
        };
        Some(Packed { first, last, length })
    }

    /// A place in a table of 2^`BITS`.
    #[inline(always)]
    fn place<const BITS: u32>(self) -> usize {
        ((self.first ^ self.last.rotate_left(29)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - BITS)) as usize
    }
}

/// What was found for the texts seen lately: 2^`BITS` places, each for the text that had it last.
#[derive(Clone, Debug)]
pub struct Recent<const BITS: u32>(Vec<(Packed, u32)>);

impl<const BITS: u32> Default for Recent<BITS> {
    /// Remembers nothing, and takes no memory yet.
    fn default() -> Self {
        Recent(Vec::new())
    }
}

impl<const BITS: u32> Recent<BITS> {
    /// What was remembered for a text, if it still is.
    #[inline(always)]
    pub fn get(&self, text: Packed) -> Option<u32> {
        // An empty text is like a place that was never used.
        self.0.get(text.place::<BITS>()).filter(|(known, _)| *known == text && text.length > 0).map(|(_, found)| *found)
    }

    /// Remembers what was found for a text.
    pub fn put(&mut self, text: Packed, found: u32) {
        self.0.resize(1 << BITS, Default::default());
        self.0[text.place::<BITS>()] = (text, found);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn equal_only_for_equal_texts(a in prop::collection::vec(0_u8..3, 0..18), b in prop::collection::vec(0_u8..3, 0..18)) {
            prop_assert_eq!(Packed::of(&a).is_some(), a.len() <= 16);
            prop_assert_eq!(Packed::of(&a) == Packed::of(&b), a == b || (a.len() > 16 && b.len() > 16));
        }

        #[test]
        fn remembers_only_what_was_put(texts in prop::collection::vec("[ab]{0,4}", 1..40)) {
            let mut recent = Recent::<3>::default();
            for (n, text) in (0..).zip(&texts) {
                let packed = Packed::of(text.as_bytes()).unwrap();
                if let Some(found) = recent.get(packed) {
                    prop_assert_eq!(&texts[found as usize], text);
                }
                recent.put(packed, n);
                prop_assert_eq!(recent.get(packed), (!text.is_empty()).then_some(n));
            }
        }
    }
}
