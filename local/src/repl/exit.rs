//! The exit codes of `dstore`, one meaning each.

use dstore_shared::Kind;

/// Done.
pub const OK: u8 = 0;
/// A key that was asked for is not there.
pub const NOT_FOUND: u8 = 1;
/// The command, a flag or the configuration is wrong.
pub const USAGE: u8 = 2;
/// The key is occupied by other bytes, or another precondition does not hold.
pub const OCCUPIED: u8 = 3;
/// The node or Global cannot be reached, or did not answer in time.
pub const UNREACHABLE: u8 = 4;
/// Not allowed.
pub const DENIED: u8 = 5;
/// Bytes do not match their hash.
pub const INTEGRITY: u8 = 6;
/// A key, value or line is too large, or a quota or disk is full.
pub const TOO_LARGE: u8 = 7;
/// The change is not durable yet and goes on.
pub const PENDING: u8 = 8;
/// A defect of dstore, or standard output cannot be written. The number is `EX_SOFTWARE` of `sysexits.h`.
pub const SOFTWARE: u8 = 70;
/// Ended by Ctrl-C, as shells number it.
pub const INTERRUPTED: u8 = 130;

/// The code of an error of `kind`.
pub const fn of(kind: Kind) -> u8 {
    match kind {
        Kind::Invalid => USAGE,
        Kind::Occupied | Kind::TooOld => OCCUPIED,
        Kind::Unavailable | Kind::Closed => UNREACHABLE,
        Kind::Denied => DENIED,
        Kind::Corrupt => INTEGRITY,
        Kind::TooLarge | Kind::Exhausted => TOO_LARGE,
        Kind::Pending => PENDING,
        Kind::Internal => SOFTWARE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_has_its_documented_code() {
        let codes = Kind::ALL.map(|kind| (kind, of(kind)));
        let documented = [
            (Kind::Occupied, 3),
            (Kind::Invalid, 2),
            (Kind::TooLarge, 7),
            (Kind::Exhausted, 7),
            (Kind::Denied, 5),
            (Kind::Unavailable, 4),
            (Kind::Corrupt, 6),
            (Kind::Closed, 4),
            (Kind::Pending, 8),
            (Kind::TooOld, 3),
            (Kind::Internal, 70),
        ];
        assert_eq!(codes, documented);
    }
}
