//! What all who answer share.

use std::sync::Arc;

use super::subject::Subject;

/// See the module's documentation.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) subject: Arc<dyn Subject>,
}
