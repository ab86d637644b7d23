//! A record as tools see it: what its header says, and what is in it when it was opened.

use crate::store::record::{flags, Header};
use crate::store::view::{is_opaque, Found};
use crate::sys::crypto;
use crate::tls::text;

/// What can be known of a record without opening it.
pub struct Record {
    pub(super) found: Found,
    /// The id under which it is looked up.
    pub id: Vec<u8>,
    /// Number of the generation that it lies in.
    pub generation: u64,
    /// Bytes that it takes, sealed.
    pub bytes: usize,
    /// Whether a lookup may return it.
    pub alive: bool,
    /// `None` when its header is damaged.
    pub header: Option<Summary>,
}

/// A header in words.
#[derive(Clone, Debug)]
pub struct Summary {
    /// An application's own record, not a session.
    pub opaque: bool,
    /// As on the wire: 0x0303 for TLS 1.2. Of no meaning when opaque.
    pub protocol: u16,
    /// Major version of the OpenSSL that wrote the session.
    pub openssl: u8,
    /// First second in which it is not returned.
    pub expires: u64,
    /// When the client last proved itself in a full handshake; 0 when not known.
    pub full_handshake: u64,
    /// Hash of the namespace, 0 for none.
    pub namespace: u32,
    /// Hash of the server name, 0 for none.
    pub server_name: u64,
    /// Client authentication was demanded.
    pub client_auth: bool,
    /// The session has a session id context.
    pub id_context: bool,
    /// Made over QUIC.
    pub quic: bool,
    /// Which sealing key.
    pub key_number: u16,
}

/// What became of an attempt to open a record.
pub enum Contents {
    /// The plaintext: DER of a session without its id, or an application's data. Wiped when dropped.
    Plain(Secret),
    /// Removed or replaced since it was met.
    Gone,
    /// The store has but a part of its namespace's hash, and its name was not given.
    OtherNamespace,
    /// Damaged, or not sealed under a key in the key file; why, in words.
    Damaged(&'static str),
}

/// Bytes that are wiped when dropped.
pub struct Secret(pub(super) Vec<u8>);

impl Record {
    /// Eight digits by which people name the record: the beginning of the SHA-256 of its id.
    pub fn short_id(&self) -> String {
        short_id(&self.id)
    }

    /// Whether it is a session, and not an application's own record or damaged.
    pub fn is_session(&self) -> bool {
        self.header.as_ref().is_some_and(|header| !header.opaque)
    }

    /// A session in words, with its keys, as `openssl sess_id -text` has it.
    pub fn words(&self, plain: &Secret) -> Option<Secret> {
        text::words(plain.bytes(), &self.id).map(Secret)
    }

    /// A session in PEM.
    pub fn pem(&self, plain: &Secret) -> Option<Secret> {
        text::pem(plain.bytes(), &self.id).map(Secret)
    }
}

/// Eight digits by which people name a record: the beginning of the SHA-256 of its id.
pub fn short_id(id: &[u8]) -> String {
    let hash = crypto::sha256(id);
    format!("{:08x}", u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]))
}

impl Summary {
    pub(super) fn new(header: &Header) -> Summary {
        Summary {
            opaque: is_opaque(header),
            protocol: header.protocol,
            openssl: header.openssl,
            expires: u64::from(header.expires),
            full_handshake: u64::from(header.full_handshake),
            namespace: header.namespace,
            server_name: header.server_name,
            client_auth: header.has(flags::CLIENT_AUTH),
            id_context: header.has(flags::ID_CONTEXT),
            quic: header.has(flags::QUIC),
            key_number: header.key_number,
        }
    }
}

impl Secret {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        crypto::cleanse(&mut self.0);
    }
}
