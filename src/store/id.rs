//! Session ids that look random on the wire and are in time order in the store. Pure.
//!
//! ```text
//! key = 1, moment of expiry (52 bits, in microseconds), home lane (4 bits) | site (4) | check (4) | random (16)
//! id  = the first 12 bytes of the key XOR a pad                                      | check (4) | random (16)
//! ```
//! The pad is a hash of what follows it, and the check a hash of all the rest, both under secrets of the store.
//!
//! So inserts append, expiry order is key order, and an observer without the secrets learns nothing of when, where and by whom a
//! session was made. To those who have them an id says in which lane it is to be found, and at which site it was made; and one
//! that was forged or changed shows by its check, before anything is searched.

use super::record::RecordKind;
use super::siphash::{half, siphash128, siphash128_words, siphash_words};

/// Bytes of our ids: SSL_MAX_SSL_SESSION_ID_LENGTH, and what a stateful TLS 1.3 ticket must have.
pub const ID: usize = 32;
/// Random bytes of an id.
pub const RANDOM: usize = 16;
/// Lanes that an id can name.
pub const LANES: usize = 1 << LANE_BITS;
/// Bits below the moment in a key: in these the lane changes nothing of the order, and the key is the same wherever the record lies.
const LANE_BITS: u32 = 4;
/// Longest id made elsewhere that can be stored.
pub const FOREIGN_MAX: usize = 255;

/// What keys in time order begin with: a moment is never below the keys outside of it, not even under a clock that stands at 1970.
const EPOCH: u64 = 1 << 56;
/// The last moment that a key can have, in the year 2112. Headers end in 2106.
const LAST: u64 = (1 << (56 - LANE_BITS)) - 1;
/// What the keys outside the time order begin with. They lie below every time, so that the newest time is always the last
/// key and inserting it appends.
const OUTSIDE: u8 = 0;
/// The second byte of the key of an id made elsewhere.
const FOREIGN: u8 = 1;
/// The second byte of the key of an opaque record.
const OPAQUE: u8 = 2;
/// Bytes before the id in such a key: the two, the namespace, the length of the id.
const PREFIX: usize = 7;
/// Longest key in the tree; LMDB takes 511.
pub const KEY_MAX: usize = PREFIX + FOREIGN_MAX + 1;

/// The first key of a tree, there from the beginning: shows where the map lies.
pub const SENTINEL: &[u8] = &[OUTSIDE];
/// The keys in time order begin here.
pub const TIMES: &[u8] = &[OUTSIDE + 1];
/// The keys outside the time order begin here.
pub const OUTSIDERS: &[u8] = &[OUTSIDE, FOREIGN];

/// Where a record lies in the tree.
#[derive(Clone, Copy)]
pub struct Key {
    bytes: [u8; KEY_MAX],
    len: u16,
}

impl Key {
    fn from(parts: &[&[u8]]) -> Key {
        let mut key = Key { bytes: [0; KEY_MAX], len: 0 };
        for part in parts {
            let at = usize::from(key.len);
            key.bytes[at..at + part.len()].copy_from_slice(part);
            key.len += part.len() as u16;
        }
        key
    }

    /// The key of a record outside the time order, in its namespace; `None` when the id is empty or too long.
    pub fn outside(kind: RecordKind, namespace: u32, id: &[u8]) -> Option<Key> {
        let fits = !id.is_empty() && id.len() <= FOREIGN_MAX;
        let kind = match kind {
            RecordKind::Session => FOREIGN,
            RecordKind::Opaque => OPAQUE,
        };
        fits.then(|| Key::from(&[&[OUTSIDE, kind], &namespace.to_be_bytes(), &[id.len() as u8], id]))
    }

    /// Where the opaque records of a namespace begin.
    pub fn opaque_start(namespace: u32) -> Key {
        Key::from(&[&[OUTSIDE, OPAQUE], &namespace.to_be_bytes()])
    }

    /// A key as read from the tree; `None` when it is none of ours.
    pub fn read(bytes: &[u8]) -> Option<Key> {
        (bytes.len() <= KEY_MAX).then(|| Key::from(&[bytes]))
    }

    /// The key of a record's n-th continuation, n from 1.
    pub fn continuation(&self, n: u8) -> Key {
        Key::from(&[self.bytes(), &[n]])
    }

    /// Whether a record begins under this key; the others are continuations.
    pub fn is_head(&self) -> bool {
        let bytes = self.bytes();
        match bytes.get(PREFIX - 1) {
            Some(id_len) if bytes[0] == OUTSIDE => bytes.len() == PREFIX + usize::from(*id_len),
            _ => bytes.len() == ID,
        }
    }

    /// The bytes that LMDB sorts by.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// When a key in time order expires, in microseconds since 1970; `None` for the others.
    pub fn expiry(&self) -> Option<u64> {
        expiry_of(self.bytes())
    }

    /// The id of a foreign or opaque key.
    pub fn foreign_id(&self) -> Option<&[u8]> {
        (self.expiry().is_none() && self.is_head()).then(|| &self.bytes()[PREFIX..])
    }
}

/// When the record under these key bytes expires, if the key is in time order.
pub fn expiry_of(key: &[u8]) -> Option<u64> {
    let (head, tail) = key.split_first_chunk::<8>()?;
    let in_order = tail.len() == ID - 8 || tail.len() == ID - 8 + 1;
    moment_of(u64::from_be_bytes(*head)).filter(|_| in_order)
}

fn moment_of(head: u64) -> Option<u64> {
    head.checked_sub(EPOCH).map(|moment| moment >> LANE_BITS)
}

/// Where the keys begin that end at or after this moment (microseconds).
pub fn time_key(expiry: u64) -> [u8; 8] {
    (EPOCH | (expiry.min(LAST) << LANE_BITS)).to_be_bytes()
}

/// The secrets of a store under which its ids are made, and its site.
#[derive(Clone, Copy)]
pub struct Mask {
    pads: (u64, u64),
    checks: (u64, u64),
    site: u32,
}

impl Mask {
    /// From 16 secret bytes. Stores that share them differ in their sites.
    pub fn new(secret: &[u8; 16], site: u32) -> Mask {
        let pads = (half(secret, 0), half(secret, 8));
        Mask { pads, checks: siphash128(pads, b"check"), site }
    }

    /// The id of a session that expires at `expiry` microseconds and is to lie in that lane.
    pub fn issue(&self, lane: u8, expiry: u64, random: &[u8; RANDOM]) -> [u8; ID] {
        let moment = EPOCH | (expiry.min(LAST) << LANE_BITS) | (u64::from(lane) % LANES as u64);
        let random = [half(random, 0), half(random, 8)];
        let mut key = Parts { moment, site: self.site, check: 0, random };
        key.check = self.check(&key);
        self.masked(&key).bytes()
    }

    /// Whether an id is one of ours: when its check says so, and it ends from `now` to `latest` (microseconds). What another site has
    /// made under the same secrets is not.
    pub fn decode(&self, id: &[u8], now: u64, latest: u64) -> DecodedId {
        let Ok(id): Result<&[u8; ID], _> = id.try_into() else {
            return DecodedId::Foreign;
        };
        let key = self.masked(&Parts::of(id));
        // The moment first: it costs nothing, and one invented id in 600 passes.
        let Some(expiry) = moment_of(key.moment).filter(|expiry| *expiry <= latest) else {
            return DecodedId::Foreign;
        };
        if key.check != self.check(&key) || key.site != self.site {
            return DecodedId::Foreign;
        }
        match expiry > now {
            true => DecodedId::Ours(Key::from(&[&key.bytes()])),
            false => DecodedId::Expired,
        }
    }

    /// The id under which a record was stored: the inverse of `decode` for keys in time order. `None` for a key that
    /// begins no record.
    pub fn id_of(&self, key: &Key) -> Option<Vec<u8>> {
        match (key.expiry(), key.bytes().first_chunk::<ID>()) {
            _ if !key.is_head() => None,
            (Some(_), Some(key)) => Some(self.masked(&Parts::of(key)).bytes().to_vec()),
            _ => key.foreign_id().map(<[u8]>::to_vec),
        }
    }

    /// Takes the mask off, or puts it on. The pad follows from what stays as it is: of the masked part it would have to be known
    /// before that is.
    fn masked(&self, of: &Parts) -> Parts {
        let (head, tail) = siphash128_words(self.pads, of.random, of.check);
        Parts { moment: of.moment ^ head, site: of.site ^ tail as u32, ..*of }
    }

    /// A hash of all of a key but the check: without it, who flips a bit of an id flips one of the key.
    fn check(&self, key: &Parts) -> u32 {
        siphash_words(self.checks, [key.random[0], key.random[1], key.moment], key.site) as u32
    }
}

/// An id or a key in time order, taken apart.
struct Parts {
    moment: u64,
    site: u32,
    check: u32,
    random: [u64; 2],
}

impl Parts {
    fn of(bytes: &[u8; ID]) -> Parts {
        let quarter = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let random = [half(bytes, 16), half(bytes, 24)];
        Parts { moment: half(bytes, 0).swap_bytes(), site: quarter(8), check: quarter(12), random }
    }

    fn bytes(&self) -> [u8; ID] {
        let mut out = [0; ID];
        out[..8].copy_from_slice(&self.moment.to_be_bytes());
        out[8..12].copy_from_slice(&self.site.to_be_bytes());
        out[12..16].copy_from_slice(&self.check.to_be_bytes());
        out[16..24].copy_from_slice(&self.random[0].to_le_bytes());
        out[24..].copy_from_slice(&self.random[1].to_le_bytes());
        out
    }
}

/// What an id turned out to be.
// A key is used at once and lives on the stack; boxing it would allocate on every lookup.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Copy)]
pub enum DecodedId {
    /// Made by this store and not yet expired.
    Ours(Key),
    /// Made by this store, and past its time.
    Expired,
    /// Made elsewhere, or invented.
    Foreign,
}

impl DecodedId {
    /// The key under which `id` lies, which decoded to this: in time order when it is ours, whatever the record is. `None`
    /// when it is empty or too long.
    pub fn key(self, id: &[u8], kind: RecordKind, namespace: impl FnOnce() -> u32) -> Option<Key> {
        match self {
            DecodedId::Ours(key) => Some(key),
            DecodedId::Expired | DecodedId::Foreign => Key::outside(kind, namespace(), id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: &[u8; 16] = b"sixteen secrets!";
    const SITE: u32 = 0x5173_0001;
    const NOW: u64 = 1_700_000_000_000_000;
    const LATEST: u64 = NOW + 366 * 86_400 * 1_000_000;

    fn mask() -> Mask {
        Mask::new(MASK, SITE)
    }

    fn key_of(id: &[u8; ID]) -> Key {
        match mask().decode(id, NOW, LATEST) {
            DecodedId::Ours(key) => key,
            _ => panic!("our own id is not known"),
        }
    }

    fn is_foreign(mask: &Mask, id: &[u8]) -> bool {
        matches!(mask.decode(id, NOW, LATEST), DecodedId::Foreign)
    }

    #[test]
    fn an_id_leads_back_to_its_key_and_the_key_to_its_id() {
        for lane in 0..LANES as u8 {
            let id = mask().issue(lane, NOW + 5, &[7; RANDOM]);
            let key = key_of(&id);
            assert_eq!(key.expiry(), Some(NOW + 5));
            assert_eq!(key.bytes()[7] % 16, lane, "the lane lies in the last bits of the moment");
            assert_eq!(key.bytes()[8..12], SITE.to_be_bytes());
            assert_eq!(key.bytes()[12..], id[12..]);
            assert_eq!(mask().id_of(&key).as_deref(), Some(&id[..]));
            assert_eq!(mask().id_of(&key.continuation(1)), None);
            assert!(key.is_head() && !key.continuation(1).is_head());
            assert_eq!(key.continuation(1).expiry(), key.expiry(), "what belongs together expires together");
        }
    }

    #[test]
    fn an_id_outside_its_time_or_made_elsewhere_is_not_ours() {
        let mask = mask();
        let id = mask.issue(0, NOW + 5, &[7; RANDOM]);
        assert!(matches!(mask.decode(&id, NOW + 5, LATEST), DecodedId::Expired), "it expires to the microsecond");
        assert!(matches!(mask.decode(&id, LATEST, LATEST), DecodedId::Expired), "it counts as what it was");
        assert!(matches!(mask.decode(&id, NOW, NOW + 4), DecodedId::Foreign), "no session lives that long");
        assert!(is_foreign(&mask, &id[..31]));
        let (other, other_site) = (Mask::new(b"another secret!!", SITE), Mask::new(MASK, SITE + 1));
        let mut random = [0; RANDOM];
        for i in 0_u32..if cfg!(miri) { 100 } else { 100_000 } {
            random[..4].copy_from_slice(&i.to_be_bytes());
            for elsewhere in [&other, &other_site] {
                assert!(is_foreign(&mask, &elsewhere.issue(0, NOW + 5, &random)), "an id of another store is ours");
            }
        }
    }

    #[test]
    fn an_id_that_was_changed_anywhere_is_foreign() {
        // Flipping a bit of the masked part flips one of the key: of the moment, the lane or the site.
        for n in 0..if cfg!(miri) { 1 } else { 40 } {
            let id = mask().issue(n % 16, NOW + 3_600_000_000, &[n; RANDOM]);
            for bit in 0..8 * ID {
                let mut forged = id;
                forged[bit / 8] ^= 1 << (bit % 8);
                assert!(is_foreign(&mask(), &forged), "bit {bit} can be flipped");
            }
            let other = mask().issue(n % 16, NOW + 3_600_000_000, &[n + 1; RANDOM]);
            for cut in 1..ID {
                let forged = [&id[..cut], &other[cut..]].concat();
                // Their sites are the same, and their moments but for the pad: most cuts mix two ids.
                assert!(is_foreign(&mask(), &forged), "ids can be spliced at {cut}");
            }
        }
    }

    #[test]
    fn an_id_of_the_year_2200_ends_where_keys_end() {
        let id = mask().issue(3, 7_258_118_400_000_000, &[1; RANDOM]);
        let DecodedId::Ours(key) = mask().decode(&id, NOW, u64::MAX) else { panic!("it is ours") };
        assert_eq!((key.expiry(), key.bytes()[0]), (Some(LAST), 1));
        assert_eq!(time_key(u64::MAX), time_key(LAST));
    }

    #[test]
    fn keys_sort_by_expiry_and_all_others_below_every_time() {
        let key_in = |lane, expiry| key_of(&mask().issue(lane, expiry, &[9; RANDOM])).bytes().to_vec();
        let key = |expiry| key_in(0, expiry);
        assert!(key_in(15, NOW + 1) < key_in(0, NOW + 2), "the lane comes after the moment");
        assert!(&time_key(NOW + 1)[..] < &key(NOW + 1) && key_in(15, NOW + 1)[..8] < time_key(NOW + 2)[..]);
        assert!(key(NOW + 1) < key(NOW + 256) && key(NOW + 256) < key(NOW + (1 << 40)));
        assert!(TIMES < &key(NOW + 1)[..]);
        let mut clock_of_1970 = [9; ID];
        clock_of_1970[..8].copy_from_slice(&time_key(1));
        assert!(TIMES < &clock_of_1970[..] && expiry_of(&clock_of_1970) == Some(1));
        let foreign = Key::outside(RecordKind::Session, u32::MAX, &[0xFF; 32]).unwrap();
        let opaque = Key::outside(RecordKind::Opaque, u32::MAX, &[0xFF; FOREIGN_MAX]).unwrap();
        for key in [foreign, opaque] {
            assert!(SENTINEL < key.bytes() && OUTSIDERS <= key.bytes() && key.bytes() < TIMES);
            assert_eq!(key.expiry(), None);
            assert!(key.is_head() && !key.continuation(3).is_head());
        }
        assert_eq!(foreign.foreign_id(), Some(&[0xFF; 32][..]));
        assert!(
            Key::outside(RecordKind::Session, 0, &[0; 256]).is_none()
                && Key::outside(RecordKind::Opaque, 0, &[]).is_none()
        );
        let (short, long) =
            (Key::outside(RecordKind::Opaque, 0, b"a").unwrap(), Key::outside(RecordKind::Opaque, 0, b"a").unwrap());
        assert_ne!(short.continuation(1).bytes(), long.bytes(), "a continuation is never another id's record");
    }

    #[test]
    fn ids_look_uniform_and_do_not_show_their_time_or_lane() {
        // Ids of one microsecond and of moments a year apart, of two lanes: every bit is set in half of them, and no bit tells
        // them apart.
        let n = if cfg!(miri) { 200_u64 } else { 200_000 };
        let mut ones = [[0_u64; 8 * ID]; 2];
        let mut random = [0; RANDOM];
        for i in 0..n {
            random[..8].copy_from_slice(&i.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
            random[8..].copy_from_slice(&i.wrapping_mul(0xD1B5_4A32_D192_ED03).to_le_bytes());
            for (ones, (lane, expiry)) in ones.iter_mut().zip([(0, 1_700_000_000_000_000), (15, 1_731_000_000_000_000)])
            {
                let id = mask().issue(lane, expiry, &random);
                (0..8 * ID).for_each(|bit| ones[bit] += u64::from(id[bit / 8] >> (bit % 8) & 1));
            }
        }
        // Six standard deviations of a fair coin.
        let slack = 6.0 * (n as f64).sqrt() / 2.0;
        for bits in ones {
            for count in bits {
                assert!((count as f64 - n as f64 / 2.0).abs() < slack, "{count} of {n}");
            }
        }
    }
}
