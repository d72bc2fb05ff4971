//! The arguments of a command: spans of the input, or memory of their own.
//!
//! Pure.

use bytes::Bytes;

/// What keeping an argument costs beside its bytes, roughly.
const OVERHEAD: usize = 64;

/// Where an argument is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arg {
    /// In the input.
    Span(usize, usize),
    /// Among those with memory of their own.
    Own(usize),
}

/// The arguments of the present command.
#[derive(Debug, Default)]
pub struct Request {
    /// Where each is.
    pub args: Vec<Arg>,
    /// Those with memory of their own.
    pub own: Vec<Bytes>,
    /// Bytes of those with memory of their own.
    pub own_bytes: usize,
}

impl Request {
    /// Gives an argument memory of its own.
    pub fn keep(&mut self, bytes: Bytes) -> Arg {
        self.own_bytes += bytes.len();
        self.own.push(bytes);
        Arg::Own(self.own.len() - 1)
    }

    /// Bytes that it holds: of those with memory of their own, and for the places of all of them.
    pub fn held(&self) -> usize {
        self.own_bytes + self.args.capacity() * size_of::<Arg>() + self.own.capacity() * OVERHEAD
    }
}

/// The arguments of a command, its name the first.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    input: &'a [u8],
    request: &'a Request,
}

impl<'a> Args<'a> {
    /// Those of `request`, whose spans are of `input`.
    pub fn new(input: &'a [u8], request: &'a Request) -> Self {
        Self { input, request }
    }

    /// How many there are, the name included.
    pub fn len(&self) -> usize {
        self.request.args.len()
    }

    /// One of them; empty if there are not so many.
    #[inline]
    pub fn get(&self, at: usize) -> &'a [u8] {
        match self.request.args.get(at) {
            Some(Arg::Span(from, to)) => &self.input[*from..*to],
            Some(Arg::Own(own)) => &self.request.own[*own],
            None => &[],
        }
    }

    /// One of them, to keep: shared if it has memory of its own.
    pub fn bytes(&self, at: usize) -> Bytes {
        match self.request.args.get(at) {
            Some(Arg::Own(own)) => self.request.own[*own].clone(),
            _ => Bytes::copy_from_slice(self.get(at)),
        }
    }

    /// Those from `at` on.
    pub fn from(self, at: usize) -> impl Iterator<Item = &'a [u8]> + Clone {
        (at..self.len()).map(move |at| self.get(at))
    }

    /// Whether one is `word`, in whatever case.
    pub fn is(&self, at: usize, word: &str) -> bool {
        self.get(at).eq_ignore_ascii_case(word.as_bytes())
    }

    /// Bytes that it takes to keep all of them.
    pub fn held(&self) -> usize {
        self.from(0).map(|arg| arg.len() + OVERHEAD).sum()
    }

    /// All of them, to keep.
    pub fn keep(&self) -> Kept {
        let mut kept = Request::default();
        for at in 0..self.len() {
            let arg = kept.keep(self.bytes(at));
            kept.args.push(arg);
        }
        Kept(kept)
    }
}

/// The arguments of a command that runs later.
#[derive(Debug)]
pub struct Kept(Request);

impl Kept {
    /// The arguments.
    pub fn args(&self) -> Args<'_> {
        Args { input: &[], request: &self.0 }
    }

    /// How many bytes they have.
    pub fn bytes(&self) -> usize {
        self.0.own_bytes + self.0.own.len() * OVERHEAD
    }
}
