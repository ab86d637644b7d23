//! A record as tools see it: what its header says, and what is in it when it was opened.

use super::Inspect;
use crate::status::Result;
use crate::store::found::copy_record;
use crate::store::id::Key;
use crate::store::keys::Keys;
use crate::store::record::{self, flags, Header};
use crate::store::seal::{AssociatedData, Sealer};
use crate::store::{server_name_hash, Namespace, NamespaceHash};
use crate::sys::crypto;
use crate::tls::{peer, text};

pub use crate::tls::peer::PARTS as CLIENT_PARTS;

/// What can be known of a record without opening it.
pub struct Record {
    pub(super) key: Key,
    /// The id under which it is looked up.
    pub id: Vec<u8>,
    /// Number of the generation that it lies in.
    pub generation: u64,
    /// Bytes of the whole record, sealed.
    pub bytes: usize,
    /// Whether a lookup may return it: it has not expired, and no clock that was ahead made it.
    pub alive: bool,
    /// `None` when its header is damaged.
    pub header: Option<Header>,
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
pub struct Secret(Vec<u8>);

/// Opens records: the sealing keys, and the namespaces whose records it can prove.
pub struct Opener {
    sealer: Sealer,
    namespaces: Vec<NamespaceHash>,
}

impl Inspect {
    /// The hash by which headers name a namespace.
    pub fn namespace_hash(&self, name: &str) -> u32 {
        self.hash(name).half()
    }

    /// The hash by which headers name the sessions of a namespace's clients.
    pub fn client_namespace_hash(&self, name: &str) -> u32 {
        self.hash(&peer::namespace_of(name)).half()
    }

    /// The hash by which headers name a server name.
    pub fn server_name_hash(&self, name: &str) -> u64 {
        server_name_hash(&self.control.names, name.as_bytes())
    }

    fn hash(&self, name: &str) -> NamespaceHash {
        NamespaceHash::of(&self.control.names, Namespace(name))
    }

    /// What opens records: reads the key file. Records of these namespaces, besides those that the store notes.
    pub fn opener(&self, namespaces: &[String]) -> Result<Opener> {
        let named = namespaces.iter().map(|name| self.hash(name));
        let namespaces = std::iter::once(NamespaceHash::default()).chain(named).collect();
        Ok(Opener { sealer: Sealer::new(Keys::load(&self.dir)?), namespaces })
    }

    /// Opens a record.
    pub fn open_record(&mut self, record: &Record, opener: &mut Opener) -> Result<Contents> {
        const DAMAGED: Contents = Contents::Damaged("it is not what was sealed");
        let Some(view) = self.views.iter_mut().find(|view| view.generation.number == record.generation) else {
            return Ok(Contents::Gone);
        };
        let mut bytes = Vec::with_capacity(record.bytes);
        if !view.read(|txn| copy_record(txn, &record.key, &mut bytes))? {
            return Ok(Contents::Gone);
        }
        let Some(sealed) = record::parse(&bytes) else { return Ok(DAMAGED) };
        if !opener.sealer.keys().has(sealed.header.key_number) {
            return Ok(Contents::Damaged("it is sealed under a key that is not in the key file"));
        }
        let half = sealed.header.namespace;
        let noted = view.generation.page().namespace(half).map(NamespaceHash::noted);
        let namespaces = opener.namespaces.iter().copied().chain(noted);
        let mut namespaces = namespaces.filter(|namespace| namespace.half() == half).peekable();
        if namespaces.peek().is_none() {
            return Ok(Contents::OtherNamespace);
        }
        let mut plain = Secret(Vec::new());
        let opened = namespaces.any(|namespace| {
            let associated = AssociatedData { key: record.key.bytes(), namespace: namespace.whole() };
            opener.sealer.open(&sealed, associated, &mut plain.0)
        });
        Ok(match opened {
            false => DAMAGED,
            true if record.is_session() && !record.is_readable(&plain) => {
                Contents::Damaged("it opens, but holds no session that this OpenSSL can read")
            }
            true => Contents::Plain(plain),
        })
    }
}

impl Record {
    /// Eight digits by which people name the record: the beginning of the SHA-256 of its id.
    pub fn short_id(&self) -> String {
        // A store without a sealing key is looked at as well; without SHA-256 no record has a name.
        let hash = crypto::sha256(&self.id).unwrap_or_default();
        format!("{:08x}", u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]))
    }

    /// Whether it is a session, and not an application's own record or damaged.
    pub fn is_session(&self) -> bool {
        self.header.is_some_and(|header| !header.has(flags::OPAQUE))
    }

    /// Whether it is a client's session with a server.
    pub fn is_client(&self) -> bool {
        self.header.is_some_and(|header| header.has(flags::CLIENT))
    }

    /// A session's DER, and the id that is not in it.
    fn der<'a>(&'a self, plain: &'a Secret) -> Option<(&'a [u8], &'a [u8])> {
        if self.is_client() {
            peer::parse(plain.bytes()).map(|record| (record.der, &[][..]))
        } else {
            Some((plain.bytes(), &self.id))
        }
    }

    fn is_readable(&self, plain: &Secret) -> bool {
        self.der(plain).is_some_and(|(der, id)| text::is_session(der, id))
    }

    /// To whom a client's session goes, and a number for each of [`CLIENT_PARTS`], which differ where those do.
    pub fn peer(&self, plain: &Secret) -> Option<(String, [u32; CLIENT_PARTS.len()])> {
        let record = peer::parse(plain.bytes()).filter(|_| self.is_client())?;
        let mut parts = [0; CLIENT_PARTS.len()];
        for (part, head) in parts.iter_mut().zip(record.heads.chunks_exact(4)) {
            *part = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        }
        Some((record.peer.to_owned(), parts))
    }

    /// A session in words, with its keys, as `openssl sess_id -text` has it.
    pub fn words(&self, plain: &Secret) -> Option<Secret> {
        self.der(plain).and_then(|(der, id)| text::words(der, id)).map(Secret)
    }

    /// A session in PEM.
    pub fn pem(&self, plain: &Secret) -> Option<Secret> {
        self.der(plain).and_then(|(der, id)| text::pem(der, id)).map(Secret)
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
