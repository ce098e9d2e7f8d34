//! What is in the datagrams of a measurement.
//!
//! ```text
//!   0        8     9     10       12       16        24           32
//!   MAGIC    kind  zero  length   flow     number    position     a piece of the pattern …
//! ```
//! Numbers are big-endian. The piece is that of [`pattern`] at `position`, so a datagram that was cut,
//! changed or put together from two is told by itself, whatever was lost before it; `flow` tells one that
//! came to somebody else.
//!
//! Pure: bytes in, bytes out.

use super::pattern;

/// Bytes before the piece of the pattern.
pub const HEADER: usize = 32;

/// The longest payload of UDP over IPv4.
pub const LEN_MAX: usize = 65_507;

const MAGIC: &[u8; 8] = b"thalweg\xf1";

/// What a datagram is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It comes back as it is.
    Question,
    /// It is swallowed and counted.
    Stream,
    /// Whoever sent it wants a stream: [`Order`] is behind the header.
    Order,
}

/// The front of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What it is for.
    pub kind: Kind,
    /// Which flow of the generator it belongs to.
    pub flow: u32,
    /// Which of the flow's.
    pub number: u64,
    /// Where in the pattern the rest is.
    pub position: u64,
    /// Bytes of the whole datagram.
    pub length: u16,
}

impl Header {
    /// As bytes, which the rest follows.
    pub fn write(&self, into: &mut [u8; HEADER]) {
        into[..8].copy_from_slice(MAGIC);
        into[8] = match self.kind {
            Kind::Question => b'Q',
            Kind::Stream => b'S',
            Kind::Order => b'O',
        };
        into[9] = 0;
        into[10..12].copy_from_slice(&self.length.to_be_bytes());
        into[12..16].copy_from_slice(&self.flow.to_be_bytes());
        into[16..24].copy_from_slice(&self.number.to_be_bytes());
        into[24..32].copy_from_slice(&self.position.to_be_bytes());
    }

    /// Of a datagram; `None`: it is none of a measurement.
    pub fn read(datagram: &[u8]) -> Option<Self> {
        let front = datagram.first_chunk::<HEADER>()?;
        if front[..8] != *MAGIC || front[9] != 0 {
            return None;
        }
        let kind = match front[8] {
            b'Q' => Kind::Question,
            b'S' => Kind::Stream,
            b'O' => Kind::Order,
            _ => return None,
        };
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&front[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        Some(Self {
            kind,
            flow: (number(8) & 0xffff_ffff) as u32,
            number: number(16),
            position: number(24),
            length: u16::from_be_bytes([front[10], front[11]]),
        })
    }

    /// The whole datagram.
    pub fn datagram(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::from(self.length).max(HEADER)];
        let (front, rest) = bytes.split_at_mut(HEADER);
        if let Some(front) = front.first_chunk_mut() {
            self.write(front);
        }
        rest.copy_from_slice(pattern::slice(self.position, rest.len()));
        bytes
    }

    /// Whether the rest of a datagram is what it was when it was sent.
    pub fn fits(&self, datagram: &[u8]) -> bool {
        if datagram.len() != usize::from(self.length) {
            return false;
        }
        let rest = datagram.get(HEADER..).unwrap_or_default();
        pattern::check(self.position, rest).is_ok()
    }
}

/// What stream somebody wants, for as long as the header's number says in milliseconds: it has to be wanted
/// again before that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Bytes of each datagram.
    pub size: u16,
    /// Datagrams in one piece.
    pub train: u16,
    /// Datagrams a second of this flow; 0: as many as the window lets through.
    pub rate: u32,
    /// Datagrams of all flows that may be under way; 0: any number.
    pub window: u32,
}

impl Order {
    /// Bytes of one, behind the header.
    pub const LEN: usize = 12;

    /// As a datagram.
    pub fn datagram(&self, flow: u32, milliseconds: u64) -> [u8; HEADER + Self::LEN] {
        let mut bytes = [0; HEADER + Self::LEN];
        let header = Header {
            kind: Kind::Order,
            flow,
            number: milliseconds,
            position: 0,
            length: (HEADER + Self::LEN) as u16,
        };
        let (front, rest) = bytes.split_at_mut(HEADER);
        if let Some(front) = front.first_chunk_mut() {
            header.write(front);
        }
        rest[..2].copy_from_slice(&self.size.to_be_bytes());
        rest[2..4].copy_from_slice(&self.train.to_be_bytes());
        rest[4..8].copy_from_slice(&self.rate.to_be_bytes());
        rest[8..].copy_from_slice(&self.window.to_be_bytes());
        bytes
    }

    /// Behind the header of a datagram; `None`: it cannot be meant.
    pub fn read(datagram: &[u8]) -> Option<Self> {
        let rest: &[u8; Self::LEN] = datagram.get(HEADER..)?.try_into().ok()?;
        let order = Self {
            size: u16::from_be_bytes([rest[0], rest[1]]),
            train: u16::from_be_bytes([rest[2], rest[3]]),
            rate: u32::from_be_bytes([rest[4], rest[5], rest[6], rest[7]]),
            window: u32::from_be_bytes([rest[8], rest[9], rest[10], rest[11]]),
        };
        let (size, train) = (usize::from(order.size), usize::from(order.train));
        (size >= HEADER && train >= 1 && size * train <= LEN_MAX).then_some(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        for kind in [Kind::Question, Kind::Stream, Kind::Order] {
            let header = Header {
                kind,
                flow: 0xfedc_ba98,
                number: 0x0102_0304_0506_0708,
                position: 77_777,
                length: 1200,
            };
            let mut bytes = header.datagram();
            assert_eq!((Header::read(&bytes), bytes.len()), (Some(header), 1200));
            assert!(header.fits(&bytes) && !header.fits(&bytes[..1199]));
            bytes[900] ^= 1;
            assert!(!header.fits(&bytes));
        }
        let order = Order {
            size: 1200,
            train: 16,
            rate: 5,
            window: 64,
        };
        assert_eq!(Order::read(&order.datagram(3, 100)), Some(order));
    }

    #[test]
    fn what_is_none_is_told() {
        assert_eq!(Header::read(b"thalweg"), None);
        assert_eq!(Header::read(&[0; 100]), None);
        let order = |size, train| Order {
            size,
            train,
            rate: 0,
            window: 0,
        };
        for wrong in [order(31, 1), order(1200, 0), order(1200, 64)] {
            assert_eq!(Order::read(&wrong.datagram(0, 1)), None);
        }
    }
}
