//! A panic on the admin's thread costs what was being answered, and nothing else: it is
//! caught where the work is polled, counted, told, and what has to go on begins anew.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use crate::observe::log::Log;

/// The outcome of some work; `None`: it panicked, which is counted and told. It is not
/// polled again then.
pub(super) async fn guarded<F: Future>(log: &Log, work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    poll_fn(|cx| match log.guard("admin", || work.as_mut().poll(cx)) {
        Some(Poll::Ready(output)) => Poll::Ready(Some(output)),
        Some(Poll::Pending) => Poll::Pending,
        None => Poll::Ready(None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LogFormat, LogLevel, LogTarget};
    use crate::observe::panics;

    #[tokio::test]
    async fn a_panic_is_counted_and_whoever_else_is_served_goes_on() {
        let null = LogTarget::File("/dev/null".into());
        let (log, _writer) = Log::start(LogLevel::Error, LogFormat::Text, &null).expect("a log");
        let before = panics::count();
        let half = async {
            tokio::task::yield_now().await;
            panic!("as a test does");
        };
        assert_eq!(guarded(&log, half).await, None::<()>);
        assert!(panics::count() > before);
        assert_eq!(guarded(&log, async { 7 }).await, Some(7));
    }
}
