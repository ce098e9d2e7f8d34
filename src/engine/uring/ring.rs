//! The ring: submits operations, takes completions, and outlives neither its
//! buffers nor what is in flight.
//!
//! Owns the io_uring instance and the provided buffers. Counts what is in flight:
//! dropping it cancels everything and reaps until the count is zero, and only then
//! frees the buffers; should the kernel not come back, they are leaked.
//!
//! Oldest kernel: 6.1. Completions are deferred to the thread's own
//! `io_uring_enter` (`DEFER_TASKRUN`); and a send that fails after a part was taken
//! reports that part, where 6.0, as far as known, reports the failure alone.
//!
//! Out of memory the kernel refuses submissions with EAGAIN: they wait, and so does
//! the thread, a millisecond at a time. If it cannot even keep a completion (EBADR)
//! operations are lost whose end nobody would ever learn of: that is an error of
//! [`Ring::enter`], and the end of its reactor.
#![allow(unsafe_code)]

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use io_uring::register::Restriction;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{Builder, EnterFlags, IoUring, cqueue, opcode};

use super::buffers::{Buffers, Piece};
use super::op::Tag;

/// The group of the provided buffers; there is but one.
const GROUP: u16 = 0;

/// How long the thread rests when the kernel has no memory for submissions.
const SHORTAGE_REST: Duration = Duration::from_millis(1);

/// Rounds of cancel and reap when the ring is dropped, a tenth of a second each.
const DROP_ROUNDS: u32 = 20;

/// How large the queues shared with the kernel are.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Submissions that fit before they are passed to the kernel. They are passed
    /// on once a turn anyway; a turn with more makes one more system call.
    pub submissions: u32,
    /// Completions that fit. The kernel keeps what does not (`NODROP`), at the
    /// price of an allocation each.
    pub completions: u32,
    /// Provided buffers, a power of two: what arrives in one turn for
    /// streamed legs. Legs that find none go on without. Measured with 1,000 flows of 64 bytes and 256 of
    /// 16 KiB: 64 are slower by 5 and 7 % than 128.
    pub buffers: u16,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            submissions: 512,
            completions: 4096,
            buffers: 128,
        }
    }
}

/// What the kernel reports.
#[derive(Debug, Clone, Copy)]
pub(super) struct Completion {
    pub(super) tag: Tag,
    /// As a system call would return it; errors are negative.
    pub(super) result: i32,
    flags: u32,
}

impl Completion {
    /// The operation goes on: more completions follow.
    pub(super) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }
}

/// See the module's documentation.
pub(super) struct Ring {
    uring: ManuallyDrop<IoUring>,
    /// What `io_uring_enter` is called with: the descriptor, or the index under
    /// which it is registered, and the flag that says so.
    entry: (i32, u32),
    buffers: ManuallyDrop<Buffers>,
    /// Operations whose last completion is still to come.
    flying: u32,
    /// Completions taken to make room for submissions.
    backlog: Vec<Completion>,
    /// Why it cannot be used any more, until somebody was told.
    broken: Option<io::Error>,
}

impl Ring {
    /// A ring for the calling thread: no other may use it.
    pub(super) fn new(sizes: Sizes) -> io::Result<Self> {
        let ring = open(sizes)?;
        let features = ring.params();
        if !features.is_feature_nodrop()
            || !features.is_feature_ext_arg()
            || !features.is_feature_fast_poll()
        {
            return Err(io::Error::from_raw_os_error(libc::ENOSYS));
        }
        let buffers = Buffers::new(sizes.buffers)?;
        // SAFETY: the address and the number of entries are those of a mapping that
        // lives until they are unregistered: `drop` frees it after that, or never.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                buffers.address(),
                buffers.count(),
                GROUP,
                0,
            )
        }?;
        Ok(Self {
            entry: register_descriptor(ring.as_raw_fd()),
            uring: ManuallyDrop::new(ring),
            buffers: ManuallyDrop::new(buffers),
            flying: 0,
            backlog: Vec::new(),
            broken: None,
        })
    }

    /// Lets the kernel poll the network cards' queues while it waits. Best effort:
    /// since 6.9, and not on every card.
    pub(super) fn busy_poll_cards(&self, time: Duration) {
        let micros = time.as_micros().min(u128::from(u32::MAX)) as u32;
        let mut napi = io_uring::types::Napi::new().set_busy_poll_timeout(micros);
        let _ = self.uring.submitter().register_napi(&mut napi);
    }

    /// The provided buffers.
    pub(super) fn buffers(&mut self) -> &mut Buffers {
        &mut self.buffers
    }

    /// The piece that a completed receive names.
    pub(super) fn piece(&self, completion: &Completion) -> Option<Piece> {
        let id = cqueue::buffer_select(completion.flags)?;
        Some(self.buffers.piece(id, completion.result.max(0) as u32))
    }

    /// Operations in flight.
    #[cfg(test)]
    pub(super) const fn flying(&self) -> u32 {
        self.flying
    }

    // Operations.

    /// Polls once.
    pub(super) fn poll(&mut self, fd: BorrowedFd<'_>, mask: i16, tag: Tag) {
        let entry = opcode::PollAdd::new(Fd(fd.as_raw_fd()), poll_mask(mask)).build();
        self.start(entry, tag);
    }

    /// Polls until cancelled, edge-triggered.
    pub(super) fn poll_on(&mut self, fd: BorrowedFd<'_>, mask: i16, tag: Tag) {
        let entry = opcode::PollAdd::new(Fd(fd.as_raw_fd()), poll_mask(mask))
            .multi(true)
            .build();
        self.start(entry, tag);
    }

    /// Receives into provided buffers until cancelled or out of them.
    pub(super) fn recv(&mut self, fd: BorrowedFd<'_>, tag: Tag) {
        let entry = opcode::RecvMulti::new(Fd(fd.as_raw_fd()), GROUP).build();
        self.start(entry, tag);
    }

    /// Sends a piece at the next [`Ring::enter`], without waiting for room. A
    /// completion follows only if not all of it was taken, and then it is there
    /// when `enter` returns. So a turn of sends is one system call, which need not
    /// return for their sake. The caller keeps the piece until then: recycled
    /// earlier, the peer would get other bytes.
    pub(super) fn send(&mut self, fd: BorrowedFd<'_>, piece: &Piece, tag: Tag) {
        let bytes = self.buffers.bytes(piece);
        // WAITALL makes a short send a failure, DONTWAIT makes that immediate.
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL | libc::MSG_DONTWAIT;
        let entry = opcode::Send::new(Fd(fd.as_raw_fd()), bytes.as_ptr(), bytes.len() as u32)
            .flags(flags)
            .build()
            .flags(Flags::SKIP_SUCCESS);
        self.push(&entry.user_data(tag.encode()));
    }

    /// Cancels an operation. Its own completion tells that it is over; this has
    /// none unless there was nothing to cancel.
    pub(super) fn cancel(&mut self, tag: Tag) {
        let entry = opcode::AsyncCancel::new(tag.encode())
            .build()
            .flags(Flags::SKIP_SUCCESS);
        self.push(&entry.user_data(Tag::Cancel.encode()));
    }

    fn start(&mut self, entry: Entry, tag: Tag) {
        self.flying += 1;
        self.push(&entry.user_data(tag.encode()));
    }

    fn push(&mut self, entry: &Entry) {
        loop {
            // SAFETY: of the operations above only `send` and `recv` refer to
            // memory, and that is the provided buffers, which outlive everything in
            // flight (see `drop`). Descriptors need not live on: the kernel holds
            // the file from submission, and a descriptor closed before that would
            // fail the operation; `Leg` closes none with an operation in flight.
            let pushed = unsafe { self.uring.submission().push(entry) };
            if pushed.is_ok() {
                return;
            }
            // Full: pass on what is there. That can be refused for a while: too many
            // completions wait to be taken, or there is no memory, and then each
            // attempt rests.
            if let Err(error) = self.enter(0, None) {
                // The next call that can report it does.
                self.broken = Some(error);
                return;
            }
            let mut taken = std::mem::take(&mut self.backlog);
            self.collect(&mut taken);
            self.backlog = taken;
        }
    }

    // Completions.

    /// Passes submissions on, runs deferred work, and waits for a completion if
    /// `want` is 1: as long as it takes, or until the timeout.
    pub(super) fn enter(&mut self, want: u32, timeout: Option<Duration>) -> io::Result<()> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        let submissions = self.uring.submission().len() as u32;
        let timespec = timeout.map(|timeout| {
            Timespec::new()
                .sec(timeout.as_secs())
                .nsec(timeout.subsec_nanos())
        });
        let mut args = SubmitArgs::new();
        if let Some(timespec) = &timespec {
            args = args.timespec(timespec);
        }
        let (ring, registered) = self.entry;
        let flags = (EnterFlags::GETEVENTS | EnterFlags::EXT_ARG).bits() | registered;
        // SAFETY: `args` and `timespec` live until the call returns, and it keeps
        // no reference to them. Not by way of `Submitter::enter`: that remembers a
        // registered descriptor only as long as it borrows the ring.
        let entered = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                ring,
                submissions,
                want,
                flags,
                &raw const args,
                size_of_val(&args),
            )
        };
        if entered >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // Time is up; a signal came; completions have to be taken first.
            Some(libc::ETIME | libc::EINTR | libc::EBUSY) => Ok(()),
            Some(libc::EAGAIN) => {
                // No memory for submissions.
                std::thread::sleep(SHORTAGE_REST);
                Ok(())
            }
            Some(libc::EBADR) => Err(io::Error::new(
                io::ErrorKind::OutOfMemory,
                "the kernel had no memory for a completion and dropped it",
            )),
            _ => Err(error),
        }
    }

    /// Passes submissions on in the middle of a turn; an error is told by the next
    /// [`Ring::enter`].
    pub(super) fn pass_on(&mut self) {
        if let Err(error) = self.enter(0, None) {
            self.broken = Some(error);
        }
    }

    /// Whether a look at the completions is worth it, without a system call.
    pub(super) fn has_news(&mut self) -> bool {
        !self.backlog.is_empty()
            || !self.uring.completion().is_empty()
            || self.uring.submission().taskrun()
    }

    /// Whether everything was submitted and every completion so far can be taken;
    /// if not, there is more to come from a further [`Ring::enter`].
    pub(super) fn is_settled(&mut self) -> bool {
        let submissions = self.uring.submission();
        submissions.is_empty() && !submissions.cq_overflow()
    }

    /// Whether completions can be taken.
    pub(super) fn has_completions(&mut self) -> bool {
        !self.backlog.is_empty() || !self.uring.completion().is_empty()
    }

    /// Takes all completions.
    pub(super) fn take(&mut self, completions: &mut Vec<Completion>) {
        completions.append(&mut self.backlog);
        self.collect(completions);
    }

    /// Puts completions back that are for later.
    pub(super) fn put_back(&mut self, completions: Vec<Completion>) {
        self.backlog = completions;
    }

    fn collect(&mut self, completions: &mut Vec<Completion>) {
        let flying = &mut self.flying;
        completions.extend(self.uring.completion().map(|entry| {
            let completion = Completion {
                tag: Tag::decode(entry.user_data()),
                result: entry.result(),
                flags: entry.flags(),
            };
            if !completion.more() && completion.tag.is_counted() {
                *flying -= 1;
            }
            completion
        }));
    }

    /// Cancels everything and reaps what is left. `false`: not all came back.
    fn quiesce(&mut self) -> bool {
        let mut completions = Vec::new();
        for _ in 0..DROP_ROUNDS {
            if self.flying == 0 {
                return true;
            }
            let any = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
            self.push(&any.user_data(Tag::Cancel.encode()));
            if self.enter(1, Some(Duration::from_millis(100))).is_err() {
                return false;
            }
            self.take(&mut completions);
            completions.clear();
        }
        self.flying == 0
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let quiet = self.quiesce();
        // Only now, for the calls above go by it. A thread that lives on keeps a
        // registered descriptor, and with it the ring, until it ends.
        unregister_descriptor(self.uring.as_raw_fd(), self.entry);
        // Nothing is left to receive; should it be refused, the ring's end does it.
        let _ = self.uring.submitter().unregister_buf_ring(GROUP);
        // SAFETY: dropped once, here, and not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.uring) };
        if quiet {
            // SAFETY: as above; no operation is left that could touch the buffers:
            // the kernel writes to them only on behalf of one, registered or not.
            unsafe { ManuallyDrop::drop(&mut self.buffers) };
        }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("flying", &self.flying)
            .finish_non_exhaustive()
    }
}

/// poll(2)'s bits as the ring takes them.
const fn poll_mask(mask: i16) -> u32 {
    mask as u32 & 0xFFFF
}

const ENTER_REGISTERED_RING: u32 = 1 << 4;

/// `struct io_uring_rsrc_update`.
#[repr(C, align(8))]
struct Update {
    offset: u32,
    resv: u32,
    data: u64,
}

/// Registers the ring's descriptor (5.18): saves a look-up at each call. Returns
/// what to enter it by, and with which flag.
fn register_descriptor(ring: i32) -> (i32, u32) {
    const REGISTER_RING_FDS: libc::c_uint = 20;
    let mut update = Update {
        offset: u32::MAX,
        resv: 0,
        data: ring as u64,
    };
    // SAFETY: the structure lives until the call returns; the kernel writes the
    // index that it picked into `offset`.
    let registered = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring,
            REGISTER_RING_FDS,
            &raw mut update,
            1,
        )
    };
    if registered == 1 {
        (update.offset as i32, ENTER_REGISTERED_RING)
    } else {
        (ring, 0)
    }
}

/// Takes back what [`register_descriptor`] did, given the descriptor itself.
fn unregister_descriptor(ring: i32, entry: (i32, u32)) {
    const UNREGISTER_RING_FDS: libc::c_uint = 21;
    let (index, flags) = entry;
    if flags & ENTER_REGISTERED_RING == 0 {
        return;
    }
    let mut update = Update {
        offset: index as u32,
        resv: 0,
        data: 0,
    };
    // Best effort: it goes with the thread.
    // SAFETY: the structure lives until the call returns.
    unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring,
            UNREGISTER_RING_FDS,
            &raw mut update,
            1,
        )
    };
}

/// The operations that the ring is for. seccomp does not see what a ring does, so whatever
/// is pushed is named here, or fails with EACCES.
const OPERATIONS: [u8; 4] = [
    opcode::PollAdd::CODE,
    opcode::RecvMulti::CODE,
    opcode::Send::CODE,
    opcode::AsyncCancel::CODE,
];

/// What is registered and taken back while the ring is in use
/// (`enum io_uring_register_op`): the ring's own descriptor, buffers, polling of cards.
const REGISTRATIONS: [u8; 6] = [20, 21, 22, 23, 27, 28];

/// Lets a ring do these and nothing else, and starts it.
fn restrict(ring: IoUring) -> io::Result<IoUring> {
    let operations = OPERATIONS.into_iter().map(Restriction::sqe_op);
    let registrations = REGISTRATIONS.into_iter().map(Restriction::register_op);
    let flags = Restriction::sqe_flags_allowed(u8::MAX);
    let mut all: Vec<Restriction> = operations.chain(registrations).chain([flags]).collect();
    ring.submitter().register_restrictions(&mut all)?;
    ring.submitter().register_enable_rings()?;
    Ok(ring)
}

/// The best ring that this kernel makes. Before 6.1 it makes none.
fn open(sizes: Sizes) -> io::Result<IoUring> {
    let deferred = || -> Builder {
        let mut builder = IoUring::builder();
        builder
            .setup_cqsize(sizes.completions)
            .setup_clamp()
            .setup_submit_all()
            .setup_taskrun_flag()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_r_disabled();
        builder
    };
    // 6.6: no indirection from the queue's slots to its entries.
    let direct = {
        let mut builder = deferred();
        builder.setup_no_sqarray();
        builder
    };
    let mut refused = io::Error::from_raw_os_error(libc::ENOSYS);
    for builder in [direct, deferred()] {
        match builder.build(sizes.submissions) {
            Ok(ring) => return restrict(ring),
            // Unknown flags: the next has fewer.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = error,
            Err(error) => return Err(error),
        }
    }
    Err(refused)
}

#[cfg(test)]
mod tests;
