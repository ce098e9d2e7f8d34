//! What is valid and yet seldom meant: said, and gone by.

use super::forward::Forward;
use super::model::Config;

impl Config {
    /// What is worth a second look, a sentence each.
    pub fn advice(&self) -> Vec<String> {
        self.forwards
            .iter()
            .filter_map(|it| trusts_all(it))
            .collect()
    }
}

/// Whoever reaches such a forward says who he is.
fn trusts_all(forward: &Forward) -> Option<String> {
    let accept = forward.accept_proxy.as_ref()?;
    accept.trusts_everybody().then(|| {
        format!(
            "forward {}: accept_proxy believes the PROXY headers of everybody: whoever reaches it \
             can pass for any client; name the networks of the proxies, such as accept_proxy = \
             [\"10.0.0.0/8\"]",
            forward.name
        )
    })
}
