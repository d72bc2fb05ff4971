//! A data directory, explained.
