//! What is stored of a client's session before its DER: to whom it goes, what decided on trust, and what the server has shown. Pure and
//! total: any bytes are taken apart or are not.
//!
//! ```text
//! 1  bytes of the peer     n  the peer     4 * PARTS  head of the hash of each part of the digest
//! 4  result of the verification     1  certificates; of each      2  bytes     n  its DER
//! ```

use super::digest::PARTS;

/// Bytes of the heads of the digest.
const HEADS: usize = 4 * PARTS.len();

/// A record taken apart.
pub(crate) struct ClientRecord<'a> {
    pub(crate) peer: &'a str,
    /// The head of each of [`PARTS`].
    pub(crate) heads: &'a [u8; HEADS],
    /// What the server has shown, as the record has it.
    pub(in crate::tls) shown: Shown<'a>,
    pub(crate) der: &'a [u8],
}

/// The certificates that a server has shown, its own first, and what came of their verification.
pub(in crate::tls) struct Shown<'a> {
    /// An X509_V_ code.
    pub(in crate::tls) result: i32,
    pub(in crate::tls) chain: Vec<&'a [u8]>,
    /// The bytes that both were read from.
    pub(in crate::tls) bytes: &'a [u8],
}

/// Takes a record apart; `None` when it cannot be one.
pub(crate) fn parse(bytes: &[u8]) -> Option<ClientRecord<'_>> {
    let (len, rest) = bytes.split_first()?;
    let (peer, rest) = rest.split_at_checked(usize::from(*len))?;
    let (heads, rest) = rest.split_first_chunk::<HEADS>()?;
    let (shown, der) = parse_shown(rest)?;
    Some(ClientRecord { peer: std::str::from_utf8(peer).ok()?, heads, shown, der })
}

/// Takes apart what a server has shown, and says what is behind it.
pub(in crate::tls) fn parse_shown(bytes: &[u8]) -> Option<(Shown<'_>, &[u8])> {
    let (result, rest) = bytes.split_first_chunk::<4>()?;
    let (count, mut left) = rest.split_first()?;
    let mut chain = Vec::new();
    for _ in 0..*count {
        let (len, rest) = left.split_first_chunk::<2>()?;
        let (certificate, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        chain.push(certificate);
        left = rest;
    }
    let bytes = &bytes[..bytes.len() - left.len()];
    Some((Shown { result: i32::from_be_bytes(*result), chain, bytes }, left))
}

/// What a server has shown, as a record has it. `None` for more certificates than a record can have, or longer ones.
pub(in crate::tls) fn write_shown(result: i32, chain: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut out = result.to_be_bytes().to_vec();
    out.push(u8::try_from(chain.len()).ok()?);
    for certificate in chain {
        out.extend_from_slice(&u16::try_from(certificate.len()).ok()?.to_be_bytes());
        out.extend_from_slice(certificate);
    }
    Some(out)
}

/// Writes what comes before the DER.
pub(super) fn write_head(peer: &str, heads: impl Iterator<Item = [u8; 4]>, shown: &[u8], out: &mut Vec<u8>) {
    out.push(peer.len() as u8);
    out.extend_from_slice(peer.as_bytes());
    heads.for_each(|head| out.extend_from_slice(&head));
    out.extend_from_slice(shown);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_as_it_was_written_and_a_part_of_it_is_refused_or_has_less_der() {
        let shown = write_shown(-7, &[b"leaf".to_vec(), Vec::new()]).unwrap();
        let mut bytes = Vec::new();
        write_head("a.example:443", (0..PARTS.len() as u8).map(|n| [n; 4]), &shown, &mut bytes);
        let head = bytes.len();
        bytes.extend_from_slice(b"DER");
        let record = parse(&bytes).unwrap();
        assert_eq!((record.peer, record.der, record.shown.bytes), ("a.example:443", &b"DER"[..], &shown[..]));
        assert_eq!((record.shown.result, record.shown.chain), (-7, vec![&b"leaf"[..], b""]));
        assert_eq!(record.heads[4..8], [1; 4]);
        for len in 0..bytes.len() {
            assert_eq!(parse(&bytes[..len]).map(|record| record.der.len()), len.checked_sub(head), "{len} bytes");
        }
    }
}
