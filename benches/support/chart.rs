//! Bars beside their baseline, as SVG.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// One group of bars: a label, and a value for each series that has one.
pub struct Group {
    pub label: String,
    pub values: Vec<Option<f64>>,
}

const COLOURS: [RGBColor; 6] = [
    RGBColor(0x1b, 0x6c, 0xa8),
    RGBColor(0xd9, 0x8a, 0x29),
    RGBColor(0x4f, 0x9d, 0x69),
    RGBColor(0xa0, 0x3b, 0x55),
    RGBColor(0x7a, 0x6f, 0xb0),
    RGBColor(0x80, 0x80, 0x80),
];

/// A chart of groups of bars, one colour a series.
pub struct Bars<'a> {
    pub title: &'a str,
    /// What the height of a bar is, with its unit.
    pub y: &'a str,
    /// What tells the groups apart.
    pub x: &'a str,
    pub series: &'a [&'a str],
    pub groups: &'a [Group],
}

/// A drawing in a file. SVG has no background of its own: a dark page would swallow the words.
fn sheet(path: &Path, size: (u32, u32)) -> Result<Area<'_>, Box<dyn Error>> {
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;
    Ok(root)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws one chart, its legend inside.
pub fn bars(path: &Path, chart: &Bars) -> Result<(), Box<dyn Error>> {
    let root = sheet(path, (920, 460))?;
    draw(&root, chart, true)?;
    root.present()?;
    Ok(())
}

/// Draws charts of the same series side by side, below one title and one legend.
pub fn side_by_side(path: &Path, title: &str, charts: &[Bars]) -> Result<(), Box<dyn Error>> {
    let root = sheet(path, (920, 420))?;
    let (head, body) = root.split_vertically(72);
    let centre = ("sans-serif", 20).into_text_style(&head).pos(Pos::new(HPos::Center, VPos::Top));
    head.draw(&Text::new(title.to_owned(), (460, 14), centre))?;
    let series = charts.first().map_or(&[][..], |chart| chart.series);
    for (s, name) in series.iter().enumerate() {
        let x = 460 + (s as i32 * 2 - series.len() as i32) * 90;
        head.draw(&Rectangle::new([(x, 50), (x + 12, 62)], COLOURS[s % COLOURS.len()].filled()))?;
        head.draw(&Text::new((*name).to_owned(), (x + 18, 49), ("sans-serif", 14)))?;
    }
    for (area, chart) in body.split_evenly((1, charts.len())).iter().zip(charts) {
        draw(area, chart, false)?;
    }
    root.present()?;
    Ok(())
}

/// From zero up, the value above each bar.
fn draw(area: &Area, bars: &Bars, legend: bool) -> Result<(), Box<dyn Error>> {
    let Bars { title, y, x, series, groups } = bars;
    let top = groups.iter().flat_map(|group| group.values.iter().flatten()).fold(0.0_f64, |a, b| a.max(*b)) * 1.15;
    let width = series.len() as f64 + 1.0;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", if legend { 20 } else { 16 }))
        .margin(16)
        .x_label_area_size(48)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..groups.len() as f64 * width, 0.0..top.max(0.001))?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .light_line_style(TRANSPARENT)
        .y_label_formatter(&|value: &f64| if top < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") })
        .y_desc(*y)
        .label_style(("sans-serif", 14))
        .axis_desc_style(("sans-serif", 15))
        .draw()?;
    for (s, name) in series.iter().enumerate() {
        let colour = COLOURS[s % COLOURS.len()];
        let drawn = groups.iter().enumerate().filter_map(|(g, group)| {
            let value = group.values.get(s).copied().flatten()?;
            let left = g as f64 * width + s as f64 + 0.5;
            Some(Rectangle::new([(left, 0.0), (left + 0.9, value)], colour.filled()))
        });
        chart
            .draw_series(drawn)?
            .label(*name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
    }
    let over = |size: u32, v| ("sans-serif", size).into_text_style(area).pos(Pos::new(HPos::Center, v));
    let mut middles = Vec::new();
    for (g, group) in groups.iter().enumerate() {
        for (s, value) in group.values.iter().enumerate() {
            let Some(value) = value else { continue };
            let (x, y) = chart.backend_coord(&(g as f64 * width + s as f64 + 0.95, *value));
            area.draw(&Text::new(short(*value), within(area, (x, y - 4)), over(13, VPos::Bottom)))?;
        }
        let (x, y) = chart.backend_coord(&((g as f64 + 0.5) * width, 0.0));
        middles.push(x);
        area.draw(&Text::new(group.label.clone(), within(area, (x, y + 8)), over(14, VPos::Top)))?;
    }
    let (_, floor) = chart.backend_coord(&(0.0, 0.0));
    let middle = middles.iter().sum::<i32>() / middles.len().max(1) as i32;
    area.draw(&Text::new((*x).to_owned(), within(area, (middle, floor + 28)), over(15, VPos::Top)))?;
    if legend {
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(0xcc, 0xcc, 0xcc))
            .position(SeriesLabelPosition::UpperLeft)
            .label_font(("sans-serif", 14))
            .draw()?;
    }
    Ok(())
}

/// A point of the sheet, counted from the corner of an area on it.
fn within(area: &Area, (x, y): (i32, i32)) -> (i32, i32) {
    let (left, top) = area.get_base_pixel();
    (x - left, y - top)
}

/// A number with three digits that mean something.
pub fn short(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}
