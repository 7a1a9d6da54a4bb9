//! Answers: few, small, never cached.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

pub(crate) type Answer = Response<Full<Bytes>>;

/// What a click gets.
pub(crate) enum Reply {
    /// 302 to where the catalog says.
    Redirect {
        location: Bytes,
        cookie: Option<Bytes>,
    },
    /// Anything else.
    Whole(Answer),
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self::Whole(answer)
    }
}

impl Reply {
    /// The answer. A redirect is written into the request's own table of fields: it has room, and the next request of the
    /// connection is read into it again.
    pub(crate) fn into_answer(self, request: HeaderMap) -> Answer {
        match self {
            Self::Redirect { location, cookie } => redirect(location, cookie, request),
            Self::Whole(answer) => answer,
        }
    }
}

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const NO_INDEX: HeaderValue = HeaderValue::from_static("noindex, nofollow");
const ROBOTS_TAG: HeaderName = HeaderName::from_static("x-robots-tag");

fn with(status: StatusCode, content_type: Option<&'static str>, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    if let Some(content_type) = content_type {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
    }
    answer
}

/// Refused bytes cannot be in it: it was rendered from checked text and encoded values.
fn redirect(location: Bytes, cookie: Option<Bytes>, mut headers: HeaderMap) -> Answer {
    let Ok(location) = HeaderValue::from_maybe_shared(location) else {
        return text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the destination cannot be sent",
        );
    };
    headers.clear();
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.insert(header::LOCATION, location);
    headers.insert(ROBOTS_TAG, NO_INDEX);
    if let Some(cookie) = cookie {
        let cookie = HeaderValue::from_maybe_shared(cookie);
        headers.insert(
            header::SET_COOKIE,
            cookie.expect("tokens and attributes are ASCII"),
        );
    }
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::FOUND;
    *answer.headers_mut() = headers;
    answer
}

/// 503 for a browser that looks ahead: it asks again when the visitor clicks, and that request is the click.
pub(crate) fn not_yet() -> Answer {
    let mut answer = with(StatusCode::SERVICE_UNAVAILABLE, None, Bytes::new());
    answer
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from_static("86400"));
    answer
}

/// A line of plain text.
pub(crate) fn text(status: StatusCode, line: &'static str) -> Answer {
    with(
        status,
        Some("text/plain; charset=utf-8"),
        Bytes::from(format!("{line}\n")),
    )
}

/// A line of JSON.
pub(crate) fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
    with(
        status,
        Some("application/json"),
        Bytes::from(format!("{value}\n")),
    )
}

/// What a visitor sees who followed a dead link.
pub(crate) fn not_found() -> Answer {
    const PAGE: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Not found</title>\
        <h1>This link leads nowhere</h1><p>It may be mistyped, or it has ended.</p></html>\n";
    let mut answer = with(
        StatusCode::NOT_FOUND,
        Some("text/html; charset=utf-8"),
        Bytes::from_static(PAGE.as_bytes()),
    );
    answer.headers_mut().insert(ROBOTS_TAG, NO_INDEX);
    answer
}

/// 405 with what would be taken.
pub(crate) fn foreign_method(line: &'static str, allowed: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, line);
    answer
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allowed));
    answer
}
