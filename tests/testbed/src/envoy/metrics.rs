//! Reading Prometheus's text format: enough for the series that Envoy prints, of which each is on
//! a line of its own, `name{label="value",…} number`.

/// The sum of all series of this name whose labels include `labels`.
pub fn sum_of_metric(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let matching = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, written) = series.split_once('{')?;
        let written = format!(",{}", written.strip_suffix('}')?);
        let has = |(label, value): &(&str, &str)| written.contains(&format!(",{label}=\"{value}\""));
        (found == name && labels.iter().all(has)).then(|| value.parse::<f64>().ok())?
    });
    matching.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_found_by_name_and_labels_and_summed() {
        let text = "# TYPE a counter\na{} 1\na{hub=\"/chat\",code=\"1000\"} 2\na{hub=\"/chat\",code=\"1001\"} 3\nab{hub=\"/chat\"} 9\n";
        let table = [
            ("all of a name", "a", vec![], 6.0),
            ("one label", "a", vec![("hub", "/chat")], 5.0),
            ("two labels", "a", vec![("code", "1001"), ("hub", "/chat")], 3.0),
            ("no such value", "a", vec![("hub", "/cha")], 0.0),
            ("no such name", "b", vec![], 0.0),
        ];
        for (name, metric, labels, expected) in table {
            assert_eq!(sum_of_metric(text, metric, &labels), expected, "{name}");
        }
    }
}
