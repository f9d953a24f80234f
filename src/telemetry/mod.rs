//! Counters (per thread, one writer, summed by the reader) and logs.
