//! Redis's patterns: `*`, `?`, `[a-c]`, `[^x]` and `\` before any of them.
//!
//! Pure. Time grows with pattern times text, whatever the pattern: a star is come back to only for the last one.

/// The longest pattern: what fits a key is no longer, each byte of it escaped or in a class of a few.
pub const PATTERN_MAX: usize = 8 << 10;

/// Whether `pattern` fits all of `text`. One that is too long fits nothing.
pub fn fits(pattern: &[u8], text: &[u8]) -> bool {
    if pattern.len() > PATTERN_MAX {
        return false;
    }
    let (mut p, mut t) = (0, 0);
    // Where the last star is, and how much of the text it takes.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
            continue;
        }
        if let Some(next) = one(pattern, p, text[t]) {
            (p, t) = (next, t + 1);
            continue;
        }
        let Some((after, taken)) = star else { return false };
        star = Some((after, taken + 1));
        (p, t) = (after, taken + 1);
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// What the texts that fit begin with.
pub fn prefix(pattern: &[u8]) -> Vec<u8> {
    let (mut prefix, mut at) = (Vec::new(), 0);
    while let Some(byte) = pattern.get(at) {
        match byte {
            b'*' | b'?' | b'[' => break,
            b'\\' if at + 1 < pattern.len() => at += 1,
            _ => {}
        }
        prefix.push(pattern[at]);
        at += 1;
    }
    prefix
}

/// Whether one byte fits what stands at `p`; gives where the pattern goes on.
fn one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => class(pattern, p + 1, byte),
        b'\\' if p + 1 < pattern.len() => (pattern[p + 1] == byte).then_some(p + 2),
        literal => (*literal == byte).then_some(p + 1),
    }
}

/// A class that begins after `[`. One that is not closed ends with the pattern.
fn class(pattern: &[u8], mut p: usize, byte: u8) -> Option<usize> {
    let not = pattern.get(p) == Some(&b'^');
    p += usize::from(not);
    let mut fits = false;
    loop {
        match pattern.get(p) {
            None => break,
            Some(b']') => {
                p += 1;
                break;
            }
            Some(b'\\') if p + 1 < pattern.len() => {
                fits |= pattern[p + 1] == byte;
                p += 2;
            }
            Some(first) if pattern.get(p + 1) == Some(&b'-') && p + 2 < pattern.len() => {
                let last = pattern[p + 2];
                fits |= (*first.min(&last)..=*first.max(&last)).contains(&byte);
                p += 3;
            }
            Some(literal) => {
                fits |= *literal == byte;
                p += 1;
            }
        }
    }
    (fits != not).then_some(p)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_redis_says() {
        for (pattern, text, wanted) in [
            ("*", "", true),
            ("*", "a", true),
            ("", "", true),
            ("", "a", false),
            ("a*c", "abbc", true),
            ("a*c", "abbcd", false),
            ("a**c", "ac", true),
            ("*a*b*", "xxaxxbxx", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hbllo", true),
            ("h[a-b]llo", "hcllo", false),
            (r"a\*b", "a*b", true),
            (r"a\*b", "axb", false),
            (r"[\]]", "]", true),
            ("[abc", "a", true),
            ("a*b", "aXbXb", true),
            ("*.rs", "x.rs.rs", true),
        ] {
            assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), wanted, "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_takes_no_longer_than_text_times_pattern() {
        let pattern = "a*".repeat(500) + "b";
        assert!(!fits(pattern.as_bytes(), &[b'a'; 10_000]));
    }

    #[test]
    fn the_prefix_of_a_pattern_is_what_all_that_fits_begins_with() {
        for (pattern, wanted) in
            [("*", ""), ("ab*", "ab"), (r"a\*b?", "a*b"), ("a[b]c", "a"), ("abc", "abc"), (r"a\", r"a\")]
        {
            assert_eq!(prefix(pattern.as_bytes()), wanted.as_bytes(), "{pattern}");
        }
    }
}
