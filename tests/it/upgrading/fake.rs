//! Either of two processes in a hand-over, played by the test: says what it is told to say,
//! and what it has heard.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde_json::{Value, json};

use crate::kit::*;

/// One end of a hand-over.
pub(super) struct Fake(pub(super) UnixStream);

/// What was heard: a message and its descriptors.
pub(super) struct Heard {
    pub(super) message: Value,
    pub(super) descriptors: Vec<OwnedFd>,
}

impl Heard {
    pub(super) fn kind(&self) -> &str {
        self.message["kind"].as_str().unwrap()
    }
}

impl Fake {
    pub(super) fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// A new process, in front of one at work.
    pub(super) fn new_process(entrance: &Path) -> Self {
        Self::over(UnixStream::connect(entrance).unwrap())
    }

    /// An old process, once a new one has come.
    pub(super) fn old_process(entrance: &UnixListener) -> Self {
        Self::over(entrance.accept().unwrap().0)
    }

    pub(super) fn say(&self, message: &Value) {
        self.say_with(message, &[]);
    }

    pub(super) fn say_with(&self, message: &Value, descriptors: &[BorrowedFd<'_>]) {
        let text = message.to_string().into_bytes();
        self.say_packet(&packet(&text, descriptors.len()), descriptors);
    }

    pub(super) fn say_packet(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        let bytes = [IoSlice::new(bytes)];
        // Whoever has hung up meanwhile is told of elsewhere.
        let _ = rustix::net::sendmsg(&self.0, &bytes, &mut control, SendFlags::NOSIGNAL);
    }

    /// The next message; `None`: the other end has closed.
    pub(super) fn try_hear(&self) -> Option<Heard> {
        let mut descriptors = Vec::new();
        let head = self.take(16, &mut descriptors)?;
        assert_eq!(&head[..4], b"TWHO");
        let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap()) as usize;
        let text = self.take(number(4), &mut descriptors)?;
        self.take(number(8), &mut descriptors)?;
        assert_eq!(descriptors.len(), number(12));
        Some(Heard {
            message: serde_json::from_slice(&text).unwrap(),
            descriptors,
        })
    }

    /// The next message, which is to be of this kind.
    #[track_caller]
    pub(super) fn hear(&self, kind: &str) -> Heard {
        let heard = self.try_hear().expect("a message");
        assert_eq!(heard.kind(), kind, "{}", heard.message);
        heard
    }

    fn take(&self, len: usize, descriptors: &mut Vec<OwnedFd>) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        let mut at = 0;
        while at < len {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut bytes[at..])];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received = rustix::net::recvmsg(&self.0, &mut into, &mut control, flags);
            let count = received.unwrap_or_else(|error| panic!("{error}")).bytes;
            if count == 0 {
                return None;
            }
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(those) = message {
                    descriptors.extend(those);
                }
            }
            at += count;
        }
        Some(bytes)
    }

    /// Names what has come.
    pub(super) fn have(&self, heard: &Heard) {
        let cookies: Vec<u64> = heard
            .descriptors
            .iter()
            .map(|it| cookie(it.as_fd()))
            .collect();
        assert_eq!(json!(cookies), heard.message["cookies"]);
        self.say(&json!({ "kind": "have", "cookies": cookies }));
    }

    /// As a new process, up to where everything has come that comes before it stands. The
    /// labels of the listeners, and the listeners.
    pub(super) fn prepare(&self) -> (Vec<Value>, Vec<OwnedFd>) {
        self.prepare_with(&hello())
    }

    /// Likewise as one that says this of itself, and keeps nothing.
    pub(super) fn prepare_as(&self, hello: &Value) -> Vec<Value> {
        self.prepare_with(hello).0
    }

    /// Likewise as one that says this of itself.
    pub(super) fn prepare_with(&self, hello: &Value) -> (Vec<Value>, Vec<OwnedFd>) {
        self.say(hello);
        self.hear("hello");
        let (mut labels, mut sockets) = (Vec::new(), Vec::new());
        loop {
            let heard = self.hear("listeners");
            self.have(&heard);
            labels.extend(heard.message["labels"].as_array().unwrap().clone());
            let last = heard.message["last"] == true;
            sockets.extend(heard.descriptors);
            if last {
                break;
            }
        }
        self.hear("tables");
        (labels, sockets)
    }
}

/// That of a new process with plenty of room.
pub(super) fn hello() -> Value {
    json!({ "kind": "hello", "protocol": 1, "oldest": 1, "build": "fake", "process": 1,
            "features": ["tables"], "room": 100_000 })
}

pub(super) fn cookie(socket: BorrowedFd<'_>) -> u64 {
    rustix::net::sockopt::socket_cookie(socket).unwrap()
}

/// A packet as it goes over the line, without its descriptors.
pub(super) fn packet(text: &[u8], descriptors: usize) -> Vec<u8> {
    let mut packet = b"TWHO".to_vec();
    packet.extend((text.len() as u32).to_le_bytes());
    packet.extend(0_u32.to_le_bytes());
    packet.extend((descriptors as u32).to_le_bytes());
    packet.extend(text);
    packet
}
