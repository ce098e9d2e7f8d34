//! What a server has to answer: pure, over the bytes that have come so far.

use std::ops::RangeInclusive;

/// An answer that has not been judged within so many bytes is none.
pub(super) const ANSWER_MAX: usize = 16 * 1024;

/// What makes an answer a good one.
#[derive(Debug)]
pub(super) enum Expectation {
    /// Nothing has to be answered: that the connect succeeds is enough.
    Connect,
    /// It starts with these bytes.
    Start(Vec<u8>),
    /// An HTTP response with one of these statuses.
    Status(Vec<RangeInclusive<u16>>),
    /// A TLS ServerHello.
    ServerHello,
}

/// What came of looking at the bytes so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judgement {
    /// They are good so far, but not all of it.
    More,
    /// A good answer.
    Good,
    /// Not what was expected; why, for the log.
    Bad(String),
}

impl Expectation {
    /// Judges an answer as soon as it can be: a wrong byte ends it, however much
    /// is to follow.
    pub(super) fn judge(&self, answer: &[u8]) -> Judgement {
        match self {
            Self::Connect => Judgement::Good,
            Self::Start(start) => judge_start(start, answer),
            Self::Status(healthy) => judge_responses(healthy, answer),
            Self::ServerHello => judge_records(answer),
        }
    }
}

fn bad(problem: &str, answer: &[u8]) -> Judgement {
    let shown = &answer[..answer.len().min(24)];
    Judgement::Bad(format!("{problem} (\"{}\")", shown.escape_ascii()))
}

fn judge_start(start: &[u8], answer: &[u8]) -> Judgement {
    let len = start.len().min(answer.len());
    if answer[..len] != start[..len] {
        bad("answer does not start as expected", answer)
    } else if len < start.len() {
        Judgement::More
    } else {
        Judgement::Good
    }
}

/// Skips interim responses (1xx, such as early hints) that are not asked for.
fn judge_responses(healthy: &[RangeInclusive<u16>], answer: &[u8]) -> Judgement {
    let mut rest = answer;
    loop {
        let status = match status_line(rest) {
            StatusLine::More => return Judgement::More,
            StatusLine::Wrong => return bad("no HTTP response", rest),
            StatusLine::Status(status) => status,
        };
        if healthy.iter().any(|range| range.contains(&status)) {
            return Judgement::Good;
        }
        // 101 ends the talk of HTTP: nothing follows it.
        if !(100..200).contains(&status) || status == 101 {
            return Judgement::Bad(format!("status {status}"));
        }
        let Some(end) = rest.windows(4).position(|it| it == b"\r\n\r\n") else {
            return Judgement::More;
        };
        rest = &rest[end + 4..];
    }
}

enum StatusLine {
    More,
    Wrong,
    Status(u16),
}

/// `HTTP/1.x NNN reason` and CRLF, as RFC 9112, section 4, has it; the space before
/// an empty reason may be missing, since many leave it out. A line feed alone ends no
/// line.
fn status_line(bytes: &[u8]) -> StatusLine {
    const FORM: &[u8] = b"HTTP/1.x sdd";
    for (byte, form) in bytes.iter().zip(FORM) {
        let right = match form {
            b'x' => matches!(byte, b'0' | b'1'),
            b's' => matches!(byte, b'1'..=b'5'),
            b'd' => byte.is_ascii_digit(),
            exactly => byte == exactly,
        };
        if !right {
            return StatusLine::Wrong;
        }
    }
    let Some((head, tail)) = bytes.split_at_checked(FORM.len()) else {
        return StatusLine::More;
    };
    let end = tail.iter().position(|byte| *byte == b'\n');
    let line = &tail[..end.unwrap_or(tail.len())];
    // While the line has no end, a carriage return may be the beginning of it.
    let text = line.strip_suffix(b"\r").unwrap_or(line);
    let printable = text
        .iter()
        .all(|byte| *byte == b'\t' || !byte.is_ascii_control());
    let separate = matches!(text.first(), None | Some(b' '));
    let ended_well = end.is_none() || text.len() < line.len();
    if !printable || !separate || !ended_well {
        return StatusLine::Wrong;
    }
    if end.is_none() {
        return StatusLine::More;
    }
    let digits = head[FORM.len() - 3..].iter();
    StatusLine::Status(digits.fold(0, |status, digit| status * 10 + u16::from(digit - b'0')))
}

const RECORD_ALERT: u8 = 21;
const RECORD_HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;
const ALERT_WARNING: u8 = 1;
const ALERT_CLOSE: u8 = 0;

/// A record of a handshake that begins with a ServerHello. An alert is a refusal,
/// unless it is a warning: old servers warn of an unknown name and go on.
fn judge_records(answer: &[u8]) -> Judgement {
    let mut rest = answer;
    loop {
        let judgement = match rest {
            [] => Judgement::More,
            [RECORD_HANDSHAKE | RECORD_ALERT] => Judgement::More,
            [RECORD_HANDSHAKE, 3, after @ ..] => match after.get(3) {
                None => Judgement::More,
                Some(&SERVER_HELLO) => Judgement::Good,
                Some(_) => bad("no TLS ServerHello", rest),
            },
            [RECORD_ALERT, 3, after @ ..] => match after {
                [_, 0, 2, ALERT_WARNING, what, after @ ..] if *what != ALERT_CLOSE => {
                    rest = after;
                    continue;
                }
                [_, 0, 2, _, what, ..] => Judgement::Bad(format!("TLS alert {what}")),
                [_, 0, 2, ..] | [_, 0] | [_] | [] => Judgement::More,
                _ => bad("no TLS", rest),
            },
            _ => bad("no TLS", rest),
        };
        return judgement;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Judges every beginning of an answer; what the whole of it is, and at which
    /// length that was clear.
    fn judge(expectation: &Expectation, answer: &[u8]) -> (Judgement, usize) {
        for len in 0..answer.len() {
            let judgement = expectation.judge(&answer[..len]);
            if judgement != Judgement::More {
                // More bytes never change a judgement, but for what is shown of them.
                let whole = expectation.judge(answer);
                assert_eq!(whole == Judgement::Good, judgement == Judgement::Good);
                return (judgement, len);
            }
        }
        (expectation.judge(answer), answer.len())
    }

    fn is_bad(judgement: &Judgement) -> bool {
        matches!(judgement, Judgement::Bad(_))
    }

    fn http(answer: &str) -> Judgement {
        judge(&Expectation::Status(vec![200..=399]), answer.as_bytes()).0
    }

    #[test]
    fn an_answer_is_judged_by_how_it_starts() {
        let pong = Expectation::Start(b"+PONG".to_vec());
        assert_eq!(judge(&pong, b"+PONG\r\n"), (Judgement::Good, 5));
        assert_eq!(judge(&pong, b"+PON"), (Judgement::More, 4));
        let (wrong, at) = judge(&pong, b"-ERR\r\n");
        assert_eq!(at, 1);
        assert_eq!(
            wrong,
            Judgement::Bad("answer does not start as expected (\"-\")".into())
        );
        assert!(is_bad(&judge(&pong, b"x+PONG").0));
    }

    #[test]
    fn statuses_in_the_ranges_are_healthy() {
        assert_eq!(http("HTTP/1.1 200 OK\r\n"), Judgement::Good);
        assert_eq!(http("HTTP/1.0 302 Found\r\nLocation: /"), Judgement::Good);
        assert_eq!(http("HTTP/1.1 204\r\n"), Judgement::Good);
        assert_eq!(http("HTTP/1.1 204 \r\n"), Judgement::Good);
        assert_eq!(
            http("HTTP/1.1 503 Service Unavailable\r\n"),
            Judgement::Bad("status 503".into())
        );
        assert_eq!(http("HTTP/1.1 200 OK"), Judgement::More);
        assert_eq!(http("HTTP/1.1 200 OK\r"), Judgement::More);
    }

    #[test]
    fn a_status_line_is_taken_strictly() {
        for text in [
            "HTTP/1.1 200 OK\n",
            "HTTP/1.1  200 OK\r\n",
            "HTTP/1.1 20 OK\r\n",
            "HTTP/1.1 2000 OK\r\n",
            "HTTP/1.1 000 OK\r\n",
            "HTTP/1.1 600 OK\r\n",
            "HTTP/2.0 200 OK\r\n",
            "HTTP/1.2 200 OK\r\n",
            "http/1.1 200 OK\r\n",
            " HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 O\rK\r\n",
            "HTTP/1.1 200 O\0K\r\n",
            "HTTP/1.1 200\tOK\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n",
        ] {
            assert!(is_bad(&http(text)), "{text:?}");
        }
    }

    #[test]
    fn interim_responses_are_skipped_unless_asked_for() {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        assert_eq!(http(hints), Judgement::More);
        assert_eq!(
            http(&format!("{hints}HTTP/1.1 200 OK\r\n")),
            Judgement::Good
        );
        let down = Judgement::Bad("status 500".into());
        assert_eq!(http(&format!("{hints}HTTP/1.1 500 No\r\n")), down);
        let upgrade = Judgement::Bad("status 101".into());
        assert_eq!(http("HTTP/1.1 101 Switching Protocols\r\n"), upgrade);
        let asked = Expectation::Status(vec![103..=103]);
        assert_eq!(judge(&asked, hints.as_bytes()).0, Judgement::Good);
    }

    #[test]
    fn a_server_hello_is_good_and_an_alert_is_not() {
        let judge = |answer: &[u8]| judge(&Expectation::ServerHello, answer);
        let hello = [22, 3, 3, 0, 90, 2, 0, 0, 86, 3, 3];
        assert_eq!(judge(&hello), (Judgement::Good, 6));
        let alert = [21, 3, 1, 0, 2, 2, 40];
        assert_eq!(judge(&alert).0, Judgement::Bad("TLS alert 40".into()));
        assert_eq!(judge(&alert[..6]).0, Judgement::More);
        let warning = [21, 3, 3, 0, 2, 1, 112];
        assert_eq!(judge(&warning).0, Judgement::More);
        assert_eq!(judge(&[&warning[..], &hello].concat()).0, Judgement::Good);
        let closing = [21, 3, 3, 0, 2, 1, 0];
        assert_eq!(judge(&closing).0, Judgement::Bad("TLS alert 0".into()));
        assert!(is_bad(&judge(b"HTTP/1.1 400 Bad Request\r\n").0));
        assert!(is_bad(&judge(&[22, 2, 0, 0]).0));
        // Another handshake message, a record of an alert that is too long.
        assert!(is_bad(&judge(&[22, 3, 3, 0, 90, 11]).0));
        assert!(is_bad(&judge(&[21, 3, 3, 1, 2, 1, 0]).0));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_alike_whole_and_in_pieces(
            answer in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..64),
                "HTTP/1\\.[01] [1-6][0-9]{2}( [a-z\r]{0,4})?\r?\n(\r\n)?".prop_map(String::into_bytes),
                prop::collection::vec(prop::sample::select(&[21_u8, 22, 3, 0, 1, 2, 40][..]), 0..24),
            ],
        ) {
            for expectation in [
                Expectation::Start(b"HTTP".to_vec()),
                Expectation::Status(vec![200..=299]),
                Expectation::ServerHello,
            ] {
                judge(&expectation, &answer);
            }
        }
    }
}
