//! Bars beside their baseline, as SVG.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

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

/// Draws groups of bars from zero up, one colour a series, the value above each bar.
pub fn bars(path: &Path, title: &str, unit: &str, series: &[&str], groups: &[Group]) -> Result<(), Box<dyn Error>> {
    let top = groups.iter().flat_map(|group| group.values.iter().flatten()).fold(0.0_f64, |a, b| a.max(*b)) * 1.15;
    let root = SVGBackend::new(path, (920, 460)).into_drawing_area();
    root.fill(&WHITE)?;
    let width = series.len() as f64 + 1.0;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..groups.len() as f64 * width, 0.0..top.max(0.001))?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .y_desc(unit)
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
    for (g, group) in groups.iter().enumerate() {
        for (s, value) in group.values.iter().enumerate() {
            let Some(value) = value else { continue };
            let at = (g as f64 * width + s as f64 + 0.6, *value + top * 0.035);
            chart.draw_series([Text::new(short(*value), at, ("sans-serif", 12))])?;
        }
        let middle = g as f64 * width + 0.5;
        let (x, y) = chart.backend_coord(&(middle, 0.0));
        root.draw(&Text::new(group.label.clone(), (x, y + 10), ("sans-serif", 14)))?;
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(0xcc, 0xcc, 0xcc))
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(("sans-serif", 14))
        .draw()?;
    root.present()?;
    Ok(())
}

/// A number with three digits that mean something.
pub fn short(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}
