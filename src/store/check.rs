//! Whether an LMDB data file is whole, found out by reading it and without LMDB. Pure.
//!
//! LMDB believes its pages: a damaged one makes it end the process by SIGSEGV, SIGBUS or abort(3), or loop for ever. So
//! everything that LMDB 0.9.24 takes on trust when it reads or writes one unnamed tree is looked at here first: both meta
//! pages, every page of the tree and of the free list, every node, every page number. What a record holds is not, its seal
//! tells that.
//!
//! LMDB tolerates, and so does this: a half written meta page that is not the newest (its writer was killed), a key on the
//! first node of a branch, overflow pages more than the value needs, a free list record longer than its list, and pages
//! that nothing refers to.

#[path = "check/tree.rs"]
mod tree;

use std::fmt;

use self::tree::{Bytewise, Numbers, Walk};
use super::pages::{self, Meta, Tree, PAGE_MAX};

/// What the file is known to be from elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Bytes of a page.
    pub page: usize,
    /// Bytes of the map.
    pub map: u64,
}

/// What a whole file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileCounts {
    pub entries: u64,
    /// Pages of the tree that is the free list.
    pub list: u64,
    /// Pages that nothing refers to.
    pub lost: u64,
    pub last_page: u64,
}

/// What is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    pub page: u64,
    pub what: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {}: {}", self.page, self.what)
    }
}

type Checked<T> = Result<T, Damage>;

fn wrong<T>(page: u64, what: &'static str) -> Checked<T> {
    Err(Damage { page, what })
}

/// Checks a file. `read` fills a buffer from the start of the page of that number, or says that the file does not reach so
/// far; the buffer is a page or shorter. Nobody may write to the file meanwhile.
pub fn check(expected: Expected, read: impl FnMut(u64, &mut [u8]) -> bool) -> Checked<FileCounts> {
    if !expected.page.is_power_of_two() || !(512..=PAGE_MAX).contains(&expected.page) {
        return wrong(0, "no page has this size");
    }
    let mut file =
        File { page: expected.page, last: 1, read, seen: Vec::new(), buffers: Vec::new(), spans: Vec::new() };
    let meta = file.newest(expected)?;
    file.last = meta.last_page;
    // A bit for each page, the two meta pages are taken.
    file.seen = vec![0; (meta.last_page / 64 + 1) as usize];
    file.seen[0] = 0b11;

    let mut list = Walk::new(&meta.free, Numbers { newest: meta.transaction });
    file.walk(&mut list, 0)?;
    let mut main = Walk::new(&meta.main, Bytewise);
    file.walk(&mut main, 1)?;

    let referred = main.met.pages() + list.met.pages() + list.free;
    Ok(FileCounts {
        entries: main.met.entries,
        list: list.met.pages(),
        lost: (meta.last_page - 1).saturating_sub(referred),
        last_page: meta.last_page,
    })
}

/// The file, and what of it was seen so far.
struct File<R> {
    page: usize,
    /// The last page in use.
    last: u64,
    read: R,
    seen: Vec<u64>,
    /// A page per level of the tree.
    buffers: Vec<Vec<u8>>,
    /// Where the nodes of one page begin and end.
    spans: Vec<(usize, usize)>,
}

impl<R: FnMut(u64, &mut [u8]) -> bool> File<R> {
    fn fill(&mut self, number: u64, out: &mut [u8]) -> Checked<()> {
        if (self.read)(number, out) {
            Ok(())
        } else {
            wrong(number, "it cannot be read")
        }
    }

    /// Notes that a page was met, which happens once.
    fn claim(&mut self, number: u64) -> Checked<()> {
        if number < 2 || number > self.last {
            return wrong(number, "no such page is in use, and something refers to it");
        }
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        match self.seen.get_mut(word) {
            Some(seen) if *seen & bit == 0 => *seen |= bit,
            _ => return wrong(number, "it is referred to twice"),
        }
        Ok(())
    }

    /// The meta page that LMDB goes by, which must be whole. Of the other one it uses only what never changes.
    fn newest(&mut self, expected: Expected) -> Checked<Meta> {
        let mut metas = [Meta::default(); 2];
        for (number, meta) in (0..).zip(&mut metas) {
            let mut bytes = [0; pages::META];
            self.fill(number, &mut bytes)?;
            *meta = Meta::read(&bytes, number, expected.page).map_err(|what| Damage { page: number, what })?;
            if meta.map != expected.map {
                return wrong(number, "its map has another size");
            }
        }
        // mdb_env_pick_meta. The transactions take turns with the pages, and a transaction finds its page by its number.
        let at = usize::from(metas[0].transaction < metas[1].transaction);
        let (newest, other) = (metas[at], metas[1 - at]);
        let number = at as u64;
        let in_turn = newest.transaction == other.transaction.saturating_add(1) && newest.transaction % 2 == number;
        if !in_turn && (newest.transaction, other.transaction) != (0, 0) {
            return wrong(number, "its transaction is out of turn");
        }
        if newest.last_page < 1 || newest.last_page >= expected.map / expected.page as u64 {
            return wrong(number, "its last page is outside of the map");
        }
        Ok(newest)
    }

    fn walk<O: tree::Order>(&mut self, walk: &mut Walk<O>, number: u64) -> Checked<()> {
        let tree: Tree = walk.tree;
        if tree.root == pages::NO_PAGE {
            if tree.depth != 0 {
                return wrong(number, "an empty tree has a depth");
            }
        } else {
            if tree.depth == 0 || tree.depth > pages::DEEPEST {
                return wrong(number, "the depth of its tree cannot be");
            }
            self.descend(walk, tree.root, 1)?;
        }
        let counts = |tree: &Tree| [tree.branches, tree.leaves, tree.overflows, tree.entries];
        if counts(&walk.met) != counts(&tree) {
            return wrong(number, "the pages or entries of its tree are not as many as it says");
        }
        Ok(())
    }
}
