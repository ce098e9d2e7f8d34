//! Clients of `thalweg origin` that make it hold what they never finish.

use std::io::{BufRead, BufReader};

use thalweg::bench::origin::{Handlers, Origin, OriginOptions, Role};

use super::*;

const MOST: u64 = 8 << 20;

/// Records that are never complete, a megabyte each, and lines that are asked for and not
/// read: somebody else has his answer soon, and what is held is bounded.
#[test]
fn unfinished_records_hold_up_no_other_client() {
    let options = OriginOptions {
        memory_max: MOST,
        connections_max: 1_000,
        threads: 1,
        ..OriginOptions::default()
    };
    let origin = Origin::start(&options, Handlers::default()).unwrap();
    let to = origin.address(Role::Command).unwrap();
    let asks = |stream: &TcpStream| {
        let watch = Stopwatch::start();
        (&*stream).write_all(b"STRING\nstill there\n").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        assert_eq!(line, "still there\n");
        watch.elapsed()
    };
    let kept = TcpStream::connect(to).unwrap();
    kept.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut greedy = Vec::new();
    for _ in 0..4 {
        for n in 0..30 {
            let mut stream = connect_from([0, 66], to).unwrap();
            stream
                .set_write_timeout(Some(Duration::from_millis(10)))
                .unwrap();
            // It is cut off perhaps before it has sent all of this.
            let _ = match n % 2 {
                0 => stream
                    .write_all(b"RECORD 1000000\n")
                    .and_then(|()| stream.write_all(&vec![b'r'; 900_000])),
                _ => stream.write_all(b"SOURCE 0\n"),
            };
            greedy.push(stream);
        }
        let waited = best_of(5, SERVED_WITHIN, || asks(&kept));
        assert!(waited <= SERVED_WITHIN, "its answer took {waited:?}");
        let waited = best_of(5, SERVED_WITHIN, || {
            let stream = TcpStream::connect(to).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            asks(&stream)
        });
        assert!(waited <= SERVED_WITHIN, "it was served after {waited:?}");
        let held = origin.counters().held.load(Ordering::Relaxed);
        assert!(held <= 2 * MOST + (2 << 20), "{held} bytes are held");
    }
}
