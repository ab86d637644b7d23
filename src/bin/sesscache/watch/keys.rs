//! What is typed while `watch` draws. The terminal library waits for ever at the end of the input, so the bytes are read here: by
//! a thread that may wait, because nobody waits for it.

use std::io::{self, Read};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

/// Bytes that nobody has looked at yet.
const WAITING: usize = 64;

/// What somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Quit,
    Pause,
    Faster,
    Slower,
    Help,
}

/// The keys of the terminal on stdin.
pub struct Keyboard(Receiver<Option<Wish>>);

impl Keyboard {
    /// From here on stdin is read, to its end.
    pub fn listen() -> io::Result<Keyboard> {
        let (to, from) = mpsc::sync_channel(WAITING);
        thread::Builder::new().name("keys".to_owned()).spawn(move || read(&to))?;
        Ok(Keyboard(from))
    }

    /// Waits for a key. The end of the input, or a terminal that is gone, is a wish to quit.
    pub fn wait(&self, longest: Duration) -> Option<Wish> {
        match self.0.recv_timeout(longest) {
            Ok(wish) => wish,
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Wish::Quit),
        }
    }
}

fn read(to: &SyncSender<Option<Wish>>) {
    let mut bytes = [0; 64];
    loop {
        match io::stdin().lock().read(&mut bytes) {
            Ok(0) => return,
            Ok(len) if to.send(wish(&bytes[..len])).is_err() => return,
            Ok(_) => {}
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// The last key that means something. A terminal in raw mode sends Ctrl-C as a byte, and keys such as arrows as several that begin
/// with an escape.
fn wish(bytes: &[u8]) -> Option<Wish> {
    if bytes.len() > 1 && bytes[0] == 0x1b {
        return None;
    }
    bytes.iter().rev().find_map(|byte| match byte {
        b'q' | b'Q' | 0x03 | 0x04 | 0x1b => Some(Wish::Quit),
        b'p' | b' ' => Some(Wish::Pause),
        b'+' | b'=' => Some(Wish::Faster),
        b'-' => Some(Wish::Slower),
        b'?' | b'h' => Some(Wish::Help),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_from_sequences() {
        for (bytes, wanted) in [
            (&b"q"[..], Some(Wish::Quit)),
            (b"\x1b", Some(Wish::Quit)),
            (b"\x03", Some(Wish::Quit)),
            (b"\x1b[A", None),
            (b"\x1bOP", None),
            (b"x", None),
            (b"x+", Some(Wish::Faster)),
            (b"-", Some(Wish::Slower)),
            (b"?", Some(Wish::Help)),
            (b" ", Some(Wish::Pause)),
        ] {
            assert_eq!(wish(bytes), wanted, "{bytes:?}");
        }
    }
}
