use super::*;

const KIB: u32 = 1024;

fn lane(policy: PathPolicy) -> Lane {
    let mut lane = Lane::new(policy, 256 * KIB);
    lane.source_ready();
    lane
}

#[test]
fn held_back_it_reads_nothing_and_hands_on_what_it_has() {
    let mut lane = lane(PathPolicy::Copy);
    lane.filled(10);
    lane.drain_blocked();
    lane.hold_back();
    lane.source_ready();
    assert!(lane.is_held_back() && !lane.wants_fill());
    lane.sink_ready();
    assert_eq!(lane.next(), Next::Drain { len: 10 });
    lane.drained(10);
    assert_eq!((lane.next(), lane.progress()), (Next::Park, Progress::Open));
    lane.release();
    assert!(matches!(lane.next(), Next::Fill { .. }));
    // What nobody takes is discarded at once.
    lane.hold_back();
    lane.sink_failed();
    assert!(matches!(lane.next(), Next::Discard { .. }));
}

#[test]
fn an_end_is_passed_on_only_after_the_last_held_byte() {
    let mut lane = lane(PathPolicy::Auto);
    lane.filled(10);
    lane.source_eof();
    assert_eq!(lane.next(), Next::Drain { len: 10 });
    lane.drained(4);
    lane.drain_blocked();
    assert_eq!(lane.next(), Next::Park);
    lane.sink_ready();
    lane.drained(6);
    assert_eq!(lane.next(), Next::ShutSink);
    lane.sink_shut();
    assert_eq!(
        (lane.next(), lane.progress()),
        (Next::Done, Progress::Finished)
    );
}

#[test]
fn a_tapped_lane_copies_until_nobody_looks() {
    for policy in [PathPolicy::Auto, PathPolicy::Copy, PathPolicy::Splice] {
        let mut lane = lane(policy);
        lane.tap();
        for _ in 0..3 * BULK_STREAK {
            assert_eq!(lane.path(), Path::Copy);
            lane.filled(256 * KIB);
            lane.drained(256 * KIB);
        }
        lane.untap();
        let after = match policy {
            PathPolicy::Copy => Path::Copy,
            PathPolicy::Auto | PathPolicy::Splice => Path::Splice,
        };
        assert_eq!(lane.path(), after);
    }
}

#[test]
fn a_tap_of_messages_leaves_a_lane_as_it_was() {
    let mut lane = lane(PathPolicy::Auto);
    lane.tap();
    lane.filled(KIB);
    lane.drained(KIB);
    lane.untap();
    assert_eq!(lane.path(), Path::Copy);
    lane.untap();
    assert_eq!(lane.path(), Path::Copy);
}

#[test]
fn bulk_reads_switch_to_splice_and_short_ones_back() {
    let mut lane = lane(PathPolicy::Auto);
    for _ in 0..BULK_STREAK {
        assert!(matches!(
            lane.next(),
            Next::Fill {
                path: Path::Copy,
                ..
            }
        ));
        lane.filled(256 * KIB);
        lane.drained(256 * KIB);
    }
    for _ in 0..SHORT_STREAK {
        assert!(matches!(
            lane.next(),
            Next::Fill {
                path: Path::Splice,
                ..
            }
        ));
        lane.filled(1);
        lane.drained(1);
    }
    assert!(matches!(
        lane.next(),
        Next::Fill {
            path: Path::Copy,
            ..
        }
    ));
    assert!(lane.has_spliced());
}

#[test]
fn a_forced_path_stays() {
    for (policy, path) in [
        (PathPolicy::Copy, Path::Copy),
        (PathPolicy::Splice, Path::Splice),
    ] {
        let mut lane = lane(policy);
        for n in [256 * KIB; 20].into_iter().chain([1; 20]) {
            assert!(matches!(lane.next(), Next::Fill { path: p, .. } if p == path));
            lane.filled(n);
            lane.drained(n);
        }
    }
}

#[test]
fn a_refused_splice_is_not_asked_for_again() {
    let mut lane = lane(PathPolicy::Splice);
    lane.splice_refused(Fallback::Unsupported);
    for _ in 0..20 {
        assert!(matches!(
            lane.next(),
            Next::Fill {
                path: Path::Copy,
                ..
            }
        ));
        lane.filled(256 * KIB);
        lane.drained(256 * KIB);
    }
    assert_eq!(lane.fallback(), Some(Fallback::Unsupported));
}

#[test]
fn reads_shrink_to_the_pace_of_the_sink_and_recover() {
    let mut lane = lane(PathPolicy::Copy);
    lane.filled(256 * KIB);
    lane.drained(20 * KIB);
    lane.drain_blocked();
    lane.sink_ready();
    lane.drained(236 * KIB);
    assert_eq!(
        lane.next(),
        Next::Fill {
            max: 40 * KIB,
            path: Path::Copy
        }
    );
    for _ in 0..5 {
        lane.filled(1);
        lane.drained(1);
    }
    assert_eq!(
        lane.next(),
        Next::Fill {
            max: 256 * KIB,
            path: Path::Copy
        }
    );
}

#[test]
fn what_was_not_written_after_all_is_held_again() {
    let mut lane = lane(PathPolicy::Copy);
    lane.filled(256 * KIB);
    lane.drained(256 * KIB);
    lane.source_failed();
    assert_eq!(lane.progress(), Progress::SourceFailed);
    lane.undrained(100);
    assert_eq!(
        (lane.next(), lane.progress(), lane.is_stalled()),
        (Next::Park, Progress::Flushing, true)
    );
    lane.sink_ready();
    assert_eq!(lane.next(), Next::Drain { len: 100 });
    lane.drained(100);
    assert_eq!(lane.progress(), Progress::SourceFailed);

    lane.sink_failed();
    lane.undrained(7);
    assert_eq!((lane.held(), lane.bytes_lost()), (0, 7));
    assert_eq!(lane.bytes_in(), lane.bytes_out() + lane.bytes_lost());
}

#[test]
fn a_failed_sink_discards_until_the_source_ends() {
    let mut lane = lane(PathPolicy::Auto);
    lane.filled(100);
    lane.sink_failed();
    assert!(matches!(lane.next(), Next::Discard { .. }));
    lane.discarded(50);
    lane.source_eof();
    assert_eq!(lane.next(), Next::Done);
    assert_eq!(
        (lane.bytes_in(), lane.bytes_out(), lane.bytes_lost()),
        (150, 0, 150)
    );
}

#[test]
fn the_echo_of_a_failure_is_not_an_orderly_end() {
    let mut lane = lane(PathPolicy::Auto);
    lane.doom();
    lane.source_eof();
    assert_eq!(
        (lane.next(), lane.progress()),
        (Next::Done, Progress::SourceFailed)
    );
}

#[test]
fn what_is_lost_is_counted_beyond_32_bits_and_survives_a_move() {
    let mut lane = lane(PathPolicy::Auto);
    lane.filled(100);
    lane.drained(40);
    lane.sink_failed();
    for _ in 0..3 {
        lane.discarded(u32::MAX);
    }
    let lost = 60 + 3 * u64::from(u32::MAX);
    assert_eq!((lane.held(), lane.bytes_lost()), (0, lost));
    assert_eq!((lane.bytes_in(), lane.bytes_out()), (lost + 40, 40));
    assert!(!lane.is_bulk(), "what is discarded is no fill");
    let state = lane.freeze();
    let thawed = Lane::thaw(&state).unwrap();
    assert_eq!(thawed.freeze(), state);
    assert_eq!(thawed.bytes_lost(), lost);
}

#[test]
fn a_lane_is_small() {
    assert_eq!(size_of::<Lane>(), 32);
}
