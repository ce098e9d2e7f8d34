//! What an answer to a check says, without asking anybody: for fuzzers.

use super::answer::{Expectation, Judgement};

/// What has to be answered.
#[derive(Debug, Clone, Copy)]
pub enum Sought<'a> {
    /// These bytes first.
    Start(&'a [u8]),
    /// An HTTP response with a status of 200 to 299.
    Success,
    /// A TLS ServerHello.
    ServerHello,
}

/// Whether what has come so far is a good answer; `None`: that needs more; else why not.
pub fn judge(wanted: Sought<'_>, answer: &[u8]) -> Option<Result<(), String>> {
    let expectation = match wanted {
        Sought::Start(start) => Expectation::Start(start.to_vec()),
        Sought::Success => Expectation::Status(vec![200..=299]),
        Sought::ServerHello => Expectation::ServerHello,
    };
    match expectation.judge(answer) {
        Judgement::More => None,
        Judgement::Good => Some(Ok(())),
        Judgement::Bad(why) => Some(Err(why)),
    }
}
