//! Counters (per thread, one writer, summed by the reader), their text exposition, and logs. Must never know what a query or a
//! region is beyond the labels it is given.

pub mod answer_times;
pub mod classes;
pub mod counters;
pub mod logs;
pub mod metrics;
mod process;
pub mod query_log;
pub mod samples;

pub use classes::{DropReason, QtypeClass, TransportKind};
pub use counters::{AnswerKeys, AnswerLabels, AnswerSlots, Registry, Totals, WorkerCounters};
