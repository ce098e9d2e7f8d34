//! A structured value, sent as CBOR (RFC 8949) and sent back: shows that what
//! crosses a forwarder is still the same data to a program, not only the same
//! number of bytes.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize as DeserializeDerive, Serialize, Serializer};

use super::conversation::{Conversation, Next, Turn};

/// The longest encoded record, in bytes. Decoding makes a `String`, 24 bytes, of one byte,
/// and its thread serves nobody else meanwhile.
pub const RECORD_MAX: u64 = 1024 * 1024;

/// Nested values deeper than this are refused.
const DEPTH_MAX: usize = 64;

/// Numbers, strings, bytes, a map, a list, and a value nested in itself.
#[derive(Debug, Clone, PartialEq, Serialize, DeserializeDerive)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// An unsigned number.
    pub id: u64,
    /// A signed number.
    pub balance: i64,
    /// A floating-point number.
    pub ratio: f64,
    /// Text.
    pub title: String,
    /// Raw bytes.
    pub blob: Blob,
    /// Text to number.
    pub counts: BTreeMap<String, i64>,
    /// A list of text.
    pub tags: Vec<String>,
    /// Yes, no, or unknown.
    pub approved: Option<bool>,
    /// A value of the same kind inside.
    pub parent: Option<Box<Record>>,
}

/// Bytes that CBOR encodes as a byte string (serde's default is a list).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Blob(pub Vec<u8>);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a byte string")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Blob, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = items.next_element()? {
                    bytes.push(byte);
                }
                Ok(Blob(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

impl Record {
    /// A record nested `depth` times with `blob_len` bytes at each level; the
    /// same seed gives the same record.
    pub fn sample(seed: u64, depth: usize, blob_len: usize) -> Self {
        let text = ["plain", "ünïcödé", "", "new\nline", "nul\0inside", "流"];
        let mut counts = BTreeMap::new();
        for (index, key) in text.iter().enumerate() {
            counts.insert(
                (*key).to_owned(),
                i64::MIN + (seed as i64 & 0xffff) + index as i64,
            );
        }
        Self {
            id: u64::MAX - seed,
            balance: -(seed as i64 & 0xffff_ffff),
            ratio: (seed as f64).sqrt() / 7.0,
            title: format!("record {seed} – {}", text[(seed % 6) as usize]),
            blob: Blob(crate::bench::pattern::slice(seed, blob_len).to_vec()),
            counts,
            tags: text.iter().map(|tag| (*tag).to_owned()).collect(),
            approved: [None, Some(false), Some(true)][(seed % 3) as usize],
            parent: (depth > 0)
                .then(|| Box::new(Self::sample(seed.wrapping_mul(31) + 1, depth - 1, blob_len))),
        }
    }

    /// As CBOR.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        ciborium::into_writer(self, &mut bytes)
            .expect("writing to memory cannot fail, and every field has a CBOR form");
        bytes
    }

    /// From CBOR.
    ///
    /// # Errors
    /// What does not decode, as one line.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        ciborium::de::from_reader_with_recursion_limit(bytes, DEPTH_MAX * 4)
            .map_err(|error| format!("{error}").replace(['\n', '\r'], " "))
    }
}

/// `RECORD bytes`: decodes so many bytes, answers with the record encoded again.
#[derive(Debug)]
pub(super) struct RecordAnswer {
    bytes: Vec<u8>,
    len: usize,
}

impl RecordAnswer {
    pub(super) fn new(len: u64) -> Result<Self, String> {
        if len == 0 || len > RECORD_MAX {
            return Err(format!("a record has 1 to {RECORD_MAX} bytes, not {len}"));
        }
        Ok(Self {
            // Grows as bytes arrive: a claimed length reserves nothing.
            bytes: Vec::new(),
            len: len as usize,
        })
    }
}

impl Conversation for RecordAnswer {
    fn held(&self) -> usize {
        self.bytes.capacity()
    }

    fn input(&mut self, input: &[u8], output: &mut Vec<u8>) -> Turn {
        let used = input.len().min(self.len - self.bytes.len());
        self.bytes.extend_from_slice(&input[..used]);
        if self.bytes.len() < self.len {
            return Turn {
                used,
                next: Next::More,
            };
        }
        match Record::decode(&self.bytes) {
            Ok(record) => {
                let encoded = record.encode();
                output.extend_from_slice(format!("RECORD {}\n", encoded.len()).as_bytes());
                output.extend_from_slice(&encoded);
                Turn {
                    used,
                    next: Next::Command,
                }
            }
            Err(error) => {
                output.extend_from_slice(
                    format!("ERR the record does not decode: {error}\n").as_bytes(),
                );
                Turn {
                    used,
                    next: Next::Close,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nested_record_survives_the_round_trip() {
        let record = Record::sample(41, 5, 3000);
        let encoded = record.encode();
        assert_eq!(Record::decode(&encoded), Ok(record.clone()));

        let mut answer = RecordAnswer::new(encoded.len() as u64).unwrap();
        let mut output = Vec::new();
        for piece in encoded.chunks(700) {
            answer.input(piece, &mut output);
        }
        let header = format!("RECORD {}\n", encoded.len());
        assert_eq!(&output[..header.len()], header.as_bytes());
        assert_eq!(Record::decode(&output[header.len()..]), Ok(record));
    }

    #[test]
    fn junk_and_bottomless_nesting_are_refused() {
        assert!(Record::decode(b"\xff\xff\xff").is_err());
        assert!(Record::decode(&vec![0x81; 100_000]).is_err());
        let deep = Record::sample(1, 600, 0).encode();
        assert!(Record::decode(&deep).is_err());
        assert!(RecordAnswer::new(RECORD_MAX + 1).is_err());
        let mut answer = RecordAnswer::new(2).unwrap();
        let mut output = Vec::new();
        assert_eq!(answer.input(b"\xff\xff", &mut output).next, Next::Close);
        assert!(output.starts_with(b"ERR "));
    }
}
