//! The Local tier.

pub mod repl;
