//! What all who answer share.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::bind::{STREAMS_MAX, TAPS_MAX};
use super::pictures::Live;
use super::subject::Subject;

/// See the module's documentation.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) subject: Arc<dyn Subject>,
    pub(super) streams: Arc<Semaphore>,
    pub(super) taps: Arc<Semaphore>,
    pub(super) live: Arc<Live>,
}

impl Shared {
    pub(super) fn new(subject: Arc<dyn Subject>) -> Self {
        Self {
            subject,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            taps: Arc::new(Semaphore::new(TAPS_MAX)),
            live: Arc::default(),
        }
    }
}
