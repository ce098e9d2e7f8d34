//! The keys of a client's Initials, which follow from the id that stands in them (RFC 9001, section 5.2;
//! RFC 9369, section 3.3), and the opening of a packet with them.

use core::fmt;

use aes_gcm::aead::AeadInOut;
use aes_gcm::aes::Aes128;
use aes_gcm::aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes_gcm::{Aes128Gcm, Nonce};
use hkdf::Hkdf;
use sha2::Sha256;

use super::header::{Initial, Version};

const SALT_V1: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad,
    0xcc, 0xbb, 0x7f, 0x0a,
];
const SALT_V2: [u8; 20] = [
    0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb,
    0xf9, 0xbd, 0x2e, 0xd9,
];

/// Bytes that authenticate a packet.
const TAG: usize = 16;
/// Bytes of ciphertext from which the header's mask is made, and how far behind the number they begin.
const SAMPLE: usize = 16;
const SAMPLE_AT: usize = 4;

/// Opens what a client sends first.
#[derive(Clone)]
pub(super) struct Keys {
    payload: Aes128Gcm,
    iv: [u8; 12],
    header: Aes128,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl Keys {
    /// Of the client that chose `id` for the server.
    pub(super) fn of_client(version: Version, id: &[u8]) -> Self {
        let (salt, labels) = match version {
            Version::V1 => (SALT_V1, ["quic key", "quic iv", "quic hp"]),
            Version::V2 => (SALT_V2, ["quicv2 key", "quicv2 iv", "quicv2 hp"]),
        };
        let first = Hkdf::<Sha256>::new(Some(&salt), id);
        let secret: [u8; 32] = expand(&first, "client in");
        let secret =
            Hkdf::<Sha256>::from_prk(&secret).expect("a secret is as long as what the hash makes");
        let payload: [u8; 16] = expand(&secret, labels[0]);
        let header: [u8; 16] = expand(&secret, labels[2]);
        Self {
            payload: Aes128Gcm::new(&payload.into()),
            iv: expand(&secret, labels[1]),
            header: Aes128::new(&header.into()),
        }
    }

    /// The frames of a packet; `None`: it is cut, or was not made with these keys.
    pub(super) fn open(&self, packet: &Initial<'_>) -> Option<Vec<u8>> {
        let (bytes, at) = (packet.bytes, packet.number_at);
        let sample = bytes.get(at + SAMPLE_AT..at + SAMPLE_AT + SAMPLE)?;
        let mask = self.mask(sample.try_into().ok()?);
        let first = bytes[0] ^ (mask[0] & 0x0f);
        let number_len = usize::from(first & 3) + 1;
        let payload_at = at + number_len;
        let mut header = bytes.get(..payload_at)?.to_vec();
        header[0] = first;
        let mut number = 0_u64;
        for (byte, mask) in header[at..].iter_mut().zip(&mask[1..]) {
            *byte ^= mask;
            number = number << 8 | u64::from(*byte);
        }
        let sealed = &bytes[payload_at..];
        let (text, tag) = sealed.split_at_checked(sealed.len().checked_sub(TAG)?)?;
        let mut text = text.to_vec();
        let tag: [u8; TAG] = tag.try_into().ok()?;
        // The reserved bits are zero in what an endpoint made; what is not opens all the same.
        self.payload
            .decrypt_inout_detached(
                &self.nonce(number),
                &header,
                text.as_mut_slice().into(),
                &tag.into(),
            )
            .ok()?;
        Some(text)
    }

    fn mask(&self, sample: [u8; SAMPLE]) -> [u8; SAMPLE] {
        let mut block = sample.into();
        self.header.encrypt_block(&mut block);
        block.into()
    }

    /// The numbers of Initials begin at 0, so what stands in the header is all of it.
    fn nonce(&self, number: u64) -> Nonce<aes_gcm::aead::consts::U12> {
        let mut nonce = self.iv;
        for (byte, of_number) in nonce[4..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= of_number;
        }
        nonce.into()
    }

    /// Seals frames as a client does, with a packet number of four bytes.
    #[cfg(test)]
    pub(super) fn seal(&self, header: &[u8], number: u32, frames: &[u8]) -> Vec<u8> {
        let mut header = [header, &number.to_be_bytes()].concat();
        header[0] |= 3;
        let mut text = frames.to_vec();
        let tag = self
            .payload
            .encrypt_inout_detached(
                &self.nonce(number.into()),
                &header,
                text.as_mut_slice().into(),
            )
            .expect("no packet is too long");
        let sealed = [&text[..], &tag[..]].concat();
        let sample: [u8; SAMPLE] = sealed[..SAMPLE].try_into().expect("so many");
        let mask = self.mask(sample);
        header[0] ^= mask[0] & 0x0f;
        let at = header.len() - 4;
        for (byte, mask) in header[at..].iter_mut().zip(&mask[1..]) {
            *byte ^= mask;
        }
        [header, sealed].concat()
    }
}

/// HKDF-Expand-Label of TLS 1.3 (RFC 8446, section 7.1), without a context.
fn expand<const N: usize>(secret: &Hkdf<Sha256>, label: &str) -> [u8; N] {
    let mut out = [0; N];
    let len = (N as u16).to_be_bytes();
    let label_len = [(6 + label.len()) as u8];
    secret
        .expand_multi_info(
            &[&len, &label_len, b"tls13 ", label.as_bytes(), &[0]],
            &mut out,
        )
        .expect("a key is shorter than what the hash can make");
    out
}
