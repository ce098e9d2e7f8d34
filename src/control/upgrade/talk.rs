//! A conversation: messages over a channel, each within a time.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use thiserror::Error;

use super::channel::{Channel, ChannelError, DESCRIPTORS_MAX};
use super::message::Saying;

/// How long the other process may take for what has nobody wait: to start, to read its
/// configuration, to open what it opens.
pub(in crate::control) const PREPARING: Duration = Duration::from_secs(20);

/// How long it may take for what has sessions wait.
pub(in crate::control) const PROMPT: Duration = Duration::from_secs(4);

/// Why a conversation came to nothing.
#[derive(Debug, Error)]
pub(in crate::control) enum TalkError {
    #[error("{0}")]
    Channel(#[from] ChannelError),
    #[error("it refuses: {0}")]
    Refused(String),
    #[error("it says {said} where {wanted} is due")]
    OutOfTurn { said: String, wanted: &'static str },
    #[error("{0}")]
    GivenUp(String),
    #[error("it does not have what was sent: {0}")]
    Lost(String),
}

/// See the module's documentation.
#[derive(Debug)]
pub(in crate::control) struct Talk(pub(in crate::control) Channel);

impl Talk {
    pub(in crate::control) fn say(
        &self,
        message: &Saying,
        patience: Duration,
    ) -> Result<(), TalkError> {
        self.say_with(message, &[], &[], patience)
    }

    pub(in crate::control) fn say_with(
        &self,
        message: &Saying,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
        patience: Duration,
    ) -> Result<(), TalkError> {
        // Plain data always serialises.
        let text = serde_json::to_vec(message).unwrap_or_default();
        Ok(self.0.send(&text, bytes, descriptors, patience)?)
    }

    /// Whether the other process has the connection still: it lives.
    pub(in crate::control) fn is_open(&self) -> bool {
        !self.0.is_hung_up()
    }

    /// The next message; a refusal is an error.
    pub(in crate::control) fn hear(&self, patience: Duration) -> Result<Heard, TalkError> {
        let packet = self.0.receive(patience)?;
        let foreign = |error: serde_json::Error| ChannelError::Foreign(error.to_string());
        let message = serde_json::from_slice(&packet.text).map_err(foreign)?;
        if let Saying::Refused { reason } = message {
            return Err(TalkError::Refused(reason));
        }
        Ok(Heard {
            message,
            descriptors: packet.descriptors,
            bytes: packet.bytes,
        })
    }

    /// Says something that descriptors go with, and returns once the other process has named each
    /// of the `expected` sockets by its cookie: the places in the message of those that it
    /// cannot have.
    pub(in crate::control) fn say_and_await(
        &self,
        message: &Saying,
        (bytes, descriptors): (&[u8], &[BorrowedFd<'_>]),
        expected: &[u64],
        patience: Duration,
    ) -> Result<Vec<usize>, TalkError> {
        self.say_with(message, bytes, descriptors, patience)?;
        match self.hear(patience)?.message {
            Saying::Have { cookies, refused } if cookies == expected => {
                Ok(refused.into_iter().map(|(at, _)| at).collect())
            }
            Saying::Have { cookies, .. } => {
                let lost = expected.iter().filter(|it| !cookies.contains(it)).count();
                let (all, what) = (expected.len(), message.name());
                Err(TalkError::Lost(format!("{lost} sockets of {all} ({what})")))
            }
            other => Err(out_of_turn(&other, "have")),
        }
    }

    /// Sends descriptors of sockets, and returns once the other process has named each of
    /// them by its cookie.
    pub(in crate::control) fn hand_over<T>(
        &self,
        items: &[T],
        socket: impl Fn(&T) -> BorrowedFd<'_>,
        announce: impl Fn(&[T], Vec<u64>, bool) -> Saying,
        patience: Duration,
    ) -> Result<(), TalkError> {
        let parts = items.len().div_ceil(DESCRIPTORS_MAX).max(1);
        for part in 0..parts {
            let from = part * DESCRIPTORS_MAX;
            let some = &items[from..items.len().min(from + DESCRIPTORS_MAX)];
            let sockets: Vec<BorrowedFd<'_>> = some.iter().map(&socket).collect();
            let cookies = cookies(&sockets)?;
            let message = announce(some, cookies.clone(), part + 1 == parts);
            self.say_and_await(&message, (&[], &sockets), &cookies, patience)?;
        }
        Ok(())
    }

    /// Names what has come.
    pub(in crate::control) fn have(
        &self,
        descriptors: &[OwnedFd],
        announced: &[u64],
        patience: Duration,
    ) -> Result<(), TalkError> {
        let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let cookies = cookies(&borrowed)?;
        if cookies != announced {
            return Err(TalkError::Lost("they are other sockets".to_owned()));
        }
        let refused = Vec::new();
        self.say(&Saying::Have { cookies, refused }, patience)
    }
}

/// What was said, with the descriptors that came along.
#[derive(Debug)]
pub(in crate::control) struct Heard {
    pub(in crate::control) message: Saying,
    pub(in crate::control) descriptors: Vec<OwnedFd>,
    pub(in crate::control) bytes: Vec<u8>,
}

pub(in crate::control) fn out_of_turn(said: &Saying, wanted: &'static str) -> TalkError {
    TalkError::OutOfTurn {
        said: said.name().to_owned(),
        wanted,
    }
}

/// What the kernel calls each of these sockets, in every process that has it.
pub(in crate::control) fn cookies(sockets: &[BorrowedFd<'_>]) -> Result<Vec<u64>, ChannelError> {
    let cookies = sockets.iter().map(rustix::net::sockopt::socket_cookie);
    Ok(cookies.collect::<Result<_, _>>()?)
}
