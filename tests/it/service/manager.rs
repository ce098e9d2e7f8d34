//! A service manager that only listens: it has what it was told, and keeps what it was
//! given to keep.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::kit::directory::Directory;
use crate::kit::*;

/// A message, and when it came.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) at: Instant,
    pub(crate) text: String,
}

impl Message {
    /// The value of a line.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let mut lines = self.text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }
}

#[derive(Debug, Default)]
struct Heard {
    messages: Vec<Message>,
    /// Of those who are not the service, where only the main process is heeded.
    refused: Vec<Message>,
    only_main: bool,
    main: Option<i32>,
    kept: BTreeMap<String, Vec<Arc<OwnedFd>>>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Manager {
    heard: Arc<Mutex<Heard>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    pub(crate) path: PathBuf,
    _directory: Directory,
}

impl Manager {
    /// One that heeds everybody (`NotifyAccess=all`).
    pub(crate) fn new() -> Self {
        Self::heeding(false)
    }

    /// One that heeds the main process alone (`NotifyAccess=main`): whoever speaks first, until
    /// that one names another.
    pub(crate) fn of_main() -> Self {
        Self::heeding(true)
    }

    fn heeding(only_main: bool) -> Self {
        let directory = Directory::new();
        let path = directory.join("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        rustix::net::sockopt::set_socket_passcred(&socket, true).unwrap();
        let heard = Arc::new(Mutex::new(Heard {
            only_main,
            ..Heard::default()
        }));
        let over = Arc::<AtomicBool>::default();
        let (into, until) = (heard.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                if let Some((sender, text, descriptors)) = receive(&socket) {
                    into.lock().unwrap().take(sender, text, descriptors);
                }
            }
        });
        Self {
            heard,
            over,
            thread: Some(thread),
            path,
            _directory: directory,
        }
    }

    /// A forwarder that tells this one.
    pub(crate) fn of(&self, setup: Setup) -> Setup {
        setup.env("NOTIFY_SOCKET", self.path.display())
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        self.heard.lock().unwrap().messages.clone()
    }

    /// Those that were not heeded.
    pub(crate) fn refused(&self) -> Vec<Message> {
        self.heard.lock().unwrap().refused.clone()
    }

    /// Those with a line `NAME=value`.
    pub(crate) fn with(&self, line: &str) -> Vec<Message> {
        let mut messages = self.messages();
        messages.retain(|it| it.text.lines().any(|its| its == line));
        messages
    }

    /// Waits for the `nth` message with that line, from 1 on.
    #[track_caller]
    pub(crate) fn wait_for(&self, line: &str, nth: usize) -> Message {
        let found = poll(PATIENCE, || self.with(line).get(nth - 1).cloned());
        found.unwrap_or_else(|| panic!("no {nth}. {line}: {:#?}", self.messages()))
    }

    /// What it keeps, in the order of names.
    pub(crate) fn kept(&self) -> Vec<(String, Arc<OwnedFd>)> {
        let heard = self.heard.lock().unwrap();
        let each = heard.kept.iter();
        each.flat_map(|(name, all)| all.iter().map(move |fd| (name.clone(), fd.clone())))
            .collect()
    }
}

impl Heard {
    fn take(&mut self, sender: i32, text: String, descriptors: Vec<OwnedFd>) {
        let message = Message {
            at: Instant::now(),
            text,
        };
        let main = *self.main.get_or_insert(sender);
        // As systemd has it, a barrier is anybody's.
        if self.only_main && sender != main && message.text != "BARRIER=1" {
            return self.refused.push(message);
        }
        let named = message.value("MAINPID").map(|it| it.parse().unwrap());
        self.main = named.or(self.main);
        let name = message.value("FDNAME").unwrap_or("stored").to_owned();
        if message.value("FDSTORE").is_some() {
            let all = self.kept.entry(name).or_default();
            for fd in descriptors {
                // As systemd does: the same open socket is kept once.
                if !all.iter().any(|it| socket_of(it) == socket_of(&fd)) {
                    all.push(Arc::new(fd));
                }
            }
        } else if message.value("FDSTOREREMOVE").is_some() {
            self.kept.remove(&name);
        }
        // A barrier's descriptor is closed by this.
        self.messages.push(message);
    }
}

/// `socket:[inode]`.
fn socket_of(fd: &OwnedFd) -> PathBuf {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap()
}

/// A message, with who sent it.
fn receive(socket: &UnixDatagram) -> Option<(i32, String, Vec<OwnedFd>)> {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut bytes)];
    let len = recvmsg(socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)
        .ok()?
        .bytes;
    let (mut sender, mut descriptors) = (0, Vec::new());
    for message in control.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(all) => descriptors.extend(all),
            RecvAncillaryMessage::ScmCredentials(its) => sender = its.pid.as_raw_nonzero().get(),
            _ => {}
        }
    }
    Some((
        sender,
        String::from_utf8(bytes[..len].to_vec()).unwrap(),
        descriptors,
    ))
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
