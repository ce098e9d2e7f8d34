//! Headers of QUIC: those that all versions share (RFC 8999), and of versions 1 and 2 where a packet ends.

/// The longest connection id of versions 1 and 2.
pub const ID_MAX: usize = 20;

/// The form of a long header, in the first byte.
const LONG: u8 = 0x80;
/// Set in the first packets of versions 1 and 2; later it may not be (RFC 9287).
const FIXED: u8 = 0x40;

/// A version that can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// RFC 9000.
    V1,
    /// RFC 9369.
    V2,
}

/// What a datagram begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form<'a> {
    /// A header that tells both ids.
    Long(Long<'a>),
    /// One that tells the id of who it goes to, and not how long that is.
    Short,
}

/// A long header, of any version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Long<'a> {
    first: u8,
    /// 0: the answer of a server that knows none of the client's.
    pub version: u32,
    /// The id of who it goes to.
    pub destination: &'a [u8],
    /// The id of who sent it, which the other side will use.
    pub source: &'a [u8],
    /// Bytes of all that.
    len: usize,
}

/// An Initial: all of it, and where its parts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Initial<'a> {
    /// Its header's first part.
    pub long: Long<'a>,
    /// From the first byte of the header to the last of the packet.
    pub bytes: &'a [u8],
    /// Where the packet number begins, which is protected.
    pub number_at: usize,
}

/// A packet of version 1 or 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// The first of a connection.
    Initial(Initial<'a>),
    /// 0-RTT, which may come before the first.
    Early,
    /// Another one with a long header.
    Other,
}

impl Long<'_> {
    /// The version, if it is one that can be opened.
    pub fn version(&self) -> Option<Version> {
        match self.version {
            1 => Some(Version::V1),
            0x6b33_43cf => Some(Version::V2),
            _ => None,
        }
    }

    pub(super) fn is_fixed(&self) -> bool {
        self.first & FIXED != 0
    }

    /// Which of the four kinds, as version 1 counts them.
    fn kind(&self, version: Version) -> u8 {
        let kind = (self.first >> 4) & 3;
        match version {
            Version::V1 => kind,
            // RFC 9369, section 3.2: Retry, Initial, 0-RTT, Handshake.
            Version::V2 => kind.wrapping_sub(1) & 3,
        }
    }
}

/// The header that a datagram begins with; `None`: none of QUIC, or cut.
pub fn read(datagram: &[u8]) -> Option<Form<'_>> {
    let first = *datagram.first()?;
    if first & LONG == 0 {
        // Its fixed bit may be greased (RFC 9287).
        return Some(Form::Short);
    }
    let mut bytes = Bytes(datagram.get(1..)?);
    let version = u32::from_be_bytes(bytes.array()?);
    let destination = bytes.id()?;
    let source = bytes.id()?;
    let long = Long {
        first,
        version,
        destination,
        source,
        len: datagram.len() - bytes.0.len(),
    };
    let too_long = |id: &[u8]| id.len() > ID_MAX;
    // Other versions may have longer ones.
    if long.version().is_some() && (too_long(destination) || too_long(source)) {
        return None;
    }
    Some(Form::Long(long))
}

/// The first packet of versions 1 and 2 in what is left of a datagram, and what follows it; `None`: there is
/// no further one with a length of its own.
pub fn packet(datagram: &[u8]) -> Option<(Packet<'_>, &[u8])> {
    const INITIAL: u8 = 0;
    const EARLY: u8 = 1;
    const RETRY: u8 = 3;
    let Some(Form::Long(long)) = read(datagram) else {
        return None;
    };
    let version = long.version()?;
    if !long.is_fixed() {
        return None;
    }
    let mut bytes = Bytes(datagram.get(long.len..)?);
    let kind = long.kind(version);
    match kind {
        INITIAL => {
            let token = bytes.number()?;
            bytes.take(usize::try_from(token).ok()?)?;
        }
        // It has no length: it is the last of its datagram.
        RETRY => return None,
        _ => {}
    }
    let len = usize::try_from(bytes.number()?).ok()?;
    let number_at = datagram.len() - bytes.0.len();
    bytes.take(len)?;
    let packet = match kind {
        INITIAL => Packet::Initial(Initial {
            long,
            bytes: &datagram[..number_at + len],
            number_at,
        }),
        EARLY => Packet::Early,
        _ => Packet::Other,
    };
    Some((packet, bytes.0))
}

/// Bytes read from the front; `None` where there are too few.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(front)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn id(&mut self) -> Option<&'a [u8]> {
        let [len] = self.array()?;
        self.take(usize::from(len))
    }

    /// A number of 1, 2, 4 or 8 bytes (RFC 9000, section 16).
    pub(super) fn number(&mut self) -> Option<u64> {
        let first = *self.0.first()?;
        let bytes = self.take(1 << (first >> 6))?;
        let front = u64::from(first & 0x3f);
        let shift = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(bytes[1..].iter().fold(front, shift))
    }
}
