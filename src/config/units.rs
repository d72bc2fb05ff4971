//! Sizes and durations as people write them, read strictly: digits and a unit, nothing else.

use std::time::Duration;

const SIZES: [(&str, u64); 8] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

const DURATIONS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// Bytes, from `256MiB` and the like. The error says what is wrong.
pub fn size(text: &str) -> Result<u64, String> {
    number_and_unit(text, &SIZES)
        .ok_or_else(|| format!("`{text}` is not a size: write one like 256MiB or 1GiB"))
}

/// A time, from `2s` and the like. The error says what is wrong.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration: write one like 100ms, 2s or 5m");
    number_and_unit(text, &DURATIONS).map(Duration::from_millis).ok_or_else(wrong)
}

fn number_and_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_digits_and_a_unit() {
        let table = [
            ("0B", 0),
            ("1B", 1),
            ("256MiB", 256 << 20),
            ("1GiB", 1 << 30),
            ("3KB", 3_000),
            ("16777215TiB", 16_777_215 << 40),
        ];
        for (text, bytes) in table {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "1",
            "MiB",
            "1 MiB",
            "1mib",
            "1.5GiB",
            "-1MiB",
            "+1MiB",
            "1MiB ",
            "16777216TiB",
            "1M",
            "٣MiB",
        ] {
            assert!(size(text).expect_err(text).contains("is not a size: write one like"), "{text}");
        }
    }

    #[test]
    fn durations_are_digits_and_a_unit() {
        let table = [("100ms", 100), ("2s", 2_000), ("5m", 300_000), ("1h", 3_600_000), ("0s", 0)];
        for (text, millis) in table {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "2",
            "s",
            "2 s",
            "2S",
            "1.5s",
            "-2s",
            "2sec",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
