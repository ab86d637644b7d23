//! Session ids that look random on the wire and are in time order in the store. Pure.
//!
//! `key = moment of expiry (8 bytes, big endian) || 24 random bytes`
//! `id  = (first 8 bytes of key XOR SipHash-2-4(mask, the 24)) || the 24`
//!
//! So inserts append, expiry order is key order, a forged id decodes to an implausible time and never reaches LMDB, and
//! an observer without the mask learns nothing of when a session was made: each id is masked with a pad that its own
//! random part selects.

use super::record::RecordKind;

/// Bytes of our ids: SSL_MAX_SSL_SESSION_ID_LENGTH, and what a stateful TLS 1.3 ticket must have.
pub const ID: usize = 32;
/// Random bytes of an id.
pub const RANDOM: usize = 24;
/// Longest id made elsewhere that can be stored.
pub const FOREIGN_MAX: usize = 255;

/// What keys add to microseconds since 1970: the first byte of a moment is never 0, not even under a clock that stands at 1970.
const EPOCH: u64 = 1 << 56;
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
    let in_order = tail.len() == RANDOM || tail.len() == RANDOM + 1;
    u64::from_be_bytes(*head).checked_sub(EPOCH).filter(|_| in_order)
}

/// Where the keys begin that end at or after this moment (microseconds).
pub fn time_key(expiry: u64) -> [u8; 8] {
    expiry.saturating_add(EPOCH).to_be_bytes()
}

/// The secret of a store under which its ids are made.
#[derive(Clone, Copy)]
pub struct Mask(u64, u64);

impl Mask {
    /// From 16 secret bytes.
    pub fn new(secret: &[u8; 16]) -> Mask {
        Mask(half(secret, 0), half(secret, 8))
    }

    /// The id of a session that expires at `expiry` microseconds.
    pub fn issue(&self, expiry: u64, random: &[u8; RANDOM]) -> [u8; ID] {
        let mut id = [0; ID];
        id[..8].copy_from_slice(&(expiry.wrapping_add(EPOCH) ^ self.pad(random)).to_be_bytes());
        id[8..].copy_from_slice(random);
        id
    }

    /// Whether an id is one of ours: it is when it decodes to a moment from `now` to `latest` (microseconds).
    pub fn decode(&self, id: &[u8], now: u64, latest: u64) -> DecodedId {
        let Ok(id): Result<&[u8; ID], _> = id.try_into() else {
            return DecodedId::Foreign;
        };
        let random: &[u8; RANDOM] = id[8..].try_into().expect("32 - 8");
        let moment = half(id, 0).swap_bytes() ^ self.pad(random);
        let Some(expiry) = moment.checked_sub(EPOCH).filter(|expiry| *expiry <= latest) else {
            return DecodedId::Foreign;
        };
        // An id that expired within the longest life is ours in all likelihood: it is counted as what it is.
        if expiry <= now {
            let longest = latest.saturating_sub(now);
            return if now - expiry <= longest { DecodedId::Expired } else { DecodedId::Foreign };
        }
        DecodedId::Ours(Key::from(&[&moment.to_be_bytes(), random]))
    }

    /// The id under which a record was stored: the inverse of `decode` for keys in time order. `None` for a key that
    /// begins no record.
    pub fn id_of(&self, key: &Key) -> Option<Vec<u8>> {
        match (key.expiry(), key.bytes().last_chunk::<RANDOM>()) {
            _ if !key.is_head() => None,
            (Some(expiry), Some(random)) => Some(self.issue(expiry, random).to_vec()),
            _ => key.foreign_id().map(<[u8]>::to_vec),
        }
    }

    fn pad(&self, random: &[u8; RANDOM]) -> u64 {
        siphash(self.0, self.1, random)
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

/// A keyed hash of names: server names and namespaces.
pub fn name_hash(secret: &[u8; 16], name: &[u8]) -> u64 {
    siphash(half(secret, 0), half(secret, 8), name)
}

/// Eight bytes as a number.
pub(super) fn half(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// SipHash-2-4 (Aumasson and Bernstein, 2012).
pub fn siphash(k0: u64, k1: u64, data: &[u8]) -> u64 {
    let mut v = sip_state((k0, k1), 0, data);
    v[2] ^= 0xff;
    sip_rounds::<4>(&mut v);
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

/// The same with 128 bits.
pub fn siphash128((k0, k1): (u64, u64), data: &[u8]) -> (u64, u64) {
    let mut v = sip_state((k0, k1), 0xee, data);
    v[2] ^= 0xee;
    sip_rounds::<4>(&mut v);
    let first = v[0] ^ v[1] ^ v[2] ^ v[3];
    v[1] ^= 0xdd;
    sip_rounds::<4>(&mut v);
    (first, v[0] ^ v[1] ^ v[2] ^ v[3])
}

/// The state after all of `data`, before the end. `variant` tells the lengths of results apart.
#[inline(always)]
fn sip_state((k0, k1): (u64, u64), variant: u64, data: &[u8]) -> [u64; 4] {
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d ^ variant,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let mut chunks = data.chunks_exact(8);
    for chunk in &mut chunks {
        let word = half(chunk, 0);
        v[3] ^= word;
        sip_rounds::<2>(&mut v);
        v[0] ^= word;
    }
    let mut last = (data.len() as u64) << 56;
    for (i, byte) in chunks.remainder().iter().enumerate() {
        last |= u64::from(*byte) << (8 * i);
    }
    v[3] ^= last;
    sip_rounds::<2>(&mut v);
    v[0] ^= last;
    v
}

#[inline(always)]
fn sip_rounds<const N: usize>(v: &mut [u64; 4]) {
    for _ in 0..N {
        v[0] = v[0].wrapping_add(v[1]);
        v[1] = v[1].rotate_left(13) ^ v[0];
        v[0] = v[0].rotate_left(32);
        v[2] = v[2].wrapping_add(v[3]);
        v[3] = v[3].rotate_left(16) ^ v[2];
        v[0] = v[0].wrapping_add(v[3]);
        v[3] = v[3].rotate_left(21) ^ v[0];
        v[2] = v[2].wrapping_add(v[1]);
        v[1] = v[1].rotate_left(17) ^ v[2];
        v[2] = v[2].rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: &[u8; 16] = b"sixteen secrets!";

    #[test]
    fn siphash_agrees_with_the_reference_vectors() {
        // From the paper's appendix: key 00..0f, message 00..0e.
        let key: Vec<u8> = (0..16).collect();
        let message: Vec<u8> = (0..15).collect();
        assert_eq!(siphash(half(&key, 0), half(&key, 8), &message), 0xa129_ca61_49be_45e5);
        assert_eq!(siphash(half(&key, 0), half(&key, 8), &[]), 0x726f_db47_dd0e_0e31);
        // From the authors' vectors.h.
        let long = siphash128((half(&key, 0), half(&key, 8)), &[]);
        assert_eq!(long, (0xe6a8_25ba_047f_81a3, 0x9302_55c7_1472_f66d));
    }

    const NOW: u64 = 1_700_000_000_000_000;
    const LATEST: u64 = NOW + 366 * 86_400 * 1_000_000;

    #[test]
    fn an_id_leads_back_to_its_key_and_the_key_to_its_id() {
        let mask = Mask::new(MASK);
        let id = mask.issue(NOW + 5, &[7; RANDOM]);
        let DecodedId::Ours(key) = mask.decode(&id, NOW, LATEST) else { panic!("our own id is known") };
        assert_eq!(key.expiry(), Some(NOW + 5));
        assert_eq!(key.bytes()[8..], id[8..]);
        assert_eq!(mask.id_of(&key).as_deref(), Some(&id[..]));
        assert_eq!(mask.id_of(&key.continuation(1)), None);
        assert!(key.is_head() && !key.continuation(1).is_head());
        assert_eq!(key.continuation(1).expiry(), key.expiry(), "what belongs together expires together");
    }

    #[test]
    fn an_id_outside_its_time_or_made_elsewhere_is_not_ours() {
        let mask = Mask::new(MASK);
        let id = mask.issue(NOW + 5, &[7; RANDOM]);
        assert!(matches!(mask.decode(&id, NOW + 5, LATEST), DecodedId::Expired), "it expires to the microsecond");
        assert!(matches!(mask.decode(&id, NOW, NOW + 4), DecodedId::Foreign), "no session lives that long");
        assert!(matches!(mask.decode(&id[..31], NOW, LATEST), DecodedId::Foreign));
        let other = Mask::new(b"another secret!!");
        let mut random = [0; RANDOM];
        let ours = (0_u32..if cfg!(miri) { 100 } else { 10_000 })
            .filter(|i| {
                random[..4].copy_from_slice(&i.to_be_bytes());
                !matches!(mask.decode(&other.issue(NOW + 5, &random), NOW, LATEST), DecodedId::Foreign)
            })
            .count();
        assert!(ours <= 2, "an id of another store passes with a chance of 1 in 290,000, not {ours} in 10,000");
    }

    #[test]
    fn keys_sort_by_expiry_and_all_others_below_every_time() {
        let mask = Mask::new(MASK);
        let key = |expiry| match mask.decode(&mask.issue(expiry, &[9; RANDOM]), NOW, LATEST) {
            DecodedId::Ours(key) => key.bytes().to_vec(),
            _ => panic!("plausible"),
        };
        assert!(key(NOW + 1) < key(NOW + 256) && key(NOW + 256) < key(NOW + (1 << 40)));
        assert!(TIMES < &key(NOW + 1)[..]);
        let mut clock_of_1970 = [9; ID];
        clock_of_1970[..8].copy_from_slice(&(EPOCH + 1).to_be_bytes());
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
    fn ids_look_uniform_and_do_not_show_their_time() {
        // Ids of one microsecond and of moments a year apart: every bit is set in half of them, and no bit tells them apart.
        let mask = Mask::new(MASK);
        let n = if cfg!(miri) { 200_u64 } else { 200_000 };
        let mut ones = [[0_u64; 64]; 2];
        let mut random = [0; RANDOM];
        for i in 0..n {
            random[..8].copy_from_slice(&i.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
            for (ones, expiry) in ones.iter_mut().zip([1_700_000_000_000_000, 1_731_000_000_000_000]) {
                let head = u64::from_be_bytes(mask.issue(expiry, &random)[..8].try_into().unwrap());
                (0..64).for_each(|bit| ones[bit] += head >> bit & 1);
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
