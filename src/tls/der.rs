//! What is done with the DER of an SSL_SESSION (ssl_asn1.c: SSL_SESSION_ASN1) as bytes. Pure and total.

use crate::store::cleanse;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
/// The field `flags`, which is left out when it is 0.
const FLAGS: u8 = 0xa0 | 13;
/// Of the flags: the extended master secret (ssl_local.h: SSL_SESS_FLAG_EXTMS).
const EXTENDED_MASTER_SECRET: u8 = 1;
/// What stands before the session id: structure version, protocol, cipher.
const BEFORE: [u8; 3] = [INTEGER, INTEGER, OCTET_STRING];

/// Empties the session id: the result is what i2d_SSL_SESSION(3) makes of the same session without one. `None`, with the bytes as
/// they were, when they are not the DER of an SSL_SESSION.
pub(super) fn remove_id(der: &mut Vec<u8>) -> Option<()> {
    let (content, len) = element(der, 0, SEQUENCE)?;
    if content + len != der.len() {
        return None;
    }
    let mut at = content;
    for tag in BEFORE {
        let (inside, len) = element(der, at, tag)?;
        at = inside + len;
    }
    let (id, id_len) = element(der, at, OCTET_STRING)?;
    let (head, head_len) = header(SEQUENCE, len - (id - at - 2) - id_len)?;
    // From the front: the new header, what stands before the id, an empty id, the rest. No part grows, so each moves left.
    let before = content..at;
    der.copy_within(before.clone(), head_len);
    let mut end = head_len + before.len();
    der[end..end + 2].copy_from_slice(&[OCTET_STRING, 0]);
    end += 2;
    der.copy_within(id + id_len.., end);
    end += der.len() - (id + id_len);
    der[..head_len].copy_from_slice(&head[..head_len]);
    // What the rest has moved away from is a second copy of its end.
    cleanse(&mut der[end..]);
    der.truncate(end);
    Some(())
}

/// Whether the session was made with the extended master secret (RFC 7627), which OpenSSL tells of no session in a callback.
pub(super) fn has_extended_master_secret(der: &[u8]) -> bool {
    let flags = (|| {
        let (mut at, _) = element(der, 0, SEQUENCE)?;
        loop {
            let tag = *der.get(at)?;
            let (inside, len) = element(der, at, tag)?;
            if tag == FLAGS {
                let (number, len) = element(der, inside, INTEGER)?;
                return der.get(number..number + len)?.last();
            }
            at = inside + len;
        }
    })();
    flags.is_some_and(|low| low & EXTENDED_MASTER_SECRET != 0)
}

/// Where the contents of the element at `at` begin, and their length. Lengths of up to three bytes: a session is below 16 MiB.
fn element(der: &[u8], at: usize, tag: u8) -> Option<(usize, usize)> {
    let rest = der.get(at..)?.strip_prefix(&[tag])?;
    let (&first, rest) = rest.split_first()?;
    let (more, len) = match first {
        0..=0x7f => (0, usize::from(first)),
        0x81..=0x83 => {
            let more = usize::from(first & 0x7f);
            (more, rest.get(..more)?.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)))
        }
        _ => return None,
    };
    let inside = at + 2 + more;
    (inside + len <= der.len()).then_some((inside, len))
}

/// Tag and length in the shortest form, and how many bytes that is.
fn header(tag: u8, len: usize) -> Option<([u8; 5], usize)> {
    let [a, b, c] = [(len >> 16) as u8, (len >> 8) as u8, len as u8];
    match len {
        0..=0x7f => Some(([tag, c, 0, 0, 0], 2)),
        0x80..=0xff => Some(([tag, 0x81, c, 0, 0], 3)),
        0x100..=0xffff => Some(([tag, 0x82, b, c, 0], 4)),
        0x1_0000..=0xff_ffff => Some(([tag, 0x83, a, b, c], 5)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session as far as matters here, with an id of that length and that many bytes behind it.
    fn session(id: usize, rest: usize) -> Vec<u8> {
        let mut inside = vec![INTEGER, 1, 1, INTEGER, 2, 3, 3, OCTET_STRING, 2, 0xc0, 0x30, OCTET_STRING, id as u8];
        inside.extend(vec![7; id]);
        inside.extend((0..rest).map(|n| n as u8));
        let (head, len) = header(SEQUENCE, inside.len()).unwrap();
        [&head[..len], &inside].concat()
    }

    #[test]
    fn only_the_id_is_removed_whatever_the_length() {
        for rest in (0..400).chain([65_400, 65_500, 65_519, 65_520, 70_000]) {
            for id in [0, 1, 31, 32] {
                let mut der = session(id, rest);
                assert_eq!(remove_id(&mut der), Some(()));
                assert_eq!(der, session(0, rest), "id of {id}, {rest} bytes behind it");
            }
        }
    }

    #[test]
    fn flags_are_found_where_they_stand() {
        let with = |flags: &[u8]| {
            let mut der = session(0, 0);
            der.extend(flags);
            der[1] += flags.len() as u8;
            has_extended_master_secret(&der)
        };
        assert!(!with(&[]) && !with(&[0xa1, 2, 4, 0]) && !with(&[FLAGS, 3, INTEGER, 1, 4]));
        assert!(with(&[FLAGS, 3, INTEGER, 1, 5]) && with(&[0xa1, 2, 4, 0, FLAGS, 4, INTEGER, 2, 1, 1]));
        assert!(!with(&[FLAGS, 9]) && !has_extended_master_secret(&[]));
    }

    #[test]
    fn bytes_of_another_kind_are_left_alone() {
        let whole = session(32, 90);
        for len in 0..whole.len() {
            let mut cut = whole[..len].to_vec();
            assert_eq!(remove_id(&mut cut), None);
            assert_eq!(cut, whole[..len]);
        }
        for at in [0, 1, 3, 4, 6, 7, 10, 11, 14] {
            let mut other = whole.clone();
            other[at] = 0xff;
            let before = other.clone();
            assert_eq!(remove_id(&mut other), None, "byte {at}");
            assert_eq!(other, before);
        }
    }
}
