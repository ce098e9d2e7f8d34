//! Several forwarders as one service (161 to 168): what each of them owes the others.

mod leaving;
