//! What is stored of a session: a header in the clear, then the sealed bytes. Pure and total: any bytes decode or do not.
//!
//! ```text
//!  0  format, flags, protocol (2), OpenSSL major, id length, key number (2)
//!  8  expiry in seconds (4)      12  time of the last full handshake in seconds (4)
//! 16  namespace hash (4)         20  server name hash (8)
//! 28  lineage (8)
//! 36  nonce (12)                 48  ciphertext, then the tag (16)
//! ```
//! Integers are big endian. Seconds since 1970 in 32 bits last until 2106. The header and the key in the tree are the
//! associated data of the seal, so a record proves where it belongs.

use super::tombstones::Login;
use crate::sys::crypto::{NONCE, TAG};

/// Bytes before the nonce.
pub const HEADER: usize = 36;
/// Bytes around the plaintext.
pub const OVERHEAD: usize = HEADER + NONCE + TAG;
/// Largest plaintext: sessions with post-quantum client certificates are 5 to 8 KB; this leaves room.
pub const PLAIN_MAX: usize = 64 * 1024;

const FORMAT: u8 = 2;

/// Bits of the header's flags.
pub mod flags {
    /// Client authentication was demanded when the session was made.
    pub const CLIENT_AUTH: u8 = 1;
    /// The session has a session id context.
    pub const ID_CONTEXT: u8 = 2;
    /// Made over QUIC.
    pub const QUIC: u8 = 4;
    /// The record is an application's own, not an SSL_SESSION.
    pub const OPAQUE: u8 = 8;
    /// The record goes on under the next keys.
    pub const CONTINUED: u8 = 16;
    /// The servername callback changed what the handshake could agree on, after a lookup would have been.
    pub const LATE_TERMS: u8 = 32;
    /// A client's session with a server.
    pub const CLIENT: u8 = 64;
}

/// What lies under an id: an SSL_SESSION, or an application's own bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// An SSL_SESSION.
    Session,
    /// An application's own bytes.
    Opaque,
}

/// What can be known of a record without opening it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// See [`flags`].
    pub flags: u8,
    /// As on the wire: 0x0303 for TLS 1.2.
    pub protocol: u16,
    /// Major version of the OpenSSL that wrote the session.
    pub openssl: u8,
    /// Bytes of the session id.
    pub id_len: u8,
    /// Which sealing key.
    pub key_number: u16,
    /// First second in which it is not returned.
    pub expires: u32,
    /// When the client last proved itself in a full handshake.
    pub full_handshake: u32,
    /// Hash of the namespace.
    pub namespace: u32,
    /// Hash of the server name, 0 for none.
    pub server_name: u64,
    /// The login that the session goes back to; see `tombstones`.
    pub lineage: u64,
}

/// A record taken apart.
pub struct SealedRecord<'a> {
    /// The header.
    pub header: Header,
    /// The header's bytes, for the seal.
    pub header_bytes: &'a [u8],
    /// The nonce.
    pub nonce: &'a [u8; NONCE],
    /// The ciphertext.
    pub sealed: &'a [u8],
    /// The tag.
    pub tag: &'a [u8; TAG],
}

impl Header {
    /// Writes the header's bytes.
    pub fn write(&self, out: &mut [u8; HEADER]) {
        out[0] = FORMAT;
        out[1] = self.flags;
        out[2..4].copy_from_slice(&self.protocol.to_be_bytes());
        out[4] = self.openssl;
        out[5] = self.id_len;
        out[6..8].copy_from_slice(&self.key_number.to_be_bytes());
        out[8..12].copy_from_slice(&self.expires.to_be_bytes());
        out[12..16].copy_from_slice(&self.full_handshake.to_be_bytes());
        out[16..20].copy_from_slice(&self.namespace.to_be_bytes());
        out[20..28].copy_from_slice(&self.server_name.to_be_bytes());
        out[28..36].copy_from_slice(&self.lineage.to_be_bytes());
    }

    /// Reads a header; `None` when it is of no format known here.
    pub fn read(bytes: &[u8]) -> Option<Header> {
        let b = bytes.first_chunk::<HEADER>()?;
        (b[0] == FORMAT).then(|| Header {
            flags: b[1],
            protocol: u16::from_be_bytes([b[2], b[3]]),
            openssl: b[4],
            id_len: b[5],
            key_number: u16::from_be_bytes([b[6], b[7]]),
            expires: u32::from_be_bytes([b[8], b[9], b[10], b[11]]),
            full_handshake: u32::from_be_bytes([b[12], b[13], b[14], b[15]]),
            namespace: u32::from_be_bytes([b[16], b[17], b[18], b[19]]),
            server_name: u64::from_be_bytes([b[20], b[21], b[22], b[23], b[24], b[25], b[26], b[27]]),
            lineage: u64::from_be_bytes([b[28], b[29], b[30], b[31], b[32], b[33], b[34], b[35]]),
        })
    }

    /// The login that the session goes back to.
    pub fn login(&self) -> Login {
        Login { lineage: self.lineage, full_handshake: self.full_handshake }
    }

    /// Whether the record ends after `now`, and not beyond what any record can (both in microseconds).
    pub fn is_alive(&self, now: u64, horizon: u64) -> bool {
        now < self.end() && self.end() <= horizon
    }

    /// When it expires, in microseconds.
    pub fn end(&self) -> u64 {
        u64::from(self.expires) * 1_000_000
    }

    /// Whether all of these flags are set.
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }
}

/// Takes a whole record apart; `None` when it cannot be one.
pub fn parse(bytes: &[u8]) -> Option<SealedRecord<'_>> {
    let header = Header::read(bytes)?;
    let (header_bytes, rest) = bytes.split_at_checked(HEADER)?;
    let (nonce, rest) = rest.split_first_chunk::<NONCE>()?;
    let (sealed, tag) = rest.split_last_chunk::<TAG>()?;
    Some(SealedRecord { header, header_bytes, nonce, sealed, tag })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER_1: Header = Header {
        flags: flags::CLIENT_AUTH | flags::QUIC,
        protocol: 0x0304,
        openssl: 3,
        id_len: 32,
        key_number: 0xBEEF,
        expires: u32::MAX,
        full_handshake: 1_700_000_000,
        namespace: 0xDEAD_BEEF,
        server_name: u64::MAX - 1,
        lineage: 0x0123_4567_89AB_CDEF,
    };

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        let mut bytes = [0; HEADER];
        HEADER_1.write(&mut bytes);
        assert_eq!(Header::read(&bytes), Some(HEADER_1));
        bytes[0] = 1;
        assert_eq!(Header::read(&bytes), None, "another format is refused");
    }

    #[test]
    fn a_record_of_any_length_is_taken_apart_or_refused() {
        let mut bytes = vec![0; HEADER];
        HEADER_1.write(bytes.first_chunk_mut().unwrap());
        for len in 0..200 {
            bytes.resize(len.max(HEADER), 7);
            let bytes = &bytes[..len];
            match parse(bytes) {
                Some(record) => assert_eq!(record.sealed.len(), len - OVERHEAD),
                None => assert!(len < OVERHEAD, "{len} bytes hold a record"),
            }
        }
    }
}
