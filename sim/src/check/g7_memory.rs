//! G7: what a Local keeps fits the bytes that it was given, at every moment at which it is looked at.

use dstore_local::Node;
use dstore_proto::store::Store;

/// What is over its bound.
pub async fn look(node: &Node, cache_bytes: u64) -> Vec<String> {
    let stats = node.cache_stats();
    let mut wrong = Vec::new();
    if stats.bytes() > cache_bytes {
        wrong.push(format!("G7: {} bytes in a cache of {cache_bytes}", stats.bytes()));
    }
    let Ok(status) = node.status().await else { return wrong };
    let fact = |name: &str| {
        let found = status.facts.iter().find(|(fact, _)| fact == name);
        found.and_then(|(_, value)| value.parse::<u64>().ok())
    };
    match (fact("held_bytes"), fact("held_bytes_max")) {
        (Some(held), Some(max)) if held <= max => {}
        (held, max) => wrong.push(format!("G7: {held:?} bytes of values on their way, at most {max:?}")),
    }
    wrong
}
