//! What decides whom a client trusts and how it speaks, as one number: a session is offered only where all of it is as it was.

use super::super::openssl::Conn;
use super::super::{running_major, Binding};
use crate::sys::crypto::sha256;

/// What goes into it, in order.
pub const PARTS: [&str; 7] = [
    "peer",
    "server name (SSL_set_tlsext_host_name)",
    "expected names (SSL_set1_host)",
    "verification (SSL_CTX_set_verify, flags, depth)",
    "versions, options, ciphers",
    "client certificate",
    "policy",
];
/// The place of the client's certificate among them.
const OWN_CERTIFICATE: usize = 5;

/// Says as much as a comparison of the parts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::tls) struct Digest {
    parts: [[u8; 32]; PARTS.len()],
}

impl Digest {
    /// What holds for a connection to `peer` now. `None` when OpenSSL cannot compute it.
    pub(in crate::tls) fn of(binding: &Binding, conn: Conn<'_>, peer: &str) -> Option<Digest> {
        // With it, nobody can compute the names of sessions from the names of servers without the store's secret.
        let salt = binding.store.server_name_hash(b"clients").to_ne_bytes();
        let server_name = conn.server_name().map(|name| name.to_bytes()).unwrap_or_default();
        let mut protocols = conn.protocols();
        protocols.push(running_major());
        let parts: [&[u8]; PARTS.len()] = [
            peer.as_bytes(),
            server_name,
            &conn.expected_names(),
            &conn.verification(),
            &protocols,
            &conn.own_certificate(),
            binding.policy.clients.policy.as_deref().unwrap_or_default().as_bytes(),
        ];
        let mut digest = Digest { parts: [[0; 32]; PARTS.len()] };
        for (out, part) in digest.parts.iter_mut().zip(parts) {
            *out = sha256(&[&salt[..], part].concat())?;
        }
        Some(digest)
    }

    /// The name under which sessions lie.
    pub(in crate::tls) fn name(&self) -> Option<[u8; 32]> {
        sha256(self.parts.as_flattened())
    }

    /// Whether another is the same but for the client's certificate, which a callback may choose during the handshake.
    pub(in crate::tls) fn is_same_but_for_certificate(&self, other: &Digest) -> bool {
        let with_ours = |mut other: Digest| {
            other.parts[OWN_CERTIFICATE] = self.parts[OWN_CERTIFICATE];
            other
        };
        with_ours(*other) == *self
    }

    /// What differs between two, for a message.
    pub(in crate::tls) fn difference(&self, other: &Digest) -> Option<&'static str> {
        PARTS.iter().zip(self.parts.iter().zip(&other.parts)).find(|(_, (a, b))| a != b).map(|(name, _)| *name)
    }

    /// The head of each part, as records have them.
    pub(in crate::tls) fn heads(&self) -> impl Iterator<Item = [u8; 4]> + '_ {
        self.parts.iter().map(|[a, b, c, d, ..]| [*a, *b, *c, *d])
    }
}
