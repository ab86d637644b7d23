//! The data file: pages in the machine's byte order (mdb.c: MDB_page, MDB_meta, MDB_db, MDB_node). Pure, and every access is
//! within bounds or `None`.

/// Bytes before the nodes of a page, and before the value on an overflow page.
pub const HEADER: usize = 16;
/// Bytes of a page header and what a meta page holds.
pub const META: usize = HEADER + 136;
/// The root of an empty tree.
pub const NO_PAGE: u64 = u64::MAX;
/// Largest page: its bounds have 16 bits (MAX_PAGESIZE).
pub const PAGE_MAX: usize = 0x8000;
/// Deepest tree that cursors can follow, less the level that a split of the root adds (CURSOR_STACK).
pub const DEEPEST: u16 = 31;
/// Longest key.
pub const KEY_MAX: usize = 511;

pub const BRANCH: u16 = 0x01;
pub const LEAF: u16 = 0x02;
pub const OVERFLOW: u16 = 0x04;
const META_PAGE: u16 = 0x08;
/// A node whose value is on overflow pages.
const BIG: u16 = 0x01;
/// Bytes of a node before its key.
const NODE: usize = 8;
/// What a meta page and the lock file begin with (MDB_MAGIC).
pub const MAGIC: u32 = 0xBEEF_C0DE;
const VERSION: u32 = 1;
/// Keys are numbers: the flag of the free list, and the only one that a file of ours has.
const INTEGER_KEYS: u16 = 0x08;

fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..)?.first_chunk().copied()
}

fn u16_at(from: &[u8], at: usize) -> Option<u16> {
    bytes(from, at).map(u16::from_ne_bytes)
}

fn u32_at(from: &[u8], at: usize) -> Option<u32> {
    bytes(from, at).map(u32::from_ne_bytes)
}

pub fn u64_at(from: &[u8], at: usize) -> Option<u64> {
    bytes(from, at).map(u64::from_ne_bytes)
}

/// Rounds up as LMDB does between nodes.
fn even(n: usize) -> usize {
    (n + 1) & !1
}

/// What a meta page says of a tree.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tree {
    pad: u32,
    flags: u16,
    pub depth: u16,
    pub branches: u64,
    pub leaves: u64,
    pub overflows: u64,
    pub entries: u64,
    pub root: u64,
}

impl Tree {
    /// Pages of any kind.
    pub fn pages(&self) -> u64 {
        self.branches + self.leaves + self.overflows
    }

    fn read(from: &[u8], at: usize) -> Option<Tree> {
        Some(Tree {
            pad: u32_at(from, at)?,
            flags: u16_at(from, at + 4)?,
            depth: u16_at(from, at + 6)?,
            branches: u64_at(from, at + 8)?,
            leaves: u64_at(from, at + 16)?,
            overflows: u64_at(from, at + 24)?,
            entries: u64_at(from, at + 32)?,
            root: u64_at(from, at + 40)?,
        })
    }
}

/// A meta page.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meta {
    pub map: u64,
    pub free: Tree,
    pub main: Tree,
    pub last_page: u64,
    pub transaction: u64,
}

impl Meta {
    /// Reads a meta page; the error says which of the things that no transaction changes is wrong.
    pub fn read(from: &[u8], number: u64, page: usize) -> Result<Meta, &'static str> {
        let head = (u64_at(from, 0), u16_at(from, 10));
        if head != (Some(number), Some(META_PAGE)) {
            return Err("it is no meta page");
        }
        if (u32_at(from, 16), u32_at(from, 20)) != (Some(MAGIC), Some(VERSION)) {
            return Err("it is not of this version of LMDB");
        }
        let meta = (|| {
            Some(Meta {
                map: u64_at(from, 32)?,
                free: Tree::read(from, 40)?,
                main: Tree::read(from, 88)?,
                last_page: u64_at(from, 136)?,
                transaction: u64_at(from, 144)?,
            })
        })();
        let meta = meta.ok_or("it is too short")?;
        if meta.free.pad as usize != page {
            return Err("its pages have another size");
        }
        if (meta.free.flags, meta.main.flags, meta.main.pad) != (INTEGER_KEYS, 0, 0) {
            return Err("its trees are of another kind");
        }
        Ok(meta)
    }
}

/// Number and flags of any page.
pub fn head(page: &[u8]) -> (Option<u64>, Option<u16>) {
    (u64_at(page, 0), u16_at(page, 10))
}

/// How many pages an overflow page says it begins.
pub fn overflow_pages(page: &[u8]) -> Option<u32> {
    u32_at(page, 12)
}

/// A node of a page.
#[derive(Clone, Copy, Debug)]
pub struct Node<'p> {
    pub key: &'p [u8],
    pub holds: Holds<'p>,
}

/// What a node holds besides its key.
#[derive(Clone, Copy, Debug)]
pub enum Holds<'p> {
    /// The number of the page below.
    Child(u64),
    /// A value.
    Value(&'p [u8]),
    /// The size of a value and the number of its first page.
    Big(usize, u64),
}

/// A branch or leaf page whose nodes may be asked for.
#[derive(Clone, Copy)]
pub struct Nodes<'p> {
    page: &'p [u8],
    leaf: bool,
    pub count: usize,
}

impl<'p> Nodes<'p> {
    /// Checks that the nodes lie as LMDB lays them: from the end of the page without a gap, in any order. It moves them by
    /// that rule. `spans` is room to work in.
    pub fn read(page: &'p [u8], leaf: bool, spans: &mut Vec<(usize, usize)>) -> Result<Nodes<'p>, &'static str> {
        let (Some(lower), Some(upper)) = (u16_at(page, 12), u16_at(page, 14)) else {
            return Err("it is too short");
        };
        let (lower, upper) = (usize::from(lower), usize::from(upper));
        if lower < HEADER || lower % 2 != 0 || upper % 2 != 0 || lower > upper || upper > page.len() {
            return Err("its bounds cannot be");
        }
        let nodes = Nodes { page, leaf, count: (lower - HEADER) / 2 };
        // mdb_rebalance, mdb_page_search_root: fewer would not have been left, and are asserted against.
        if nodes.count < if leaf { 1 } else { 2 } {
            return Err("it has too few entries");
        }
        spans.clear();
        for at in 0..nodes.count {
            let (start, end) = nodes.span(at).ok_or("an entry reaches out of it")?;
            // mdb_env_open2, me_nodemax: what is larger has its value elsewhere, so that any page can be split.
            if end - start > (((page.len() - HEADER) / 2) & !1) - 2 {
                return Err("an entry is too large");
            }
            spans.push((start, end));
        }
        spans.sort_unstable();
        let mut next = upper;
        for (start, end) in spans.iter() {
            if *start != next {
                return Err("its entries overlap or leave a gap");
            }
            next = *end;
        }
        if next != page.len() {
            return Err("its entries overlap or leave a gap");
        }
        Ok(nodes)
    }

    fn start(&self, at: usize) -> Option<usize> {
        u16_at(self.page, HEADER + 2 * at).map(usize::from)
    }

    fn span(&self, at: usize) -> Option<(usize, usize)> {
        let start = self.start(at)?;
        let (word, flags, key) = (u32_at(self.page, start)?, u16_at(self.page, start + 4)?, self.key_len(start)?);
        let data = match (self.leaf, flags) {
            (false, _) => 0,
            (true, BIG) => 8,
            (true, _) => word as usize,
        };
        let end = even(start.checked_add(NODE + key)?.checked_add(data)?);
        (end <= self.page.len()).then_some((start, end))
    }

    fn key_len(&self, start: usize) -> Option<usize> {
        u16_at(self.page, start + 6).map(usize::from)
    }

    /// A node. `None` when it is of a kind that a store of ours does not have.
    pub fn node(&self, at: usize) -> Option<Node<'p>> {
        let start = self.start(at)?;
        let (word, flags, len) = (u32_at(self.page, start)?, u16_at(self.page, start + 4)?, self.key_len(start)?);
        let (key, rest) = self.page.get(start + NODE..)?.split_at_checked(len)?;
        let holds = match (self.leaf, flags) {
            (false, high) => Holds::Child(u64::from(word) | u64::from(high) << 32),
            (true, 0) => Holds::Value(rest.get(..word as usize)?),
            (true, BIG) => Holds::Big(word as usize, u64_at(rest, 0)?),
            (true, _) => return None,
        };
        Some(Node { key, holds })
    }
}
