//! A TLS ClientHello, for checks that want to see a handshake begin and go no
//! further: so no library, no keys, no certificates.
//!
//! Offers TLS 1.3 and 1.2 with the groups, signatures and suites that servers of the
//! last ten years share. The key share is empty, as RFC 8446, section 4.2.8, permits:
//! a TLS 1.3 server answers with a HelloRetryRequest, which is a ServerHello on the
//! wire and costs it no signature.

/// Suites: the three of TLS 1.3, then ECDHE with AES and ChaCha20, RSA for the old,
/// and the signal for secure renegotiation (RFC 5746).
const SUITES: [u16; 16] = [
    0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c,
    0x009d, 0x002f, 0x0035, 0x00ff,
];

/// X25519, P-256, P-384, P-521.
const GROUPS: [u16; 4] = [0x001d, 0x0017, 0x0018, 0x0019];

/// ECDSA, RSA-PSS and RSA with SHA-2, Ed25519, and RSA with SHA-1 for the old.
const SIGNATURES: [u16; 11] = [
    0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0807, 0x0201,
];

/// The record to send. `server_name` is a host name, never an address; `random` goes
/// on the wire in the clear and need not be secret.
pub(super) fn client_hello(server_name: Option<&str>, random: [u64; 8]) -> Vec<u8> {
    let mut noise = [0; 64];
    for (bytes, word) in noise.chunks_exact_mut(8).zip(random) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    let mut hello = vec![3, 3]; // TLS 1.2; 1.3 is said in an extension.
    hello.extend(&noise[..32]);
    hello.push(32);
    hello.extend(&noise[32..]); // A session of TLS 1.2, for middleboxes.
    hello.extend(long(&words(&SUITES)));
    hello.extend([1, 0]); // No compression.
    hello.extend(long(&extensions(server_name)));

    let mut record = vec![22, 3, 1]; // Handshake; TLS 1.0, as everybody's first record.
    record.extend(((hello.len() + 4) as u16).to_be_bytes());
    record.extend([1, 0]); // ClientHello; its length has three bytes.
    record.extend(long(&hello));
    record
}

fn extensions(server_name: Option<&str>) -> Vec<u8> {
    let mut list = Vec::new();
    if let Some(name) = server_name {
        let mut entry = vec![0]; // host_name
        entry.extend(long(name.as_bytes()));
        add(&mut list, 0, &long(&entry));
    }
    add(&mut list, 10, &long(&words(&GROUPS)));
    add(&mut list, 11, &[1, 0]); // Points are not compressed.
    add(&mut list, 13, &long(&words(&SIGNATURES)));
    add(&mut list, 23, &[]); // The extended master secret.
    add(&mut list, 43, &[4, 3, 4, 3, 3]); // TLS 1.3 and 1.2.
    add(&mut list, 51, &long(&[])); // No key share yet.
    list
}

fn add(list: &mut Vec<u8>, number: u16, body: &[u8]) {
    list.extend(number.to_be_bytes());
    list.extend(long(body));
}

/// The bytes behind their length in two bytes. Host names have 255 at the most, so
/// nothing here is too long for that.
fn long(bytes: &[u8]) -> Vec<u8> {
    let mut out = (bytes.len() as u16).to_be_bytes().to_vec();
    out.extend(bytes);
    out
}

fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &[u8]) -> usize {
        bytes.iter().fold(0, |n, byte| n << 8 | usize::from(*byte))
    }

    #[test]
    fn the_lengths_of_a_hello_fit_together() {
        for name in [
            None,
            Some("a"),
            Some("www.example.com"),
            Some(&*"x".repeat(253)),
        ] {
            let record = client_hello(name, [7; 8]);
            assert_eq!(record[..3], [22, 3, 1]);
            assert_eq!(number(&record[3..5]), record.len() - 5);
            assert_eq!(record[5], 1);
            assert_eq!(number(&record[6..9]), record.len() - 9);
            // Version, random, session, then three lists.
            let mut at = 9 + 2 + 32 + 1 + 32;
            at += 2 + number(&record[at..at + 2]);
            at += 1 + number(&record[at..=at]);
            assert_eq!(number(&record[at..at + 2]), record.len() - at - 2);
            at += 2;
            let mut seen = Vec::new();
            while at < record.len() {
                seen.push(number(&record[at..at + 2]));
                at += 4 + number(&record[at + 2..at + 4]);
            }
            assert_eq!(at, record.len());
            assert_eq!(seen.contains(&0), name.is_some());
            assert!(seen.ends_with(&[10, 11, 13, 23, 43, 51]));
            let text = record.escape_ascii().to_string();
            assert!(text.contains(name.unwrap_or_default()));
        }
    }
}
