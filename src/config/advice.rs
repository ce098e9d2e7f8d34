//! What is valid and yet seldom meant: said, and gone by.

use std::sync::Arc;

use super::forward::{DataPath, Forward, Timeouts};
use super::model::Config;
use super::udp::Udp;

impl Config {
    /// What is worth a second look, a sentence each.
    pub fn advice(&self) -> Vec<String> {
        let of_each = |it: &Arc<Forward>| {
            let all = [
                trusts_all(it),
                self.speaks_of_datagrams(it),
                self.speaks_of_connections(it),
                counts_packets_of_quic(it),
            ];
            all.into_iter().flatten()
        };
        self.forwards.iter().flat_map(of_each).collect()
    }
}

impl Config {
    /// Keys of UDP, and nobody who sends datagrams: most often `protocol` was forgotten. What stands
    /// in `[defaults]` is no such case.
    fn speaks_of_datagrams(&self, forward: &Forward) -> Option<String> {
        let keys = keys_of_udp(&forward.udp);
        let for_others = |it: &Arc<Forward>| it.protocol.has_udp() && it.udp == forward.udp;
        // As a configuration that is printed with every default filled in has them.
        let of_all =
            self.forwards.len() > 1 && self.forwards.iter().all(|it| it.udp == forward.udp);
        let is_meant = forward.says_of_udp.0 && !of_all;
        if forward.protocol.has_udp()
            || keys.is_empty()
            || !is_meant
            || self.forwards.iter().any(for_others)
        {
            return None;
        }
        Some(format!(
            "forward {}: it forwards connections alone, to which {} says nothing; for datagrams \
             write protocol = \"udp\" or \"tcp+udp\"",
            forward.name,
            keys.join(", ")
        ))
    }

    /// The other way round.
    fn speaks_of_connections(&self, forward: &Forward) -> Option<String> {
        let keys = keys_of_tcp(forward);
        let for_others = |it: &Arc<Forward>| it.protocol.has_tcp() && keys_of_tcp(it) == keys;
        if forward.protocol.has_tcp() || keys.is_empty() || self.forwards.iter().any(for_others) {
            return None;
        }
        Some(format!(
            "forward {}: it forwards datagrams alone, to which {} says nothing; how long a flow may be \
             silent is udp_idle_timeout and udp_unanswered_timeout",
            forward.name,
            keys.join(", ")
        ))
    }
}

/// Keys that are not as they are by themselves.
fn keys_of_udp(udp: &Udp) -> Vec<&'static str> {
    let usual = Udp::default();
    let keys = [
        ("udp_idle_timeout", udp.idle != usual.idle),
        ("udp_unanswered_timeout", udp.unanswered != usual.unanswered),
        ("requests", udp.requests.is_some()),
        ("responses", udp.responses.is_some()),
        ("max_flows", udp.max_flows.is_some()),
        ("fragment", udp.fragment != usual.fragment),
        ("on_down", udp.on_down != usual.on_down),
        ("max_reply_factor", udp.max_reply_factor.is_some()),
        ("quic", udp.quic),
    ];
    keys.iter().filter(|it| it.1).map(|it| it.0).collect()
}

/// Likewise, of those that only connections go by.
fn keys_of_tcp(forward: &Forward) -> Vec<&'static str> {
    let (is, usual) = (&forward.timeouts, Timeouts::default());
    let keys = [
        ("connect_timeout", is.connect != usual.connect),
        ("idle_timeout", is.idle != usual.idle),
        ("half_close_timeout", is.half_close != usual.half_close),
        ("write_stall_timeout", is.write_stall != usual.write_stall),
        ("data_path", forward.data_path != DataPath::Auto),
    ];
    keys.iter().filter(|it| it.1).map(|it| it.0).collect()
}

/// A connection of QUIC is no row of questions, each with so many answers.
fn counts_packets_of_quic(forward: &Forward) -> Option<String> {
    let udp = &forward.udp;
    let key = match (udp.requests, udp.responses) {
        (Some(_), _) => "requests",
        (None, Some(_)) => "responses",
        (None, None) => return None,
    };
    (udp.quic && forward.protocol.has_udp()).then(|| {
        format!(
            "forward {}: `{key}` ends the flows of QUIC in the middle of their connections; write it in \
             the forwards that it is for",
            forward.name
        )
    })
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
