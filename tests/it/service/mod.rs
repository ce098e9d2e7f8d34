//! A service manager's part: sockets that it passes, and what it is told.

mod activation;
