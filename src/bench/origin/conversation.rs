//! What a command does that is more than a built-in behaviour: bytes in, bytes out.

/// What a conversation did with its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Bytes of the input that were used.
    pub used: usize,
    /// What comes next.
    pub next: Next,
}

/// What comes after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// More input for this conversation.
    More,
    /// The conversation is over; the next command line follows.
    Command,
    /// Send what was put out, then close.
    Close,
}

/// An exchange of bytes with one client. It must use all of its input unless it
/// is over, keep its own bounds, and never wait.
pub trait Conversation: Send {
    /// Takes input, appends its answer to `output`.
    fn input(&mut self, input: &[u8], output: &mut Vec<u8>) -> Turn;

    /// Bytes of memory that it holds, for the bound over all connections.
    fn held(&self) -> usize {
        0
    }

    /// The client has ended its side; a last answer may follow.
    fn end(&mut self, _output: &mut Vec<u8>) {}
}
