//! The policy of a cache, and its verdict on a record: by what the record says, what the client says, and what is asked of it.

use std::time::Duration;

use super::openssl::{Conn, SessionRef};
use super::{ffi, peer, session, Binding};
use crate::log::{self, Topic};
use crate::options::{Options, Remove, SingleUse, Sni, Tickets};
use crate::store::{flags, Found, Header, Miss};

/// How the sessions of one cache are treated.
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Policy {
    pub(crate) namespace: String,
    pub(super) ttl: Option<Duration>,
    pub(super) sni: Sni,
    pub(super) single_use: SingleUse,
    pub(super) tickets: Tickets,
    pub(super) remove: Remove,
    pub(super) clients: ClientPolicy,
}

/// How the sessions of a program's client connections are treated.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct ClientPolicy {
    /// What stands for the rules that cannot be read.
    pub(super) policy: Option<String>,
    /// Tickets kept for one server.
    pub(super) tickets: usize,
    /// Where they lie.
    pub(super) namespace: String,
}

impl Policy {
    pub(super) fn ttl_seconds(&self) -> Option<u64> {
        self.ttl.map(|ttl| ttl.as_secs())
    }

    pub(super) fn of(options: &Options) -> Policy {
        Policy {
            namespace: options.namespace.clone(),
            ttl: options.ttl,
            sni: options.sni,
            single_use: options.single_use,
            tickets: options.tickets,
            remove: options.remove,
            clients: ClientPolicy {
                policy: options.policy.clone(),
                tickets: options.client_tickets,
                namespace: peer::namespace_of(&options.namespace),
            },
        }
    }
}

/// What this connection wants of its client.
pub(super) struct ClientAuth {
    /// OpenSSL resumes only sessions that have a session id context.
    pub(super) needs_context: bool,
    /// The handshake asks for a certificate.
    pub(super) asks: bool,
    /// And fails without one.
    pub(super) insists: bool,
}

/// Reads the verify mode.
pub(super) fn client_auth(conn: Conn<'_>, tls13: bool) -> ClientAuth {
    let mode = conn.verify_mode();
    let needs_context = mode & ffi::SSL_VERIFY_PEER != 0;
    // Then the application asks later, and asks again after a resumption.
    let later = tls13 && mode & ffi::SSL_VERIFY_POST_HANDSHAKE != 0;
    let asks = needs_context && !later;
    ClientAuth { needs_context, asks, insists: asks && mode & ffi::SSL_VERIFY_FAIL_IF_NO_PEER_CERT != 0 }
}

/// The host name in a server_name extension: list length, type 0, name length, name (RFC 6066 section 3).
pub(crate) fn host_name(extension: &[u8]) -> Option<&[u8]> {
    let (_list, entry) = extension.split_first_chunk::<2>()?;
    let (&kind, rest) = entry.split_first()?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    (kind == 0).then(|| rest.get(..usize::from(u16::from_be_bytes(*len))))?
}

/// Why a record may not resume this connection, if so.
pub(super) fn reject(
    binding: &Binding,
    conn: Conn<'_>,
    found: &Found<'_>,
    (version, kind): (u16, u8),
    auth: &ClientAuth,
) -> Option<Miss> {
    let header = &found.header;
    if header.protocol != version || header.flags & flags::QUIC != kind {
        return Some(Miss::Protocol);
    }
    if !found.is_of_namespace() || header.has(flags::OPAQUE) {
        return Some(Miss::Namespace);
    }
    let (theirs, ours) = (header.openssl, super::running_major());
    if theirs != ours {
        binding.store.log.say(Topic::OpenSsl, log::WARNING, || {
            format!(
                "a session of OpenSSL {theirs} does not resume with OpenSSL {ours}: give each a directory of its own"
            )
        });
        return Some(Miss::Protocol);
    }
    if found.is_revoked() {
        return Some(Miss::Revoked);
    }
    reject_client(binding, conn, header, auth, |name| found.server_name_hash(name))
}

/// Why a record may not resume this connection by what this client says and what is asked of it, if so.
pub(super) fn reject_client(
    binding: &Binding,
    conn: Conn<'_>,
    header: &Header,
    auth: &ClientAuth,
    hash: impl FnOnce(&[u8]) -> u64,
) -> Option<Miss> {
    if binding.policy.sni == Sni::Strict {
        let offered = conn.extension(ffi::TLSEXT_TYPE_SERVER_NAME).and_then(host_name);
        if offered.map_or(0, hash) != header.server_name {
            return Some(Miss::ServerName);
        }
    }
    let unasked = auth.asks && !header.has(flags::CLIENT_AUTH);
    // Without a context, resuming under client authentication is fatal in OpenSSL.
    let fatal = auth.needs_context && !header.has(flags::ID_CONTEXT);
    (unasked || fatal).then_some(Miss::ClientAuth)
}

/// Why a session, whose record was not rejected, may not stand in for what this connection would negotiate without it. OpenSSL does
/// not ask either of the last two, with any cache.
pub(super) fn reject_session(
    conn: Conn<'_>,
    tls13: bool,
    auth: &ClientAuth,
    header: &Header,
    session: SessionRef<'_>,
) -> Option<Miss> {
    // A full handshake would fail without a certificate, so no session without one may stand in for it.
    if auth.insists && !session.has_peer() {
        return Some(Miss::ClientAuth);
    }
    // Nor would a full handshake end without the certificate's key.
    if session.has_unreadable_peer() {
        return Some(Miss::ClientAuth);
    }
    // TLS 1.3 negotiates the cipher anew. Where the servername callback decides, it has not been called yet.
    if !tls13 && !header.has(flags::LATE_TERMS) && !conn.allows(session.cipher()) {
        return Some(Miss::Cipher);
    }
    // RFC 7627 section 5.3 makes OpenSSL end a handshake that resumes such a session without the extension.
    let refuses = !tls13 && conn.options() & ffi::SSL_OP_NO_EXTENDED_MASTER_SECRET != 0;
    (refuses && session::has_extended_master_secret(session)).then_some(Miss::Protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_name_is_found_and_anything_malformed_is_none() {
        assert_eq!(host_name(b"\x00\x0c\x00\x00\x09localhost"), Some(&b"localhost"[..]));
        for bad in
            [&b""[..], b"\x00", b"\x00\x0c\x01\x00\x09localhost", b"\x00\x0c\x00\x00\x0alocalhost", b"\x00\x01\x00"]
        {
            assert_eq!(host_name(bad), None, "{bad:?}");
        }
    }
}
