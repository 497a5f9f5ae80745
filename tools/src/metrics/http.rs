//! As much of HTTP as a scraper needs: one GET a connection.
//!
//! Invariant: whatever comes in, what goes out is one whole response with its length, after which the connection
//! ends. It deliberately reads no header but `Accept`, and no body.

use super::Scraped;
use super::render::{Format, render};
use crate::endpoint::{Answer, Refusal, Reply, Service, Stream};
use crate::notice;

/// Answers scrapes.
pub(super) struct MetricsService<R> {
    run: R,
    scrapes: u64,
}

impl<R: Scraped> MetricsService<R> {
    pub(super) fn new(run: R) -> Self {
        Self { run, scrapes: 0 }
    }

    fn respond(&mut self, head: &[u8]) -> Vec<u8> {
        let accept = match Request::parse(head) {
            Ok(Request { accept }) => accept,
            Err(status) => return status.response(),
        };
        self.scrapes += 1;
        let mut snapshot = self.run.snapshot();
        snapshot.scrapes = self.scrapes;
        let format = Format::wished_for(accept);
        notice::verbose(format_args!("metrics: scrape {}, {format:?}", self.scrapes));
        response("200 OK", format.content_type(), "", &render(snapshot, format))
    }
}

impl<R: Scraped> Service for MetricsService<R> {
    fn admit(&mut self, _stream: &Stream) -> Result<(), Vec<u8>> {
        Ok(())
    }

    fn request_end(&self, received: &[u8]) -> Option<usize> {
        end_of_head(received)
    }

    fn answer(&mut self, request: &[u8]) -> Answer {
        Answer { reply: Reply::Now(self.respond(request)), stay: false }
    }

    fn refusal(&self, refusal: Refusal) -> Vec<u8> {
        match refusal {
            Refusal::TooLong => Status::TooLong,
            Refusal::TooSlow => Status::TooSlow,
            Refusal::Gone => Status::Gone,
        }
        .response()
    }
}

/// Where the head of a request ends: after its first empty line.
fn end_of_head(received: &[u8]) -> Option<usize> {
    let mut line_began = 0;
    for (at, byte) in received.iter().enumerate() {
        if *byte == b'\n' {
            let line = received[line_began..at].trim_ascii_end();
            if line.is_empty() && line_began > 0 {
                return Some(at + 1);
            }
            line_began = at + 1;
        }
    }
    None
}

/// What is known of a request for the metrics.
#[derive(Debug, PartialEq, Eq)]
struct Request<'a> {
    /// The formats that the scraper takes.
    accept: &'a str,
}

/// Why there are no metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Unreadable,
    NotFound,
    OtherMethod,
    TooSlow,
    TooLong,
    Gone,
}

impl<'a> Request<'a> {
    fn parse(head: &'a [u8]) -> Result<Self, Status> {
        let head = str::from_utf8(head).map_err(|_| Status::Unreadable)?;
        let mut lines = head.lines();
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Status::Unreadable);
        };
        let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
        if !is_method || !version.starts_with("HTTP/1.") {
            return Err(Status::Unreadable);
        }
        if method != "GET" {
            return Err(Status::OtherMethod);
        }
        if target.split('?').next() != Some("/metrics") {
            return Err(Status::NotFound);
        }
        let header = |line: &'a str| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("accept").then(|| value.trim())
        };
        Ok(Self { accept: lines.find_map(header).unwrap_or_default() })
    }
}

impl Status {
    fn response(self) -> Vec<u8> {
        let (status, more, words) = match self {
            Self::Unreadable => ("400 Bad Request", "", "this is no request of HTTP/1\n"),
            Self::NotFound => ("404 Not Found", "", "the metrics are at /metrics\n"),
            Self::OtherMethod => {
                ("405 Method Not Allowed", "Allow: GET\r\n", "the metrics can only be read: GET\n")
            }
            Self::TooSlow => ("408 Request Timeout", "", "the request was not ended in time\n"),
            Self::TooLong => {
                ("431 Request Header Fields Too Large", "", "the request is too long\n")
            }
            Self::Gone => ("503 Service Unavailable", "", "the program is stopping\n"),
        };
        response(status, "text/plain; charset=utf-8", more, words)
    }
}

fn response(status: &str, content_type: &str, more: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{more}Connection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_head_ends_with_its_first_empty_line() {
        assert_eq!(end_of_head(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nrest"), Some(27));
        assert_eq!(end_of_head(b"GET / HTTP/1.1\n\n"), Some(16));
        for unfinished in
            [&b""[..], b"\r\n", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n"]
        {
            assert_eq!(end_of_head(unfinished), None);
        }
    }

    #[test]
    fn only_a_get_of_the_metrics_is_taken() {
        let ok = |accept| Ok(Request { accept });
        for (head, expected) in [
            (&b"GET /metrics HTTP/1.1\r\n\r\n"[..], ok("")),
            (b"GET /metrics?x=1 HTTP/1.0\r\naccept: text/plain \r\n\r\n", ok("text/plain")),
            (b"GET / HTTP/1.1\r\n\r\n", Err(Status::NotFound)),
            (b"GET /metrics/../etc/passwd HTTP/1.1\r\n\r\n", Err(Status::NotFound)),
            (b"HEAD /metrics HTTP/1.1\r\n\r\n", Err(Status::OtherMethod)),
            (b"POST /metrics HTTP/1.1\r\n\r\n", Err(Status::OtherMethod)),
            (b"get /metrics HTTP/1.1\r\n\r\n", Err(Status::Unreadable)),
            (b"GET /metrics\r\n\r\n", Err(Status::Unreadable)),
            (b"GET  /metrics HTTP/1.1\r\n\r\n", Err(Status::Unreadable)),
            (b"GET /metrics HTTP/2\r\n\r\n", Err(Status::Unreadable)),
            (b"\x16\x03\x01\x02\n\n", Err(Status::Unreadable)),
            (b"\xff\xfe\n\n", Err(Status::Unreadable)),
        ] {
            assert_eq!(Request::parse(head), expected, "{}", head.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..60_usize) {
            let request = b"GET /metrics HTTP/1.1\r\nAccept: text/plain\r\n\r\n";
            for head in [bytes.clone(), [&request[..cut.min(request.len())], &bytes].concat()] {
                let end = end_of_head(&head);
                prop_assert!(end.is_none_or(|end| end <= head.len()));
                let _ = Request::parse(&head);
            }
        }
    }

    #[test]
    fn every_response_says_how_long_it_is_and_that_it_is_the_last() {
        for status in [
            Status::Unreadable,
            Status::NotFound,
            Status::OtherMethod,
            Status::TooSlow,
            Status::TooLong,
            Status::Gone,
        ] {
            let text = String::from_utf8(status.response()).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{text}");
            assert!(head.contains("\r\nConnection: close"), "{text}");
        }
    }
}
