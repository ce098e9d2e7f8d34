//! Requests that have come and have no answer so far: the endpoint does not end before they have.
//!
//! An answer is written by the same poll that ends its debt, as far as the socket takes it; a stream is owed only until
//! it begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// See the module's documentation.
#[derive(Debug, Clone, Default)]
pub(super) struct Owed(Arc<AtomicUsize>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Debt(Owed);

impl Owed {
    /// A request has come.
    pub(super) fn one_more(&self) -> Debt {
        self.0.fetch_add(1, Ordering::Relaxed);
        Debt(self.clone())
    }

    /// Whether anybody waits for an answer.
    pub(super) fn is_some(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
