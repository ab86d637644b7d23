//! The full screen of `watch`: what it shows and for how long, by the keys that are typed.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;

use super::draw::{draw, Shown};
use super::keys::{Keyboard, Wish};
use super::{Step, Watcher};
use crate::failure::Failure;
use crate::signals::Interrupted;

/// Steps that are kept for the charts: as many as the widest terminal has columns.
const KEPT: usize = 400;
/// Limits of the interval, by `+` and `-`.
const FASTEST: Duration = Duration::from_millis(100);
const SLOWEST: Duration = Duration::from_secs(60);

/// Shows the store until q, Ctrl-C, a signal or the end of the terminal. The terminal is left as it was, whatever happens.
pub fn run(watcher: Watcher, interval: Duration, interrupted: &Interrupted) -> Result<(), Failure> {
    let keys = Keyboard::listen().map_err(Failure::system("cannot read from this terminal"))?;
    let mut terminal = ratatui::try_init().map_err(Failure::system("cannot draw on this terminal"))?;
    let done = show(&mut terminal, watcher, interval, interrupted, &keys);
    // Of a terminal that is gone nothing can be restored, and its drop would say so on a stderr that is gone as well.
    if ratatui::try_restore().is_err() {
        std::mem::forget(terminal);
    }
    done
}

/// A terminal that is gone, of which its signal need not be here yet, is no failure.
fn cannot_draw(cause: io::Error) -> Failure {
    match cause.raw_os_error() {
        Some(libc::EIO) => Failure::Closed,
        _ => Failure::System("cannot draw on this terminal".to_owned(), cause),
    }
}

/// Longest wait for a key, because a signal or another size of the terminal may come.
const LOOK: Duration = Duration::from_millis(100);

fn show(
    terminal: &mut DefaultTerminal,
    mut watcher: Watcher,
    interval: Duration,
    interrupted: &Interrupted,
    keys: &Keyboard,
) -> Result<(), Failure> {
    let mut view = Shown { steps: VecDeque::with_capacity(KEPT), interval, is_paused: false, is_help: false };
    // Long enough for the first rates to mean something, short enough not to be noticed.
    if interrupted.sleep(interval.min(Duration::from_millis(250))) {
        return Ok(());
    }
    view.steps.push_front(watcher.step()?);
    let mut last = Instant::now();
    loop {
        terminal.draw(|frame| draw(frame, &view)).map_err(cannot_draw)?;
        let size = terminal.size().map_err(cannot_draw)?;
        let mut wish = None;
        while last.elapsed() < view.interval && wish.is_none() && terminal.size().map_err(cannot_draw)? == size {
            wish = keys.wait(view.interval.saturating_sub(last.elapsed()).min(LOOK));
            if interrupted.is_set() {
                return Ok(());
            }
        }
        match wish {
            Some(Wish::Quit) => return Ok(()),
            Some(Wish::Pause) => view.is_paused = !view.is_paused,
            Some(Wish::Help) => view.is_help = !view.is_help,
            Some(Wish::Faster) => view.interval = (view.interval / 2).max(FASTEST),
            Some(Wish::Slower) => view.interval = (view.interval * 2).min(SLOWEST),
            None => {}
        }
        if last.elapsed() >= view.interval {
            last = Instant::now();
            if !view.is_paused {
                let step: Step = watcher.step()?;
                view.steps.truncate(KEPT - 1);
                view.steps.push_front(step);
            }
        }
    }
}
