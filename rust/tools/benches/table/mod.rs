// SPDX-License-Identifier: GPL-2.0

//! Tables of a benchmark: a line of each size, so that what grows is seen to grow.

#![allow(dead_code)]

use std::time::Duration;

/// Begins a table.
pub fn head(what: &str, columns: &[&str]) {
    println!("\n{what}");
    line(&columns.iter().map(|c| c.to_string()).collect::<Vec<_>>());
}

/// A line of it.
pub fn line(cells: &[String]) {
    let cells: Vec<_> = cells.iter().map(|cell| format!("{cell:>14}")).collect();
    println!("{}", cells.join(" "));
}

/// Microseconds of each of `count`.
pub fn micros(time: Duration, count: u64) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e6 / count.max(1) as f64)
}

/// Milliseconds.
pub fn millis(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}
