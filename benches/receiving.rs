//! How datagrams are best received on `io_uring`: in batches that readiness tells of, singly where
//! one comes at a time, as both engines do, or each by a multishot receive into a provided buffer.
//!
//! | group | what one iteration is |
//! | --- | --- |
//! | `answers` | 64 connected sockets with one datagram of 64 bytes each: those of flows |
//! | `questions` | 64 of them from 64 senders, to one socket: that of a listener |
//! | `stream` | 64 datagrams of 1,200 bytes from one sender to one socket |
//!
//! Sending, by the same thread, is in all of them the same. What is measured is the processor
//! time of the thread, so that neighbours count for little. Buffers are 64 KiB in both, which
//! is what trains need.
//!
//! `cargo bench --features uring --bench receiving`; figures are in docs/udp.md.
#![allow(unsafe_code)]
#![allow(
    clippy::cast_ptr_alignment,
    reason = "the ring of buffers begins at a page"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io::Write;
use std::mem::{size_of, zeroed};
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use io_uring::types::{BufRingEntry, Fd, RecvMsgOut};
use io_uring::{IoUring, cqueue, opcode};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use thalweg::net::datagram::batch::{Batch, SLOTS};
use thalweg::net::datagram::watch;

const FLOWS: usize = 64;

/// Buffers of the ring, twice what is under way.
const BUFFERS: u16 = 128;
const BUFFER: usize = 65_536;

/// Receivers, and for each of the datagrams of a round who sends it.
struct Sockets {
    receivers: Vec<UdpSocket>,
    senders: Vec<UdpSocket>,
    payload: Vec<u8>,
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    socket.set_nonblocking(true).expect("a socket");
    socket
}

impl Sockets {
    /// A socket with each of its senders.
    fn answers() -> Self {
        let (mut receivers, mut senders) = (Vec::new(), Vec::new());
        for _ in 0..FLOWS {
            let (receiver, sender) = (socket(), socket());
            let at = |it: &UdpSocket| it.local_addr().expect("it is bound");
            receiver.connect(at(&sender)).expect("loopback");
            sender.connect(at(&receiver)).expect("loopback");
            receivers.push(receiver);
            senders.push(sender);
        }
        Self {
            receivers,
            senders,
            payload: vec![1; 64],
        }
    }

    /// All by one.
    fn to_one(len: usize) -> Self {
        let receiver = socket();
        let senders = (0..FLOWS).map(|_| {
            let sender = socket();
            let at = receiver.local_addr().expect("it is bound");
            sender.connect(at).expect("loopback");
            sender
        });
        Self {
            senders: senders.collect(),
            receivers: vec![receiver],
            payload: vec![1; len],
        }
    }

    fn send(&self, from_one: bool) {
        for sender in &self.senders {
            let sender = if from_one { &self.senders[0] } else { sender };
            sender.send(&self.payload).expect("there is room");
        }
    }

    fn of_clients(&self) -> bool {
        self.receivers.len() == 1
    }
}

/// Takes all datagrams of a round.
trait Receiver {
    fn receive(&mut self, sockets: &Sockets);
}

/// In batches, or one by one from sockets that are told of until they are empty.
struct Batches {
    singly: bool,
    poll: Poll,
    events: Events,
    batch: Batch,
}

impl Batches {
    fn new(sockets: &Sockets, singly: bool) -> Self {
        let poll = Poll::new().expect("an epoll instance");
        for (at, socket) in sockets.receivers.iter().enumerate() {
            let (fd, interest) = (socket.as_raw_fd(), Interest::READABLE);
            let registry = poll.registry();
            let added = if singly {
                watch(registry.as_fd(), socket.as_fd(), at as u64)
            } else {
                registry.register(&mut SourceFd(&fd), Token(at), interest)
            };
            added.expect("it is watched");
        }
        Self {
            singly,
            poll,
            events: Events::with_capacity(512),
            batch: Batch::new(),
        }
    }
}

impl Receiver for Batches {
    fn receive(&mut self, sockets: &Sockets) {
        /// A flow that has few at a time is asked for few.
        const QUIET: usize = 4;
        let mut left = FLOWS;
        let (of_clients, mut filled) = (sockets.of_clients(), 0);
        let most = if of_clients { SLOTS } else { QUIET };
        while left > 0 {
            self.poll.poll(&mut self.events, None).expect("events");
            for event in &self.events {
                let socket = sockets.receivers[event.token().0].as_fd();
                loop {
                    if SLOTS - filled < most {
                        filled = 0;
                    }
                    let came = if self.singly {
                        self.batch.receive_single(socket, filled)
                    } else {
                        self.batch.receive(socket, filled, most, of_clients)
                    };
                    let came = came.unwrap_or(0);
                    for slot in filled..filled + came {
                        assert_eq!(self.batch.payload(slot).len(), sockets.payload.len());
                    }
                    filled += came;
                    left -= came;
                    if came < most {
                        break;
                    }
                }
            }
        }
    }
}

/// A ring of provided buffers, and a receive for each socket that goes on by itself.
struct Multishot {
    ring: IoUring,
    memory: *mut u8,
    tail: u16,
    header: Box<libc::msghdr>,
}

const LAYOUT: Layout = match Layout::from_size_align(4096 + BUFFERS as usize * BUFFER, 4096) {
    Ok(layout) => layout,
    Err(_) => panic!("a size and a power of two"),
};

impl Multishot {
    /// `None` where the kernel has it not.
    fn new(sockets: &Sockets) -> Option<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(1024)
            .build(256)
            .ok()?;
        // SAFETY: the layout has a size.
        let memory = unsafe { alloc_zeroed(LAYOUT) };
        assert!(!memory.is_null(), "8 MiB");
        // SAFETY: all zeroes is a header without anything in it.
        let mut header: Box<libc::msghdr> = Box::new(unsafe { zeroed() });
        header.msg_namelen = size_of::<libc::sockaddr_in6>() as u32;
        header.msg_controllen = 96;
        let submitter = ring.submitter();
        // SAFETY: the memory is aligned to a page and lives for as long as the ring.
        unsafe { submitter.register_buf_ring_with_flags(memory as u64, BUFFERS, 0, 0) }.ok()?;
        let mut this = Self {
            ring,
            memory,
            tail: 0,
            header,
        };
        for id in 0..BUFFERS {
            this.provide(id);
        }
        for at in 0..sockets.receivers.len() {
            this.arm(sockets, at);
        }
        Some(this)
    }

    fn provide(&mut self, id: u16) {
        let entries = self.memory.cast::<BufRingEntry>();
        // SAFETY: the place is one of the ring's, the buffer lies behind the ring, and the
        // kernel has neither until the tail says so.
        unsafe {
            let entry = &mut *entries.add(usize::from(self.tail % BUFFERS));
            entry.set_addr(self.memory.add(4096 + usize::from(id) * BUFFER) as u64);
            entry.set_len(BUFFER as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(entries).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }

    fn arm(&mut self, sockets: &Sockets, at: usize) {
        let fd = Fd(sockets.receivers[at].as_raw_fd());
        let entry = if sockets.of_clients() {
            opcode::RecvMsgMulti::new(fd, &raw const *self.header, 0).build()
        } else {
            // Without a header, which costs less: what flows of few datagrams need.
            opcode::RecvMulti::new(fd, 0).build()
        };
        let entry = entry.user_data(at as u64);
        // SAFETY: the header and the buffers live for as long as the ring.
        unsafe { self.ring.submission().push(&entry) }.expect("there is room");
    }
}

impl Receiver for Multishot {
    fn receive(&mut self, sockets: &Sockets) {
        let mut left = FLOWS;
        while left > 0 {
            self.ring.submit_and_wait(1).expect("completions");
            let (mut ended, mut given) = (Vec::new(), [0; FLOWS]);
            let mut count = 0;
            for entry in self.ring.completion().take(FLOWS) {
                if !cqueue::more(entry.flags()) {
                    ended.push(entry.user_data() as usize);
                }
                let Some(id) = cqueue::buffer_select(entry.flags()) else {
                    continue;
                };
                let from = 4096 + usize::from(id) * BUFFER;
                let len = entry.result().max(0) as usize;
                // SAFETY: the kernel has filled it, and has it no more.
                let bytes = unsafe { std::slice::from_raw_parts(self.memory.add(from), len) };
                let len = if sockets.of_clients() {
                    let message = RecvMsgOut::parse(bytes, &self.header);
                    message.expect("it has a header").payload_data().len()
                } else {
                    bytes.len()
                };
                assert_eq!(len, sockets.payload.len());
                given[count] = id;
                count += 1;
                left -= 1;
            }
            for id in &given[..count] {
                self.provide(*id);
            }
            for at in ended {
                self.arm(sockets, at);
            }
        }
    }
}

impl Drop for Multishot {
    fn drop(&mut self) {
        let _ = self.ring.submitter().unregister_buf_ring(0);
        // What still waits for a datagram has no buffer, and the sockets are closed next.
        // SAFETY: it was allocated so, and nobody else has it.
        unsafe { dealloc(self.memory, LAYOUT) };
    }
}

fn processor_time() -> Duration {
    // SAFETY: all zeroes is a time, which the call overwrites.
    let time = unsafe {
        let mut time: libc::timespec = zeroed();
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time);
        time
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn compare(criterion: &mut Criterion, name: &str, make: impl Fn() -> Sockets, from_one: bool) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(FLOWS as u64));
    let mut measure = |way: &str, sockets: &Sockets, receiver: &mut dyn Receiver| {
        group.bench_function(way, |bencher| {
            bencher.iter_custom(|times| {
                let begun = processor_time();
                for _ in 0..times {
                    sockets.send(from_one);
                    receiver.receive(sockets);
                }
                processor_time().saturating_sub(begun)
            });
        });
    };
    // Interleaved: what the machine does meanwhile hits both.
    for round in 1..=3 {
        let sockets = make();
        let mut batches = Batches::new(&sockets, false);
        measure(&format!("batches/{round}"), &sockets, &mut batches);
        let sockets = make();
        if !sockets.of_clients() {
            let mut singly = Batches::new(&sockets, true);
            measure(&format!("singly/{round}"), &sockets, &mut singly);
        }
        let sockets = make();
        if let Some(mut multishot) = Multishot::new(&sockets) {
            measure(&format!("multishot/{round}"), &sockets, &mut multishot);
        } else {
            let mut said = std::io::stderr();
            let _ = writeln!(said, "{name}: this kernel has no multishot receive");
        }
    }
    group.finish();
}

fn answers(criterion: &mut Criterion) {
    compare(criterion, "answers", Sockets::answers, false);
}

fn questions(criterion: &mut Criterion) {
    compare(criterion, "questions", || Sockets::to_one(64), false);
}

fn stream(criterion: &mut Criterion) {
    compare(criterion, "stream", || Sockets::to_one(1200), true);
}

criterion_group!(groups, answers, questions, stream);
criterion_main!(groups);
