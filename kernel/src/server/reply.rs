//! What goes back to a client.

use super::budget::Taken;
use rvf_cow::query::value::write_json_string;
use rvf_cow::query::{DataError, Kind};
use rvf_cow::{Error, Family};
use rvf_format::FileBytes;
use std::fmt::Write as _;
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) const JSON: &str = "application/json";
const NOTHING_LOADED: &str = "default-src 'none'; frame-ancestors 'none'";

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) text: String,
}

impl Refusal {
    pub(super) fn new(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }
}

impl From<DataError> for Refusal {
    fn from(error: DataError) -> Self {
        Self::new(if error.kind == Kind::TooLarge { 413 } else { 400 }, error.to_string())
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = match (&error, error.family()) {
            (Error::TooLarge { .. }, _) => 413,
            (Error::NoSuchId { .. }, _) => 404,
            (Error::Timeout { .. }, _) => 504,
            (_, Family::Caller) => 400,
            (_, Family::Policy) => 403,
            (_, Family::Environment) => 503,
            (_, Family::Corruption) => 500,
        };
        Self::new(status, error.to_string())
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Body {
    Bytes(Vec<u8>),
    Static(&'static [u8]),
    /// A part of a file, sent as it lies in memory.
    File(FileBytes, Range<usize>),
}

impl Body {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Static(bytes) => bytes,
            Self::File(bytes, range) => bytes.get(range.clone()).unwrap_or_default(),
        }
    }

    /// Whether the file under it was cut short, so that what was read is not what was stored.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Self::File(bytes, _) if bytes.is_poisoned())
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    content_type: &'static str,
    policy: &'static str,
    /// Further headers, each a whole line.
    more: String,
    pub(super) body: Body,
    /// What the body takes of a budget until it was sent.
    _held: Option<Taken>,
}

impl Reply {
    pub(super) fn new(status: u16, content_type: &'static str, body: Body) -> Self {
        Self { status, content_type, policy: NOTHING_LOADED, more: String::new(), body, _held: None }
    }

    pub(super) fn json(status: u16, body: Vec<u8>) -> Self {
        Self::new(status, JSON, Body::Bytes(body))
    }

    pub(super) fn refusal(refusal: &Refusal) -> Self {
        let mut body = b"{\"error\": ".to_vec();
        write_json_string(&refusal.text, &mut body);
        body.extend_from_slice(b"}\n");
        let reply = Self::json(refusal.status, body);
        if refusal.status == 503 { reply.with("Retry-After", "1") } else { reply }
    }

    /// Adds a header.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        let _ = write!(self.more, "{name}: {value}\r\n");
        self
    }

    pub(super) fn holding(self, taken: Taken) -> Self {
        Self { _held: Some(taken), ..self }
    }

    pub(super) fn policy(self, policy: &'static str) -> Self {
        Self { policy, ..self }
    }

    /// The status line and the headers.
    pub(super) fn head(&self, keep: bool) -> Vec<u8> {
        let mut out = format!(
            "HTTP/1.1 {} {}\r\nDate: {}\r\nX-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: \
             same-origin\r\nContent-Security-Policy: {}\r\n{}",
            self.status,
            reason(self.status),
            date(SystemTime::now()),
            self.policy,
            self.more,
        );
        // An answer without a body by its status has no length either.
        if self.status != 304 {
            let _ = write!(
                out,
                "Content-Type: {}\r\nContent-Length: {}\r\n",
                self.content_type,
                self.body.bytes().len()
            );
        }
        if !self.more.contains("Cache-Control") {
            out.push_str("Cache-Control: no-store\r\n");
        }
        if !keep {
            out.push_str("Connection: close\r\n");
        }
        out.push_str("\r\n");
        out.into_bytes()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7).
fn date(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of year 0, in eras of 400 years (Hinnant, "chrono-compatible low-level date algorithms").
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = year_of_era + era * 400 + u64::from(month >= 10);
    const MONTHS: [&str; 12] =
        ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let name = |table: &[&'static str], at: u64| table.get(at as usize).copied().unwrap_or_default();
    format!(
        "{}, {day:02} {} {year} {:02}:{:02}:{:02} GMT",
        name(&DAYS, days % 7),
        name(&MONTHS, month),
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_those_of_the_standard() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
            (4_102_444_799, "Thu, 31 Dec 2099 23:59:59 GMT"),
        ] {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
