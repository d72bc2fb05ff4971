//! G3: what was acknowledged is there, as long as the run lasts and after it.
//!
//! That no crash lost anything the search for one order says (`g2_one_order`): a lost change is a read that nothing
//! explains. Here: at the end everybody reads the same. What a loss of power then leaves, and what becomes of its
//! blobs, `epilogue.rs` looks at.

use super::Evidence;

/// What the Locals disagree about at the end.
pub fn judge(evidence: &Evidence<'_>) -> Vec<String> {
    let mut views = evidence.looked.values();
    let Some(first) = views.next() else { return Vec::new() };
    if views.any(|view| view != first) {
        return vec![format!("G3: the Locals disagree at the end: {:?}", evidence.looked)];
    }
    Vec::new()
}
