//! A worker: the soak's own program again, which takes connections from the listening socket it inherits.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::FromRawFd;
use std::path::Path;

use sesscache::{Cache, Options};

use crate::ffi::{self, must, Connection};
use crate::pki::Identity;
use crate::tls;

pub const LISTENER: &str = "SESSCACHE_SOAK_LISTENER";
pub const STORE: &str = "SESSCACHE_SOAK_STORE";
/// File for the words of a worker about connections that came to nothing, in lines that begin with the client's port.
pub const WORDS: &str = "SESSCACHE_SOAK_WORDS";
pub const OPTIONS: &str = "ttl=1h deadline=5ms";

extern "C" {
    fn SSL_CTX_set_max_early_data(ctx: *mut ffi::SSL_CTX, bytes: u32) -> libc::c_int;
    fn SSL_CTX_set_recv_max_early_data(ctx: *mut ffi::SSL_CTX, bytes: u32) -> libc::c_int;
}

pub fn is_one() -> bool {
    std::env::var_os(LISTENER).is_some()
}

/// Serves until it is killed.
pub fn work() {
    // SAFETY: sets an attribute of this process; no memory is involved.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let descriptor = variable(LISTENER).parse().expect("a descriptor");
    // SAFETY: inherited for this purpose; nobody else in this process has it.
    let listener = unsafe { TcpListener::from_raw_fd(descriptor) };
    let mut words = fs::OpenOptions::new().append(true).open(variable(WORDS)).expect("a file for words");
    let ctx = context();
    let options = Options::parse(OPTIONS).expect("options");
    match Cache::open(Path::new(&variable(STORE)), &options) {
        // SAFETY: live, and this thread is the only one.
        Ok(cache) => unsafe { cache.attach_raw(ctx) }.expect("attach"),
        // As every server does: it goes on without. The file system may be full at this moment.
        Err(error) => eprintln!("worker {} goes without a cache: {error}", std::process::id()),
    }
    loop {
        let Ok((stream, client)) = listener.accept() else { continue };
        // SAFETY: live.
        let end = unsafe { Connection::new(ctx) };
        // SAFETY: live.
        unsafe { ffi::SSL_set_accept_state(end.0) };
        if tls::attach(&end, &stream).is_err() {
            continue;
        }
        let answered = tls::accept(&end).and_then(|early| {
            let line = format!("{} {} {early}\n", std::process::id(), u8::from(end.resumed()));
            tls::write(&end, &line)
        });
        match answered {
            // SAFETY: live.
            Ok(()) => drop(unsafe { ffi::SSL_shutdown(end.0) }),
            // Whether it was the client's fault the client knows.
            Err(failure) => {
                let line = format!("{} {}: {failure}\n", client.port(), std::process::id());
                let _ = words.write_all(line.as_bytes());
            }
        }
        // SAFETY: no preconditions.
        unsafe { ffi::ERR_clear_error() };
    }
}

fn context() -> *mut ffi::SSL_CTX {
    // SAFETY: no preconditions.
    let method = unsafe { ffi::TLS_server_method() };
    // SAFETY: a static method.
    let ctx = unsafe { ffi::SSL_CTX_new(method) };
    must("SSL_CTX_new", !ctx.is_null());
    let identity = Identity::authority();
    // SAFETY: live objects; the SSL_CTX takes a reference of its own.
    must("certificate", unsafe { ffi::SSL_CTX_use_certificate(ctx, identity.certificate) } == 1);
    // SAFETY: same.
    must("key", unsafe { ffi::SSL_CTX_use_PrivateKey(ctx, identity.key) } == 1);
    let name = b"soak";
    // SAFETY: live; copies that many bytes.
    let set = unsafe { ffi::SSL_CTX_set_session_id_context(ctx, name.as_ptr(), name.len() as u32) };
    must("session id context", set == 1);
    // SAFETY: live.
    must("early data", unsafe { SSL_CTX_set_max_early_data(ctx, 1_024) } == 1);
    // SAFETY: live.
    must("early data", unsafe { SSL_CTX_set_recv_max_early_data(ctx, 1_024) } == 1);
    ctx
}
