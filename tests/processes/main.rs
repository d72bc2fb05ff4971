//! Real `dstore` processes over loopback: what they must withstand, each test a sentence.
//!
//! Locals reach Global through a [`wire::Wire`], which can hold, cut and count what passes; so a Global that is
//! started again may take another port. Daemons are ended by their own id, also when a test fails, and what
//! they wrote to standard error is then shown. Tests that run long are `#[ignore]`d:
//! `cargo test --test processes -- --ignored --nocapture`.

#[path = "../boundaries/mod.rs"]
mod boundaries;

mod contention;
mod damage;
mod gone;
mod limits;
mod modes;
mod restart;
mod rig;
mod sizes;
mod start;
mod storm;
mod wire;
