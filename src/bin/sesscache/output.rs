//! Stdout: buffered, coloured when a person looks at it.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use serde_json::Value;

/// Stdout, and how to write to it.
pub struct Output {
    to: BufWriter<StdoutLock<'static>>,
    style: bool,
}

impl Output {
    pub fn new() -> Output {
        let stdout = io::stdout();
        let style = stdout.is_terminal() && is_colour_wanted();
        Output { to: BufWriter::with_capacity(64 * 1024, stdout.lock()), style }
    }

    pub fn bold(&self, text: &str) -> String {
        self.styled("1", text)
    }

    pub fn warning(&self, text: &str) -> String {
        self.styled("1;33", text)
    }

    pub fn good(&self, text: &str) -> String {
        self.styled("32", text)
    }

    fn styled(&self, code: &str, text: &str) -> String {
        if self.style {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// A JSON value on a line of its own.
    pub fn json(&mut self, value: &Value) -> io::Result<()> {
        serde_json::to_writer(&mut self.to, value)?;
        self.to.write_all(b"\n")
    }

    /// A JSON value over several lines.
    pub fn json_pretty(&mut self, value: &Value) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut self.to, value)?;
        self.to.write_all(b"\n")
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// See no-color.org.
pub fn is_colour_wanted() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_some_and(|term| term != "dumb")
}
