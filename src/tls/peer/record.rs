//! What is stored of a client's session: to whom it goes, what decided on trust, and by which certificates the server was verified,
//! before the session's DER. Pure and total: any bytes are taken apart or are not.
//!
//! ```text
//! 1  bytes of the peer     n  the peer     4 * PARTS  head of the hash of each part of the digest
//! 1  anchors; of each      2  bytes of the subject    n  the subject's DER    32  SHA-256 of the certificate
//! ```

use super::digest::PARTS;

/// Bytes of the heads of the digest.
const HEADS: usize = 4 * PARTS.len();

/// A record taken apart.
pub(crate) struct ClientRecord<'a> {
    pub(crate) peer: &'a str,
    /// The head of each of [`PARTS`].
    pub(crate) heads: &'a [u8; HEADS],
    pub(in crate::tls) anchors: Vec<(&'a [u8], &'a [u8; 32])>,
    /// The bytes that `anchors` were read from.
    pub(in crate::tls) anchors_bytes: &'a [u8],
    pub(crate) der: &'a [u8],
}

/// Takes a record apart; `None` when it cannot be one.
pub(crate) fn parse(bytes: &[u8]) -> Option<ClientRecord<'_>> {
    let (len, rest) = bytes.split_first()?;
    let (peer, rest) = rest.split_at_checked(usize::from(*len))?;
    let (heads, rest) = rest.split_first_chunk::<HEADS>()?;
    let (count, mut left) = rest.split_first()?;
    let mut anchors = Vec::new();
    for _ in 0..*count {
        let (len, rest) = left.split_first_chunk::<2>()?;
        let (subject, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        let (hash, rest) = rest.split_first_chunk::<32>()?;
        anchors.push((subject, hash));
        left = rest;
    }
    let anchors_bytes = &rest[..rest.len() - left.len()];
    Some(ClientRecord { peer: std::str::from_utf8(peer).ok()?, heads, anchors, anchors_bytes, der: left })
}

/// The anchors as a record has them. `None` when they are too many or too long.
pub(super) fn write_anchors<'a>(anchors: impl ExactSizeIterator<Item = (&'a [u8], [u8; 32])>) -> Option<Vec<u8>> {
    let mut out = vec![u8::try_from(anchors.len()).ok()?];
    for (subject, hash) in anchors {
        out.extend_from_slice(&u16::try_from(subject.len()).ok()?.to_be_bytes());
        out.extend_from_slice(subject);
        out.extend_from_slice(&hash);
    }
    Some(out)
}

/// Writes what comes before the DER.
pub(super) fn write_head(peer: &str, heads: impl Iterator<Item = [u8; 4]>, anchors: &[u8], out: &mut Vec<u8>) {
    out.push(peer.len() as u8);
    out.extend_from_slice(peer.as_bytes());
    heads.for_each(|head| out.extend_from_slice(&head));
    out.extend_from_slice(anchors);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_as_it_was_written_and_a_part_of_it_is_refused_or_has_less_der() {
        let anchors = write_anchors([(&b"CN=a"[..], [7; 32]), (&b""[..], [8; 32])].into_iter()).unwrap();
        let mut bytes = Vec::new();
        write_head("a.example:443", (0..PARTS.len() as u8).map(|n| [n; 4]), &anchors, &mut bytes);
        let head = bytes.len();
        bytes.extend_from_slice(b"DER");
        let record = parse(&bytes).unwrap();
        assert_eq!((record.peer, record.der, record.anchors_bytes), ("a.example:443", &b"DER"[..], &anchors[..]));
        assert_eq!(record.anchors, [(&b"CN=a"[..], &[7; 32]), (&b""[..], &[8; 32])]);
        assert_eq!(record.heads[4..8], [1; 4]);
        for len in 0..bytes.len() {
            assert_eq!(parse(&bytes[..len]).map(|record| record.der.len()), len.checked_sub(head), "{len} bytes");
        }
    }
}
