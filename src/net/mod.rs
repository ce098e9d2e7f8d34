//! Talking to the kernel about sockets: addresses, options, listeners, pipes,
//! TCP_INFO, and what an errno means to a forwarder.

pub mod address;
pub mod options;
