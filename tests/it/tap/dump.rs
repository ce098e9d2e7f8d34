//! Reads what formats `hex` and `text` write back into bytes.

/// The header line of a chunk, in words.
fn field<'l>(line: &'l str, key: &str) -> Option<&'l str> {
    line.split(' ')
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// The bytes that one direction of one session is shown to have had; checks lengths
/// and offsets on the way. `read` takes the lines below a header.
#[track_caller]
fn shown(text: &str, id: &str, way: &str, read: impl Fn(&str) -> Vec<u8>) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut due = 0;
    let mut ours = false;
    for line in text.lines() {
        if let Some(line) = line.strip_prefix("  ") {
            if ours {
                bytes.extend(read(line));
            }
            continue;
        }
        if ours {
            assert_eq!(bytes.len(), due, "a chunk is not as long as it says");
        }
        ours = field(line, "id") == Some(id) && line.contains(&format!(" {way} length="));
        if ours {
            assert_eq!(
                field(line, "offset"),
                Some(&*bytes.len().to_string()),
                "{line}"
            );
            due = bytes.len() + field(line, "length").unwrap().parse::<usize>().unwrap();
        }
    }
    bytes
}

/// Of format `hex`.
#[track_caller]
pub(crate) fn hex(text: &str, id: &str, way: &str) -> Vec<u8> {
    shown(text, id, way, |line| {
        let (_, line) = line.split_once("  ").unwrap();
        let (line, _) = line.split_once('|').unwrap();
        let pairs = line.split_whitespace();
        pairs
            .map(|pair| u8::from_str_radix(pair, 16).unwrap())
            .collect()
    })
}

/// Of format `text`.
#[track_caller]
pub(crate) fn text(text: &str, id: &str, way: &str) -> Vec<u8> {
    shown(text, id, way, |line| {
        let mut bytes = Vec::new();
        let mut rest = line.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'\\' => match rest.next().unwrap() {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'\\' => b'\\',
                    b'x' => {
                        let digits = [rest.next().unwrap(), rest.next().unwrap()];
                        u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                    }
                    other => panic!("\\{} is no escape", char::from(other)),
                },
                byte => byte,
            });
        }
        bytes
    })
}
