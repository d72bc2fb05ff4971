//! How many names and values one call may have: what every tier checks alike.

use super::SetOne;
use dstore_shared::limits::{
    DELETE_NAME_BYTES_MAX, DELETE_NAMES_MAX, GET_MANY_BYTES_MAX, GET_MANY_NAMES_MAX, SET_MANY_BYTES_MAX,
    SET_MANY_NAMES_MAX,
};
use dstore_shared::{Entry, Error, Name, Result};

/// Whether one `get_many` or `stat_many` may have these names.
///
/// # Errors
/// `TooLarge`.
pub fn check_names(names: &[Name]) -> Result<()> {
    few(names, GET_MANY_NAMES_MAX)
}

/// Whether one `exists` may have these names.
///
/// # Errors
/// `TooLarge`.
pub fn check_exists(names: &[Name]) -> Result<()> {
    few(names, DELETE_NAMES_MAX)
}

fn few(names: &[Name], max: usize) -> Result<()> {
    let (n, bytes) = (names.len(), names.iter().map(|name| name.as_bytes().len()).sum::<usize>());
    if n <= max && bytes <= DELETE_NAME_BYTES_MAX {
        return Ok(());
    }
    Err(Error::too_large(format!(
        "`{n}` names of `{bytes}` bytes in one call: at most {max} of {DELETE_NAME_BYTES_MAX} bytes together, ask in \
         several calls"
    )))
}

/// Whether one `get_many` may give the values that `entries` tell of.
///
/// # Errors
/// `TooLarge`.
pub fn check_bytes<'a>(entries: impl Iterator<Item = &'a Entry>) -> Result<()> {
    let bytes = entries.fold(0u64, |sum, entry| sum.saturating_add(entry.size));
    if bytes <= GET_MANY_BYTES_MAX {
        return Ok(());
    }
    Err(Error::too_large(format!(
        "the values have `{bytes}` bytes together: at most {GET_MANY_BYTES_MAX} in one call, ask for fewer names"
    )))
}

/// Whether one `set_many` may have these values.
///
/// # Errors
/// `TooLarge`.
pub fn check_sets(sets: &[SetOne]) -> Result<()> {
    let weight = |one: &SetOne| one.name.as_bytes().len() + one.value.bytes().len() + one.attributes.weight();
    let (n, bytes) = (sets.len(), sets.iter().map(weight).sum::<usize>());
    if n <= SET_MANY_NAMES_MAX && bytes <= SET_MANY_BYTES_MAX {
        return Ok(());
    }
    Err(Error::too_large(format!(
        "`{n}` values of `{bytes}` bytes with their names in one call: at most {SET_MANY_NAMES_MAX} of \
         {SET_MANY_BYTES_MAX} bytes together, set in several calls"
    )))
}
