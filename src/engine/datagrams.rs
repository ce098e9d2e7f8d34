//! Datagrams: what an engine does with them.
//!
//! ```text
//!            receive                       post                   flush
//!  socket ────────────► trains in slots ────────► posts in order ───────► sockets
//!                        (who, how many, how long)                        │ outcomes
//! ```
//! Bytes stay in the slots that they were read into until they are flushed; whoever decides
//! sees trains: a datagram, or several of the same size that came as one. Posts of one flow
//! that stand next to each other leave as one again where the kernel takes that
//! (`UDP_SEGMENT`); where it does not, singly, and nothing is lost for it.
//!
//! A socket that was not read empty and said that there is more is read again without an event;
//! whoever receives remembers that. How both real engines do it is in `engine::sockets`.

use std::io;
use std::net::SocketAddr;

use super::key::DatagramKey;
use super::{Engine, Target};
use crate::net::datagram::batch::Train;
use crate::net::datagram::{LocalAddress, Lost};
use crate::relay::ending::Cause;

/// What an engine does with datagrams. See the module's documentation.
///
/// # Contract
/// 1. A train is whole, or said to be cut; trains of a socket come in order.
/// 2. What is posted is flushed in order for each socket, or has an outcome that says why
///    not. Nothing is sent twice.
/// 3. An error that the kernel has for an earlier datagram costs no later one.
/// 4. [`Event::Datagrams`](super::Event::Datagrams) may be spurious, and may come after the
///    socket was closed.
pub trait Datagrams: Engine {
    /// Takes the datagrams of a listener from now on.
    fn open_port(&mut self, listener: Self::Listener) -> io::Result<DatagramKey>;

    /// Takes them no more, and gives the listener back.
    fn close_port(&mut self, key: DatagramKey) -> Option<Self::Listener>;

    /// Tells of it no more; datagrams can still be sent by it.
    fn mute_port(&mut self, key: DatagramKey);

    /// A socket for the datagrams of one flow, connected to its server.
    fn call(&mut self, target: Target<'_>, never_fragment: bool) -> Result<DatagramKey, Cause>;

    /// Closes a socket of a flow.
    fn hang_up(&mut self, key: DatagramKey);

    /// Looks after a flow's socket no more, and gives it back.
    fn let_go(&mut self, key: DatagramKey) -> Option<Self::Call>;

    /// Looks after a flow's socket that was let go, here or in another process. What waits
    /// in it need not raise an event.
    fn take_up(&mut self, call: Self::Call) -> io::Result<DatagramKey>;

    /// Trains that can be received before what was received must be flushed.
    fn room(&self) -> usize;

    /// Receives from a socket, no more trains than that. Of one train of a flow's socket an event
    /// follows for what is behind it.
    fn receive(&mut self, key: DatagramKey, most: usize) -> Received;

    /// Connects a flow's socket to its server again, from another port, for another flow. What had
    /// come to it and was not received is thrown away: how many that were. After an error it is
    /// good for nothing but to be closed.
    fn call_anew(&mut self, key: DatagramKey, target: Target<'_>) -> Result<u32, Cause>;

    /// A train that was received.
    fn train(&self, index: usize) -> &Train;

    /// Its bytes.
    fn payload(&self, index: usize) -> &[u8];

    /// Has a train sent with the next flush.
    fn post(&mut self, post: Post);

    /// Sends a datagram at once, before all posts.
    fn send_at_once(&mut self, key: DatagramKey, datagram: &[u8]) -> Result<(), Lost>;

    /// Sends all posts; appends what came of them. Trains that were received stay.
    fn send_posts(&mut self, outcomes: &mut Vec<Outcome>);

    /// Forgets the trains that were received: the next ones take their place. Nothing is posted.
    fn forget_trains(&mut self);

    /// Datagrams that a socket has lost so far, because its receive queue was full. Costs a
    /// system call.
    fn queue_drops(&self, key: DatagramKey) -> u32;
}

/// What came of [`Datagrams::receive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Received {
    /// The first train, and how many.
    pub first: usize,
    /// See `first`.
    pub count: usize,
    /// There may be more: it is to be called again without an event.
    pub more: bool,
    /// What ICMP said of datagrams sent before: that nobody listens, or no way there.
    pub refusals: u32,
}

/// A train that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Post {
    /// From which socket.
    pub socket: DatagramKey,
    /// Which train.
    pub train: u16,
    /// Whose it is: that of the outcome. Posts of a socket with the same tag have the same
    /// receiver.
    pub tag: u32,
    /// To whom, and from which local address; `None`: a connected socket knows.
    pub to: Option<(SocketAddr, Option<LocalAddress>)>,
    /// It may leave as one with its neighbours.
    pub joined: bool,
    /// Bytes at its beginning that are left out, and how many follow: whole datagrams.
    pub skip: u32,
    /// See `skip`.
    pub len: u32,
}

/// What came of posts that left together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// See [`Post::tag`].
    pub tag: u32,
    /// The first train of them.
    pub train: u16,
    /// Datagrams that were sent, and their bytes.
    pub sent: u32,
    /// See `sent`.
    pub bytes: u64,
    /// Why others were not, and how many.
    pub lost: Option<(Lost, u32)>,
    /// They had to be sent singly: what is posted for the same receiver is not to be joined.
    pub singly: bool,
}
