//! `cargo xtask pictures`: the pictures of `docs/images`.
//!
//! Visitors chat on the page of `examples/chat` for some minutes, a pod is killed meanwhile, and a real Prometheus looks on. The
//! pictures are of the page, and of what panels of the dashboard show of it: Grafana itself is not needed.
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use plotters::coord::Shift;
use plotters::prelude::*;
use serde_json::{Value, json};
use testbed::clients::drive_chromium;
use testbed::process::{run_dir, wait_for};
use testbed::prometheus::Prometheus;
use testbed::tools::{self, PrometheusVersion};
use testbed::workspace;

use crate::gateways::Gateways;

/// The panels to draw, by their titles in the dashboard.
const PANELS: [&str; 4] =
    ["Connections by transport", "Connections opened by transport", "Messages a second", "Affinity by outcome"];

/// How long visitors stay when all have come, and when a pod is killed.
const VISIT: Duration = Duration::from_secs(120);
const POD_DIES: Duration = Duration::from_secs(40);

/// No picture is larger, in bytes.
const LARGEST: u64 = 250_000;

pub(crate) fn make() -> Result<()> {
    let programs = tools::prometheus(PrometheusVersion::Three)?;
    let mut gateways = Gateways::start()?;
    let prometheus = Prometheus::start(&programs, &[gateways.with.metrics()], &[])?;
    let drawn = run_dir()?.join("pictures");
    fs::create_dir_all(&drawn)?;
    println!("Visitors chat for {} s.", VISIT.as_secs());
    let arrived = run_dir()?.join("arrived");
    let options = json!({ "page": gateways.page, "seconds": VISIT.as_secs(), "folder": drawn, "arrived": arrived });
    let visitors = thread::spawn(move || drive_chromium::<Value>("pictures.mjs", &options));
    wait_for("the visitors to connect", || arrived.exists() || visitors.is_finished())?;
    thread::sleep(POD_DIES);
    gateways.hubs.first_mut().context("there are hubs")?.kill();
    visitors.join().map_err(|_| anyhow!("the thread that drove the visitors panicked"))??;
    draw(&prometheus, &drawn.join("metrics.svg"))?;
    keep(&drawn, &workspace().join("docs/images"))
}

/// Puts pictures where the documentation has them.
fn keep(drawn: &Path, images: &Path) -> Result<()> {
    fs::create_dir_all(images)?;
    for entry in fs::read_dir(drawn)? {
        let entry = entry?;
        let (bytes, image) = (entry.metadata()?.len(), images.join(entry.file_name()));
        ensure!(bytes <= LARGEST, "{} would have {bytes} bytes", image.display());
        fs::copy(entry.path(), &image)?;
        println!("{} ({} kB)", image.display(), bytes / 1000);
    }
    Ok(())
}

/// What one line of a panel shows: its name, and numbers by the second.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

fn draw(prometheus: &Prometheus, to: &Path) -> Result<()> {
    let text = fs::read_to_string(workspace().join("envoy/grafana/dashboards/signalr.json"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let panels = dashboard["panels"].as_array().context("the dashboard has panels")?;
    let picture = SVGBackend::new(to, (1000, 560)).into_drawing_area();
    picture.fill(&WHITE)?;
    for (area, title) in picture.split_evenly((2, 2)).iter().zip(PANELS) {
        let panel = panels.iter().find(|panel| panel["title"] == title);
        let panel = panel.with_context(|| format!("the dashboard has no panel `{title}`"))?;
        draw_panel(area, title, &lines(prometheus, panel)?)?;
    }
    Ok(picture.present()?)
}

/// The lines of a panel, from the beginning of the visit on.
fn lines(prometheus: &Prometheus, panel: &Value) -> Result<Vec<Line>> {
    let expression = panel["targets"][0]["expr"].as_str().context("a panel has an expression")?;
    let expression = expression.replace("$__rate_interval", "10s").replace("$hub", ".*");
    let series = prometheus.query_last(&expression, VISIT)?;
    let first = |series: &Value| series["values"][0][0].as_f64();
    let Some(start) = series.iter().filter_map(first).min_by(f64::total_cmp) else { bail!("no data: {expression}") };
    let line = |series: &Value| {
        let labels: Option<Vec<_>> =
            series["metric"].as_object().map(|labels| labels.values().filter_map(Value::as_str).collect());
        let points = series["values"].as_array().map(|values| values.iter().filter_map(|value| point(value, start)));
        Line { name: labels.unwrap_or_default().join(", "), points: points.into_iter().flatten().collect() }
    };
    Ok(series.iter().map(line).collect())
}

/// A time and a number, as Prometheus writes them.
fn point(value: &Value, start: f64) -> Option<(f64, f64)> {
    let number: f64 = value[1].as_str()?.parse().ok()?;
    number.is_finite().then_some((value[0].as_f64()? - start, number))
}

fn draw_panel(area: &DrawingArea<SVGBackend, Shift>, title: &str, lines: &[Line]) -> Result<()> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let highest = |values: &mut dyn Iterator<Item = f64>| values.fold(1.0, f64::max);
    let x: Range<f64> = 0.0..highest(&mut points().map(|(second, _)| *second));
    // Room for the names above the lines.
    let y: Range<f64> = 0.0..1.6 * highest(&mut points().map(|(_, number)| *number));
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(24)
        .y_label_area_size(36)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|second| format!("{second} s"))
        .draw()?;
    for (number, Line { name, points }) in lines.iter().enumerate() {
        let style = Palette99::pick(number).stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], style));
    }
    chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).background_style(WHITE.mix(0.8)).draw()?;
    Ok(())
}
