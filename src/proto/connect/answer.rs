//! The answers to a CONNECT request.

use std::fmt::Write;

use crate::relay::ending::Cause;

/// A status that a client is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// The tunnel stands.
    Established = 200,
    /// The request is malformed.
    BadRequest = 400,
    /// The access list does not let it pass.
    Forbidden = 403,
    /// It is no CONNECT.
    MethodNotAllowed = 405,
    /// Credentials are missing or wrong.
    AuthenticationRequired = 407,
    /// The request did not come in time.
    RequestTimeout = 408,
    /// The request's header is larger than it may be.
    HeaderTooLarge = 431,
    /// The target cannot be reached.
    BadGateway = 502,
    /// The proxy is short of something.
    Unavailable = 503,
    /// The target, or a name server, did not answer in time.
    GatewayTimeout = 504,
}

impl Status {
    /// Every one of them.
    pub const ALL: [Self; 10] = [
        Self::Established,
        Self::BadRequest,
        Self::Forbidden,
        Self::MethodNotAllowed,
        Self::AuthenticationRequired,
        Self::RequestTimeout,
        Self::HeaderTooLarge,
        Self::BadGateway,
        Self::Unavailable,
        Self::GatewayTimeout,
    ];

    /// Its number.
    pub const fn code(self) -> u16 {
        self as u16
    }

    const fn phrase(self) -> &'static str {
        match self {
            Self::Established => "Connection Established",
            Self::BadRequest => "Bad Request",
            Self::Forbidden => "Forbidden",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::AuthenticationRequired => "Proxy Authentication Required",
            Self::RequestTimeout => "Request Timeout",
            Self::HeaderTooLarge => "Request Header Fields Too Large",
            Self::BadGateway => "Bad Gateway",
            Self::Unavailable => "Service Unavailable",
            Self::GatewayTimeout => "Gateway Timeout",
        }
    }
}

/// What went wrong, as RFC 9209 names it (section 2.3): clients show headers where they do
/// not show bodies.
pub const fn error_of(status: Status, cause: Option<Cause>) -> &'static str {
    match (status, cause) {
        (
            Status::BadRequest
            | Status::MethodNotAllowed
            | Status::RequestTimeout
            | Status::HeaderTooLarge,
            _,
        ) => "http_request_error",
        (Status::Forbidden | Status::AuthenticationRequired, _) => "http_request_denied",
        (_, Some(Cause::NameTimeout)) => "dns_timeout",
        (_, Some(Cause::NameFailed | Cause::AddressDenied)) => "dns_error",
        (_, Some(Cause::Refused | Cause::SelfConnect)) => "connection_refused",
        (_, Some(Cause::ConnectTimeout | Cause::PeerTimeout)) => "connection_timeout",
        (_, Some(Cause::Unreachable)) => "destination_ip_unroutable",
        (_, Some(Cause::Reset | Cause::BrokenPipe)) => "connection_terminated",
        (_, Some(Cause::NoServer | Cause::ServerDown)) => "destination_unavailable",
        (_, Some(Cause::QueueFull | Cause::QueueTimeout)) => "connection_limit_reached",
        _ => "proxy_internal_error",
    }
}

/// The whole answer. A 200 has neither length nor encoding: what follows is the
/// target's (RFC 9110, section 9.3.6). Any other explains itself in a line, `why`,
/// and announces the close; `error` and `why` stand in its Proxy-Status (RFC 9209) as well.
/// `realm` is named by a 407; it holds no control character, and `why` is plain ASCII without
/// quotes.
pub fn answer(status: Status, error: &str, realm: &str, why: &str) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {} {}\r\n", status.code(), status.phrase());
    if status == Status::Established {
        text.push_str("\r\n");
        return text.into_bytes();
    }
    // Writing to a String cannot fail.
    match status {
        Status::AuthenticationRequired => {
            let realm = realm.replace('\\', "\\\\").replace('"', "\\\"");
            let _ = write!(
                text,
                "Proxy-Authenticate: Basic realm=\"{realm}\", charset=\"UTF-8\"\r\n"
            );
        }
        Status::MethodNotAllowed => text.push_str("Allow: CONNECT\r\n"),
        _ => {}
    }
    let _ = write!(
        text,
        "Proxy-Status: thalweg; error={error}; details=\"{why}\"\r\n"
    );
    let body = format!("{} {}: {why}\n", status.code(), status.phrase());
    let _ = write!(
        text,
        "Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    text.into_bytes()
}

/// The status that tells a client of a cause (RFC 9110, section 15).
pub(super) const fn status_of(cause: Cause) -> Status {
    match cause {
        Cause::BadRequest | Cause::NoRequest => Status::BadRequest,
        Cause::Denied => Status::Forbidden,
        Cause::Unauthorised => Status::AuthenticationRequired,
        Cause::RequestTimeout => Status::RequestTimeout,
        Cause::ConnectTimeout | Cause::PeerTimeout | Cause::NameTimeout => Status::GatewayTimeout,
        cause if cause.is_local_shortage() => Status::Unavailable,
        Cause::NoServer
        | Cause::QueueFull
        | Cause::QueueTimeout
        | Cause::ServerDown
        | Cause::DrainTimeout
        | Cause::Stopped => Status::Unavailable,
        _ => Status::BadGateway,
    }
}

/// A cause in words that a client may know: nothing of the network behind the proxy.
pub(super) const fn why(cause: Cause) -> &'static str {
    match cause {
        Cause::Denied => "this destination is not allowed",
        Cause::Unauthorised => "credentials are needed, or are wrong",
        Cause::RequestTimeout => "the request was not complete in time",
        Cause::ConnectTimeout | Cause::PeerTimeout => "the destination did not answer in time",
        Cause::NameTimeout => "the name could not be resolved in time",
        Cause::NameFailed | Cause::AddressDenied => {
            "the name cannot be resolved, or leads nowhere that is allowed"
        }
        Cause::Refused | Cause::SelfConnect => "the destination refused the connection",
        Cause::Unreachable => "the destination cannot be reached",
        Cause::Busy => "too many requests are being looked into; try again",
        cause if cause.is_local_shortage() => "the proxy is short of resources; try again",
        Cause::Stopped | Cause::DrainTimeout => "the proxy is ending",
        _ => "the connection to the destination failed",
    }
}
