//! stub

pub mod blob_flight;
pub mod cache;
