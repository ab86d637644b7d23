//! The full screen of `watch`: hit rate and rates as charts, the reasons of misses as a table.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, Paragraph, Row, Table};
use ratatui::{DefaultTerminal, Frame};
use sesscache::{Unit, COUNTERS};

use super::{Step, Watcher};
use crate::failure::Failure;
use crate::signals::Interrupted;
use crate::units::{bytes, number, percent, rate};

/// Steps that are kept for the charts.
const KEPT: usize = 240;

/// A point per step: how many steps ago, and the value.
type Points = Vec<(f64, f64)>;

/// Shows the store until q, Ctrl-C or a signal. The terminal is left as it was, whatever happens.
pub fn run(watcher: Watcher, interval: Duration, interrupted: &Interrupted) -> Result<(), Failure> {
    let mut terminal = ratatui::try_init().map_err(Failure::system("cannot draw on this terminal"))?;
    let done = show(&mut terminal, watcher, interval, interrupted);
    ratatui::restore();
    done
}

fn show(
    terminal: &mut DefaultTerminal,
    mut watcher: Watcher,
    interval: Duration,
    interrupted: &Interrupted,
) -> Result<(), Failure> {
    let terminal_failed = |cause| Failure::System("cannot draw on this terminal".to_owned(), cause);
    let mut steps = VecDeque::with_capacity(KEPT);
    // Long enough for the first rates to mean something, short enough not to be noticed.
    if interrupted.sleep(interval.min(Duration::from_millis(250))) {
        return Ok(());
    }
    steps.push_front(watcher.step()?);
    let mut next = Instant::now() + interval;
    loop {
        terminal.draw(|frame| draw(frame, &steps, interval)).map_err(terminal_failed)?;
        while Instant::now() < next {
            if interrupted.is_set() || is_end_wanted(next).map_err(terminal_failed)? {
                return Ok(());
            }
        }
        next = Instant::now() + interval;
        steps.truncate(KEPT - 1);
        steps.push_front(watcher.step()?);
    }
}

/// Waits for a key, at most until `next` and never long, because a signal may come.
fn is_end_wanted(next: Instant) -> io::Result<bool> {
    let wait = next.saturating_duration_since(Instant::now()).min(Duration::from_millis(100));
    match event::poll(wait) {
        Ok(false) => return Ok(false),
        Ok(true) => {}
        // A signal woke it up.
        Err(cause) if cause.kind() == io::ErrorKind::Interrupted => return Ok(false),
        Err(cause) => return Err(cause),
    }
    let Event::Key(key) = event::read()? else { return Ok(false) };
    let ctrl_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    let quit = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc);
    Ok(key.kind == KeyEventKind::Press && (ctrl_c || quit))
}

fn draw(frame: &mut Frame, steps: &VecDeque<Step>, interval: Duration) {
    let Some(latest) = steps.front() else { return };
    let warnings = latest.reading.warnings();
    let [head, hits, rates, table, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Fill(3),
        Constraint::Fill(3),
        Constraint::Length(8),
        Constraint::Length(1 + warnings.len().min(2) as u16),
    ])
    .areas(frame.area());
    draw_head(frame, head, latest);
    let hit_rate = steps
        .iter()
        .enumerate()
        .filter_map(|(at, step)| step.counted.hit_rate().map(|ratio| (-(at as f64), ratio * 100.0)))
        .collect();
    let title = Line::from(format!(" hit rate {} ", percent(latest.counted.hit_rate())).green().bold());
    chart(frame, hits, title, &[(Color::Green, hit_rate)], Some(100.0), interval);
    let of = |f: &dyn Fn(&Step) -> f64| -> Points {
        steps.iter().enumerate().map(|(at, step)| (-(at as f64), f(step))).collect()
    };
    let title = Line::from(vec![
        format!(" lookups {}/s ", rate(latest.lookups())).cyan().bold(),
        format!(" puts {}/s ", rate(latest.rate("puts"))).yellow().bold(),
    ]);
    let sets = [(Color::Cyan, of(&Step::lookups)), (Color::Yellow, of(&|step| step.rate("puts")))];
    chart(frame, rates, title, &sets, None, interval);
    draw_reasons(frame, table, latest);
    let mut lines: Vec<Line> = warnings.iter().take(2).map(|text| Line::from(format!(" {text}").yellow())).collect();
    lines.push(Line::from(" q ends").dim());
    frame.render_widget(Paragraph::new(lines), foot);
}

fn draw_head(frame: &mut Frame, area: Rect, step: &Step) {
    let reading = &step.reading;
    let (used, capacity) = (reading.count("used_bytes"), reading.count("capacity").max(1));
    let title = Line::from(vec![
        Span::styled(format!(" {} ", reading.path), Modifier::BOLD),
        Span::raw(format!(
            " {} sessions, {} processes",
            number(reading.count("sessions")),
            number(reading.attached() as u64)
        )),
    ]);
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

fn chart(frame: &mut Frame, area: Rect, title: Line, sets: &[(Color, Points)], top: Option<f64>, interval: Duration) {
    // Two points fit side by side into a character of Braille.
    let shown = (f64::from(area.width.saturating_sub(10)) * 2.0).clamp(10.0, KEPT as f64);
    let highest = sets.iter().flat_map(|set| &set.1).filter(|point| point.0 >= -shown).map(|point| point.1);
    let top = top.unwrap_or_else(|| nice(highest.fold(1.0, f64::max)));
    let datasets = sets
        .iter()
        .map(|(colour, points)| {
            let set = Dataset::default().marker(Marker::Braille).graph_type(GraphType::Line);
            set.style(Style::new().fg(*colour)).data(points)
        })
        .collect();
    let ago = interval.mul_f64(shown);
    let x = Axis::default().bounds([-shown, 0.0]).labels([format!("{:.0} s ago", ago.as_secs_f64()), "now".to_owned()]);
    let y = Axis::default().bounds([0.0, top]).labels(["0".to_owned(), rate(top / 2.0), rate(top)]);
    let chart = Chart::new(datasets).block(Block::bordered().title(title)).x_axis(x).y_axis(y);
    frame.render_widget(chart, area);
}

/// The next of 1, 2, 5, 10, 20, 50 and so on.
fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].iter().map(|step| step * power).find(|top| *top >= value).unwrap_or(value)
}

/// The counters besides hits and puts, those that happen first.
fn draw_reasons(frame: &mut Frame, area: Rect, step: &Step) {
    let seconds = step.seconds();
    let mut rows: Vec<(&str, f64, u64)> = COUNTERS
        .iter()
        .enumerate()
        .filter(|(_, row)| row.unit == Unit::Count && !matches!(row.name, "hits" | "puts"))
        .map(|(at, row)| (row.name, step.counted.0[at] as f64 / seconds, step.reading.stats.0[at]))
        .filter(|(_, _, all)| *all > 0)
        .collect();
    rows.sort_by(|a, b| b.1.total_cmp(&a.1).then(b.2.cmp(&a.2)));
    let rows = rows.into_iter().map(|(name, now, all)| {
        Row::new([
            Line::from(name.replace('_', " ")),
            Line::from(format!("{}/s", rate(now))).right_aligned(),
            Line::from(number(all)).right_aligned(),
        ])
    });
    let heading = Row::new([
        Line::from("misses, refusals and ends"),
        Line::from("now").right_aligned(),
        Line::from("since it began").right_aligned(),
    ]);
    let widths = [Constraint::Length(26), Constraint::Length(14), Constraint::Length(20)];
    let table = Table::new(rows, widths).header(heading.style(Style::new().add_modifier(Modifier::BOLD)));
    frame.render_widget(table.block(Block::bordered()), area);
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
}
