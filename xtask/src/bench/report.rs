//! What was measured, as Markdown and as a picture.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;

use super::sides::{EMPTY, ENVOY};

/// The µs of each round, for each side.
pub(super) type Samples = Vec<(&'static str, Vec<f64>)>;

#[derive(Default)]
pub(super) struct Report {
    loads: Vec<(&'static str, Samples)>,
}

/// The quartiles.
pub(super) struct Spread(pub(super) [f64; 3]);

impl Spread {
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self([1, 2, 3].map(|quarter| values.get(values.len() * quarter / 4).copied().unwrap_or(f64::NAN)))
    }

    pub(super) fn median(&self) -> f64 {
        self.0[1]
    }
}

impl Report {
    pub(super) fn add(&mut self, load: &'static str, samples: Samples) {
        self.loads.push((load, samples));
    }

    pub(super) fn markdown(&self, rounds: u32) -> String {
        let mut text = format!(
            "CPU time of the worker thread for one operation: the median of {rounds} rounds, with the quartiles. A ratio is that of \
             the other's time to the side's in the same round: above 1.00 the side is cheaper.\n"
        );
        for (load, samples) in &self.loads {
            let _ = writeln!(text, "\n| {load} | µs | to {ENVOY} | to {EMPTY} |\n|---|---|---|---|");
            for (name, values) in samples {
                let Spread([low, median, high]) = Spread::of(values.iter().copied());
                let ratios = [ENVOY, EMPTY].map(|base| {
                    let Spread([low, median, high]) = ratio(samples, base, values);
                    format!("{median:.2} ({low:.2} to {high:.2})")
                });
                let _ = writeln!(text, "| {name} | {median:.1} ({low:.1} to {high:.1}) | {} |", ratios.join(" | "));
            }
        }
        text
    }

    /// A bar for each side and load: its ratio to Envoy alone.
    pub(super) fn draw(&self, file: &Path) -> Result<()> {
        let columns = 2;
        let rows = self.loads.len().div_ceil(columns);
        let picture = SVGBackend::new(file, (1100, 260 * u32::try_from(rows)?)).into_drawing_area();
        picture.fill(&WHITE)?;
        for (area, (load, samples)) in picture.split_evenly((rows, columns)).iter().zip(&self.loads) {
            let count = i32::try_from(samples.len())?;
            let mut chart = ChartBuilder::on(area)
                .caption(format!("{load}: CPU of Envoy alone / CPU"), ("sans-serif", 16))
                .margin(12)
                .x_label_area_size(24)
                .y_label_area_size(220)
                .build_cartesian_2d(0.0..1.4, (0..count - 1).into_segmented())?;
            let name = |at: &SegmentValue<i32>| match at {
                SegmentValue::CenterOf(at) | SegmentValue::Exact(at) => {
                    let side = usize::try_from(*at).ok().and_then(|at| samples.iter().rev().nth(at));
                    side.map_or_else(String::new, |(name, _)| (*name).to_owned())
                }
                SegmentValue::Last => String::new(),
            };
            chart
                .configure_mesh()
                .disable_y_mesh()
                .light_line_style(TRANSPARENT)
                .y_labels(samples.len())
                .y_label_formatter(&name)
                .draw()?;
            chart.draw_series((0..count).zip(samples.iter().rev()).map(|(at, (name, values))| {
                let ratio = ratio(samples, ENVOY, values).median();
                let color = if name.starts_with("this filter") { BLUE.mix(0.6) } else { BLACK.mix(0.3) };
                let mut bar = Rectangle::new(
                    [(0.0, SegmentValue::Exact(at)), (ratio, SegmentValue::Exact(at + 1))],
                    color.filled(),
                );
                bar.set_margin(3, 3, 0, 0);
                bar
            }))?;
        }
        Ok(picture.present()?)
    }
}

fn ratio(samples: &Samples, base: &str, values: &[f64]) -> Spread {
    let base = samples.iter().find(|(name, _)| *name == base).map(|(_, values)| values.as_slice()).unwrap_or_default();
    Spread::of(base.iter().zip(values).map(|(base, value)| base / value))
}
