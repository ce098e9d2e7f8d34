use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::feed::Progress;
use super::*;
use crate::config::{LogFormat, LogLevel, LogTarget, TapFilter};
use crate::net::address::Endpoint;
use crate::relay::Direction;

/// A queue that is full when nobody takes from it: what was left out is told by what
/// comes next.
#[test]
fn sessions_and_bytes_that_found_no_room_are_told_of() {
    let file = std::env::temp_dir().join(format!("thalweg-tap-room-{}", std::process::id()));
    let tap = Tap {
        format: TapFormat::Http,
        to: TapTarget::File(file.clone()),
        max_bytes_per_session: 1 << 30,
        filter: TapFilter::default(),
        rotate: None,
        mode: 0o600,
        mask: Vec::new(),
        unmask: false,
    };
    let null = LogTarget::File("/dev/null".into());
    let (log, _writer) = Log::start(LogLevel::Error, LogFormat::Text, &null).unwrap();
    let (queue, items) = channel();
    let progress = Arc::<Progress>::default();
    let sink = open(&tap).unwrap();
    let target = Target::new(&tap, Some(tap.to.clone()), progress.clone(), log);
    let source = Source::new(Arc::new(tap), 0, queue, Arc::default());
    let open_session = |id| {
        let sight = Sight {
            id,
            forward: &"web".into(),
            client: &Endpoint::Unnamed,
            listener: &Endpoint::Unnamed,
            before: [0; 2],
        };
        let feed = source.open(&sight, None);
        feed.expect("nothing filters it out")
    };
    let closing = || Closing {
        moved_to: None,
        ending: None,
        totals: [0; 2],
    };
    let mut first = open_session(1);
    let mut fed = 0;
    while source.dropped_bytes() == 0 {
        first.chunk(Direction::Up, b"x");
        fed += 1;
    }
    let mut unseen = open_session(2);
    unseen.chunk(Direction::Up, b"x");
    unseen.close(closing());
    let deadline = Instant::now() + Duration::from_secs(30);
    let outlet = Outlet::spawn("tap", items, target, sink).unwrap();
    // The opening and what did fit of the first one.
    while progress.items() < fed && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    first.chunk(Direction::Up, b"x");
    first.close(closing());
    let mut third = open_session(3);
    third.chunk(Direction::Up, b"x");
    third.close(closing());
    drop(source);
    assert!(outlet.ends_by(deadline));
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(file).unwrap();
    let missing = format!(" id=0.1 up missing=1 offset={} ", fed - 1);
    assert_eq!(text.matches(&missing).count(), 1, "{missing}");
    assert!(!text.contains(" id=0.2 "), "nothing is known of it");
    let (before, _) = text.split_once(" id=0.3 open ").unwrap();
    assert!(
        before
            .lines()
            .rev()
            .nth(1)
            .unwrap()
            .contains(" sessions_missing=1 ")
    );
}
