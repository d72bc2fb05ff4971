//! Redis's patterns: `*`, `?`, `[a-c]`, `[^x]` and `\` before any of them.
//!
//! Pure. Time grows with pattern times text, whatever the pattern: a star is come back to only for the last one.

/// The longest pattern.
pub const PATTERN_MAX: usize = 1 << 10;

/// A pattern that was read.
#[derive(Debug)]
pub struct Pattern(Vec<Token>);

#[derive(Debug)]
enum Token {
    Star,
    Any,
    Byte(u8),
    /// A bit for each byte.
    Class(Box<[u64; 4]>),
}

impl Token {
    fn fits(&self, byte: u8) -> bool {
        match self {
            Self::Star => false,
            Self::Any => true,
            Self::Byte(own) => *own == byte,
            Self::Class(bits) => bits[usize::from(byte / 64)] & (1 << (byte % 64)) != 0,
        }
    }
}

impl Pattern {
    /// Reads a pattern. `None`: it is too long.
    pub fn new(pattern: &[u8]) -> Option<Self> {
        if pattern.len() > PATTERN_MAX {
            return None;
        }
        let (mut tokens, mut p) = (Vec::new(), 0);
        while let Some(byte) = pattern.get(p) {
            p += 1;
            tokens.push(match byte {
                b'*' => Token::Star,
                b'?' => Token::Any,
                b'[' => class(pattern, &mut p),
                b'\\' if p < pattern.len() => {
                    p += 1;
                    Token::Byte(pattern[p - 1])
                }
                literal => Token::Byte(*literal),
            });
        }
        Some(Self(tokens))
    }

    /// What a look at a text of so many bytes may cost, at most.
    pub fn cost(&self, text: usize) -> usize {
        text.saturating_mul(self.0.len().max(1))
    }

    /// Whether it fits all of `text`.
    pub fn fits(&self, text: &[u8]) -> bool {
        let (mut p, mut t) = (0, 0);
        // Where the last star is, and how much of the text it takes.
        let mut star: Option<(usize, usize)> = None;
        while t < text.len() {
            match self.0.get(p) {
                Some(Token::Star) => {
                    star = Some((p + 1, t));
                    p += 1;
                }
                Some(token) if token.fits(text[t]) => (p, t) = (p + 1, t + 1),
                _ => {
                    let Some((after, taken)) = star else { return false };
                    star = Some((after, taken + 1));
                    (p, t) = (after, taken + 1);
                }
            }
        }
        self.0[p..].iter().all(|token| matches!(token, Token::Star))
    }
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

/// A class that begins at `p`, after `[`. One that is not closed ends with the pattern.
fn class(pattern: &[u8], p: &mut usize) -> Token {
    let not = pattern.get(*p) == Some(&b'^');
    *p += usize::from(not);
    let mut bits = [0_u64; 4];
    let mut add = |first: u8, last: u8| {
        for byte in first.min(last)..=first.max(last) {
            bits[usize::from(byte / 64)] |= 1 << (byte % 64);
        }
    };
    while let Some(first) = pattern.get(*p) {
        match (first, pattern.get(*p + 1), pattern.get(*p + 2)) {
            (b']', ..) => {
                *p += 1;
                break;
            }
            (b'\\', Some(literal), _) => {
                add(*literal, *literal);
                *p += 2;
            }
            (_, Some(b'-'), Some(last)) => {
                add(*first, *last);
                *p += 3;
            }
            _ => {
                add(*first, *first);
                *p += 1;
            }
        }
    }
    Token::Class(Box::new(if not { bits.map(|bits| !bits) } else { bits }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &[u8], text: &[u8]) -> bool {
        Pattern::new(pattern).is_some_and(|pattern| pattern.fits(text))
    }

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
    fn a_pattern_has_a_bound_and_a_class_costs_as_much_as_a_byte() {
        assert!(
            Pattern::new(&[b'a'; PATTERN_MAX]).is_some() && Pattern::new(&[b'a'; PATTERN_MAX + 1]).is_none()
        );
        let class = Pattern::new(format!("[{}]", "a-z".repeat(300)).as_bytes()).expect("short enough");
        assert_eq!(class.cost(1000), 1000);
        assert!(class.fits(b"m") && !class.fits(b"A"));
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
