//! The sizes at which something changes on a value's way: the one table of them for tests of whole tiers.

use dstore_shared::limits::{CARRIED_BYTES_MAX, CHUNK_BYTES, UNARY_BYTES_MAX};

const K: usize = 1 << 10;
const M: usize = 1 << 20;

/// Around each boundary: nothing, inline in an index, carried, a piece, a message, a frame, the default limit of
/// gRPC libraries, several frames.
pub const SIZES: [usize; 20] = [
    0,
    1,
    16 * K - 1,
    16 * K,
    16 * K + 1,
    CARRIED_BYTES_MAX - 1,
    CARRIED_BYTES_MAX,
    CARRIED_BYTES_MAX + 1,
    CHUNK_BYTES,
    CHUNK_BYTES + 1,
    UNARY_BYTES_MAX - 1,
    UNARY_BYTES_MAX,
    UNARY_BYTES_MAX + 1,
    M - 1,
    M,
    M + 1,
    4 * M - 1,
    4 * M,
    4 * M + 1,
    10 * M + 7,
];
