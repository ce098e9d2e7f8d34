//! Hashes that are the same on every machine, in every build and every version:
//! a fleet of forwarders agrees on a server only if it agrees on these.
//!
//! FNV-1a gathers the bytes, SplitMix64's finaliser spreads them over all bits;
//! both are written out here and held to their published values. They do not
//! resist an attacker who picks inputs: whoever owns many addresses can aim them
//! at one server, as with every hash whose key a fleet has to share.

use core::net::IpAddr;

/// FNV-1a's offset basis and prime for 64 bits.
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// 2^64 divided by the golden ratio: SplitMix64's step.
pub(super) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The key of a client for [`super::policy::Balancer::pick`]: a hash of its
/// address, and of its port if that is given.
///
/// An IPv4 address and the same one mapped into IPv6 have the same key. The hash
/// is stable: `mix(fnv1a(version, address, port))`, the version as the byte 4 or
/// 6, the rest in network order.
///
/// `core::net` holds address types only, and so may be named in a pure room; it
/// is the type that `std::net` exports.
pub fn client_key(address: &IpAddr, port: Option<u16>) -> u64 {
    let mut hash = FNV_BASIS;
    match address.to_canonical() {
        IpAddr::V4(address) => hash = fnv1a(fnv1a(hash, &[4]), &address.octets()),
        IpAddr::V6(address) => hash = fnv1a(fnv1a(hash, &[6]), &address.octets()),
    }
    if let Some(port) = port {
        hash = fnv1a(hash, &port.to_be_bytes());
    }
    mix(hash)
}

/// The identity of a server: its name, and which of several servers of that name.
pub(super) fn server_key(name: &str, occurrence: u32) -> u64 {
    mix(fnv1a(FNV_BASIS, name.as_bytes()).wrapping_add(GOLDEN.wrapping_mul(u64::from(occurrence))))
}

/// SplitMix64's finaliser: a bijection in which every bit of the input moves
/// about half of the bits of the output.
pub(super) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// FNV-1a of `bytes`, going on from `hash`.
fn fnv1a(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME)
    })
}

/// SplitMix64: small, and good enough to draw lots. Seeded by the caller, so that
/// a run can be repeated.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed; any will do.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, from all of `u64`.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number below `bound`, which is not 0. By multiplication, not by
    /// remainder: uneven by at most `bound` in 2^64.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.draw() as u128 * bound as u128) >> 64) as u64
    }

    /// A number from 0 up to 1, which it never is: 53 bits of it.
    pub const fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Puts things into a random order, each order as likely (Fisher and Yates).
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for end in (1..things.len()).rev() {
            let other = self.below(end as u64 + 1) as usize;
            things.swap(end, other);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn fnv1a_has_its_published_values() {
        for (text, value) in [
            ("", 0xcbf2_9ce4_8422_2325),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0x8594_4171_f739_67e8),
        ] {
            assert_eq!(fnv1a(FNV_BASIS, text.as_bytes()), value, "{text}");
        }
    }

    #[test]
    fn splitmix64_has_its_published_values() {
        let mut random = Random::new(1_234_567);
        let drawn: Vec<u64> = (0..3).map(|_| random.draw()).collect();
        assert_eq!(
            drawn,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    /// If this fails, fleets that run two versions no longer agree on servers.
    #[test]
    fn keys_of_clients_never_change() {
        let key = |text: &str, port| client_key(&text.parse().unwrap(), port);
        assert_eq!(key("192.0.2.1", None), VECTORS[0]);
        assert_eq!(key("192.0.2.1", Some(50_000)), VECTORS[1]);
        assert_eq!(key("2001:db8::1", None), VECTORS[2]);
        assert_eq!(key("2001:db8::1", Some(50_000)), VECTORS[3]);
        assert_eq!(server_key("192.0.2.1:443", 0), VECTORS[4]);
        assert_eq!(server_key("192.0.2.1:443", 1), VECTORS[5]);
    }

    /// Computed by an independent program (Python's integers).
    const VECTORS: [u64; 6] = [
        0xb886_a149_d105_d033,
        0xf7c7_e35e_337b_3921,
        0xe669_f80a_5808_2337,
        0xadf4_50f1_76c1_b79d,
        0xef53_c56e_65ff_c5b7,
        0xcf0f_0ed7_3234_11f7,
    ];

    #[test]
    fn a_mapped_address_is_the_client_it_maps() {
        let key = |text: &str| client_key(&text.parse().unwrap(), Some(7));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("::192.0.2.1"), key("192.0.2.1"));
    }
}
