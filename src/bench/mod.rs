//! Load generator, origin server, peers, statistics, reports.
