//! Messages of gRPC within the DATA of a stream: a byte that says whether it is
//! compressed, four with the length, then the content
//! (gRPC over HTTP/2, "Length-Prefixed-Message").

const PREFIX: usize = 5;

/// The messages of one direction of a stream.
#[derive(Debug, Default)]
pub struct Messages {
    prefix: [u8; PREFIX],
    have: u8,
    left: u32,
    /// Bytes are missing where a message could have begun.
    lost: bool,
}

/// A message begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Whether its content is compressed.
    pub compressed: bool,
    /// Bytes of content.
    pub length: u32,
}

impl Messages {
    /// Takes bytes of DATA; tells of each message that begins in them.
    pub fn feed(&mut self, mut bytes: &[u8], mut found: impl FnMut(Message)) {
        while !bytes.is_empty() && !self.lost {
            if self.left > 0 {
                let n = bytes.len().min(self.left as usize);
                self.left -= n as u32;
                bytes = &bytes[n..];
                continue;
            }
            let have = usize::from(self.have);
            let n = bytes.len().min(PREFIX - have);
            self.prefix[have..have + n].copy_from_slice(&bytes[..n]);
            self.have += n as u8;
            bytes = &bytes[n..];
            if usize::from(self.have) == PREFIX {
                let [flag, length @ ..] = self.prefix;
                // Other flags are not defined: whatever this is, it is no gRPC.
                self.lost = flag > 1;
                self.have = 0;
                self.left = u32::from_be_bytes(length);
                if !self.lost {
                    found(Message {
                        compressed: flag == 1,
                        length: self.left,
                    });
                }
            }
        }
    }

    /// So many bytes are missing.
    pub const fn skip(&mut self, n: u64) {
        if n <= self.left as u64 {
            self.left -= n as u32;
        } else {
            self.lost = true;
        }
    }
}

/// The name of a status, for those that are defined.
pub const fn status_name(code: u32) -> Option<&'static str> {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    if (code as usize) < NAMES.len() {
        Some(NAMES[code as usize])
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let bytes = [
            &[0, 0, 0, 0, 3][..],
            b"abc",
            &[1, 0, 0, 0, 0],
            &[0, 0, 0, 0, 1],
            b"x",
        ]
        .concat();
        for cut in 1..=bytes.len() {
            let (mut messages, mut found) = (Messages::default(), Vec::new());
            for piece in bytes.chunks(cut) {
                messages.feed(piece, |message| {
                    found.push((message.compressed, message.length));
                });
            }
            assert_eq!(found, [(false, 3), (true, 0), (false, 1)]);
        }
    }
}
