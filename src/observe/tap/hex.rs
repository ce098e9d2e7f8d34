//! Format `hex`: as `hexdump -C`, 16 bytes a line, with the offset in the stream.

use std::io::Write as _;

/// Bytes of a line.
const WIDTH: usize = 16;

/// `bytes`, of which the first is the `offset`-th of its direction.
pub(super) fn dump(out: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    for (index, line) in bytes.chunks(WIDTH).enumerate() {
        let at = offset + (index * WIDTH) as u64;
        // Writing to a Vec cannot fail.
        let _ = write!(out, "  {at:08x} ");
        for column in 0..WIDTH {
            if column % 8 == 0 {
                out.push(b' ');
            }
            match line.get(column) {
                Some(byte) => {
                    let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                    out.extend_from_slice(&[digit(byte >> 4), digit(byte & 15), b' ']);
                }
                None => out.extend_from_slice(b"   "),
            }
        }
        out.extend_from_slice(b" |");
        let shown = line.iter().map(|byte| match byte {
            b' '..=b'~' => *byte,
            _ => b'.',
        });
        out.extend(shown);
        out.extend_from_slice(b"|\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_looks_like_hexdump() {
        let mut out = Vec::new();
        dump(&mut out, 0x10, b"GET / HTTP/1.1\r\nA");
        let expected = "  00000010  47 45 54 20 2f 20 48 54  54 50 2f 31 2e 31 0d 0a  |GET / HTTP/1.1..|\n  \
                        00000020  41                                                |A|\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
