use proptest::prelude::*;

use super::*;

const MB: u64 = 1_000_000;
const SECOND: u64 = 1_000_000;

fn rate(per_second: u64) -> Rate {
    Rate {
        per_second,
        burst: Duration::from_millis(100),
    }
}

fn buckets(per_second: u64) -> Arc<Buckets> {
    Arc::new(Buckets::new([rate(per_second); 2]))
}

fn at(micros: u64) -> Time {
    Time::from_micros(micros)
}

/// A session that always has more to send; what it has sent.
struct Greedy {
    meters: Meters,
    sent: u64,
    /// What it reads at once at the most; the next piece is there at once.
    piece: u32,
}

impl Greedy {
    fn new(levels: [Option<Arc<Buckets>>; 4]) -> Self {
        Self {
            meters: Meters::new(levels, false),
            sent: 0,
            piece: u32::MAX,
        }
    }

    /// Sends what it may.
    fn turn(&mut self, now: Time) {
        self.meters.release(Direction::Up, now);
        while let Grant::Flow(bytes) = self.meters.ask(Direction::Up, u32::MAX, now) {
            let bytes = bytes.min(self.piece);
            self.sent += u64::from(bytes);
            self.meters.flowed(Direction::Up, u64::from(bytes), now);
        }
    }
}

/// Lets them send for a time; each is looked at when its turn has come, late by up to
/// `late` microseconds.
fn run(sessions: &mut [Greedy], from: u64, time: u64, late: u64) {
    let mut now = from;
    let mut drawn = 7_u64;
    while now < from + time {
        for session in sessions.iter_mut() {
            let due = session.meters.due();
            if due == Time::NEVER || due <= at(now) {
                session.turn(at(now));
            }
        }
        drawn = drawn
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let next = sessions.iter().map(|it| it.meters.due()).min();
        let next = next.map_or(now, Time::as_micros).max(now + 1);
        now = next + if late == 0 { 0 } else { (drawn >> 33) % late };
    }
}

fn jain(sessions: &[Greedy]) -> f64 {
    let sum: f64 = sessions.iter().map(|it| it.sent as f64).sum();
    let squares: f64 = sessions.iter().map(|it| (it.sent as f64).powi(2)).sum();
    sum * sum / (squares * sessions.len() as f64)
}

#[test]
fn b85_a_rate_is_kept_to_the_burst_however_late_anybody_looks() {
    for (per_second, late) in [
        (10 * MB, 0),
        (10 * MB, 20_000),
        (100, 5_000),
        (5_000 * MB, 2_000),
    ] {
        for level in 0..4 {
            let mut levels = [None, None, None, None];
            levels[level] = Some(buckets(per_second));
            let mut session = [Greedy::new(levels)];
            run(&mut session, SECOND, 5 * SECOND, late);
            let (least, most) = (per_second * 5 * 99 / 100, per_second * 51 / 10);
            let sent = session[0].sent;
            let slack = SHARE_MAX.min(per_second / 10);
            assert!(
                (least..=most + slack).contains(&sent),
                "{per_second} {late} {level}: {sent}"
            );
        }
    }
}

#[test]
fn b85_eight_sessions_of_a_client_have_the_same() {
    for late in [0, 3_000, 30_000] {
        let client = buckets(10 * MB);
        let one = || Greedy::new([None, Some(client.clone()), None, None]);
        let mut sessions: Vec<_> = std::iter::repeat_with(one).take(8).collect();
        run(&mut sessions, SECOND, 5 * SECOND, late);
        assert!(jain(&sessions) > 0.95, "{late}: {}", jain(&sessions));
        let all: u64 = sessions.iter().map(|it| it.sent).sum();
        assert!((49 * MB..=52 * MB).contains(&all), "{late}: {all}");
    }
}

/// However small the pieces are in which a session can read.
#[test]
fn b85_sessions_that_read_in_pieces_have_the_same() {
    let client = buckets(8 * MB);
    let one = || Greedy::new([None, Some(client.clone()), None, None]);
    let mut sessions: Vec<_> = std::iter::repeat_with(one).take(8).collect();
    for session in &mut sessions[..4] {
        session.piece = 32 * 1024;
    }
    run(&mut sessions, SECOND, 5 * SECOND, 300);
    assert!(jain(&sessions) > 0.99, "{}", jain(&sessions));
    let all: u64 = sessions.iter().map(|it| it.sent).sum();
    assert!((39 * MB..=41 * MB).contains(&all), "{all}");
}

/// What is kept for a piece that does not come is everybody's after a moment.
#[test]
fn b85_what_is_kept_for_nothing_is_given_back() {
    let mut meters = Meters::new([None, Some(buckets(8 * MB)), None, None], false);
    let now = at(SECOND);
    let Grant::Flow(share) = meters.ask(Direction::Up, u32::MAX, now) else {
        panic!("a full bucket has a share")
    };
    meters.flowed(Direction::Up, u64::from(share / 2), now);
    let due = meters.due();
    assert_eq!(due, now + KEEP);
    assert!(!meters.release(Direction::Up, due), "nobody was held back");
    assert_eq!(meters.due(), Time::NEVER);
    let bucket = meters.levels[1].as_ref().unwrap().of(Direction::Up);
    let used = bucket.cost(u64::from(share / 2)) / TICKS_PER_MICRO;
    assert!((bucket.debt(now) - (used as i64 - 100_000)).abs() <= 1);
}

/// A narrow client takes what it may, and the others what is left, evenly.
#[test]
fn a_slow_client_does_not_slow_the_others_of_its_forward() {
    let forward = buckets(10 * MB);
    let mut sessions = vec![Greedy::new([
        None,
        Some(buckets(MB)),
        None,
        Some(forward.clone()),
    ])];
    let fast = || Greedy::new([None, Some(buckets(100 * MB)), None, Some(forward.clone())]);
    sessions.extend(std::iter::repeat_with(fast).take(3));
    run(&mut sessions, SECOND, 5 * SECOND, 2_000);
    assert!(
        (4_900_000..=5_300_000).contains(&sessions[0].sent),
        "{}",
        sessions[0].sent
    );
    assert!(jain(&sessions[1..]) > 0.99, "{}", jain(&sessions[1..]));
    let all: u64 = sessions.iter().map(|it| it.sent).sum();
    assert!((49 * MB..=52 * MB).contains(&all), "{all}");
}

/// However many wait, a turn comes round soon: shares are smaller in a long line.
#[test]
fn a_thousand_sessions_of_a_forward_have_a_turn_each_second() {
    let forward = buckets(125 * MB);
    let one = || Greedy::new([None, None, None, Some(forward.clone())]);
    let mut sessions: Vec<_> = std::iter::repeat_with(one).take(1_000).collect();
    // The first have the burst, and large shares while the line is short.
    run(&mut sessions, SECOND, SECOND, 0);
    for session in &mut sessions {
        session.sent = 0;
    }
    run(&mut sessions, 2 * SECOND, 4 * SECOND, 0);
    assert!(jain(&sessions) > 0.95, "{}", jain(&sessions));
    assert!(sessions.iter().all(|it| it.sent > 0));
}

#[test]
fn b86_who_stays_below_the_rate_never_waits() {
    let mut meters = Meters::new([Some(buckets(100)), None, None, None], false);
    for turn in 0..1_000 {
        let now = at(SECOND + turn * 20_000);
        let granted = meters.ask(Direction::Down, 64 * 1024, now);
        assert!(matches!(granted, Grant::Flow(1..)), "{turn}: {granted:?}");
        meters.flowed(Direction::Down, 1, now);
    }
    assert_eq!(meters.held(at(SECOND)), Duration::ZERO);
}

#[test]
fn a_pause_of_any_length_earns_no_more_than_the_burst() {
    let mut session = Greedy::new([Some(buckets(MB)), None, None, None]);
    session.turn(at(SECOND));
    assert_eq!(session.sent, 100_000);
    session.turn(at(3_600 * SECOND));
    // Besides what it was waiting for.
    assert!(
        (200_000..=210_000).contains(&session.sent),
        "{}",
        session.sent
    );
}

#[test]
fn what_a_session_had_no_use_for_is_given_back() {
    let shared = buckets(MB);
    let mut reader = Meters::new([None, Some(shared.clone()), None, None], false);
    let now = at(SECOND);
    let Grant::Flow(share) = reader.ask(Direction::Up, 64 * 1024, now) else {
        panic!("a full bucket has a share")
    };
    assert!(share > 1_000);
    reader.flowed(Direction::Up, 1_000, now);
    let bucket = shared.of(Direction::Up);
    let millis = |bucket: &Bucket| bucket.debt(now) / 1_000;
    assert_eq!(millis(bucket), -99);
    // One that waits for its turn, and ends.
    assert!(bucket.try_take(99_000, now) && !bucket.try_take(2, now));
    let waited = reader.ask(Direction::Up, 64 * 1024, now);
    assert!(
        matches!(waited, Grant::Wait(_, Level::Client)),
        "{waited:?}"
    );
    assert!(bucket.debt(now) > 0);
    drop(reader);
    assert_eq!(bucket.debt(now), 0);
}

#[test]
fn a_dry_run_holds_nothing_back_and_tells_what_it_would_have() {
    let mut meters = Meters::new([Some(buckets(MB)), None, None, None], true);
    let mut over = 0;
    for _ in 0..10 {
        assert_eq!(
            meters.ask(Direction::Up, 50_000, at(SECOND)),
            Grant::Flow(50_000)
        );
        let told = meters.flowed(Direction::Up, 50_000, at(SECOND));
        over += u32::from(told == Some(Level::Session));
    }
    assert_eq!(over, 8);
    assert_eq!(meters.due(), Time::NEVER);
}

/// Who is handed on has the credit, or the debt, that it had.
#[test]
fn debts_are_kept_by_who_takes_a_session_over() {
    let mut session = Greedy::new([Some(buckets(MB)), None, None, None]);
    session.turn(at(SECOND));
    let debts = session.meters.debts(at(SECOND));
    assert_eq!(debts, [0, -100_000]);
    let other = Meters::new([Some(buckets(MB)), None, None, None], false);
    other.set_debts(debts, at(SECOND));
    assert_eq!(other.debts(at(SECOND)), debts);
}

proptest! {
    /// In any time no more than burst and rate allow, whoever takes how much and when.
    #[test]
    fn b85_no_window_has_more_than_burst_and_rate(
        per_second in 1_u64..10_000 * MB,
        takes in prop::collection::vec((1_u64..100_000, 0_u64..50_000), 1..200),
    ) {
        let bucket = Bucket::new(rate(per_second));
        let mut now = SECOND;
        let mut granted: Vec<(u64, u64)> = Vec::new();
        for (bytes, pause) in takes {
            now += pause;
            let at = bucket.take(bytes, at(now)).as_micros().max(now);
            granted.push((at, bytes));
        }
        for first in 0..granted.len().min(20) {
            let mut sum = 0;
            for &(at, bytes) in &granted[first..] {
                sum += bytes;
                let time = u128::from(at - granted[first].0 + 1 + 100_000);
                let most = time * u128::from(per_second) / u128::from(SECOND);
                prop_assert!(u128::from(sum) <= most + 100_000 + 1, "{sum} of {most}");
            }
        }
    }
}

/// Datagrams pass whole or not at all: no more than the rate, its burst, and the last one of that.
#[test]
fn b85_datagrams_pass_whole_at_the_rate() {
    for (per_second, bytes) in [(MB, 1_200), (1_000, 1_200), (MB, 50_000)] {
        let meters = Meters::new([Some(buckets(per_second)), None, None, None], false);
        let mut passed = 0;
        // Twenty times as much as may pass, for ten seconds.
        let each = bytes * SECOND / per_second / 20;
        for turn in 0..10 * SECOND / each {
            if meters.pass(Direction::Up, bytes, at(turn * each)).is_ok() {
                passed += bytes;
            }
        }
        let most = per_second * 10 + per_second / 10 + bytes;
        assert!(
            passed <= most && passed + 2 * bytes >= per_second * 10,
            "{passed} of {per_second}/s in pieces of {bytes}"
        );
    }
}

/// What one level refuses costs the others nothing.
#[test]
fn b85_a_datagram_is_taken_from_every_rate_or_from_none() {
    let (own, shared) = (buckets(MB), buckets(1_000));
    let meters = Meters::new([Some(own.clone()), None, None, Some(shared)], false);
    assert_eq!(meters.pass(Direction::Up, 1_000, at(0)), Ok(()));
    let before = own.of(Direction::Up).debt(at(0));
    for _ in 0..100 {
        let refused = meters.pass(Direction::Up, 1_000, at(0));
        assert_eq!(refused, Err(Level::Forward));
    }
    assert_eq!(own.of(Direction::Up).debt(at(0)), before);
    assert_eq!(meters.pass(Direction::Down, 1_000, at(0)), Ok(()));
}

/// A session that comes to another server has what it took of the first one given back, and is
/// held back by the second from then on.
#[test]
fn b85_a_session_goes_by_the_rate_of_the_server_that_it_is_on() {
    let (slow, fast) = (buckets(100), buckets(MB));
    let now = at(SECOND);
    let mut meters = Meters::new([None, None, Some(slow.clone()), None], false);
    let Grant::Flow(burst) = meters.ask(Direction::Up, u32::MAX, now) else {
        panic!("the burst is there");
    };
    meters.flowed(Direction::Up, u64::from(burst), now);
    while let Grant::Flow(bytes) = meters.ask(Direction::Up, u32::MAX, now) {
        meters.flowed(Direction::Up, u64::from(bytes), now);
    }
    assert!(meters.due() > now);
    let debt = slow.of(Direction::Up).debt(now);
    meters.set_server(Some(fast.clone()));
    assert!(
        slow.of(Direction::Up).debt(now) < debt,
        "a share was given back"
    );
    // At once: its turn at the first is no matter any more.
    assert!(meters.due() <= now && meters.release(Direction::Up, now));
    assert!(matches!(
        meters.ask(Direction::Up, u32::MAX, now),
        Grant::Flow(bytes) if bytes > 100
    ));
    assert_eq!(meters.rates(Level::Server), Some([MB; 2]));
    meters.set_server(None);
    assert!(!meters.any());
}
