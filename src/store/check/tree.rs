//! The walk through a tree, and what is particular to the tree of records and to the free list.

use super::super::pages::{self, Holds, Nodes, Tree, HEADER, KEY_MAX};
use super::{wrong, Checked, Damage, File};

/// What distinguishes the two trees.
pub(super) trait Order {
    /// Whether a key is one of this tree.
    fn is_key(&self, key: &[u8]) -> bool;
    /// Whether `a` comes before `b`; both are keys.
    fn is_before(a: &[u8], b: &[u8]) -> bool;
    /// Whether the values are lists of free pages.
    const LISTS: bool;
}

/// Records: keys are compared byte by byte, values are not looked at.
pub(super) struct Bytewise;

impl Order for Bytewise {
    const LISTS: bool = false;

    fn is_key(&self, key: &[u8]) -> bool {
        (1..=KEY_MAX).contains(&key.len())
    }

    fn is_before(a: &[u8], b: &[u8]) -> bool {
        a < b
    }
}

/// The free list: keys are transactions, values the pages that each has freed.
pub(super) struct Numbers {
    pub(super) newest: u64,
}

impl Order for Numbers {
    const LISTS: bool = true;

    fn is_key(&self, key: &[u8]) -> bool {
        key.len() == 8 && pages::u64_at(key, 0).is_some_and(|number| (1..=self.newest).contains(&number))
    }

    fn is_before(a: &[u8], b: &[u8]) -> bool {
        pages::u64_at(a, 0) < pages::u64_at(b, 0)
    }
}

/// What a walk has met so far.
pub(super) struct Walk<O> {
    pub(super) tree: Tree,
    order: O,
    /// What was counted of it.
    pub(super) met: Tree,
    /// Pages in lists.
    pub(super) free: u64,
    /// The key met last, and whether it was on a branch.
    previous: Vec<u8>,
    previous_divides: bool,
}

impl<O: Order> Walk<O> {
    pub(super) fn new(tree: &Tree, order: O) -> Walk<O> {
        Walk {
            tree: *tree,
            order,
            met: Tree::default(),
            free: 0,
            previous: Vec::with_capacity(KEY_MAX),
            previous_divides: false,
        }
    }

    /// Takes the next key of an in-order walk. A key on a branch is above everything to its left and at most the first key
    /// to its right, so looking at neighbours bounds every page by every branch above it.
    fn next(&mut self, key: &[u8], divides: bool) -> Result<(), &'static str> {
        if !self.order.is_key(key) {
            return Err("a key cannot be");
        }
        let same = self.previous_divides && key == self.previous;
        // No key is empty, so an empty one is none yet.
        if !self.previous.is_empty() && !same && !O::is_before(&self.previous, key) {
            return Err("its keys are out of order");
        }
        self.previous.clear();
        self.previous.extend_from_slice(key);
        self.previous_divides = divides;
        Ok(())
    }
}

impl<R: FnMut(u64, &mut [u8]) -> bool> File<R> {
    /// Checks a page and all below it. The recursion is as deep as the tree, which was bounded.
    pub(super) fn descend<O: Order>(&mut self, walk: &mut Walk<O>, number: u64, level: u16) -> Checked<()> {
        self.claim(number)?;
        let mut page = self.buffers.pop().unwrap_or_else(|| vec![0; self.page]);
        self.fill(number, &mut page)?;
        let leaf = level == walk.tree.depth;
        if pages::head(&page) != (Some(number), Some(if leaf { pages::LEAF } else { pages::BRANCH })) {
            return wrong(number, "it has another number or is of another kind");
        }
        let mut spans = std::mem::take(&mut self.spans);
        let nodes = Nodes::read(&page, leaf, &mut spans);
        self.spans = spans;
        let here = |what: &'static str| Damage { page: number, what };
        let nodes = nodes.map_err(here)?;
        for at in 0..nodes.count {
            let node = nodes.node(at).ok_or(here("an entry is of another kind"))?;
            // Nobody looks at the first key of a branch.
            if leaf || at > 0 {
                walk.next(node.key, !leaf).map_err(here)?;
            } else if node.key.len() > KEY_MAX {
                return wrong(number, "a key cannot be");
            }
            match node.holds {
                Holds::Child(child) => self.descend(walk, child, level + 1)?,
                Holds::Value(value) => {
                    if O::LISTS {
                        let mut list = PageList::new(value.len()).map_err(here)?;
                        self.take_list(walk, &mut list, value, number)?;
                        list.end().map_err(here)?;
                    }
                }
                Holds::Big(size, first) => self.overflow(walk, number, size, first)?,
            }
        }
        if leaf {
            walk.met.leaves += 1;
            walk.met.entries += nodes.count as u64;
        } else {
            walk.met.branches += 1;
        }
        self.buffers.push(page);
        Ok(())
    }

    /// Checks the pages of a large value.
    fn overflow<O: Order>(&mut self, walk: &mut Walk<O>, number: u64, size: usize, first: u64) -> Checked<()> {
        self.claim(first)?;
        let mut head = [0; HEADER];
        self.fill(first, &mut head)?;
        if pages::head(&head) != (Some(first), Some(pages::OVERFLOW)) {
            return wrong(first, "it has another number or is of another kind");
        }
        let pages = u64::from(pages::overflow_pages(&head).unwrap_or(0));
        // A value that was replaced in place may be shorter than its pages.
        if pages < ((HEADER + size).div_ceil(self.page) as u64).max(1) {
            return wrong(first, "its value is longer than its pages");
        }
        let after = first.saturating_add(pages);
        if after > self.last + 1 {
            return wrong(first, "its pages reach beyond the last page");
        }
        for page in first + 1..after {
            self.claim(page)?;
        }
        walk.met.overflows += pages;
        if O::LISTS {
            let mut buffer = self.buffers.pop().unwrap_or_else(|| vec![0; self.page]);
            let here = |what: &'static str| Damage { page: number, what };
            let mut list = PageList::new(size).map_err(here)?;
            let mut left = size;
            for (page, from) in (first..after).zip(std::iter::once(HEADER).chain(std::iter::repeat(0))) {
                let len = left.min(self.page - from);
                if len == 0 {
                    break;
                }
                self.fill(page, &mut buffer)?;
                self.take_list(walk, &mut list, buffer.get(from..from + len).unwrap_or_default(), page)?;
                left -= len;
            }
            list.end().map_err(here)?;
            self.buffers.push(buffer);
        } else if pages > 1 {
            // The file must reach as far as the value is read.
            self.fill(after - 1, &mut head)?;
        }
        Ok(())
    }

    /// Takes a part of a list of free pages.
    fn take_list<O>(&mut self, walk: &mut Walk<O>, list: &mut PageList, part: &[u8], number: u64) -> Checked<()> {
        for word in part.chunks_exact(8) {
            let word = pages::u64_at(word, 0).unwrap_or(0);
            if let Some(free) = list.next(word).map_err(|what| Damage { page: number, what })? {
                self.claim(free)?;
                walk.free += 1;
            }
        }
        Ok(())
    }
}

/// A list of page numbers in falling order, preceded by how many they are (midl.h: MDB_IDL). The room behind is of no
/// meaning.
struct PageList {
    room: u64,
    left: Option<u64>,
    previous: u64,
}

impl PageList {
    fn new(size: usize) -> Result<PageList, &'static str> {
        if size < 8 || size % 8 != 0 {
            return Err("a list of free pages has a size that cannot be");
        }
        Ok(PageList { room: size as u64 / 8 - 1, left: None, previous: u64::MAX })
    }

    /// Takes the next word: a page, unless it is the count or means nothing.
    fn next(&mut self, word: u64) -> Result<Option<u64>, &'static str> {
        match self.left {
            None if word > self.room => Err("a list of free pages is longer than its value"),
            None => {
                self.left = Some(word);
                Ok(None)
            }
            Some(0) => Ok(None),
            Some(left) => {
                if word >= self.previous {
                    return Err("a list of free pages is out of order");
                }
                self.left = Some(left - 1);
                self.previous = word;
                Ok(Some(word))
            }
        }
    }

    fn end(&self) -> Result<(), &'static str> {
        if self.left == Some(0) {
            Ok(())
        } else {
            Err("a list of free pages breaks off")
        }
    }
}
