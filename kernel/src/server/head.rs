//! The head of a request: parsed, and judged before anything else is read.

use super::reply::Refusal;
use std::net::IpAddr;

/// Longest head.
pub(super) const MAX_HEAD: usize = 16 << 10;
/// Headers of one request.
const MAX_HEADERS: usize = 64;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Post,
    Other,
}

/// The head of a request.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) method: Method,
    /// Without a query string.
    pub(super) path: String,
    /// The connection goes on after the answer.
    pub(super) keep: bool,
    /// Bytes of the body.
    pub(super) length: u64,
    /// The client waits to be told to send the body.
    pub(super) expects: bool,
    pub(super) accept: Option<String>,
    pub(super) range: Option<String>,
    pub(super) if_range: Option<String>,
    pub(super) if_match: Option<String>,
    pub(super) if_none_match: Option<String>,
}

/// Parses a head from the first bytes of a connection. `Ok(None)` when more are needed; else the head and its length.
pub(super) fn parse(bytes: &[u8], hosts: &[String]) -> Result<Option<(Head, usize)>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) => {
            return Err(Refusal::new(431, format!("the request's head is longer than {MAX_HEAD} bytes")));
        }
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::new(431, format!("more than {MAX_HEADERS} headers")));
        }
        Err(httparse::Error::Version) => {
            return Err(Refusal::new(505, "only HTTP/1.0 and HTTP/1.1 are spoken here"));
        }
        Err(e) => return Err(Refusal::new(400, format!("this is no HTTP request: {e}"))),
    };
    if len > MAX_HEAD {
        return Err(Refusal::new(431, format!("the request's head is longer than {MAX_HEAD} bytes")));
    }
    let old = request.version == Some(0);
    let headers = Headers(request.headers);
    if headers.all("transfer-encoding").next().is_some() {
        return Err(Refusal::new(411, "bodies are taken with a Content-Length only, not in chunks"));
    }
    if headers.one("content-encoding")?.is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return Err(Refusal::new(415, "the body is compressed; send it as it is"));
    }
    let length = match headers.one("content-length")? {
        None => None,
        // No sign, no blank: two readers of this number must never differ.
        Some(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            Some(text.parse::<u64>().map_err(|_| Refusal::new(413, "the body is longer than any number"))?)
        }
        Some(_) => return Err(Refusal::new(400, "the Content-Length is not a number")),
    };
    let method = match request.method.unwrap_or_default() {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        _ => Method::Other,
    };
    if method == Method::Post && length.is_none() {
        return Err(Refusal::new(411, "a POST needs a Content-Length"));
    }
    let host = headers.one("host")?;
    match host {
        None if old => {}
        None => return Err(Refusal::new(400, "an HTTP/1.1 request needs a Host")),
        Some(host) if is_ours(host, hosts) => {}
        Some(_) => {
            return Err(Refusal::new(
                421,
                "this server is not known by the name in the Host header; use its address, localhost, or allow the name",
            ));
        }
    }
    if let Some(origin) = headers.one("origin")?
        && origin.strip_prefix("http://") != host
    {
        return Err(Refusal::new(403, "pages of other origins may not use this server"));
    }
    if headers.one("sec-fetch-site")?.is_some_and(|site| site == "cross-site" || site == "same-site") {
        return Err(Refusal::new(403, "pages of other sites may not use this server"));
    }
    let target = request.path.unwrap_or_default();
    let target = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| rest.get(at..).unwrap_or("/")),
        None => target,
    };
    let path = target.split(['?', '#']).next().unwrap_or_default();
    if !path.starts_with('/') {
        return Err(Refusal::new(400, "the request's target is not a path"));
    }
    let connection = headers.all("connection").map(|v| String::from_utf8_lossy(v).to_ascii_lowercase());
    let (mut close, mut alive) = (false, false);
    for value in connection {
        close |= value.split(',').any(|word| word.trim() == "close");
        alive |= value.split(',').any(|word| word.trim() == "keep-alive");
    }
    let expects = match headers.one("expect")? {
        None => false,
        Some(text) if text.eq_ignore_ascii_case("100-continue") => !old,
        Some(_) => return Err(Refusal::new(417, "only 100-continue can be expected")),
    };
    let owned = |name| Ok::<_, Refusal>(headers.one(name)?.map(str::to_owned));
    let head = Head {
        method,
        path: path.to_owned(),
        keep: !close && (!old || alive),
        length: length.unwrap_or(0),
        expects,
        accept: owned("accept")?,
        range: owned("range")?,
        if_range: owned("if-range")?,
        if_match: owned("if-match")?,
        if_none_match: owned("if-none-match")?,
    };
    Ok(Some((head, len)))
}

struct Headers<'a, 'b>(&'a [httparse::Header<'b>]);

impl<'b> Headers<'_, 'b> {
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'b [u8]> {
        self.0.iter().filter(move |h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
    }

    /// The value of a header that may be given once. Where a proxy and this server might choose differently between
    /// two, nobody chooses.
    fn one(&self, name: &'static str) -> Result<Option<&'b str>, Refusal> {
        let mut all = self.all(name);
        let Some(value) = all.next() else { return Ok(None) };
        if all.next().is_some() {
            return Err(Refusal::new(400, format!("the header {name} is there twice")));
        }
        let text = std::str::from_utf8(value)
            .map_err(|_| Refusal::new(400, format!("the header {name} is not text")))?;
        Ok(Some(text.trim()))
    }
}

/// Whether a `Host` means this server. A name that leads here by somebody else's DNS is how web sites get at servers on
/// their visitors' machines; an address cannot be made to lead elsewhere.
fn is_ours(host: &str, hosts: &[String]) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, port)) => (name, port.strip_prefix(':').unwrap_or(port)),
            None => return false,
        },
        None => host.split_once(':').unwrap_or((host, "")),
    };
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    let v6 = host.starts_with('[');
    match name.parse::<IpAddr>() {
        Ok(address) => address.is_ipv6() == v6,
        Err(_) => {
            !v6 && (name.eq_ignore_ascii_case("localhost")
                || hosts.iter().any(|known| known.eq_ignore_ascii_case(name)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: &str) -> u16 {
        match parse(text.as_bytes(), &["store.example".to_owned()]) {
            Ok(Some(_)) => 200,
            Ok(None) => 0,
            Err(refusal) => refusal.status,
        }
    }

    #[test]
    fn heads_are_judged() {
        let post = |lines: &str| format!("POST /query HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n{lines}\r\n");
        let get = |lines: &str| format!("GET /status HTTP/1.1\r\n{lines}\r\n");
        for (text, want) in [
            (post("Content-Length: 5\r\n"), 200),
            (post(""), 411),
            (post("Content-Length: +5\r\n"), 400),
            (post("Content-Length: 5, 5\r\n"), 400),
            (post("Content-Length: 5\r\nContent-Length: 6\r\n"), 400),
            (post("Content-Length: 99999999999999999999999\r\n"), 413),
            (post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 411),
            (post("Content-Length: 5\r\nContent-Encoding: gzip\r\n"), 415),
            (post("Content-Length: 5\r\nExpect: 100-continue\r\n"), 200),
            (post("Content-Length: 5\r\nExpect: a-miracle\r\n"), 417),
            (post("Content-Length: 5\r\nOrigin: http://127.0.0.1:8080\r\n"), 200),
            (post("Content-Length: 5\r\nOrigin: http://evil.example\r\n"), 403),
            (post("Content-Length: 5\r\nOrigin: null\r\n"), 403),
            (post("Content-Length: 5\r\nSec-Fetch-Site: cross-site\r\n"), 403),
            (get("Host: localhost\r\n"), 200),
            (get("Host: LOCALHOST:1\r\n"), 200),
            (get("Host: [::1]:80\r\n"), 200),
            (get("Host: store.example:9\r\n"), 200),
            (get("Host: evil.example\r\n"), 421),
            (get("Host: 127.0.0.1.evil.example\r\n"), 421),
            (get("Host: localhost:80@evil.example\r\n"), 421),
            (get("Host: \u{e4}\r\n"), 421),
            (get(""), 400),
            ("GET /status HTTP/1.0\r\n\r\n".into(), 200),
            ("GET /status HTTP/2.0\r\n\r\n".into(), 505),
            ("GET status HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), 400),
            ("GET /status HTTP/1.1\r\nHost: localhost\r\n".into(), 0),
            ("\u{0}\u{1}\u{2}".into(), 400),
            (get(&"X: y\r\n".repeat(80)), 431),
            (get(&format!("X: {}\r\n", "y".repeat(MAX_HEAD))), 431),
        ] {
            assert_eq!(status(&text), want, "{}", text.escape_debug());
        }
    }

    #[test]
    fn what_a_head_says() {
        let text =
            b"GET http://localhost/file?x#y HTTP/1.1\r\nhost: localhost\r\nRANGE: bytes=0-1\r\n\r\nrest";
        let (head, len) = parse(text, &[]).expect("good").expect("whole");
        assert_eq!((head.path.as_str(), head.method, head.keep), ("/file", Method::Get, true));
        assert_eq!(&text[len..], b"rest");
        assert_eq!(head.range.as_deref(), Some("bytes=0-1"));
        let closing = b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: Foo, Close\r\n\r\n";
        assert!(!parse(closing, &[]).expect("good").expect("whole").0.keep);
        let old = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
        assert!(parse(old, &[]).expect("good").expect("whole").0.keep);
    }
}
