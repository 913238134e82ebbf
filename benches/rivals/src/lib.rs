//! What benchmarks with rivals have in common: rounds in which everybody takes a turn, checked results, a watch over
//! what else the machine does, and a report for people and for programs.
//!
//! A benchmark says what its [jobs](contest::Job) are, who [takes part](contest::Contestant), and which
//! [rows](contest::Row) to print; [`contest::run`] does the rest.

pub mod contest;
pub mod curves;
pub mod machine;
pub mod options;
pub mod picture;
pub mod report;
pub mod stats;
