//! SipHash-2-4 (Aumasson and Bernstein, 2012), by which ids, names and pages are hashed under a secret. Pure.

/// A keyed hash of names: server names and namespaces.
pub fn name_hash(secret: &[u8; 16], name: &[u8]) -> u64 {
    siphash(half(secret, 0), half(secret, 8), name)
}

/// Eight bytes as a number.
pub fn half(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// 64 bits.
pub fn siphash(k0: u64, k1: u64, data: &[u8]) -> u64 {
    let (words, last) = words(data);
    finish(state((k0, k1), 0, words, last))
}

/// The same with 128 bits.
pub fn siphash128(keys: (u64, u64), data: &[u8]) -> (u64, u64) {
    let (words, last) = words(data);
    finish128(state(keys, 0xee, words, last))
}

/// `siphash` of these words, in little endian, and the four bytes of `tail`: takes half the time where they need not be put together.
#[inline]
pub fn siphash_words<const N: usize>(keys: (u64, u64), words: [u64; N], tail: u32) -> u64 {
    finish(state(keys, 0, words.into_iter(), last_of(N, tail)))
}

/// The same for `siphash128`.
#[inline]
pub fn siphash128_words<const N: usize>(keys: (u64, u64), words: [u64; N], tail: u32) -> (u64, u64) {
    finish128(state(keys, 0xee, words.into_iter(), last_of(N, tail)))
}

/// The last word has what remains of the data, and its length modulo 256.
fn last_of(words: usize, tail: u32) -> u64 {
    u64::from(tail) | (words as u64 * 8 + 4) << 56
}

fn words(data: &[u8]) -> (impl Iterator<Item = u64> + '_, u64) {
    let chunks = data.chunks_exact(8);
    let mut last = (data.len() as u64) << 56;
    for (i, byte) in chunks.remainder().iter().enumerate() {
        last |= u64::from(*byte) << (8 * i);
    }
    (chunks.map(|chunk| half(chunk, 0)), last)
}

/// The state after all words, before the end. `variant` tells the lengths of results apart.
#[inline(always)]
fn state((k0, k1): (u64, u64), variant: u64, words: impl Iterator<Item = u64>, last: u64) -> [u64; 4] {
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d ^ variant,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    for word in words.chain([last]) {
        v[3] ^= word;
        sip_rounds::<2>(&mut v);
        v[0] ^= word;
    }
    v
}

#[inline(always)]
fn finish(mut v: [u64; 4]) -> u64 {
    v[2] ^= 0xff;
    sip_rounds::<4>(&mut v);
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[inline(always)]
fn finish128(mut v: [u64; 4]) -> (u64, u64) {
    v[2] ^= 0xee;
    sip_rounds::<4>(&mut v);
    let first = v[0] ^ v[1] ^ v[2] ^ v[3];
    v[1] ^= 0xdd;
    sip_rounds::<4>(&mut v);
    (first, v[0] ^ v[1] ^ v[2] ^ v[3])
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

    #[test]
    fn words_hash_as_their_bytes() {
        let (keys, words) = ((1, 2), [3, u64::MAX, 0x0123_4567_89AB_CDEF]);
        let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).chain(*b"tail").collect();
        let tail = u32::from_le_bytes(*b"tail");
        assert_eq!(siphash_words(keys, words, tail), siphash(keys.0, keys.1, &bytes));
        assert_eq!(siphash128_words(keys, words, tail), siphash128(keys, &bytes));
    }
}
