//! The pure core: one direction of a connection, and the life of a connection.
