//! A tap for whoever asks for one while the process runs: what it shows comes out of a pipe.
//!
//! Owns the thread and its end of the pipe. A reader that is slow makes the thread wait, then
//! the reactors' queues fill, then what is shown is dropped and counted: as with any tap. It
//! ends when this is dropped, or with the only session that it shows.

use std::fs::File;
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};

use super::feed::{Budget, Item, Progress, Source};
use super::thread::{Target, prologue};
use crate::config::Tap;
use crate::observe::log::Log;
use crate::observe::outlet::{Order, Outlet, Sink};

/// See the module's documentation.
#[derive(Debug)]
pub struct Onlooking {
    tap: Arc<Tap>,
    queue: Sender<Item>,
    orders: Sender<Order>,
    progress: Arc<Progress>,
    over: Arc<AtomicBool>,
}

impl Onlooking {
    /// Starts the thread; what it shows can be read from what is returned with it.
    pub fn start(tap: Tap, log: &Log) -> io::Result<(Self, PipeReader)> {
        let (reader, writer) = io::pipe()?;
        let sink = Sink::given(File::from(OwnedFd::from(writer)), prologue(tap.format));
        let (queue, items) = channel();
        let progress = Arc::<Progress>::default();
        let target = Target::new(&tap, None, progress.clone(), log.clone());
        let outlet = Outlet::spawn("tap", items, target, sink)?;
        let onlooking = Self {
            tap: Arc::new(tap),
            queue,
            orders: outlet.orders(),
            progress,
            over: Arc::default(),
        };
        Ok((onlooking, reader))
    }

    /// What a reactor feeds.
    pub fn source(&self, reactor: u16) -> Source {
        let told_here = (reactor == 0).then(|| self.progress.clone());
        let budget = Arc::new(Budget::new(told_here));
        Source::new(self.tap.clone(), reactor, self.queue.clone(), budget).until(self.over.clone())
    }

    /// Likewise for one session, with which it ends.
    pub fn source_of_one(&self, reactor: u16) -> Source {
        self.source(reactor).only(self.orders.clone())
    }
}

impl Onlooking {
    /// Nobody looks any more, whoever holds this yet.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        // It may have ended by itself.
        let _ = self.orders.send(Order::Close);
        let _ = self.queue.send(Item::Nothing);
    }
}

impl Drop for Onlooking {
    fn drop(&mut self) {
        self.end();
    }
}
