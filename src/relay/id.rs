//! Identities: small numbers for what has a name in the configuration.
//!
//! `control` hands them out from names and never uses one again, so an identity that
//! outlives its subject (in a message on its way, in a session that runs on after a
//! forward was removed) finds nothing instead of somebody else. No position in a
//! vector stands for a subject in any interface between rooms.

macro_rules! identities {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u32);

        impl $name {
            /// For whoever hands identities out, and for tests.
            pub const fn new(number: u32) -> Self {
                Self(number)
            }

            /// As a number, for keys and for people.
            pub const fn number(self) -> u32 {
                self.0
            }
        }
    )*};
}

identities! {
    /// A forward, by its name.
    ForwardId;
    /// Where forwards go: a pool, by its name (a forward's own: by the forward's), and the
    /// options with which its servers are dialled.
    PoolId;
    /// A server, by its pool and its endpoint.
    ServerId;
    /// An address that is listened on; each reactor has a socket of its own for it.
    ListenerId;
    /// A name that is kept resolved.
    NameId;
}
