//! The doors of a Local beside its own gRPC: wires that clients speak which nobody here wrote.

pub mod resp;
