//! Sessions under one name, each good for one use: what a client has of one server.
//!
//! A pool has places, and a session lies in each under an id of its own: the name and the number of the place.

use std::sync::Arc;

use super::control::Flushes;
use super::env::Txn;
use super::found::{Found, Miss};
use super::id::Key;
use super::record::{Header, RecordKind};
use super::thread::{self, ThreadContext};
use super::write::Over;
use super::{Namespace, Store};
use crate::stats::Counter;
use crate::status::{Error, Result, Status};
use crate::sys::clock;

/// Bytes of a pool's name.
pub(crate) const NAME: usize = 32;
/// Bytes of the id under which a session of a pool lies: longer than TLS lets a client offer to a server.
pub(crate) const POOL_ID: usize = NAME + 1;
/// How often a pool is looked through while others take what was seen in it.
const ROUNDS: usize = 8;

/// See the module's first line.
#[derive(Clone, Copy)]
pub(crate) struct Pool<'a> {
    pub(crate) name: &'a [u8; NAME],
    pub(crate) namespace: Namespace<'a>,
    pub(crate) places: &'a [u8],
}

impl Pool<'_> {
    fn id(&self, place: u8) -> [u8; POOL_ID] {
        let mut id = [place; POOL_ID];
        id[..NAME].copy_from_slice(self.name);
        id
    }
}

impl Store {
    /// Stores a session in the first free place, or over the one that expires first; not when its login was ended or the store was
    /// flushed since its handshake saw `seen`.
    pub(crate) fn put_in_pool(
        self: &Arc<Self>,
        pool: Pool<'_>,
        seen: Flushes,
        header: &mut Header,
        plain: &[u8],
    ) -> Result<()> {
        self.maintenance();
        self.control().note_life(u64::from(header.expires.saturating_sub(header.full_handshake)));
        header.id_len = POOL_ID as u8;
        thread::with(self, |thread| {
            let done = self.put_in_place(thread, pool, seen, header, plain);
            let counter = if done.is_ok() { Counter::ClientPuts } else { Counter::ClientPutsFailed };
            thread.opened.control.counters().add(thread.shard, counter, 1);
            done
        })?
    }

    fn put_in_place(
        self: &Arc<Self>,
        thread: &mut ThreadContext,
        pool: Pool<'_>,
        seen: Flushes,
        header: &mut Header,
        plain: &[u8],
    ) -> Result<()> {
        let there = self.occupied(thread, pool).map_err(|_| Error::busy())?;
        let is_free = |place: &&u8| there.iter().all(|(_, taken)| taken != *place);
        for &place in pool.places.iter().filter(is_free) {
            let id = pool.id(place);
            match self.put_uncounted(thread, (&id, pool.namespace), Some(seen), Over::Expired, header, plain) {
                // Another process was faster.
                Err(error) if error.status == Status::Invalid => {}
                done => return done,
            }
        }
        let place = there.last().map_or(pool.places[0], |(_, place)| *place);
        self.put_uncounted(thread, (&pool.id(place), pool.namespace), Some(seen), Over::Anything, header, plain)
    }

    /// The places in which a session lies, that which expires last first: as they were at one moment, since others may be moving
    /// sessions from place to place.
    fn occupied(&self, thread: &mut ThreadContext, pool: Pool<'_>) -> Result<Vec<(u32, u8)>, Miss> {
        let now = clock::coarse_micros();
        let namespace = thread.opened.namespace_hash(pool.namespace).half();
        let key = |&place: &u8| Some((Key::outside(RecordKind::Session, namespace, &pool.id(place))?, place));
        let keys: Vec<(Key, u8)> = pool.places.iter().filter_map(key).collect();
        let mut there = Vec::new();
        for snapshot in [Some(&mut thread.now), thread.before.as_mut()].into_iter().flatten() {
            let horizon = snapshot.generation.page().horizon(now);
            let read = |txn: &mut Txn| {
                let mut found = Vec::new();
                for (key, place) in &keys {
                    let header = txn.get(key.bytes())?.and_then(Header::read);
                    if let Some(header) = header.filter(|header| header.is_alive(now, horizon)) {
                        found.push((header.expires, *place));
                    }
                }
                Ok(found)
            };
            there.append(&mut self.read(snapshot, read).map_err(|fault| self.unavailable(snapshot, fault))?);
        }
        there.sort_unstable_by(|a, b| b.cmp(a));
        Ok(there)
    }

    /// Lets `f` say what becomes of the sessions of a pool, those that expire last first, until it returns one.
    pub(crate) fn find_in_pool<R>(
        self: &Arc<Self>,
        pool: Pool<'_>,
        f: impl FnMut(&mut Found<'_>) -> Result<R, Miss>,
    ) -> Result<R, Miss> {
        self.maintenance();
        let found = thread::with(self, |thread| {
            let found = self.find_in_place(thread, pool, f);
            let counter = if found.is_ok() { Counter::ClientHits } else { Counter::ClientMisses };
            thread.opened.control.counters().add(thread.shard, counter, 1);
            found
        });
        found.unwrap_or(Err(Miss::Unavailable))
    }

    fn find_in_place<R>(
        &self,
        thread: &mut ThreadContext,
        pool: Pool<'_>,
        mut f: impl FnMut(&mut Found<'_>) -> Result<R, Miss>,
    ) -> Result<R, Miss> {
        let mut missed = Miss::Absent;
        for _ in 0..ROUNDS {
            let mut others_were_faster = false;
            for (_, place) in self.occupied(thread, pool)? {
                match self.find(thread, &pool.id(place), pool.namespace, RecordKind::Session, &mut f) {
                    Ok(found) => return Ok(found),
                    Err(miss) => missed = miss,
                }
                others_were_faster |= missed == Miss::Absent;
            }
            if !others_were_faster {
                break;
            }
        }
        Err(missed)
    }

    /// Deletes the sessions of a pool.
    pub(crate) fn empty_pool(self: &Arc<Self>, pool: Pool<'_>) -> Result<()> {
        for &place in pool.places {
            self.remove(&pool.id(place), pool.namespace)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    fn a_store(scratch: &tempfile::TempDir) -> Arc<Store> {
        Store::open(&scratch.path().join("store"), &Options::parse("capacity=1MiB").unwrap()).unwrap()
    }

    fn put(store: &Arc<Store>, pool: Pool<'_>, life: u32) -> Result<()> {
        let now = clock::seconds() as u32;
        let (lineage, seen) = store.begin_lineage().unwrap();
        let mut header = Header { expires: now + life, full_handshake: now, lineage, ..Header::default() };
        store.put_in_pool(pool, seen, &mut header, &life.to_be_bytes())
    }

    fn take(store: &Arc<Store>, pool: Pool<'_>) -> Result<u32, Miss> {
        store.find_in_pool(pool, |found| {
            found.take()?;
            Ok(u32::from_be_bytes(found.open()?.try_into().unwrap()))
        })
    }

    #[test]
    fn each_session_of_a_pool_is_given_once_and_the_one_that_lives_longest_first() {
        let scratch = tempfile::tempdir().unwrap();
        let store = a_store(&scratch);
        let pool = Pool { name: &[7; NAME], namespace: Namespace("a"), places: &[0, 1, 2] };
        for life in [100, 300, 200] {
            put(&store, pool, life).unwrap();
        }
        assert_eq!(take(&store, Pool { namespace: Namespace("b"), ..pool }), Err(Miss::Absent));
        assert_eq!(take(&store, Pool { name: &[8; NAME], ..pool }), Err(Miss::Absent));
        assert_eq!([300, 200, 100].map(Ok), [0; 3].map(|_| take(&store, pool)));
        assert_eq!(take(&store, pool), Err(Miss::Absent));
    }

    #[test]
    fn a_full_pool_gives_up_the_session_that_expires_first() {
        let scratch = tempfile::tempdir().unwrap();
        let store = a_store(&scratch);
        let pool = Pool { name: &[7; NAME], namespace: Namespace(""), places: &[0, 1] };
        for life in [300, 100, 200] {
            put(&store, pool, life).unwrap();
        }
        assert_eq!((take(&store, pool), take(&store, pool)), (Ok(300), Ok(200)));
        put(&store, pool, 100).unwrap();
        store.empty_pool(pool).unwrap();
        assert_eq!(take(&store, pool), Err(Miss::Absent));
    }

    #[test]
    fn threads_that_store_at_once_fill_different_places() {
        let scratch = tempfile::tempdir().unwrap();
        let store = a_store(&scratch);
        const PLACES: &[u8] = &[0, 1, 2, 3, 4, 5, 6, 7];
        for round in 0..50 {
            let name = [round; NAME];
            let pool = Pool { name: &name, namespace: Namespace(""), places: PLACES };
            let start = std::sync::Barrier::new(PLACES.len());
            std::thread::scope(|scope| {
                for n in 0..PLACES.len() as u32 {
                    let (start, store) = (&start, &store);
                    scope.spawn(move || {
                        start.wait();
                        // One that waited too long for the others tries again, as the next visit would.
                        while put(store, pool, 100 + n).is_err() {}
                    });
                }
            });
            let mut all: Vec<u32> = std::iter::from_fn(|| take(&store, pool).ok()).collect();
            all.sort_unstable();
            assert_eq!(all, (100..108).collect::<Vec<u32>>(), "one was written over another");
        }
    }
}
