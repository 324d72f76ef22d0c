//! State by number, in pages that a snapshot shares until they are written to.
//!
//! The state of a million instruments can neither be written down nor copied between two batches. So it lives in pages,
//! and a page is either owned or shared. [`Pages::snapshot`] puts every owned page behind a counted reference and hands
//! out the references: another thread turns them into rows, group by group, and lets go of each group behind it. The
//! first write to a shared page makes it owned again: it is taken back if nobody shares it any more, and copied otherwise.
//!
//! What a checkpoint costs the dataflow is therefore a count for each page when it is taken, and once for each page that is
//! written to afterwards an atomic look at the count, and a copy if the other thread has not come past it. All other writes
//! cost a branch that is nearly always taken the same way: no atomic operation, and no way round by a counted reference.
//!
//! A page is copied whole, so large elements (a book, a window of prices) are best in pages of [`LARGE`].

use std::sync::Arc;

/// Elements in a page of small elements. With fewer, taking a snapshot counts more pages; with more, a write copies more of the
/// neighbours. Measured with a million keys and writes that hit them at random (`cargo bench -p benches --bench checkpoint`).
const SMALL: usize = 8;

/// Elements in a page of elements that are large or may grow.
pub const LARGE: usize = 2;

/// Elements in a group: what becomes one batch of a checkpoint, and is stored again as a whole when any of it changed.
const GROUP: usize = 4_096;

/// A list that grows at its end.
#[derive(Debug)]
pub struct Pages<T, const PAGE: usize = SMALL> {
    /// All but the last are full.
    pages: Vec<Page<T>>,
    len: usize,
}

/// Some elements.
#[derive(Debug)]
enum Page<T> {
    /// Nobody else sees them.
    Own(Vec<T>),
    /// A snapshot may.
    Shared(Arc<Vec<T>>),
}

/// What [`Pages`] were at one moment.
#[derive(Debug)]
pub struct Snapped<T, const PAGE: usize = SMALL> {
    /// All but the last are full.
    pages: Vec<Arc<Vec<T>>>,
}

impl<T> Page<T> {
    #[inline]
    fn elements(&self) -> &Vec<T> {
        match self {
            Page::Own(elements) => elements,
            Page::Shared(elements) => elements,
        }
    }

    /// The elements for a snapshot.
    fn share(&mut self) -> Arc<Vec<T>> {
        match self {
            Page::Own(elements) => {
                let elements = Arc::new(std::mem::take(elements));
                *self = Page::Shared(elements.clone());
                elements
            }
            Page::Shared(elements) => elements.clone(),
        }
    }
}

impl<T: Clone> Page<T> {
    /// The elements to be changed, which nobody else sees.
    #[inline]
    fn own<const PAGE: usize>(&mut self) -> &mut Vec<T> {
        if let Page::Shared(_) = self {
            self.take_back::<PAGE>();
        }
        match self {
            Page::Own(elements) => elements,
            Page::Shared(_) => unreachable!("it was taken back"),
        }
    }

    #[cold]
    fn take_back<const PAGE: usize>(&mut self) {
        if let Page::Shared(elements) = std::mem::replace(self, Page::Own(Vec::new())) {
            *self = Page::Own(Arc::try_unwrap(elements).unwrap_or_else(|shared| {
                // With room for what a page may yet get: a clone has none.
                let mut copy = Vec::with_capacity(PAGE);
                copy.extend_from_slice(&shared);
                copy
            }));
        }
    }
}

impl<T, const PAGE: usize> Default for Pages<T, PAGE> {
    fn default() -> Self {
        Pages { pages: Vec::new(), len: 0 }
    }
}

impl<T, const PAGE: usize> Pages<T, PAGE> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// An element.
    #[inline]
    pub fn get(&self, at: usize) -> Option<&T> {
        self.pages.get(at / PAGE)?.elements().get(at % PAGE)
    }

    /// The elements as of now.
    pub fn snapshot(&mut self) -> Snapped<T, PAGE> {
        Snapped { pages: self.pages.iter_mut().map(Page::share).collect() }
    }
}

impl<T: Clone, const PAGE: usize> Pages<T, PAGE> {
    /// An element to be changed.
    #[inline]
    pub fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.pages.get_mut(at / PAGE)?.own::<PAGE>().get_mut(at % PAGE)
    }

    /// Adds an element.
    pub fn push(&mut self, element: T) {
        self.len += 1;
        match self.pages.last_mut() {
            Some(last) if last.elements().len() < PAGE => last.own::<PAGE>().push(element),
            _ => {
                let mut page = Vec::with_capacity(PAGE);
                page.push(element);
                self.pages.push(Page::Own(page));
            }
        }
    }
}

impl<T: Clone + Default, const PAGE: usize> Pages<T, PAGE> {
    /// Makes it at least so long.
    pub fn grow(&mut self, len: usize) {
        for _ in self.len()..len {
            self.push(T::default());
        }
    }

    /// An element to be changed; it and all before it are there afterwards.
    #[inline]
    pub fn entry(&mut self, at: usize) -> &mut T {
        if at >= self.len {
            self.grow(at + 1);
        }
        self.get_mut(at).expect("it was made if it was not there")
    }
}

impl<T, const PAGE: usize> Default for Snapped<T, PAGE> {
    fn default() -> Self {
        Snapped { pages: Vec::new() }
    }
}

impl<T, const PAGE: usize> Snapped<T, PAGE> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.pages.last().map_or(0, |last| (self.pages.len() - 1) * PAGE + last.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// An element.
    pub fn get(&self, at: usize) -> Option<&T> {
        self.pages.get(at / PAGE)?.get(at % PAGE)
    }

    /// All elements.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| page.iter())
    }

    /// The elements in groups, which always begin at the same elements, as this and other lists of the same length are cut.
    /// A group that was dropped is shared no more.
    pub fn into_groups(self) -> impl Iterator<Item = Self> {
        const { assert!(GROUP.is_multiple_of(PAGE)) };
        let mut pages = self.pages.into_iter();
        std::iter::from_fn(move || {
            let pages: Vec<Arc<Vec<T>>> = pages.by_ref().take(GROUP / PAGE).collect();
            (!pages.is_empty()).then_some(Snapped { pages })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Writes to pages and to a plain list, takes a snapshot at one moment and lets go of it at another.
    fn is_a_list<const PAGE: usize>(writes: &[(usize, u32)], taken: usize, dropped: usize) -> Result<(), TestCaseError> {
        let (mut pages, mut list) = (Pages::<u32, PAGE>::default(), Vec::new());
        let mut snapshot = Some((pages.snapshot(), list.clone()));
        for (i, &(at, value)) in writes.iter().enumerate() {
            if i == taken {
                snapshot = Some((pages.snapshot(), list.clone()));
            }
            if i == dropped {
                snapshot = None;
            }
            if list.len() <= at {
                list.resize(at + 1, 0);
            }
            list[at] = value;
            *pages.entry(at) = value;
            prop_assert_eq!((pages.len(), pages.get(at), pages.get(list.len())), (list.len(), Some(&value), None));
        }
        prop_assert_eq!(pages.snapshot().iter().copied().collect::<Vec<_>>(), list);
        if let Some((snapshot, list)) = snapshot {
            prop_assert_eq!(snapshot.iter().copied().collect::<Vec<_>>(), list);
        }
        Ok(())
    }

    proptest! {
        /// It is a list, whatever is written to it, and a snapshot stays what it was.
        #[test]
        fn snapshots_stay_what_they_were(
            writes in proptest::collection::vec((0_usize..200, any::<u32>()), 0..300), taken in 0_usize..300, dropped in 0_usize..600,
        ) {
            is_a_list::<SMALL>(&writes, taken, dropped)?;
            is_a_list::<LARGE>(&writes, taken, dropped)?;
        }
    }

    #[test]
    fn only_what_is_written_to_while_it_is_shared_is_copied() {
        let mut pages: Pages<u32> = Pages::default();
        pages.grow(3 * SMALL);
        let addresses = |pages: &Pages<u32>| pages.pages.iter().map(|page| page.elements().as_ptr()).collect::<Vec<_>>();
        let before = addresses(&pages);
        let snapshot = pages.snapshot();
        *pages.entry(SMALL) = 1;
        *pages.entry(SMALL + 1) = 2;
        let after = addresses(&pages);
        assert_eq!((after[0], after[2]), (before[0], before[2]));
        assert_eq!(snapshot.pages.iter().map(|page| page.as_ptr()).collect::<Vec<_>>(), before, "the snapshot has the pages as they were");
        assert_ne!(after[1], before[1]);
        drop(snapshot);
        *pages.entry(0) = 3;
        *pages.entry(SMALL) = 4;
        assert_eq!(addresses(&pages), after, "what nobody shares any more is taken back");
        assert!(matches!(pages.pages[0], Page::Own(_)) && matches!(pages.pages[2], Page::Shared(_)));
    }

    #[test]
    fn groups_begin_at_the_same_elements_and_are_let_go_of_one_by_one() {
        let mut pages: Pages<usize> = Pages::default();
        (0..2 * GROUP + 1).for_each(|n| pages.push(n));
        let snapshot = pages.snapshot();
        drop(pages);
        let first = snapshot.pages[0].clone();
        let mut groups = snapshot.into_groups();
        let group = groups.next().unwrap();
        assert_eq!((group.len(), group.get(0), Arc::strong_count(&first)), (GROUP, Some(&0), 2));
        drop(group);
        assert_eq!(Arc::strong_count(&first), 1);
        let rest: Vec<_> = groups.map(|group| (group.len(), *group.get(0).unwrap())).collect();
        assert_eq!(rest, [(GROUP, GROUP), (1, 2 * GROUP)]);
        assert!(Pages::<u8>::default().snapshot().into_groups().next().is_none() && Pages::<u8>::default().is_empty());
    }
}
