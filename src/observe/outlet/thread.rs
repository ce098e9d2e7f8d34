//! The thread of an outlet: what it takes off the queue, and when.

use std::convert::Infallible;
use std::io;
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel,
};
use std::time::{Duration, Instant};

use super::sink::{Lost, Sink};
use crate::observe::panics;

/// While entries keep coming the thread sleeps this long between batches instead of
/// being woken for each: a wake-up would cost the reactor more than the entry.
const BATCH: Duration = Duration::from_millis(10);

/// Entries of a batch at the most: losses are told between batches.
const BATCH_ITEMS: u32 = 16_384;

/// Without an entry for so many batches the thread waits to be woken again.
const BATCHES_IDLE: u32 = 50;

/// What an outlet makes of the entries of its queue.
pub(in crate::observe) trait Format: Send + 'static {
    /// An entry.
    type Item: Send + 'static;

    /// Makes units of an entry.
    fn item(&mut self, item: Self::Item, sink: &mut Sink);

    /// Making units of the entry before panicked: what is not known to be whole is to be
    /// thrown away.
    fn panicked(&mut self) {}

    /// A batch is about to be written.
    fn before_write(&mut self, sink: &mut Sink);

    /// It was written: the last of it or not, and what was lost since last time.
    fn after_write(&mut self, whole: bool, lost: Lost, sink: &mut Sink);
}

/// What the thread is told besides entries, by whoever owns it.
#[derive(Debug)]
pub(in crate::observe) enum Order {
    /// See [`Sink::reopen`]; the answer is what came of it.
    Reopen(SyncSender<io::Result<()>>),
    /// Go on there.
    Replace(Box<Sink>),
    /// End.
    Close,
}

impl Order {
    /// An order to reopen, and where its answer comes.
    pub(in crate::observe) fn reopen() -> (Self, Receiver<io::Result<()>>) {
        let (reply, answer) = sync_channel(1);
        (Self::Reopen(reply), answer)
    }
}

/// The thread, for whoever gives it orders and waits for its end.
///
/// It may be asleep until an entry comes: an order is followed by an entry that means
/// nothing, if there is room for one. Without room it is not asleep.
#[derive(Debug)]
pub(in crate::observe) struct Outlet {
    orders: Sender<Order>,
    /// Nothing is ever sent; it ends with the thread.
    life: Receiver<Infallible>,
}

impl Outlet {
    /// Starts the thread. It ends when it is told to, or when nobody can feed it any
    /// more; both behind what was queued until then.
    pub(in crate::observe) fn spawn<F: Format>(
        name: &'static str,
        items: Receiver<F::Item>,
        format: F,
        sink: Sink,
    ) -> io::Result<Self> {
        let (orders, inbox) = channel();
        let (alive, life) = channel();
        let writer = Writer {
            name,
            items,
            inbox,
            format,
            sink,
        };
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                writer.run();
                drop::<Sender<Infallible>>(alive);
            })?;
        Ok(Self { orders, life })
    }

    /// The way for orders.
    pub(in crate::observe) fn orders(&self) -> Sender<Order> {
        self.orders.clone()
    }

    /// Tells it to go on in the file that has its target's name now; the answer comes
    /// there. An entry has to follow, or it may sleep on.
    pub(in crate::observe) fn reopen(&self) -> Receiver<io::Result<()>> {
        let (order, answer) = Order::reopen();
        // One that has ended answers by hanging up.
        let _ = self.orders.send(order);
        answer
    }

    /// Waits for its end; `false` if that did not come in time.
    pub(in crate::observe) fn ends_by(&self, deadline: Instant) -> bool {
        let patience = deadline.saturating_duration_since(Instant::now());
        self.life.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected)
    }
}

struct Writer<F: Format> {
    name: &'static str,
    items: Receiver<F::Item>,
    inbox: Receiver<Order>,
    format: F,
    sink: Sink,
}

impl<F: Format> Writer<F> {
    fn run(mut self) {
        self.sink.flush();
        let mut idle = 0;
        let mut orders = None;
        loop {
            let (taken, fed) = self.take(idle >= BATCHES_IDLE);
            self.write();
            let mut closing = !fed;
            while let Some(order) = orders.take().or_else(|| self.inbox.try_recv().ok()) {
                // What was queued before the order comes before it.
                self.take(false);
                self.write();
                match order {
                    Order::Reopen(reply) => {
                        // Nobody waits for an answer that came too late.
                        let _ = reply.send(self.sink.reopen());
                    }
                    Order::Replace(sink) => self.sink = *sink,
                    Order::Close => closing = true,
                }
            }
            if closing {
                // What was lost last is told last.
                self.write();
                return;
            }
            idle = if taken == 0 { idle + 1 } else { 0 };
            if idle < BATCHES_IDLE {
                orders = self.rest();
            }
        }
    }

    /// Between batches; an order ends it.
    fn rest(&self) -> Option<Order> {
        match self.inbox.recv_timeout(BATCH) {
            Ok(order) => Some(order),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(BATCH);
                None
            }
        }
    }

    /// Takes what waits, and says how much that was and whether more can come. Only once
    /// things are quiet does it wait for an entry.
    fn take(&mut self, quiet: bool) -> (u32, bool) {
        let mut next = if quiet {
            self.items.recv().map_err(|_| TryRecvError::Disconnected)
        } else {
            self.items.try_recv()
        };
        let mut taken = 0;
        loop {
            match next {
                Ok(item) => {
                    let (format, sink) = (&mut self.format, &mut self.sink);
                    let done = panics::caught(self.name, || format.item(item, sink));
                    if done.is_none() {
                        self.format.panicked();
                    }
                }
                Err(error) => return (taken, error == TryRecvError::Empty),
            }
            taken += 1;
            if taken == BATCH_ITEMS {
                return (taken, true);
            }
            next = self.items.try_recv();
        }
    }

    fn write(&mut self) {
        self.format.before_write(&mut self.sink);
        let whole = self.sink.flush();
        let lost = self.sink.take_lost();
        self.format.after_write(whole, lost, &mut self.sink);
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::{Place, Target};
    use super::*;

    /// Writes numbers, and panics at some.
    struct Numbers {
        panics: u32,
    }

    impl Format for Numbers {
        type Item = u32;

        fn item(&mut self, item: u32, sink: &mut Sink) {
            assert!(!item.is_multiple_of(3), "as a test does");
            sink.put(format!("{item}\n").as_bytes(), 1);
        }

        fn panicked(&mut self) {
            self.panics += 1;
        }

        fn before_write(&mut self, _: &mut Sink) {}

        fn after_write(&mut self, _: bool, _: Lost, sink: &mut Sink) {
            if self.panics > 0 {
                sink.put(format!("{} panics\n", self.panics).as_bytes(), 1);
                self.panics = 0;
            }
        }
    }

    #[test]
    fn an_entry_that_panics_is_lost_and_no_other() {
        let path = std::env::temp_dir().join(format!("thalweg-panics-{}", std::process::id()));
        let sink = Sink::open(Target {
            place: Place::File(path.clone()),
            mode: 0o600,
            needs_reader: false,
            rotate: None,
            prologue: Vec::new(),
        });
        let (queue, items) = channel();
        let before = panics::count();
        let outlet = Outlet::spawn("log", items, Numbers { panics: 0 }, sink.unwrap()).unwrap();
        for item in 1..=7 {
            queue.send(item).unwrap();
        }
        drop(queue);
        assert!(outlet.ends_by(Instant::now() + Duration::from_secs(60)));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        let numbers: Vec<&str> = text.lines().filter(|it| !it.contains("panics")).collect();
        assert_eq!(numbers, ["1", "2", "4", "5", "7"]);
        assert!(panics::count() >= before + 2);
    }
}
