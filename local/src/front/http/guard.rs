//! Who may be answered at all: requests for a host that this is, from no page of another origin, with headers of a
//! bounded size.
//!
//! A browser lets any page send requests to `127.0.0.1`, and a page whose host's name is rebound to it even read the
//! answers; there is nothing yet to tell such a page from a worker but what the browser says in `Host` and `Origin`.
//! An address cannot be rebound, so every address is taken for this host; of names `localhost` and those of the
//! configuration.

use super::problem::{Problem, Slug};
use axum::http::header::{EXPECT, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, Version};
use hyper::body::Body;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// The names that the door answers to, besides `localhost` and addresses.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Hosts(Arc<[String]>);

impl Hosts {
    /// These names, without ports.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// Whether `authority`, as a URL has it, with a port or not, is this host.
    fn have(&self, authority: &str) -> bool {
        let Some(host) = host_of(authority) else { return false };
        if let Some(bare) = host.strip_prefix('[') {
            return bare.strip_suffix(']').is_some_and(|bare| bare.parse::<Ipv6Addr>().is_ok());
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        let is = |name: &str| host.eq_ignore_ascii_case(name);
        is("localhost") || host.parse::<IpAddr>().is_ok() || self.0.iter().any(|name| is(name))
    }
}

/// An authority without its port. `None`: it is none, or has somebody's name and password.
fn host_of(authority: &str) -> Option<&str> {
    let port = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let host = match authority.rfind(']') {
        Some(end) => {
            let (host, rest) = authority.split_at(end + 1);
            (rest.is_empty() || rest.strip_prefix(':').is_some_and(port)).then_some(host)?
        }
        None => match authority.split_once(':') {
            Some((host, text)) => port(text).then_some(host)?,
            None => authority,
        },
    };
    (!host.is_empty() && !host.contains('@')).then_some(host)
}

/// Whether the caller waits to be told to go on before he sends the body: he is told when it is first asked for.
pub fn is_awaited(headers: &HeaderMap, version: Version) -> bool {
    // As hyper takes it.
    let last = headers.get_all(EXPECT).iter().next_back();
    version == Version::HTTP_11 && last.is_some_and(goes_on)
}

fn goes_on(word: &HeaderValue) -> bool {
    word.as_bytes().eq_ignore_ascii_case(b"100-continue")
}

/// Whether what the caller expects, if he does, is what is done: he is told to go on when the body is wanted.
///
/// # Errors
/// 417 for anything else, and over HTTP/2, where nobody is told to go on: he then sends the body without being told.
fn expected<B: Body>(request: &Request<B>) -> Result<(), Problem> {
    let mut words = request.headers().get_all(EXPECT).iter();
    let Some(first) = words.next() else { return Ok(()) };
    // Without a body there is nothing to wait for, and before HTTP/1.1 nobody was told.
    let is_moot = request.body().is_end_stream() || request.version() < Version::HTTP_11;
    if is_moot || goes_on(first) && words.next().is_none() && request.version() == Version::HTTP_11 {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::EXPECTATION_FAILED,
        Slug::Expectation,
        "what the header `Expect` asks for is not done here: only `100-continue` over HTTP/1.1 is, leave it out",
    ))
}

/// Whether `request` may be answered.
///
/// # Errors
/// 421 for another host, 400 for none, 403 for a page of another origin, 431 for too many bytes of headers, 417 for
/// another expectation than that of being told to go on.
pub fn check<B: Body>(request: &Request<B>, hosts: &Hosts, header_bytes: usize) -> Result<(), Problem> {
    let headers = request.headers();
    let uri = request.uri();
    let line = uri.path().len() + uri.query().map_or(0, str::len);
    let bytes =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>() + line;
    if bytes > header_bytes {
        let text = format!("the headers have `{bytes}` bytes with the path: send at most {header_bytes}");
        return Err(Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Slug::Headers, text));
    }
    let authority = one_host(headers)?;
    let named = uri.authority().map(axum::http::uri::Authority::as_str);
    let Some(host) = named.or(authority) else {
        let status = StatusCode::BAD_REQUEST;
        return Err(Problem::new(status, Slug::Host, "the request names no host: send the header `Host`"));
    };
    if !hosts.have(host) || authority.is_some_and(|authority| !hosts.have(authority)) {
        return Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            Slug::Host,
            "this is not the host that is asked for: use an address or localhost, or let `--http-host` name it",
        ));
    }
    let foreign = |origin: &[u8]| origin.strip_prefix(b"http://") != Some(host.as_bytes());
    let by_origin = headers.get_all(ORIGIN).iter().any(|origin| foreign(origin.as_bytes()));
    // An image or script of a page says no origin, but browsers say where it comes from; programs say neither.
    let crossed = |site: &[u8]| site != b"same-origin" && site != b"none";
    if by_origin || headers.get_all("sec-fetch-site").iter().any(|site| crossed(site.as_bytes())) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            Slug::Origin,
            "a page of another origin asks, and none is answered: ask from a program, or through a server of your own",
        ));
    }
    expected(request)
}

/// The header `Host`.
fn one_host(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut fields = headers.get_all(HOST).iter();
    let (first, more) = (fields.next(), fields.next());
    let text = first.map(|first| first.to_str()).transpose();
    match (text, more) {
        (Ok(host), None) => Ok(host),
        _ => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            Slug::Host,
            "the header `Host` is not one host: send one",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Version;

    fn judged(uri: &str, all: &[(&str, &str)]) -> Option<u16> {
        let hosts = Hosts::new(["Cache.Internal".to_owned()]);
        let mut request = Request::builder().uri(uri).version(Version::HTTP_11);
        for (name, value) in all {
            request = request.header(*name, *value);
        }
        let request = request.body(axum::body::Body::empty()).expect("a request");
        check(&request, &hosts, 1000).err().map(|problem| problem.status().as_u16())
    }

    #[test]
    fn what_is_expected_is_done_or_refused() {
        let of = |version, words: &[&str], body: &'static str| {
            let mut request = Request::builder().uri("/").version(version).header("host", "localhost");
            for words in words {
                request = request.header(EXPECT, *words);
            }
            let request = request.body(axum::body::Body::from(body)).expect("a request");
            let refused = check(&request, &Hosts::default(), 1000).err();
            let refused = refused.map(|problem| problem.status().as_u16());
            (refused, is_awaited(request.headers(), request.version()))
        };
        let (old, one, two) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
        assert_eq!(of(one, &["100-continue"], "body"), (None, true));
        assert_eq!(of(one, &["100-Continue"], "body"), (None, true));
        assert_eq!(of(one, &[], "body"), (None, false));
        assert_eq!(of(two, &[], "body"), (None, false));
        for other in [&["foo"][..], &[""], &["100-continue, foo"], &["100-continue", "100-continue"]] {
            assert_eq!(of(one, other, "body").0, Some(417), "{other:?}");
        }
        assert_eq!(of(one, &["foo"], "body"), (Some(417), false), "he waits for nothing");
        assert_eq!(of(two, &["100-continue"], "body"), (Some(417), false), "nobody could tell him");
        // What has no body is not waited for, and whoever speaks HTTP/1.0 is not told.
        assert_eq!((of(two, &["100-continue"], ""), of(one, &["foo"], "")), ((None, false), (None, false)));
        assert_eq!(of(old, &["100-continue"], "body"), (None, false));
    }

    #[test]
    fn only_this_host_is_answered_and_names_that_can_be_rebound_are_not() {
        for good in [
            "localhost",
            "LOCALHOST:80",
            "localhost.",
            "127.0.0.1",
            "127.0.0.1:50380",
            "127.9.9.9",
            "[::1]",
            "[::1]:1",
            "10.0.0.7:80",
            "cache.internal",
            "CACHE.internal:1",
        ] {
            assert_eq!(judged("/", &[("host", good)]), None, "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "cache.internal.evil",
            "",
            ":80",
            "localhost:x",
            "a@localhost",
            "[::1",
            "[localhost]",
            "[::1]x",
            "127.0.0.1:80:80",
            "0x7f.1",
            "1",
        ] {
            assert_eq!(judged("/", &[("host", bad)]), Some(421), "{bad}");
        }
        assert_eq!(judged("/", &[]), Some(400));
        assert_eq!(judged("/", &[("host", "localhost"), ("host", "localhost")]), Some(400));
    }

    #[test]
    fn an_authority_in_the_url_and_the_header_must_both_be_this_host() {
        assert_eq!(judged("http://localhost/", &[]), None, "HTTP/2 needs no header");
        assert_eq!(judged("http://localhost/", &[("host", "evil.example")]), Some(421));
        assert_eq!(judged("http://evil.example/", &[("host", "localhost")]), Some(421));
    }

    #[test]
    fn what_a_page_of_another_origin_loads_without_saying_its_origin_is_refused() {
        let of = |site| judged("/", &[("host", "localhost:5"), ("sec-fetch-site", site)]);
        assert!(["same-origin", "none"].iter().all(|site| of(site).is_none()));
        assert!(["cross-site", "same-site", ""].iter().all(|site| of(site) == Some(403)));
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let of = |origin| judged("/", &[("host", "localhost:5"), ("origin", origin)]);
        assert_eq!(of("http://localhost:5"), None);
        for bad in
            ["http://evil.example", "null", "https://localhost:5", "http://localhost", "http://localhost:6"]
        {
            assert_eq!(of(bad), Some(403), "{bad}");
        }
    }

    #[test]
    fn headers_are_bounded_with_the_path() {
        let long = "x".repeat(1000);
        assert_eq!(judged("/", &[("host", "localhost"), ("a", &long)]), Some(431));
        assert_eq!(judged(&format!("/{long}"), &[("host", "localhost")]), Some(431));
    }
}
