//! State by number, in pages that a snapshot shares until they are written to.
//!
//! The state of a million instruments can neither be written down nor copied between two batches. So it lives in pages
//! behind counted references. Cloning [`Pages`] clones the references alone, and that is the snapshot: another thread
//! turns it into rows, group by group, and lets go of each group behind it. A write to a page that a snapshot still
//! shares copies the page first. What a checkpoint costs the dataflow is therefore a count for each page when it is
//! taken, and a copy of each page that is written to before the other thread has come past it; at all other times a
//! write costs a look at the count of its page.
//!
//! A page is copied whole, so an element that is large or may grow (a book, a window of prices) is best an
//! [`Arc`] itself, made one's own with [`Arc::make_mut`]: then only the elements that are written to are copied.

use std::sync::Arc;

/// Elements in a page. With fewer, taking a snapshot counts more pages; with more, a write copies more of the neighbours.
/// Measured with a million keys and writes that hit them at random (`cargo bench -p benches --bench checkpoint`).
const PAGE: usize = 8;

/// Elements in a group: what becomes one batch of a checkpoint, and is stored again as a whole when any of it changed.
const GROUP: usize = 4_096;

/// A list that grows at its end. Its clones are snapshots.
#[derive(Clone, Debug)]
pub struct Pages<T> {
    /// All but the last are full.
    pages: Vec<Arc<Vec<T>>>,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Pages { pages: Vec::new() }
    }
}

impl<T> Pages<T> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.pages.last().map_or(0, |last| (self.pages.len() - 1) * PAGE + last.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// An element.
    #[inline]
    pub fn get(&self, at: usize) -> Option<&T> {
        self.pages.get(at / PAGE)?.get(at % PAGE)
    }

    /// All elements.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| page.iter())
    }

    /// The elements in groups, which always begin at the same elements, as this and other lists of the same length are cut.
    /// A group that was dropped is shared no more.
    pub fn into_groups(self) -> impl Iterator<Item = Pages<T>> {
        let mut pages = self.pages.into_iter();
        std::iter::from_fn(move || {
            let pages: Vec<Arc<Vec<T>>> = pages.by_ref().take(GROUP / PAGE).collect();
            (!pages.is_empty()).then_some(Pages { pages })
        })
    }
}

impl<T: Clone> Pages<T> {
    /// An element to be changed.
    #[inline]
    pub fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        Arc::make_mut(self.pages.get_mut(at / PAGE)?).get_mut(at % PAGE)
    }

    /// Adds an element.
    pub fn push(&mut self, element: T) {
        match self.pages.last_mut() {
            Some(last) if last.len() < PAGE => Arc::make_mut(last).push(element),
            _ => {
                let mut page = Vec::with_capacity(PAGE);
                page.push(element);
                self.pages.push(Arc::new(page));
            }
        }
    }
}

impl<T: Clone + Default> Pages<T> {
    /// Makes it at least so long.
    pub fn grow(&mut self, len: usize) {
        for _ in self.len()..len {
            self.push(T::default());
        }
    }

    /// An element to be changed; it and all before it are there afterwards.
    #[inline]
    pub fn entry(&mut self, at: usize) -> &mut T {
        if self.get(at).is_none() {
            self.grow(at + 1);
        }
        self.get_mut(at).expect("it was made if it was not there")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// It is a list, whatever is written to it, and a clone stays what it was.
        #[test]
        fn clones_stay_what_they_were(writes in proptest::collection::vec((0_usize..200, any::<u32>()), 0..300), taken in 0_usize..300) {
            let (mut pages, mut list) = (Pages::default(), Vec::new());
            let mut snapshot = (pages.clone(), list.clone());
            for (i, (at, value)) in writes.into_iter().enumerate() {
                if i == taken {
                    snapshot = (pages.clone(), list.clone());
                }
                if list.len() <= at {
                    list.resize(at + 1, 0);
                }
                list[at] = value;
                *pages.entry(at) = value;
                prop_assert_eq!((pages.len(), pages.get(at), pages.get(list.len())), (list.len(), Some(&value), None));
            }
            prop_assert_eq!(pages.iter().copied().collect::<Vec<_>>(), list);
            prop_assert_eq!(snapshot.0.iter().copied().collect::<Vec<_>>(), snapshot.1);
        }
    }

    #[test]
    fn only_what_is_written_to_while_it_is_shared_is_copied() {
        let mut pages = Pages::default();
        pages.grow(3 * PAGE);
        let addresses = |pages: &Pages<u32>| pages.pages.iter().map(Arc::as_ptr).collect::<Vec<_>>();
        let before = addresses(&pages);
        let snapshot = pages.clone();
        *pages.entry(PAGE) = 1;
        *pages.entry(PAGE + 1) = 2;
        let after = addresses(&pages);
        assert_eq!((after[0], after[2], addresses(&snapshot)), (before[0], before[2], before.clone()));
        assert_ne!(after[1], before[1]);
        drop(snapshot);
        *pages.entry(0) = 3;
        *pages.entry(PAGE) = 4;
        assert_eq!(addresses(&pages), after);
    }

    #[test]
    fn groups_begin_at_the_same_elements_and_are_let_go_of_one_by_one() {
        let mut pages: Pages<usize> = Pages::default();
        (0..2 * GROUP + 1).for_each(|n| pages.push(n));
        let first = pages.pages[0].clone();
        let mut groups = pages.into_groups();
        let group = groups.next().unwrap();
        assert_eq!((group.len(), group.get(0), Arc::strong_count(&first)), (GROUP, Some(&0), 2));
        drop(group);
        assert_eq!(Arc::strong_count(&first), 1);
        let rest: Vec<_> = groups.map(|group| (group.len(), *group.get(0).unwrap())).collect();
        assert_eq!(rest, [(GROUP, GROUP), (1, 2 * GROUP)]);
        assert!(Pages::<u8>::default().into_groups().next().is_none() && Pages::<u8>::default().is_empty());
    }
}
