//! Who may ask for what: pure.
//!
//! | from | what is asked for |
//! | --- | --- |
//! | a page of another site, in a browser | its `Origin` is not this host: 403 |
//! | a name that points here (DNS rebinding) | `Host` is neither an address nor a known name: 421 |
//! | TCP | the token, but for health and the page that asks for it: 401 |

use std::net::IpAddr;

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};

use super::problem::Problem;

/// Who may do what at a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Everything: who may connect is the file system's matter.
    Unix,
    /// Everything, with a token.
    Tcp,
    /// /metrics and the like.
    Metrics,
}

/// What a request over TCP must bear.
#[derive(Clone)]
pub(super) struct Token(Box<[u8]>);

impl Token {
    pub(super) fn new(token: &str) -> Self {
        Self(token.as_bytes().into())
    }

    /// Whether this is it, in a time that depends on nothing but the lengths.
    pub(super) fn is(&self, claimed: &str) -> bool {
        let claimed = claimed.as_bytes();
        if claimed.len() != self.0.len() {
            return false;
        }
        let pairs = claimed.iter().zip(&self.0);
        let differ = pairs.fold(0, |all, (one, other)| {
            std::hint::black_box(all | (one ^ other))
        });
        differ == 0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What requests are held against.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) token: Option<Token>,
    pub(super) hosts: Vec<String>,
}

/// What a port for metrics answers.
const METRICS_PATHS: [&str; 3] = ["/metrics", "/healthz", "/readyz"];

/// What needs no token: it tells nothing that is worth one.
const OPEN_PATHS: [&str; 4] = ["/", "/healthz", "/readyz", "/openapi.json"];

impl Guard {
    /// Why a request is turned down, if it is.
    pub(super) fn check(&self, kind: Kind, request: &Parts) -> Result<(), Problem> {
        let headers = &request.headers;
        let host = self.host(headers)?;
        if let Some(origin) = headers.get(header::ORIGIN) {
            let ours = origin.to_str().ok().and_then(|it| it.split_once("://"));
            if ours.is_none_or(|(_, origin)| !origin.eq_ignore_ascii_case(host)) {
                return Err(Problem::forbidden("this comes from a page of another site"));
            }
        }
        let path = request.uri.path();
        match kind {
            Kind::Unix => Ok(()),
            Kind::Metrics if METRICS_PATHS.contains(&path) => Ok(()),
            Kind::Metrics => Err(Problem::not_found(
                "this port has /metrics, /healthz and /readyz alone",
            )),
            Kind::Tcp if OPEN_PATHS.contains(&path) && is_read(&request.method) => Ok(()),
            Kind::Tcp => self.authorised(headers),
        }
    }

    /// The host that was asked for, if it is this one.
    fn host<'h>(&self, headers: &'h HeaderMap) -> Result<&'h str, Problem> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(Problem::bad_request("there must be one Host"));
        };
        let host = host.to_str().unwrap_or_default();
        let name = without_port(host);
        let bare = name.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let known = bare.unwrap_or(name).parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|it| it.eq_ignore_ascii_case(name));
        if known {
            Ok(host)
        } else {
            Err(Problem::misdirected(
                "this Host is not known here: ask by address, or add it to `[admin] hosts`",
            ))
        }
    }

    fn authorised(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let mut claims = headers.get_all(header::AUTHORIZATION).iter();
        let claimed = match (claims.next(), claims.next()) {
            (Some(claimed), None) => claimed.to_str().unwrap_or_default(),
            _ => "",
        };
        let (scheme, claimed) = claimed.split_once(' ').unwrap_or_default();
        let token = self.token.as_ref();
        if scheme.eq_ignore_ascii_case("bearer") && token.is_some_and(|it| it.is(claimed.trim())) {
            Ok(())
        } else {
            Err(Problem::unauthorised(if claimed.is_empty() {
                "this needs the token: Authorization: Bearer TOKEN"
            } else {
                "the token is wrong: it is the one in the file that `[admin] token_file` names"
            }))
        }
    }
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|it| it.is_ascii_digit()) && !name.is_empty() => {
            // A bare IPv6 address is no host with a port.
            if name.contains(':') && !name.ends_with(']') {
                host
            } else {
                name
            }
        }
        _ => host,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use axum::http::{Request, StatusCode};

    use super::*;

    fn guard() -> Guard {
        Guard {
            token: Some(Token::new("0123456789abcdef")),
            hosts: vec!["gate.example".to_owned()],
        }
    }

    fn answer(kind: Kind, path: &str, headers: &[(&str, &str)]) -> StatusCode {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        match guard().check(kind, &parts) {
            Ok(()) => StatusCode::OK,
            Err(problem) => problem.status,
        }
    }

    #[test]
    fn b146_only_its_own_host_is_answered() {
        for host in [
            "localhost",
            "LOCALHOST:9000",
            "127.0.0.1:1",
            "[::1]:80",
            "::1",
            "gate.example",
            "Gate.Example:80",
        ] {
            assert_eq!(answer(Kind::Unix, "/v1", &[("host", host)]), 200, "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:80",
            "",
            "127.0.0.1.nip.io",
        ] {
            assert_eq!(answer(Kind::Unix, "/v1", &[("host", host)]), 421, "{host}");
        }
        assert_eq!(answer(Kind::Unix, "/v1", &[]), 400);
        let twice = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(answer(Kind::Unix, "/v1", &twice), 400);
    }

    #[test]
    fn b146_a_foreign_origin_is_refused() {
        let with = |origin| [("host", "localhost:9"), ("origin", origin)];
        assert_eq!(answer(Kind::Unix, "/v1", &with("http://localhost:9")), 200);
        for origin in [
            "http://evil.example",
            "null",
            "http://localhost:8",
            "localhost:9",
        ] {
            assert_eq!(answer(Kind::Unix, "/v1", &with(origin)), 403, "{origin}");
        }
    }

    #[test]
    fn b146_tcp_needs_the_token() {
        let with = |claim| [("host", "localhost"), ("authorization", claim)];
        assert_eq!(answer(Kind::Tcp, "/v1", &[("host", "localhost")]), 401);
        for wrong in [
            "Bearer 0123456789abcdeX",
            "Bearer 0123456789abcdef0",
            "Basic 0123456789abcdef",
            "Bearer",
            "",
        ] {
            assert_eq!(answer(Kind::Tcp, "/v1", &with(wrong)), 401, "{wrong}");
        }
        for right in ["Bearer 0123456789abcdef", "bearer 0123456789abcdef"] {
            assert_eq!(answer(Kind::Tcp, "/metrics", &with(right)), 200, "{right}");
        }
        for open in OPEN_PATHS {
            assert_eq!(answer(Kind::Tcp, open, &[("host", "localhost")]), 200);
        }
    }

    #[test]
    fn b146_a_port_for_metrics_has_nothing_else() {
        let host = [("host", "localhost")];
        assert_eq!(answer(Kind::Metrics, "/metrics", &host), 200);
        assert_eq!(answer(Kind::Metrics, "/v1/sessions", &host), 404);
        assert_eq!(answer(Kind::Metrics, "/", &host), 404);
    }
}
