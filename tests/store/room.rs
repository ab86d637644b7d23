//! The size of a store is a promise: to the page, for records of any size, and no insert ever fails for lack of room. Who
//! makes room is a promise as well: what expires first, and of several namespaces the one that has most.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use sesscache::Cache;
use support::{now, open, row, Data, Random, Scratch, Worker};

/// Stores a record under an id of the store's own, as sessions are.
fn put(cache: &Cache, life: u64, data: Data) -> [u8; 32] {
    let id = cache.issue_id(Duration::from_secs(life)).expect("an id");
    let stored = cache.put(&id, &data.bytes(), now() + life as i64);
    stored.unwrap_or_else(|e| panic!("a record of {} bytes is not stored: {e}", data.len));
    id
}

fn has(cache: &Cache, id: &[u8], data: Data) -> bool {
    match cache.get(id, |bytes| data.is(bytes)) {
        Ok(same) => {
            assert!(same, "another record is returned");
            true
        }
        Err(error) => {
            assert_eq!(error.status, sesscache::Status::NotFound, "{error}");
            false
        }
    }
}

/// Length and bytes on disk of the data file of the one generation in a store.
fn data_file(store: &Path) -> (u64, u64) {
    let mut found = Vec::new();
    for entry in fs::read_dir(store).expect("the store").flatten() {
        if let Ok(meta) = fs::metadata(entry.path().join("data.mdb")) {
            found.push((meta.len(), meta.blocks() * 512));
        }
    }
    assert_eq!(found.len(), 1, "a store has one data file, or it is larger than it may be");
    found[0]
}

/// Sizes from 100 bytes to 64 KiB, most of them small.
fn mixed(random: &mut Random, largest: u64) -> Data {
    let bits = 7 + random.below(10);
    Data { len: (100 + random.below(1 << bits)).min(largest) as usize, seed: random.next() }
}

#[test]
fn a_full_store_keeps_its_capacity_and_refuses_no_record() {
    for (options, capacity) in [("", 1), ("guard=on", 1), ("", 3), ("", 16), ("guard=on", 16)] {
        let scratch = Scratch::new("capacity");
        let path = scratch.join("store");
        let cache = open(&path, &format!("capacity={capacity}MiB {options}"));
        let mut random = Random(capacity);
        let mut put_bytes = 0;
        while put_bytes < (4 * capacity) << 20 {
            // Eight of the largest fill a store of 1 MiB: still none is refused.
            let data = mixed(&mut random, 65_536);
            let own = Random(data.seed).id(24);
            let id = if random.below(4) == 0 {
                cache.put(&own, &data.bytes(), now() + 1_000).expect("a record that is stored");
                own
            } else {
                put(&cache, 1_000, data).to_vec()
            };
            assert!(has(&cache, &id, data), "capacity={capacity}MiB {options}: a record made room for itself");
            put_bytes += data.len as u64;
        }
        let stats = cache.stats().expect("statistics");
        assert!(row(&stats, "evicted") > 0, "a store of {capacity} MiB takes four times as much");
        assert_eq!(
            row(&stats, "puts_full"),
            0,
            "capacity={capacity}MiB {options}: a record was refused for lack of room"
        );
        let (length, on_disk) = data_file(&path);
        assert!(length <= capacity << 20, "capacity={capacity}MiB {options}: the file has {length} bytes");
        assert!(on_disk <= capacity << 20, "capacity={capacity}MiB {options}: the file takes {on_disk} bytes");
        let used = row(&stats, "used_bytes");
        assert!(used <= capacity << 20, "{used} bytes in use of {capacity} MiB");
        assert!(used >= (capacity << 20) * 3 / 4, "capacity={capacity}MiB {options}: only {used} bytes are ever used");
    }
}

#[test]
fn a_store_may_have_64_gib() {
    let scratch = Scratch::new("huge");
    let path = scratch.join("store");
    let cache = open(&path, "capacity=64GiB");
    let mut random = Random(64);
    let records: Vec<_> =
        (0..500).map(|_| mixed(&mut random, 65_536)).map(|data| (put(&cache, 1_000, data), data)).collect();
    for (id, data) in &records {
        assert!(has(&cache, id, *data), "a record is lost in a store of 64 GiB");
    }
    assert_eq!(row(&cache.stats().expect("statistics"), "capacity"), 64 << 30);
    let (_, on_disk) = data_file(&path);
    assert!(on_disk <= 3 << 30, "a nearly empty store of 64 GiB takes {on_disk} bytes of the file system");
}

#[test]
fn a_full_store_forgets_what_expires_first() {
    for options in ["capacity=1MiB", "capacity=1MiB guard=on"] {
        let scratch = Scratch::new("order");
        let cache = open(&scratch.join("store"), options);
        // Stored in no order of their expiry.
        let mut random = Random(5);
        let mut records: Vec<_> = (0..12_000)
            .map(|seed| (1_000 + random.below(1_000_000), Data { len: 200, seed }))
            .map(|(life, data)| (life, put(&cache, life, data), data))
            .collect();
        records.sort_by_key(|(life, ..)| *life);
        let kept: Vec<bool> = records.iter().map(|(_, id, data)| has(&cache, id, *data)).collect();
        let number = kept.iter().filter(|kept| **kept).count();
        // All but the last batch that made room, and the latest, which no longer has to.
        let last = kept[kept.len() - number..].iter().filter(|kept| **kept).count();
        assert!(number > 1_500, "{options}: only {number} of 12000 records are kept in 1 MiB");
        assert!(last + 16 >= number, "{options}: of the {number} that expire last only {last} are kept");
    }
}

#[test]
fn a_flood_in_one_namespace_leaves_the_sessions_of_another() {
    for options in ["capacity=4MiB", "capacity=4MiB guard=on"] {
        let scratch = Scratch::new("flood");
        let path = scratch.join("store");
        let mail = open(&path, &format!("{options} namespace=mail"));
        let shop = open(&path, &format!("{options} namespace=shop"));
        let web = open(&path, options);
        let data = |seed| Data { len: 200, seed };
        let ours: Vec<_> = (0..3_000).map(|seed| put(&mail, 3_600, data(seed))).collect();
        let own: Vec<_> = (0..500).map(|seed| Random(seed).id(20)).collect();
        for (seed, id) in own.iter().enumerate() {
            shop.put(id, &data(seed as u64).bytes(), now() + 3_600).expect("a record that is stored");
        }
        for seed in 0..40_000 {
            put(&web, 7_200, data(seed));
        }
        let left = ours.iter().enumerate().filter(|(seed, id)| has(&mail, *id, data(*seed as u64))).count();
        assert_eq!(left, 3_000, "{options}: a flood of another namespace left {left} of 3000 sessions");
        let left = own.iter().enumerate().filter(|(seed, id)| has(&shop, id, data(*seed as u64))).count();
        assert_eq!(left, 500, "{options}: a flood of another namespace left {left} of 500 records");
        assert_eq!(row(&web.stats().expect("statistics"), "puts_full"), 0);

        // Nobody owns his share for ever: with a flood of his own a namespace gets an equal part, and no more.
        let newest: Vec<_> = (0..30_000).map(|seed| put(&mail, 7_200, data(seed))).collect();
        let kept = newest.iter().enumerate().filter(|(seed, id)| has(&mail, *id, data(*seed as u64))).count();
        assert!((4_500..7_500).contains(&kept), "{options}: {kept} of about 12000 places for one of three namespaces");
    }
}

#[test]
fn processes_that_fill_a_store_together_keep_to_its_capacity() {
    let scratch = Scratch::new("together");
    let path = scratch.join("store");
    let mut workers: Vec<Worker> = (0..4).map(|_| Worker::open(&path, "capacity=2MiB deadline=10s")).collect();
    for round in 0..2_000 {
        for (n, worker) in workers.iter_mut().enumerate() {
            let seed = round * 4 + n as u64;
            worker.say(&format!(
                "put {} {} {seed} {}",
                support::hex(&Random(seed).id(32)),
                100 + seed % 3_000,
                now() + 600
            ));
        }
        for worker in &mut workers {
            assert!(worker.hear().starts_with("ok"), "one of four processes cannot store");
        }
    }
    assert!(workers[0].stat("evicted") > 0, "2 MiB are enough for 12");
    let (length, on_disk) = data_file(&path);
    assert!(length.max(on_disk) <= 2 << 20, "a store of 2 MiB has {length} bytes, {on_disk} on disk");
    workers.into_iter().for_each(Worker::finish);
}
