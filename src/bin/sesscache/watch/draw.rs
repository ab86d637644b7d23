//! What `watch` draws: the share that resumed as the big figure, a chart for each rate, a table of the counters.
//!
//! Each chart has rows of its own, so that no line hides another and no colour has to tell them apart. Bars are of block elements, or
//! of ASCII where the locale is not UTF-8.

use std::collections::VecDeque;
use std::time::Duration;

use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::symbols::bar;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, RenderDirection, Row, Sparkline, Table};
use ratatui::Frame;
use sesscache::{Stats, Unit, COUNTERS};

use super::Step;
use crate::output::is_colour_wanted;
use crate::units::{bytes, number, percent, rate};

/// What is shown.
pub struct Shown {
    /// The latest first.
    pub steps: VecDeque<Step>,
    pub interval: Duration,
    pub is_paused: bool,
    pub is_help: bool,
}

/// A screen below which the share is a line, and not a big figure.
const BIG: (u16, u16) = (60, 24);
/// Rows of a screen from which on some are kept for the table.
const WITH_TABLE: u16 = 20;
const TABLE: u16 = 6;
/// Most rows of a chart.
const CHART: u16 = 5;
/// Columns beside a chart.
const LABEL: u16 = 20;

const ASCII: bar::Set = bar::Set {
    full: "#",
    seven_eighths: "#",
    three_quarters: "=",
    five_eighths: "=",
    half: "-",
    three_eighths: "-",
    one_quarter: ".",
    one_eighth: ".",
    empty: " ",
};

/// A chart: its name, its colour, and the value of a step. A share has 100 for its top.
struct Series {
    name: &'static str,
    colour: Color,
    value: fn(&Step) -> f64,
    is_share: bool,
}

const SERIES: [Series; 5] = [
    Series { name: "resumed", colour: Color::Green, value: |step| share(step) * 100.0, is_share: true },
    Series { name: "stored", colour: Color::Cyan, value: |step| step.rate("puts"), is_share: false },
    Series { name: "evicted", colour: Color::Red, value: |step| step.rate("evicted"), is_share: false },
    Series { name: "expired", colour: Color::Blue, value: |step| step.rate("expired"), is_share: false },
    Series { name: "lookups", colour: Color::Magenta, value: Step::lookups, is_share: false },
];

/// A server that stores records of its own is attached to nothing, and no handshake of it is counted: its hit rate stands for it.
fn share(step: &Step) -> f64 {
    step.counted.resumption_rate().or_else(|| step.counted.hit_rate()).unwrap_or(0.0)
}

/// Whether block elements can be shown (setlocale(3): the first of these that is set).
fn is_utf8() -> bool {
    let set = |name: &&str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(set).unwrap_or_default().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

pub fn draw(frame: &mut Frame, view: &Shown) {
    draw_in(frame, view, is_utf8(), is_colour_wanted());
}

fn draw_in(frame: &mut Frame, view: &Shown, utf8: bool, colours: bool) {
    let Some(latest) = view.steps.front() else { return };
    let Rect { width, height, .. } = frame.area();
    let warnings = latest.reading.warnings();
    let is_big = width >= BIG.0 && height >= BIG.1;
    let foot_height = 1 + warnings.len().min(2) as u16;
    let share_height = if is_big { 4 } else { 1 };
    let room = height.saturating_sub(2 + share_height + foot_height);
    let for_charts = room.saturating_sub(if height >= WITH_TABLE { TABLE } else { 0 });
    let each = (for_charts / SERIES.len() as u16).clamp(1, CHART);
    let charts = (for_charts / each).min(SERIES.len() as u16);
    let [head, share_area, charts_area, table, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(share_height),
        Constraint::Length(charts * each),
        Constraint::Fill(1),
        Constraint::Length(foot_height),
    ])
    .areas(frame.area());
    draw_head(frame, head, latest, utf8);
    draw_share(frame, share_area, latest, is_big, utf8);
    if view.is_help {
        let [area] = Layout::vertical([Constraint::Fill(1)]).areas(charts_area.union(table));
        frame.render_widget(Paragraph::new(HELP.map(Line::from).to_vec()), area);
    } else {
        for (at, series) in SERIES.iter().take(charts.into()).enumerate() {
            let area = Rect { y: charts_area.y + at as u16 * each, height: each, ..charts_area };
            draw_chart(frame, area, view, series, utf8, colours);
        }
        draw_table(frame, table, latest);
    }
    let mut lines: Vec<Line> = warnings.iter().take(2).map(|text| Line::from(format!(" {text}")).bold()).collect();
    let paused = if view.is_paused { "PAUSED  " } else { "" };
    let keys = format!(" {paused}q quit  p pause  + - every {}  ? help", interval(view.interval));
    lines.push(Line::from(keys).style(if view.is_paused { Modifier::REVERSED } else { Modifier::DIM }));
    frame.render_widget(Paragraph::new(lines), foot);
}

const HELP: [&str; 9] = [
    " q, Esc, Ctrl-C   quit",
    " p, space         pause, and go on",
    " +, -             read more often, less often",
    " ?                this help",
    "",
    " resumed          handshakes that resumed, in all",
    " now              since the last reading, per second",
    " 1 min            over about the last minute",
    " since            since the store was made",
];

fn interval(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        _ => format!("{} s", time.as_secs_f64()),
    }
}

fn draw_head(frame: &mut Frame, area: Rect, step: &Step, utf8: bool) {
    let reading = &step.reading;
    let (used, capacity) = (reading.count("used_bytes"), reading.count("capacity").max(1));
    let processes = reading.attached().map_or("unknown".to_owned(), |attached| number(attached as u64));
    let numbers = format!("  {} sessions, {processes} processes", number(reading.count("sessions")));
    let room = usize::from(area.width).saturating_sub(numbers.len() + 1);
    let path = Span::styled(format!(" {}", end_of(&reading.path, room, if utf8 { "…" } else { "~" })), Modifier::BOLD);
    let [title_area, gauge_area] = Layout::vertical([Constraint::Length(1), Constraint::Length(1)]).areas(area);
    frame.render_widget(Paragraph::new(Line::from(vec![path, Span::raw(numbers)])), title_area);
    let label = format!(" {} of {} ", bytes(used), bytes(capacity));
    let width = usize::from(area.width).saturating_sub(label.len() + 1);
    let full = ((used as usize).saturating_mul(width) / capacity as usize).min(width);
    let (is, free) = if utf8 { ("█", "░") } else { ("#", ".") };
    let bar = Line::from(vec![
        Span::raw(label),
        Span::styled(is.repeat(full), Color::Blue),
        Span::raw(free.repeat(width - full)).dim(),
    ]);
    frame.render_widget(Paragraph::new(bar), gauge_area);
}

/// A path, or its end where there is no room for all of it.
fn end_of(path: &str, room: usize, dots: &str) -> String {
    let len = path.chars().count();
    if len <= room {
        return path.to_owned();
    }
    dots.chars().chain(path.chars().skip(len - room.saturating_sub(1).min(len))).collect()
}

fn draw_share(frame: &mut Frame, area: Rect, step: &Step, is_big: bool, utf8: bool) {
    let now = percent(step.counted.resumption_rate());
    let (all, minute) = step.reading.rates(Stats::resumption_rate);
    let hit_rate = percent(step.counted.hit_rate());
    let words = format!("resumed  hit rate {hit_rate}  1 min {minute}  since {all}");
    if !is_big {
        return frame.render_widget(Paragraph::new(Line::from(format!(" {now} {words}")).bold()), area);
    }
    let mut rows = big(&now, if utf8 { "█" } else { "#" });
    rows[1].push_str("   of handshakes resumed");
    rows[2].push_str(&format!("   1 min {minute}, since {all}, hit rate {hit_rate}"));
    frame.render_widget(Paragraph::new(rows.map(|row| Line::from(row).bold()).to_vec()), area);
}

/// Digits of three columns and four rows; a set bit is a cell, the first row in the highest three.
const GLYPHS: [(char, u16); 12] = [
    ('0', 0b111_101_101_111),
    ('1', 0b010_110_010_111),
    ('2', 0b110_001_010_111),
    ('3', 0b111_011_001_111),
    ('4', 0b101_101_111_001),
    ('5', 0b111_110_001_110),
    ('6', 0b100_111_101_111),
    ('7', 0b111_001_010_010),
    ('8', 0b111_111_101_111),
    ('9', 0b111_101_111_001),
    ('.', 0b000_000_000_010),
    ('-', 0b000_111_000_000),
];

/// A text in four rows of cells; what has no glyph is as it is in the last.
fn big(text: &str, cell: &str) -> [String; 4] {
    let mut rows = [const { String::new() }; 4];
    for character in text.chars() {
        let glyph = GLYPHS.iter().find(|(of, _)| *of == character).map(|(_, glyph)| *glyph);
        for (at, row) in rows.iter_mut().enumerate() {
            row.push(' ');
            match glyph {
                Some(glyph) => {
                    let bits = glyph >> (9 - 3 * at);
                    (0..3).rev().for_each(|bit| row.push_str(if bits >> bit & 1 == 1 { cell } else { " " }));
                }
                None => row.push(if at == 3 { character } else { ' ' }),
            }
        }
    }
    rows
}

fn draw_chart(frame: &mut Frame, area: Rect, view: &Shown, series: &Series, utf8: bool, colours: bool) {
    let [label, chart] = Layout::horizontal([Constraint::Length(LABEL), Constraint::Fill(1)]).areas(area);
    let values: Vec<f64> = view.steps.iter().take(chart.width.into()).map(|step| (series.value)(step)).collect();
    let top = if series.is_share { 100.0 } else { nice(values.iter().copied().fold(1.0, f64::max)) };
    let (now, top_text) = match series.is_share {
        true => (format!("{:.1} %", values.first().unwrap_or(&0.0)), "100 %".to_owned()),
        false => (format!("{}/s", rate(*values.first().unwrap_or(&0.0))), format!("{}/s", rate(top))),
    };
    let style = if colours { Style::new().fg(series.colour) } else { Style::new() };
    let mut lines = vec![Line::from(format!(" {:<8}{now:>10}", series.name)).style(style).bold()];
    if area.height > 1 {
        lines.push(Line::from(format!(" {:<8}{top_text:>10}", "top")).dim());
    }
    frame.render_widget(Paragraph::new(lines), label);
    // In thousandths of the top. What is not 0 is to be seen.
    let heights = values.iter().map(|value| match value {
        value if *value > 0.0 => (value / top * 1_000.0).max(1_000.0 / 8.0 / f64::from(area.height)).ceil() as u64,
        _ => 0,
    });
    let bars = Sparkline::default().data(heights.collect::<Vec<u64>>()).max(1_000).style(style);
    let bars = bars.direction(RenderDirection::RightToLeft);
    frame.render_widget(bars.bar_set(if utf8 { bar::NINE_LEVELS } else { ASCII }), chart);
}

/// The next of 1, 2, 5, 10, 20, 50 and so on.
fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].iter().map(|step| step * power).find(|top| *top >= value).unwrap_or(value)
}

/// The counters of what has ever happened, what happens most now first.
fn draw_table(frame: &mut Frame, area: Rect, step: &Step) {
    let seconds = step.seconds();
    let recent = step.reading.recent.as_ref().map(|(_, counted)| counted.values());
    let mut rows: Vec<(&str, f64, String, u64)> = COUNTERS
        .iter()
        .enumerate()
        .filter(|(at, row)| row.unit == Unit::Count && step.reading.stats.values()[*at] > 0)
        .map(|(at, row)| {
            let minute = recent.map_or("-".to_owned(), |counted| number(counted[at]));
            (row.name, step.counted.values()[at] as f64 / seconds, minute, step.reading.stats.values()[at])
        })
        .collect();
    rows.sort_by(|a, b| b.1.total_cmp(&a.1).then(b.3.cmp(&a.3)));
    let right = |text: String| Line::from(text).right_aligned();
    let rows = rows.into_iter().map(|(name, now, minute, since)| {
        let name = Line::from(format!(" {}", name.replace('_', " ")));
        Row::new([name, right(format!("{}/s", rate(now))), right(minute), right(number(since))])
    });
    let heading = [" counter", "now", "1 min", "since"].map(str::to_owned);
    let [counter, rest @ ..] = heading;
    let mut cells = vec![Line::from(counter)];
    cells.extend(rest.map(right));
    let widths = [Constraint::Max(22), Constraint::Length(8), Constraint::Length(9), Constraint::Length(11)];
    frame.render_widget(Table::new(rows, widths).header(Row::new(cells).bold()), area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Reading;
    use ratatui::backend::TestBackend;
    use ratatui::Terminal;
    use sesscache::inspect::KeyVerdict;

    const SIZES: [(u16, u16); 4] = [(200, 50), (100, 30), (80, 24), (50, 12)];

    fn step(at: u64) -> Step {
        let mut counted = Stats::default();
        (counted.hits, counted.misses_absent, counted.puts) = (90 + at % 7, 5, 40 + at);
        // Two rates that are the same.
        (counted.evicted, counted.expired) = (at % 20, at % 20);
        (counted.handshakes_full, counted.handshakes_resumed) = (3, 197);
        let mut stats = counted;
        (stats.sessions, stats.used_bytes, stats.capacity, stats.puts) = (123_456, 40 << 20, 64 << 20, 1_000_000);
        let reading = Reading {
            path: "/run/a-server-with-a-long-name/tls".to_owned(),
            stats,
            recent: Some((Duration::from_secs(60), counted)),
            ends: None,
            processes: Some(Vec::new()),
            readers_limit: 126,
            file_bytes: 0,
            generations: 1,
            damage: None,
            keys: KeyVerdict::Unknown,
            key_file: String::new(),
            created: 0,
        };
        Step { reading, counted, time: Duration::from_secs(1) }
    }

    fn screen((width, height): (u16, u16), utf8: bool, is_help: bool) -> Vec<String> {
        let steps = (0..300).map(step).rev().collect();
        let view = Shown { steps, interval: Duration::from_secs(1), is_paused: false, is_help };
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw_in(frame, &view, utf8, true)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(row).collect()
    }

    #[test]
    fn a_screen_of_any_size_has_the_share_the_charts_the_table_and_the_keys() {
        for size in SIZES {
            let rows = screen(size, true, false);
            let text = rows.join("\n");
            if std::env::var_os("SHOW").is_some() {
                println!("{size:?}\n{text}");
            }
            for series in SERIES {
                let label = format!(" {:<8}", series.name);
                let charts = rows.iter().take_while(|row| !row.starts_with(" counter"));
                assert_eq!(charts.filter(|row| row.starts_with(&label)).count(), 1, "{size:?}:\n{text}");
            }
            for wanted in
                ["tls", "98.5 %", "hit rate", "counter", "1 min", "since", "puts", "q quit", "p pause", "? help"]
            {
                assert!(text.contains(wanted), "no {wanted} at {size:?}:\n{text}");
            }
        }
        let big = screen((80, 24), true, false)[2..6].join("\n");
        assert!(big.contains(" ███ ███ ") && big.contains("of handshakes resumed"), "no big figure:\n{big}");
    }

    #[test]
    fn rates_that_are_the_same_are_both_seen() {
        let rows = screen((80, 24), true, false);
        let at = |name: &str| rows.iter().position(|row| row.starts_with(&format!(" {name}"))).unwrap();
        let bars = |name: &str| {
            let chart = &rows[at(name)..at(name) + 2];
            chart.iter().map(|row| row.chars().skip(LABEL.into()).collect::<String>()).collect::<Vec<_>>()
        };
        assert_eq!(bars("evicted"), bars("expired"));
        assert!(bars("evicted").concat().chars().any(|c| "▁▂▃▄▅▆▇█".contains(c)), "{rows:#?}");
    }

    #[test]
    fn a_locale_without_utf8_gets_ascii_and_no_locale_gets_braille() {
        for size in SIZES {
            let ascii = screen(size, false, false).join("\n");
            assert!(ascii.is_ascii() && ascii.contains('#'), "{ascii}");
            let text = screen(size, true, false).join("\n");
            assert!(!text.chars().any(|c| ('\u{2800}'..='\u{28ff}').contains(&c)), "{text}");
        }
    }

    #[test]
    fn help_says_what_the_keys_do() {
        let text = screen((80, 24), true, true).join("\n");
        assert!(text.contains("pause, and go on") && text.contains("q quit"), "{text}");
    }

    #[test]
    fn the_top_of_a_chart_is_a_round_number_above_all_points() {
        for (value, top) in [(1.0, 1.0), (1.5, 2.0), (3.0, 5.0), (7.0, 10.0), (101.0, 200.0)] {
            assert_eq!(nice(value), top);
        }
    }

    #[test]
    fn a_path_that_is_too_long_keeps_its_end() {
        for (room, shown) in [(8, "/run/tls"), (7, "…un/tls"), (2, "…s"), (1, "…"), (0, "…")] {
            assert_eq!(end_of("/run/tls", room, "…"), shown);
        }
    }
}
