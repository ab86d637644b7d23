//! The cache of a program that connects to servers.

#[cfg(feature = "openssl")]
use foreign_types::ForeignTypeRef;
#[cfg(feature = "openssl")]
use openssl::ssl::{SslContextBuilder, SslRef};

use super::Cache;
use crate::status::Result;
use crate::tls;

impl Cache {
    /// Has the sessions stored here that servers give to client connections of an SSL_CTX. Which connections, and which of the
    /// sessions are offered again, [`Cache::resume`] says.
    ///
    /// # Errors
    /// [`Status::Invalid`](crate::Status::Invalid) when it is attached to another cache or has a session callback of its own,
    /// [`Status::Mismatch`](crate::Status::Mismatch) when the crate `openssl` is linked with another OpenSSL than this one,
    /// [`Status::OpenSsl`](crate::Status::OpenSsl) when memory runs out. The SSL_CTX is then unchanged.
    #[cfg(feature = "openssl")]
    pub fn attach_client(&self, ctx: &mut SslContextBuilder) -> Result<()> {
        // SAFETY: `attach_client_raw` demands a live SSL_CTX that no other thread uses: the builder owns it, borrowed alone.
        unsafe { self.attach_client_raw(ctx.as_ptr()) }
    }

    /// `attach_client` for programs with other bindings to OpenSSL.
    ///
    /// # Safety
    /// `ctx` is a live SSL_CTX that no other thread uses before the call returns.
    ///
    /// # Errors
    /// As for `attach_client`.
    pub unsafe fn attach_client_raw(&self, ctx: *mut tls::SSL_CTX) -> Result<()> {
        // SAFETY: `attach_client` demands what this function demands.
        unsafe { tls::attach_client(&self.binding, ctx) }
    }

    /// Offers `peer` a session, right before the handshake, if there is one that may be used; and stores those that it gives.
    ///
    /// # Errors
    /// [`Status::NotFound`](crate::Status::NotFound) when there is none, and what else `sesscache_resume` in `sesscache.h` says. The
    /// handshake will be a full one.
    #[cfg(feature = "openssl")]
    pub fn resume(&self, ssl: &mut SslRef, peer: &str) -> Result<()> {
        // SAFETY: `resume_raw` demands a live connection that no other thread uses: it is borrowed alone.
        unsafe { self.resume_raw(ssl.as_ptr(), peer.as_bytes()) }
    }

    /// `resume` for programs with other bindings to OpenSSL; `peer` is UTF-8.
    ///
    /// # Safety
    /// `ssl` is a live connection that no other thread uses before the call returns.
    ///
    /// # Errors
    /// As for `resume`.
    pub unsafe fn resume_raw(&self, ssl: *mut tls::SSL, peer: &[u8]) -> Result<()> {
        // SAFETY: `resume` demands what this function demands.
        unsafe { tls::resume(&self.binding, ssl, peer) }
    }
}

/// [`Cache::resume`] for a connection that must go back to the same login as `control`: data connections of FTPS.
///
/// # Safety
/// `ssl` and `control` are live connections that no other thread uses before the call returns.
///
/// # Errors
/// As for [`Cache::resume`].
pub unsafe fn resume_from_raw(ssl: *mut tls::SSL, control: *mut tls::SSL) -> Result<()> {
    // SAFETY: `resume_from` demands what this function demands.
    unsafe { tls::resume_from(ssl, control) }
}
