//! The full screen of `watch`: the share that resumed and rates as charts, the reasons of misses as a table.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, Paragraph, Row, Table};
use ratatui::{DefaultTerminal, Frame};
use sesscache::{Stats, Unit, COUNTERS};

use super::keys::{Keys, Wish};
use super::{Step, Watcher};
use crate::failure::Failure;
use crate::output::is_colour_wanted;
use crate::signals::Interrupted;
use crate::units::{bytes, number, percent, rate, seconds};

/// Steps that are kept for the charts.
const KEPT: usize = 240;

/// A point per step: how many steps ago, and the value.
type Points = Vec<(f64, f64)>;

/// Shows the store until q, Ctrl-C, a signal or the end of the terminal. The terminal is left as it was, whatever happens.
pub fn run(watcher: Watcher, interval: Duration, interrupted: &Interrupted) -> Result<(), Failure> {
    let keys = Keys::listen().map_err(Failure::system("cannot read from this terminal"))?;
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
    keys: &Keys,
) -> Result<(), Failure> {
    let mut steps = VecDeque::with_capacity(KEPT);
    // Long enough for the first rates to mean something, short enough not to be noticed.
    if interrupted.sleep(interval.min(Duration::from_millis(250))) {
        return Ok(());
    }
    steps.push_front(watcher.step()?);
    let mut next = Instant::now() + interval;
    loop {
        terminal.draw(|frame| draw(frame, &steps, interval)).map_err(cannot_draw)?;
        let size = terminal.size().map_err(cannot_draw)?;
        while Instant::now() < next && terminal.size().map_err(cannot_draw)? == size {
            let wish = keys.wait(next.saturating_duration_since(Instant::now()).min(LOOK));
            if interrupted.is_set() || wish == Some(Wish::Quit) {
                return Ok(());
            }
        }
        if Instant::now() >= next {
            next = Instant::now() + interval;
            steps.truncate(KEPT - 1);
            steps.push_front(watcher.step()?);
        }
    }
}

fn draw(frame: &mut Frame, steps: &VecDeque<Step>, interval: Duration) {
    let Some(latest) = steps.front() else { return };
    let warnings = latest.reading.warnings();
    let reasons = reasons(latest);
    let height = frame.area().height;
    // On a low screen a chart is a line of figures, and the table is left out.
    let [hits_height, rates_height] =
        [LOW, LOWER].map(|low| if height < low { Constraint::Length(1) } else { Constraint::Fill(1) });
    let table_height = match reasons.len() {
        _ if height < LOWEST_WITH_TABLE => 0,
        0 => 1,
        n => 3 + n.min(5) as u16,
    };
    let [head, hits, rates, table, foot] = Layout::vertical([
        Constraint::Length(2),
        hits_height,
        rates_height,
        Constraint::Length(table_height),
        Constraint::Length(1 + warnings.len().min(2) as u16),
    ])
    .areas(frame.area());
    draw_head(frame, head, latest);
    // A server that stores records of its own is attached to nothing, and no handshake of it is counted.
    let success = |counted: &Stats| counted.resumption_rate().or_else(|| counted.hit_rate());
    let points = steps
        .iter()
        .enumerate()
        .filter_map(|(at, step)| success(&step.counted).map(|ratio| (-(at as f64), ratio * 100.0)))
        .collect();
    let (resumed, hit_rate) = (latest.counted.resumption_rate(), latest.counted.hit_rate());
    let title = Line::from(format!(" resumed {} · hit rate {} ", percent(resumed), percent(hit_rate)).green().bold());
    let window = Window { steps: steps.len(), interval };
    chart(frame, hits, title, &[(Color::Green, points)], Height::Percent, window);
    let of = |f: &dyn Fn(&Step) -> f64| -> Points {
        steps.iter().enumerate().map(|(at, step)| (-(at as f64), f(step))).collect()
    };
    let title = Line::from(vec![
        format!(" lookups {}/s ", rate(latest.lookups())).cyan().bold(),
        format!(" puts {}/s ", rate(latest.rate("puts"))).yellow().bold(),
    ]);
    let sets = [(Color::Cyan, of(&Step::lookups)), (Color::Yellow, of(&|step| step.rate("puts")))];
    chart(frame, rates, title, &sets, Height::Rate, window);
    match table_height {
        0 => {}
        1 => frame.render_widget(Paragraph::new(Line::from(" no misses, failures or removals").bold()), table),
        _ => draw_reasons(frame, table, &reasons),
    }
    let mut lines: Vec<Line> = warnings.iter().take(2).map(|text| Line::from(format!(" {text}").yellow())).collect();
    lines.push(Line::from(" q quit").dim());
    frame.render_widget(Paragraph::new(lines), foot);
}

/// Rows of a screen below which there is no chart of the hit rate, of the rates, and no table: a chart with fewer than
/// two rows of points says nothing.
const LOW: u16 = 10;
const LOWER: u16 = 16;
const LOWEST_WITH_TABLE: u16 = 20;

fn draw_head(frame: &mut Frame, area: Rect, step: &Step) {
    let reading = &step.reading;
    let (used, capacity) = (reading.count("used_bytes"), reading.count("capacity").max(1));
    let processes = reading.attached().map_or("unknown".to_owned(), |attached| number(attached as u64));
    let numbers = format!("  {} sessions, {processes} processes", number(reading.count("sessions")));
    let room = usize::from(area.width).saturating_sub(numbers.len() + 1);
    let title =
        Line::from(vec![Span::styled(format!(" {}", end_of(&reading.path, room)), Modifier::BOLD), Span::raw(numbers)]);
    let [title_area, gauge_area] = Layout::vertical([Constraint::Length(1), Constraint::Length(1)]).areas(area);
    frame.render_widget(Paragraph::new(title), title_area);
    let label = format!(" {} of {} ", bytes(used), bytes(capacity));
    let width = usize::from(area.width).saturating_sub(label.len() + 1);
    let full = (used as usize).saturating_mul(width) / capacity as usize;
    let bar = Line::from(vec![
        Span::raw(label),
        Span::styled("█".repeat(full.min(width)), Color::Blue),
        Span::raw("░".repeat(width.saturating_sub(full))).dim(),
    ]);
    frame.render_widget(Paragraph::new(bar), gauge_area);
}

/// A path, or its end where there is no room for all of it.
fn end_of(path: &str, room: usize) -> String {
    let len = path.chars().count();
    if len <= room {
        return path.to_owned();
    }
    "…".chars().chain(path.chars().skip(len - room.saturating_sub(1).min(len))).collect()
}

/// What the height of a point in a chart is.
enum Height {
    Percent,
    Rate,
}

/// What there is to show along the time.
#[derive(Clone, Copy)]
struct Window {
    steps: usize,
    interval: Duration,
}

impl Window {
    /// Steps that a chart of that width shows: no more than there is room for, and in the beginning not many more than
    /// there are, so that it is not empty for minutes.
    fn shown(self, width: u16) -> f64 {
        // Two points fit side by side into a character of Braille.
        let room = (usize::from(width.saturating_sub(12)) * 2).clamp(10, KEPT);
        let wanted = [30, 60, 120].into_iter().find(|n| self.steps <= *n).unwrap_or(KEPT);
        wanted.min(room) as f64
    }
}

fn chart(frame: &mut Frame, area: Rect, title: Line, sets: &[(Color, Points)], height: Height, window: Window) {
    if area.height < 2 {
        return frame.render_widget(Paragraph::new(title), area);
    }
    let shown = window.shown(area.width);
    let highest = sets.iter().flat_map(|set| &set.1).filter(|point| point.0 >= -shown).map(|point| point.1);
    let (top, labels) = match height {
        Height::Percent => (100.0, ["0 %".to_owned(), "50 %".to_owned(), "100 %".to_owned()]),
        Height::Rate => {
            let top = nice(highest.fold(1.0, f64::max));
            (top, ["0/s".to_owned(), format!("{}/s", rate(top / 2.0)), format!("{}/s", rate(top))])
        }
    };
    // Without colours the second line is told from the first by its points.
    let markers = if is_colour_wanted() { [Marker::Braille; 2] } else { [Marker::Braille, Marker::Dot] };
    let datasets = sets
        .iter()
        .zip(markers)
        .map(|((colour, points), marker)| {
            let set = Dataset::default().marker(marker).graph_type(GraphType::Line);
            set.style(Style::new().fg(*colour)).data(points)
        })
        .collect();
    let ago = seconds(window.interval.mul_f64(shown).as_secs_f64().round() as u64);
    let x = Axis::default().bounds([-shown, 0.0]).labels([format!("{ago} ago"), "now".to_owned()]);
    // The label in the middle would stand on that of an end.
    let [low, middle, high] = labels;
    let labels = if area.height < 7 { vec![low, high] } else { vec![low, middle, high] };
    let y = Axis::default().bounds([0.0, top]).labels(labels);
    let chart = Chart::new(datasets).block(Block::bordered().title(title)).x_axis(x).y_axis(y);
    frame.render_widget(chart, area);
}

/// The next of 1, 2, 5, 10, 20, 50 and so on.
fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].iter().map(|step| step * power).find(|top| *top >= value).unwrap_or(value)
}

/// The counters besides hits and puts, those that happen first: name, events per second, and total.
fn reasons(step: &Step) -> Vec<(&'static str, f64, u64)> {
    let seconds = step.seconds();
    let mut rows: Vec<_> = COUNTERS
        .iter()
        .enumerate()
        .filter(|(_, row)| {
            row.unit == Unit::Count && !matches!(row.name, "hits" | "puts" | "handshakes_full" | "handshakes_resumed")
        })
        .map(|(at, row)| (row.name, step.counted.values()[at] as f64 / seconds, step.reading.stats.values()[at]))
        .filter(|(_, _, all)| *all > 0)
        .collect();
    rows.sort_by(|a, b| b.1.total_cmp(&a.1).then(b.2.cmp(&a.2)));
    rows
}

fn draw_reasons(frame: &mut Frame, area: Rect, reasons: &[(&str, f64, u64)]) {
    let rows = reasons.iter().map(|(name, now, all)| {
        Row::new([
            Line::from(name.replace('_', " ")),
            Line::from(format!("{}/s", rate(*now))).right_aligned(),
            Line::from(number(*all)).right_aligned(),
        ])
    });
    let heading =
        Row::new([Line::from("reason"), Line::from("now").right_aligned(), Line::from("total").right_aligned()]);
    let widths = [Constraint::Max(20), Constraint::Length(8), Constraint::Max(14)];
    let table = Table::new(rows, widths).header(heading.style(Style::new().add_modifier(Modifier::BOLD)));
    frame.render_widget(table.block(Block::bordered().title(" misses, failures, removals ".bold())), area);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_of_a_chart_is_a_round_number_above_all_points() {
        for (value, top) in [(1.0, 1.0), (1.5, 2.0), (3.0, 5.0), (7.0, 10.0), (101.0, 200.0)] {
            assert_eq!(nice(value), top);
        }
    }

    #[test]
    fn a_path_that_is_too_long_keeps_its_end() {
        for (room, shown) in [(8, "/run/tls"), (7, "…un/tls"), (2, "…s"), (1, "…"), (0, "…")] {
            assert_eq!(end_of("/run/tls", room), shown);
        }
    }

    #[test]
    fn a_chart_is_as_long_as_what_it_shows() {
        let shown = |steps, width| Window { steps, interval: Duration::from_secs(1) }.shown(width);
        assert_eq!((shown(1, 80), shown(31, 80), shown(240, 80), shown(240, 300)), (30.0, 60.0, 136.0, 240.0));
        assert_eq!(shown(1, 0), 10.0);
    }
}
