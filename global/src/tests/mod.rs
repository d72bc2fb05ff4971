//! A whole Global on a simulated disk: its life, and the power cut at every moment of it.

mod images;
mod life;
mod points;
mod rot;

/// A number that a developer gives, or `default`.
fn given(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
