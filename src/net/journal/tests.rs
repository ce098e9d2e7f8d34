use std::cell::RefCell;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use proptest::prelude::*;

use super::*;

/// What a process does to its slot and to its lanes, in the order in which it does it.
#[derive(Debug, Clone, Copy)]
enum Done {
    Stored(Word, u64),
    Read(usize, u64),
    Wrote(usize, u64),
}

/// A page that remembers what was stored between what.
#[derive(Default)]
struct Recorder(RefCell<Vec<Done>>);

impl Page for Recorder {
    fn store(&self, word: Word, value: u64) {
        self.0.borrow_mut().push(Done::Stored(word, value));
    }

    fn load(&self, _: Word) -> u64 {
        unreachable!("what is written does not depend on what is there")
    }
}

/// A pump: by which lane, and of each read how much was written of what is held then, in
/// percent.
type Pump = (usize, Vec<(u64, u64)>);

/// What the engine does, with the very steps that it takes.
fn live(pumps: &[Pump]) -> Vec<Done> {
    let page = Recorder::default();
    let mut crossed = [(0, 0); 2];
    steps::valid(&page, [Some(0); 2], (1, 0));
    for (now, (lane, moves)) in pumps.iter().enumerate() {
        steps::dirty(&page, *lane);
        let (read, written) = &mut crossed[*lane];
        for (bytes, percent) in moves {
            if read == written {
                *read += bytes;
                page.0.borrow_mut().push(Done::Read(*lane, *bytes));
            }
            let some = (*read - *written) * percent / 100;
            *written += some;
            page.0.borrow_mut().push(Done::Wrote(*lane, some));
        }
        if read == written {
            steps::clean(&page, *lane, *written, Some(2 + now as u64));
        }
    }
    page.0.into_inner()
}

/// What the next process sees of what was done.
fn seen(done: &[Done], wanted: Word) -> u64 {
    let stored = done.iter().rev().find_map(|it| match it {
        Done::Stored(word, value) if *word == wanted => Some(*value),
        _ => None,
    });
    stored.unwrap_or(0)
}

proptest! {
    /// Killed after whatever step: either the next process sees a lane that is dirty, or nothing
    /// was held and every byte is counted, once.
    #[test]
    fn b160_killed_at_any_step_it_is_dirty_or_nothing_is_held(
        pumps in prop::collection::vec(
            (0_usize..2, prop::collection::vec((1_u64..100_000, prop_oneof![Just(100_u64), 0_u64..=100]), 0..4)),
            0..12,
        )
    ) {
        let done = live(&pumps);
        for killed_at in 0..=done.len() {
            let done = &done[..killed_at];
            let dirty = |lane| seen(done, Word::Dirty(lane)) != 0;
            if seen(done, Word::Hold) != Hold::Valid as u64 || dirty(0) || dirty(1) {
                continue;
            }
            for lane in 0..2 {
                let (mut read, mut written) = (0, 0);
                for it in done {
                    match *it {
                        Done::Read(of, bytes) if of == lane => read += bytes,
                        Done::Wrote(of, bytes) if of == lane => written += bytes,
                        _ => {}
                    }
                }
                prop_assert_eq!(read, written, "something is held");
                prop_assert_eq!(seen(done, Word::Bytes(lane)), written);
            }
        }
    }
}

fn journal() -> (Arc<Journal>, std::sync::mpsc::Receiver<SlotName>) {
    let (told, heard) = channel();
    let told = Mutex::new(told);
    let released = move |name| told.lock().unwrap().send(name).unwrap_or_default();
    let journal = Journal::new((0xabc, 7), Box::new(released)).unwrap();
    (Arc::new(journal), heard)
}

/// As the next process finds it: by another mapping of the same file.
fn again(journal: &Journal) -> Arc<Journal> {
    let copy = journal.as_fd().try_clone_to_owned().unwrap();
    Arc::new(Journal::open(copy, Box::new(|_| ())).unwrap())
}

#[test]
fn what_was_noted_is_found_again_and_what_was_given_back_is_not() {
    let (journal, released) = journal();
    let stays = journal.take(b"the one that stays, of 33 bytes").unwrap();
    let goes = journal.take(b"").unwrap();
    stays.valid([Some(5), Some(6)], (100, None));
    stays.dirty(1);
    stays.clean(1, 9, Some(200));
    stays.clean(0, 5, None);
    stays.first(150);
    stays.first(160);
    goes.valid([Some(0); 2], (100, Some(1)));
    let gone = goes.name();
    drop(goes);
    assert_eq!(released.try_recv(), Ok(gone));
    let next = again(&journal);
    assert_eq!((next.id(), next.origin()), (0xabc, 7));
    let (noted, mark) = next.noted().pop().unwrap();
    let expected = Noted {
        name: stays.name(),
        bytes: [5, 9],
        since: Some(200),
        written: 100,
        first: Some(150),
        clean: true,
        text: b"the one that stays, of 33 bytes".to_vec(),
    };
    assert_eq!(noted, expected);
    assert_eq!(mark.name(), stays.name());
    // It goes on in the same slot, and another one gets another.
    let other = next.take(b"").unwrap();
    assert_ne!(other.name().slot, mark.name().slot);
    mark.dirty(0);
    // Marks of others give the slot back, too: none is dropped before the end.
    let mut marks = Vec::new();
    let mut is_clean = |journal: &Journal| {
        let (noted, mark) = again(journal).noted().swap_remove(0);
        marks.push(mark);
        noted.clean
    };
    assert!(!is_clean(&next));
    mark.clean(0, 7, Some(300));
    assert!(is_clean(&next));
    mark.spoil();
    assert!(!is_clean(&next));
}

#[test]
fn a_slot_that_is_taken_again_has_another_name() {
    let (journal, _released) = journal();
    let first = journal.take(b"").unwrap();
    let name = first.name();
    drop(first);
    let second = journal.take(b"").unwrap().name();
    assert_eq!(name.slot, second.slot);
    assert_ne!(name, second);
    for name in [name, second] {
        assert_eq!(SlotName::named(&name.to_string()), Some(name));
    }
    assert_eq!(SlotName::named("thalweg-session.1.2"), None);
    assert_eq!(SlotName::named("thalweg.127.0.0.1:80,web"), None);
    assert_eq!(journal_named(&journal_name(0xabc)), Some(0xabc));
    assert_eq!(journal_named("web"), None);
}

#[test]
fn there_are_so_many_slots_and_a_text_is_so_long_at_the_most() {
    let (journal, _released) = journal();
    assert!(journal.take(&vec![1; TEXT_MAX + 1]).is_none());
    let mut marks: Vec<Mark> = (0..SLOTS).map(|_| journal.take(b"x").unwrap()).collect();
    assert!(journal.take(b"x").is_none());
    marks.pop();
    let mark = journal.take(&vec![7; TEXT_MAX]).unwrap();
    mark.valid([None, Some(1)], (1, None));
    drop(marks);
    let (noted, _mark) = again(&journal).noted().pop().unwrap();
    assert_eq!(noted.text, vec![7; TEXT_MAX]);
    assert!(!noted.clean, "something of a lane was held");
}

#[test]
fn a_file_that_is_no_journal_is_refused() {
    let open = |file: OwnedFd| Journal::open(file, Box::new(|_| ())).map(drop);
    let plain = memfd_create("x", MFdFlags::MFD_ALLOW_SEALING).unwrap();
    assert!(open(plain.try_clone().unwrap()).is_err());
    fcntl(&plain, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
    let short = open(plain.try_clone().unwrap()).unwrap_err();
    assert!(short.to_string().contains("size"), "{short}");
    ftruncate(&plain, (WORDS * size_of::<u64>()) as i64).unwrap();
    let foreign = open(plain).unwrap_err();
    assert!(foreign.to_string().contains("layout"), "{foreign}");
    let (reader, _writer) = nix::unistd::pipe().unwrap();
    assert!(open(reader).is_err());
}
