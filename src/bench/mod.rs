//! Measuring forwarders: the far end, the load, the peers, the statistics and
//! the report.
//!
//! | part | what it is |
//! | --- | --- |
//! | [`origin`] | the server behind a forwarder: echo, sink, source, records |
//! | [`probe`] | a client of the origin which checks a path and its answers |
//! | [`load`] | the load generator: bulk, request-response, connection rate |
//! | [`sampling`] | pure: which bytes of a bulk flow are compared |
//! | [`datagram`] | pure: what is in the datagrams of a measurement |
//! | [`traffic`] | datagrams sent and arrived, each way, and who may send more |
//! | [`stats`] | pure: intervals of means and ratios, verdicts |
//! | [`precedence`] | whose threads run before bulk |
//! | [`watch`] | `TCP_INFO` of a running measurement's sockets |
//! | [`process`] | CPU time, memory, descriptors and CPU set of a process tree |
//! | [`subjects`] | what is compared, how each is configured, started, stopped |
//! | [`harness`] | interleaved rounds: which figure is taken when |
//! | [`path`] | an emulated path: delay, rate, loss, queue |
//! | [`report`] | the figures as a table, JSON and one HTML page |
//!
//! Payload is one fixed pattern ([`pattern`]) whose content depends on the
//! position, so that a byte lost, repeated or crossed over is seen where it is
//! checked. Every wait has a deadline; nothing here outlives its owner.

pub mod datagram;
pub mod harness;
pub mod interrupt;
pub mod load;
pub mod machine;
mod mmsg;
mod netlink;
pub mod netns;
pub mod origin;
pub mod path;
pub mod pattern;
pub mod precedence;
pub mod preface;
pub mod probe;
pub mod process;
pub mod report;
mod route;
pub mod sampling;
pub mod socket;
pub mod stats;
mod streaming;
pub mod subjects;
mod sys;
pub mod traffic;
pub mod units;
pub mod watch;
