//! Numbers of a session in little room: thousands of idle ones are kept, and a reactor looks
//! at these when a session begins, is shown and ends.

/// Which session: the reactor where it began, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackedId(u64);

impl PackedId {
    /// A number has 48 bits: a million sessions a second for nine years.
    const BITS: u32 = 48;

    pub(super) const fn new(reactor: u16, id: u64) -> Self {
        Self((reactor as u64) << Self::BITS | id & ((1 << Self::BITS) - 1))
    }

    /// Its number on the reactor where it began.
    pub(super) const fn id(self) -> u64 {
        self.0 & ((1 << Self::BITS) - 1)
    }

    /// The reactor where it began.
    pub(super) const fn reactor(self) -> u16 {
        (self.0 >> Self::BITS) as u16
    }
}

/// How many bytes of a direction are in the books: a whole number of units that are a power
/// of two, with 27 bits of it and 5 for the unit. Exact below 128 MiB; of more it is a
/// hundred-millionth less at the most, until the session ends and the rest is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Booked(u32);

impl Booked {
    const BITS: u32 = 27;

    /// The most that can be said of so many bytes, and is not more.
    pub(super) const fn at_most(bytes: u64) -> Self {
        let unit = (u64::BITS - bytes.leading_zeros()).saturating_sub(Self::BITS);
        // Half a billion gigabytes.
        if unit > 31 {
            return Self(u32::MAX);
        }
        Self(unit << Self::BITS | (bytes >> unit) as u32)
    }

    /// In bytes.
    pub(super) const fn bytes(self) -> u64 {
        let unit = self.0 >> Self::BITS;
        ((self.0 & ((1 << Self::BITS) - 1)) as u64) << unit
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_comes_back_as_it_was() {
        for (reactor, id) in [(0, 1), (u16::MAX, 7), (3, (1 << 48) - 1)] {
            let packed = PackedId::new(reactor, id);
            assert_eq!((packed.reactor(), packed.id()), (reactor, id));
        }
    }

    #[test]
    fn what_is_booked_is_exact_below_128_mib() {
        for bytes in [0, 1, (1 << 27) - 1, 1 << 27, 1 << 40, 1 << 57] {
            assert_eq!(Booked::at_most(bytes).bytes(), bytes);
        }
    }

    proptest! {
        #[test]
        fn what_is_booked_is_never_more_and_never_falls(a in 0..1_u64 << 58, b in 0..1_u64 << 58, bits in 0..58_u32) {
            let (a, b) = (a >> bits, b >> bits);
            let (less, more) = (a.min(b), a.max(b));
            let [booked, later] = [less, more].map(|it| Booked::at_most(it).bytes());
            prop_assert!(booked <= less && less - booked <= less >> 26);
            prop_assert!(booked <= later);
        }
    }
}
