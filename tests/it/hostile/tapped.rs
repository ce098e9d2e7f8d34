//! What is shown by a tap is decompressed: little that stands for very much.

use super::*;

/// Memory that may come to a process for it, and bytes that its tap may write.
const COST_MAX: u64 = 48 * MIB;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// 64 KiB of HTTP/2 that stand for gigabytes: frames that refer to one long entry of the table
/// over and over.
fn bomb() -> Vec<u8> {
    const HEADERS: u8 = 1;
    const END: u8 = 5;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    // x: 4,000 bytes, to be remembered (RFC 7541, 6.2.1): 127 + 3,873.
    let mut entry = vec![0x40, 1, b'x', 0x7f, 0xa1, 0x1e];
    entry.resize(entry.len() + 4000, b'v');
    bytes.extend(frame(HEADERS, END, 1, &entry));
    for n in 0..843 {
        bytes.extend(frame(HEADERS, END, 3 + 2 * n, &[0xbe; 64]));
    }
    bytes
}

#[test]
fn a_bomb_of_headers_costs_its_tap_little() {
    on_every_engine(|case| {
        let (echo, directory) = (Echo::start(), Directory::new());
        let (file, shown) = (directory.join("tap.toml"), directory.join("shown"));
        let text = format!(
            "[[forward]]\nname = \"tapped\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{}\"\n\
             tap = {{ format = \"http\", to = \"{}\", max_bytes_per_session = \"1GiB\" }}\n",
            echo.address,
            shown.display()
        );
        std::fs::write(&file, text).unwrap();
        let forwarder = Setup::configured(&file, 1).case(case).start();
        let bystander = Bystander::of(forwarder.address());
        let before = forwarder.process().memory().anonymous;
        for _ in 0..4 {
            let attacker = TcpStream::connect(forwarder.address()).unwrap();
            let mut reader = attacker.try_clone().unwrap();
            // What comes back is read, so that all of it goes through.
            let drained = std::thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
            (&attacker).write_all(&bomb()).unwrap();
            bystander.goes_on();
            bystander.comes_in();
            attacker.shutdown(std::net::Shutdown::Write).unwrap();
            drained.join().unwrap().unwrap();
        }
        let grown = forwarder
            .process()
            .memory()
            .anonymous
            .saturating_sub(before);
        assert!(grown < COST_MAX, "{grown} bytes of memory");
        let written = std::fs::metadata(&shown).unwrap().len();
        assert!(written < COST_MAX, "{written} bytes in the file");
        drop(bystander);
        forwarder.check_quiet();
    });
}
