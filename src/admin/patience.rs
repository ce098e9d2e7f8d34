//! How long a peer of the endpoint may take: a connection as hyper sees it, with an end.
//!
//! An answer must have been taken within a time that starts with its request, however
//! slowly it is read (behaviour 139). A stream has no such time; of it every write must
//! have been taken within one.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// From a request to the last byte of its answer.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// Likewise where a new process has to be started first.
pub(super) const ANSWER_OF_ANOTHER: Duration = Duration::from_secs(60);

/// A write of a stream.
const STREAM: Duration = Duration::from_secs(60);

/// No time is running.
const NONE: u64 = u64::MAX;

/// When what is being said must have been taken; shared by a connection and whoever
/// answers on it.
#[derive(Debug, Clone)]
pub(super) struct Line {
    start: Instant,
    /// Milliseconds behind `start`.
    until: Arc<AtomicU64>,
}

impl Line {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            until: Arc::new(AtomicU64::new(NONE)),
        }
    }

    /// A request has come, and may be answered within this time.
    pub(super) fn asked(&self, answer: Duration) {
        let until = self.start.elapsed() + answer;
        self.until
            .store(until.as_millis() as u64, Ordering::Relaxed);
    }

    /// The answer is a stream.
    pub(super) fn streams(&self) {
        self.until.store(NONE, Ordering::Relaxed);
    }

    fn deadline(&self) -> Option<Instant> {
        let until = self.until.load(Ordering::Relaxed);
        (until != NONE).then(|| self.start + Duration::from_millis(until))
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Patient<S> {
    stream: S,
    line: Line,
    /// Since a write had to wait.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(super) const fn new(stream: S, line: Line) -> Self {
        Self {
            stream,
            line,
            waiting: None,
        }
    }

    /// Nothing can be written now: until when that may be so.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let line = &self.line;
        let waiting = self.waiting.get_or_insert_with(|| {
            let until = line.deadline().unwrap_or_else(|| Instant::now() + STREAM);
            Box::pin(sleep_until(until))
        });
        ready!(waiting.as_mut().poll(cx));
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(cx, bytes) {
            self.waiting = None;
            return Poll::Ready(written);
        }
        self.wait(cx).map(Err)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write_vectored(cx, parts) {
            self.waiting = None;
            return Poll::Ready(written);
        }
        self.wait(cx).map(Err)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
