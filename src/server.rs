//! The one place that wires the rooms together and owns start, reload and stop.
