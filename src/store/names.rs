//! Names as the store knows them: hashed under a secret of its own, so that headers and keys show none.

use std::cell::OnceCell;

use super::siphash::name_hash;

/// Whose record it is: names the namespace in keys and seals.
#[derive(Clone, Copy)]
pub(crate) struct Namespace<'a>(pub(crate) &'a str);

/// A namespace by its hash; 0 for the empty one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NamespaceHash(u64);

impl NamespaceHash {
    /// With the secret of the store's names.
    pub(crate) fn of(secret: &[u8; 16], namespace: Namespace<'_>) -> NamespaceHash {
        match namespace.0 {
            "" => NamespaceHash(0),
            name => NamespaceHash(hash(secret, "namespace", name.as_bytes())),
        }
    }

    /// One that was noted as it stands in seals.
    pub(crate) fn noted(whole: u64) -> NamespaceHash {
        NamespaceHash(whole)
    }

    /// As it stands in seals.
    pub(crate) fn whole(self) -> u64 {
        self.0
    }

    /// The half that stands in headers and keys: 0 for the empty one alone.
    pub(crate) fn half(self) -> u32 {
        match self.0 {
            0 => 0,
            whole => (whole >> 32) as u32 | 1,
        }
    }
}

/// The namespace of a lookup, hashed when a key or a header is first compared with it, and once: a forged id never is.
pub(super) struct LazyNamespace<'a> {
    namespace: Namespace<'a>,
    pub(super) hash: OnceCell<NamespaceHash>,
}

impl<'a> LazyNamespace<'a> {
    pub(super) fn new(namespace: Namespace<'a>) -> LazyNamespace<'a> {
        LazyNamespace { namespace, hash: OnceCell::new() }
    }

    /// With the secret of the store's names.
    pub(super) fn hash(&self, secret: &[u8; 16]) -> NamespaceHash {
        *self.hash.get_or_init(|| NamespaceHash::of(secret, self.namespace))
    }
}

/// The hash of a server name as headers have it. Never 0, which stands for no name.
pub(crate) fn server_name_hash(secret: &[u8; 16], name: &[u8]) -> u64 {
    hash(secret, "server", name)
}

fn hash(secret: &[u8; 16], kind: &str, name: &[u8]) -> u64 {
    /// The kinds, a zero byte, and the longest name of DNS or namespace.
    const USUAL: usize = 9 + 1 + 255;
    let (head, len) = (kind.as_bytes(), kind.len() + 1 + name.len());
    let (mut usual, mut long) = ([0; USUAL], Vec::new());
    let text = match usual.get_mut(..len) {
        Some(text) => text,
        None => {
            long.resize(len, 0);
            &mut long[..]
        }
    };
    text[..head.len()].copy_from_slice(head);
    text[head.len() + 1..].copy_from_slice(name);
    text[head.len() + 1..].make_ascii_lowercase();
    name_hash(secret, text).max(1)
}
