//! Talking to the kernel about sockets: addresses, options, listeners, dialling,
//! pipes, `TCP_INFO`, limits, and what an errno means to a forwarder.

pub mod address;
pub mod datagram;
pub mod device;
pub mod dial;
pub mod errno;
pub mod handed;
pub mod holder;
pub mod inherited;
pub mod journal;
pub mod limits;
pub mod listener;
pub mod network;
pub mod notify;
pub mod options;
pub mod own;
pub mod pipe;
pub mod shared;
mod sys;
pub mod tcp_info;
pub mod turn_away;
pub mod word;
