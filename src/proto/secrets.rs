//! What in HTTP is nobody's business: values of some headers, of some parameters in a
//! query, and who a URL says that its user is.
//!
//! Both are lists of names that more can be added to. Where it is not clear whether
//! something is a secret it is hidden: a password with a `?` in it, a URL that is cut.

/// Headers, in lower case as HTTP/2 has them.
pub const HEADERS: [&str; 9] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "cookie2",
    "set-cookie",
    "set-cookie2",
    "x-api-key",
    "x-auth-token",
    "x-amz-security-token",
];

/// Parameters of a query.
pub const PARAMETERS: [&str; 26] = [
    "access_token",
    "api-key",
    "api_key",
    "apikey",
    "auth",
    "client_secret",
    "code",
    "id_token",
    "jwt",
    "key",
    "passwd",
    "password",
    "pwd",
    "refresh_token",
    "secret",
    "session",
    "session_id",
    "sessionid",
    "sig",
    "signature",
    "token",
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
    "x-goog-credential",
    "x-goog-signature",
];

/// Bytes of a name that can be added, and of what is looked at as one.
pub const NAME_MAX: usize = 100;

/// Bytes before an `@` that can be who the user is.
const USER_MAX: usize = 512;

/// What stands for something that is hidden in a URL.
const HIDDEN: &[u8] = b"***";

/// The names that are hidden: those above, and others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Secrets {
    others: Vec<String>,
}

impl Secrets {
    /// With these besides, headers and parameters alike, in any case.
    pub fn new(others: &[String]) -> Self {
        let others = others.iter().map(|name| name.to_ascii_lowercase());
        Self {
            others: others.collect(),
        }
    }

    /// Whether the value of a header of this name is hidden; blanks around the name and
    /// its case do not matter.
    pub fn is_header(&self, name: &[u8]) -> bool {
        self.has(&HEADERS, name.trim_ascii())
    }

    /// Whether the value of a parameter of this name is; its bytes may be `%XX`.
    fn is_parameter(&self, name: &[u8]) -> bool {
        self.has(&PARAMETERS, &percent_decoded(name))
    }

    fn has(&self, known: &[&str], name: &[u8]) -> bool {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        known.iter().any(|known| is(known)) || self.others.iter().any(|other| is(other))
    }
}

/// `%XX` undone; a `%` without two digits is one.
pub fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, others @ ..] = rest {
        let pair = match others {
            [high, low, ..] if *first == b'%' => digit(*high).zip(digit(*low)),
            _ => None,
        };
        if let Some((high, low)) = pair {
            decoded.push(high << 4 | low);
            rest = &others[2..];
        } else {
            decoded.push(*first);
            rest = others;
        }
    }
    decoded
}

/// Hides what is secret in URLs, wherever in a text they stand, a byte at a time.
///
/// ```text
///            ? & ;        = of a secret           & # blank
///  Plain ───────────► Key ─────────────► Value ─────────────► Plain
///    │  ://            / blank: no user, shown after all
///    └─────► User ──────────────────────────────────────────► Plain
///              │ @: hidden                                      ▲
///              └────────────────────────────────────────────────┘
///              the text is cut: Cut, hidden up to @ / blank
/// ```
#[derive(Debug, Default)]
pub struct Url {
    state: State,
}

#[derive(Debug)]
enum State {
    /// So many bytes of `://` were there.
    Plain(usize),
    /// The name of a parameter, so far.
    Key(Vec<u8>),
    /// The value of a secret one.
    Value,
    /// What may be a user, and is not shown yet.
    User(Vec<u8>),
    /// What may be one and was cut: it is hidden.
    Cut,
}

impl Default for State {
    fn default() -> Self {
        Self::Plain(0)
    }
}

impl Url {
    /// What follows may be a user without a scheme before it, as in `CONNECT`.
    pub fn expect_user(&mut self) {
        self.state = State::User(Vec::new());
    }

    /// Takes a byte, and shows what is known to be none of a secret.
    pub fn byte(&mut self, secrets: &Secrets, byte: u8, show: &mut dyn FnMut(u8)) {
        let ends_url = byte <= b' ' || matches!(byte, b'"' | b'<' | b'>');
        match &mut self.state {
            State::User(user) => match byte {
                b'@' => {
                    self.state = State::Plain(0);
                    hide(show);
                    show(byte);
                }
                _ if ends_url || byte == b'/' || user.len() == USER_MAX => {
                    self.replay(secrets, show);
                    self.byte(secrets, byte, show);
                }
                _ => user.push(byte),
            },
            State::Cut => {
                if ends_url || matches!(byte, b'@' | b'/') {
                    self.state = State::Plain(0);
                    show(byte);
                }
            }
            State::Value => {
                if ends_url || matches!(byte, b'&' | b'#') {
                    self.state = State::Plain(0);
                    self.plain(byte, show);
                }
            }
            State::Key(name) if byte == b'=' => {
                let secret = secrets.is_parameter(name);
                self.state = State::Plain(0);
                show(byte);
                if secret {
                    hide(show);
                    self.state = State::Value;
                }
            }
            State::Key(name) if !ends_url && !matches!(byte, b'&' | b';' | b'?' | b'/') => {
                name.push(byte);
                // Thrice: each byte of it may be a `%XX`.
                if name.len() > 3 * NAME_MAX {
                    self.state = State::Plain(0);
                }
                show(byte);
            }
            State::Key(_) | State::Plain(_) => self.plain(byte, show),
        }
    }

    fn plain(&mut self, byte: u8, show: &mut dyn FnMut(u8)) {
        let slashes = match &self.state {
            State::Plain(slashes) => *slashes,
            _ => 0,
        };
        self.state = match (slashes, byte) {
            (_, b'?' | b'&' | b';') => State::Key(Vec::new()),
            (_, b':') => State::Plain(1),
            (1, b'/') => State::Plain(2),
            (2, b'/') => State::User(Vec::new()),
            _ => State::Plain(0),
        };
        show(byte);
    }

    /// What was taken for a user is none: it is shown, but for what is secret in it.
    fn replay(&mut self, secrets: &Secrets, show: &mut dyn FnMut(u8)) {
        if let State::User(user) = std::mem::take(&mut self.state) {
            for byte in user {
                self.byte(secrets, byte, show);
            }
        }
    }

    /// The text is over: nothing follows that would make a user of what is held back.
    pub fn finish(&mut self, secrets: &Secrets, show: &mut dyn FnMut(u8)) {
        // What is held back may hold what looks like another one.
        while matches!(&self.state, State::User(user) if !user.is_empty()) {
            self.replay(secrets, show);
        }
        self.state = State::default();
    }

    /// The text goes on elsewhere, or was cut.
    pub fn cut(&mut self, show: &mut dyn FnMut(u8)) {
        if matches!(&self.state, State::User(user) if !user.is_empty()) {
            self.state = State::Cut;
            hide(show);
        }
    }
}

fn hide(show: &mut dyn FnMut(u8)) {
    for byte in HIDDEN {
        show(*byte);
    }
}

/// Shows a text in which URLs may stand; `cut`: it is not all of it.
pub fn show_text(secrets: &Secrets, text: &[u8], cut: bool, show: &mut dyn FnMut(u8)) {
    let mut url = Url::default();
    show_in(&mut url, secrets, text, cut, show);
}

/// Shows the first line of a request.
pub fn show_request(secrets: &Secrets, line: &[u8], cut: bool, show: &mut dyn FnMut(u8)) {
    let mut url = Url::default();
    let method = b"CONNECT ";
    let rest = match line.split_at_checked(method.len()) {
        Some((first, rest)) if first.eq_ignore_ascii_case(method) => {
            for byte in first {
                show(*byte);
            }
            url.expect_user();
            rest
        }
        _ => line,
    };
    show_in(&mut url, secrets, rest, cut, show);
}

fn show_in(url: &mut Url, secrets: &Secrets, text: &[u8], cut: bool, show: &mut dyn FnMut(u8)) {
    for byte in text {
        url.byte(secrets, *byte, show);
    }
    if cut {
        url.cut(show);
    } else {
        url.finish(secrets, show);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let mut out = Vec::new();
        show_text(&Secrets::default(), text.as_bytes(), false, &mut |byte| {
            out.push(byte);
        });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn secrets_are_known_in_any_case() {
        let secrets = Secrets::new(&["X-Mine".to_owned()]);
        for name in [
            "Authorization",
            "COOKIE",
            "Cookie2",
            "set-cookie",
            " proxy-authorization ",
            "X-Api-Key",
            "X-Auth-Token",
            "X-Amz-Security-Token",
            "x-mine",
        ] {
            assert!(secrets.is_header(name.as_bytes()), "{name}");
        }
        for name in ["", "Cookies", "x-authorization", "host"] {
            assert!(!secrets.is_header(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn users_and_secret_parameters_are_hidden_and_nothing_else() {
        for (text, expected) in [
            (
                "GET /a?b=c&token=S3 HTTP/1.1",
                "GET /a?b=c&token=*** HTTP/1.1",
            ),
            ("/a?TOKEN=S3;x#f", "/a?TOKEN=***#f"),
            ("/a?%74oken=S3&x=1", "/a?%74oken=***&x=1"),
            ("/a?tokens=x&key=", "/a?tokens=x&key=***"),
            ("http://ann:S3@h/p", "http://***@h/p"),
            ("http://ann:S3?x@h/p", "http://***@h/p"),
            ("http://h/p@q", "http://h/p@q"),
            ("http://h?sig=S3", "http://h?sig=***"),
            ("see https://h:443 and a@b", "see https://h:443 and a@b"),
            ("http://a://b:c@d", "http://a://***@d"),
            ("a:/b://", "a:/b://"),
        ] {
            assert_eq!(shown(text), expected);
        }
        let mut out = Vec::new();
        let line = b"CONNECT ann:S3CRET?@h:443 HTTP/1.1";
        show_request(&Secrets::default(), line, false, &mut |byte| out.push(byte));
        assert_eq!(out, b"CONNECT ***@h:443 HTTP/1.1");
        out.clear();
        show_request(&Secrets::default(), &line[..14], true, &mut |byte| {
            out.push(byte);
        });
        assert_eq!(out, b"CONNECT ***");
    }

    #[test]
    fn what_is_held_back_is_shown_in_the_end() {
        for text in ["http://host.example:80", "x://", "x://y?", "://a://b"] {
            assert_eq!(shown(text), text);
        }
        let long = format!("http://{}", "a".repeat(3 * USER_MAX));
        assert_eq!(shown(&long), long);
    }
}
