//! A handshake of either end over a socket, and how it came out.

use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;

use libc::{c_int, c_void};

use crate::ffi::{self, Connection};

/// Longest wait for a byte. Longer than any worker is stopped.
const PATIENCE: Duration = Duration::from_secs(20);
/// ssl.h: SSL_READ_EARLY_DATA_ERROR, _FINISH and SSL_EARLY_DATA_ACCEPTED.
const EARLY_ERROR: c_int = 0;
const EARLY_FINISH: c_int = 2;
const EARLY_ACCEPTED: c_int = 2;

extern "C" {
    fn SSL_read_early_data(ssl: *mut ffi::SSL, buf: *mut c_void, num: usize, readbytes: *mut usize) -> c_int;
    fn SSL_write_early_data(ssl: *mut ffi::SSL, buf: *const c_void, num: usize, written: *mut usize) -> c_int;
    fn SSL_get_early_data_status(ssl: *const ffi::SSL) -> c_int;
    fn ERR_peek_error() -> libc::c_ulong;
    fn ERR_reason_error_string(code: libc::c_ulong) -> *const libc::c_char;
}

/// Why a connection came to nothing.
pub enum Failure {
    /// TLS itself, in OpenSSL's words: always a harm.
    Tls(String),
    /// The other side is gone, or silent.
    Lost(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Tls(reason) => write!(f, "TLS says: {reason}"),
            Failure::Lost(reason) => write!(f, "the server is gone or silent: {reason}"),
        }
    }
}

/// Makes the socket one that waits, but not for ever, and gives it to the connection.
pub fn attach(end: &Connection, stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(support::patience(PATIENCE)))?;
    stream.set_write_timeout(Some(support::patience(PATIENCE)))?;
    // SAFETY: live; the descriptor is open for longer than the connection, which does not close it.
    ffi::must("SSL_set_fd", unsafe { ffi::SSL_set_fd(end.0, stream.as_raw_fd()) } == 1);
    Ok(())
}

/// Whether a call is to be made once more: a process that was stopped and goes on finds that its wait, if it has a limit,
/// was interrupted.
fn again(end: &Connection, code: c_int) -> bool {
    let interrupted = std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted;
    // SAFETY: live; asked before any other call on it.
    let kind = unsafe { ffi::SSL_get_error(end.0, code) };
    interrupted && matches!(kind, ffi::SSL_ERROR_WANT_READ | ffi::SSL_ERROR_WANT_WRITE)
}

/// What went wrong with the call that returned `code`.
fn failure(end: &Connection, code: c_int) -> Failure {
    let system = std::io::Error::last_os_error();
    // SAFETY: live; asked before any other call on it.
    let kind = unsafe { ffi::SSL_get_error(end.0, code) };
    // SAFETY: no preconditions.
    let error = unsafe { ERR_peek_error() };
    // SAFETY: NULL or a static string.
    let reason = unsafe { ERR_reason_error_string(error) };
    let reason = match reason.is_null() {
        true => format!("kind {kind}, error {error:x}, {system}"),
        // SAFETY: checked.
        false => unsafe { std::ffi::CStr::from_ptr(reason) }.to_string_lossy().into_owned(),
    };
    // SAFETY: no preconditions.
    unsafe { ffi::ERR_clear_error() };
    match kind == ffi::SSL_ERROR_SSL && !reason.contains("unexpected eof") {
        true => Failure::Tls(reason),
        false => Failure::Lost(reason),
    }
}

/// The server's handshake, with early data if there is any: how many bytes came.
pub fn accept(end: &Connection) -> Result<usize, Failure> {
    let (mut total, mut room) = (0, [0_u8; 256]);
    loop {
        let mut n = 0;
        // SAFETY: live; a buffer of that length.
        match unsafe { SSL_read_early_data(end.0, room.as_mut_ptr().cast(), room.len(), &mut n) } {
            EARLY_ERROR if again(end, -1) => {}
            EARLY_ERROR => return Err(failure(end, 0)),
            EARLY_FINISH => break,
            _ => total += n,
        }
    }
    handshake(end).map(|()| total)
}

pub fn handshake(end: &Connection) -> Result<(), Failure> {
    // SAFETY: live, with transport and direction set.
    match unsafe { ffi::SSL_do_handshake(end.0) } {
        1 => Ok(()),
        code if again(end, code) => handshake(end),
        code => Err(failure(end, code)),
    }
}

/// The client sends this before the handshake.
pub fn send_early(end: &Connection, data: &[u8]) -> Result<(), Failure> {
    let mut written = 0;
    // SAFETY: live; a buffer of that length.
    match unsafe { SSL_write_early_data(end.0, data.as_ptr().cast(), data.len(), &mut written) } {
        1 => Ok(()),
        code => Err(failure(end, code)),
    }
}

/// Whether the server took it.
pub fn early_was_accepted(end: &Connection) -> bool {
    // SAFETY: live.
    unsafe { SSL_get_early_data_status(end.0) == EARLY_ACCEPTED }
}

pub fn write(end: &Connection, line: &str) -> Result<(), Failure> {
    // SAFETY: live; a buffer of that length.
    match unsafe { ffi::SSL_write(end.0, line.as_ptr().cast(), line.len() as c_int) } {
        n if n > 0 => Ok(()),
        code if again(end, code) => write(end, line),
        code => Err(failure(end, code)),
    }
}

/// Reads until the newline. In TLS 1.3 the tickets come before it.
pub fn read_line(end: &Connection) -> Result<String, Failure> {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut part = [0_u8; 128];
        // SAFETY: live; a buffer of that length.
        match unsafe { ffi::SSL_read(end.0, part.as_mut_ptr().cast(), part.len() as c_int) } {
            code if code <= 0 && again(end, code) => {}
            n if n > 0 => line.extend_from_slice(&part[..n as usize]),
            code => return Err(failure(end, code)),
        }
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}
