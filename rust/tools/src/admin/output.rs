// SPDX-License-Identifier: GPL-2.0

//! Answers as text for people and as JSON for scripts; sizes and times as both write them.

use comfy_table::{presets, CellAlignment, ContentArrangement, Table};
use serde_json::Value;
use std::io::IsTerminal;

/// What a command has to say.
#[derive(Debug)]
pub struct Answer {
    /// For scripts.
    pub json: Value,
    /// For people; nothing, or whole lines.
    pub text: String,
}

/// A table with these headings; a `>` before one aligns its column to the right.
pub fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_preset(if std::io::stdout().is_terminal() {
            presets::UTF8_HORIZONTAL_ONLY
        } else {
            presets::NOTHING
        })
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(headings.iter().map(|name| name.trim_start_matches('>')))
        .add_rows(rows);
    for (column, name) in table.column_iter_mut().zip(headings) {
        if name.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    lines(table.to_string().lines())
}

/// Names and values below each other.
pub fn fields(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    lines(
        rows.iter()
            .map(|(name, value)| format!("{:<width$}{value}", format!("{name}:"))),
    )
}

/// Lines as a text, without spaces at their ends.
pub fn lines(lines: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(line.as_ref().trim_end());
        text.push('\n');
    }
    text
}

/// A JSON value as one line: `name=value` for objects.
pub fn inline(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let pairs: Vec<String> = map
                .iter()
                .map(|(name, value)| format!("{name}={}", inline(value)))
                .collect();
            pairs.join(" ")
        }
        Value::Array(list) => {
            let list: Vec<String> = list.iter().map(inline).collect();
            format!("[{}]", list.join(", "))
        }
        Value::String(text) if !text.is_empty() && !text.contains([' ', '"']) => text.clone(),
        other => other.to_string(),
    }
}

/// Bytes as people read them: `1.5 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let unit = (bytes.ilog2() / 10) as usize;
    let scale = 1u64 << (10 * unit);
    let whole = bytes / scale;
    // One digit after the point, cut: never more than there is.
    let tenths = (bytes % scale) / (scale / 1024) * 10 / 1024;
    match tenths {
        0 => format!("{whole} {}", UNITS[unit - 1]),
        _ => format!("{whole}.{tenths} {}", UNITS[unit - 1]),
    }
}

/// Bytes from a number with an optional unit, which is a power of 1024: `4096`, `8G`, `8GiB`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KIB" => 10,
        "M" | "MIB" => 20,
        "G" | "GIB" => 30,
        "T" | "TIB" => 40,
        unit => return Err(format!("the unit {unit} is none of K, M, G, T")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "give a whole number with a unit, like 512M or 8G".to_string())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "too large".to_string())
}

/// Seconds since 1970 as `2026-11-22 20:15:07 UTC`.
pub fn time(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // "Euclidean affine functions and their application to calendar algorithms": years begin in
    // March, so that the day that comes and goes is the last one.
    let day = days.saturating_add(719_468);
    let (era, day_of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(4096), "4 KiB");
        assert_eq!(size(1536 << 20), "1.5 GiB");
        assert_eq!(size(u64::MAX), "15.9 EiB");
        assert_eq!(parse_size("8G"), Ok(8 << 30));
        assert_eq!(parse_size("512mib"), Ok(512 << 20));
        assert_eq!(parse_size("4096"), Ok(4096));
        for wrong in ["", "G", "1.5G", "-1", "8X", "99999999T", "8 G"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(time(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(time(951_827_696), "2000-02-29 12:34:56 UTC");
        assert_eq!(time(1_795_378_507), "2026-11-22 20:15:07 UTC");
        assert_eq!(time(-1), "1969-12-31 23:59:59 UTC");
        // What a damaged volume says must not end the program.
        time(i64::MAX);
        time(i64::MIN);
    }

    #[test]
    fn one_line() {
        let value = serde_json::json!({"a": 1, "b": "x y", "c": [1, {"d": null}]});
        assert_eq!(inline(&value), "a=1 b=\"x y\" c=[1, d=null]");
    }
}
