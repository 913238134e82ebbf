//! Numbers from samples, and how they are written.

/// The middle of `samples`, which are not empty.
#[must_use]
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// The sample below which the given share of `samples` lies; they are not empty.
#[must_use]
pub fn percentile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() as f64 * share) as usize).min(sorted.len() - 1)]
}

/// With three digits that count: `0.583`, `63.1`, `1430`, `107 k`, `2.93 M`.
#[must_use]
pub fn number(value: f64) -> String {
    let digits = |value: f64| {
        let whole = value.abs().max(1e-9).log10().floor() as i32;
        format!("{value:.*}", (2 - whole).clamp(0, 3) as usize)
    };
    match value.abs() {
        0.0 => "0".into(),
        ..1e4 => digits(value),
        ..1e6 => digits(value / 1e3) + " k",
        _ => digits(value / 1e6) + " M",
    }
}

/// To four digits that count: more would only be noise.
#[must_use]
pub fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let unit = 10_f64.powi(3 - value.abs().log10().floor() as i32);
    (value * unit).round() / unit
}
