use core::net::IpAddr;

use proptest::prelude::*;

use super::*;

const FORWARD: ForwardId = ForwardId::new(1);
const OTHER: ForwardId = ForwardId::new(2);

/// A limit of which half is no matter.
const MAX: u32 = 1_000;

fn client(number: u32) -> Client {
    Client::from(Some(IpAddr::V4((0x0a00_0000 + number).into())))
}

/// Every other one of IPv6.
fn either(number: u32) -> Client {
    if number.is_multiple_of(2) {
        return client(number);
    }
    let bits = (0x2001_0db8_u128 << 96) + (u128::from(number) << 64);
    Client::from(Some(IpAddr::from(bits.to_be_bytes())))
}

fn seconds(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

/// A limit, and whoever came in by its shares.
struct Gate {
    shares: Shares<u32>,
    max: u32,
    inside: Vec<u32>,
    came: u32,
}

impl Gate {
    fn new(max: u32) -> Self {
        Self {
            shares: Shares::new(1),
            max,
            inside: Vec::new(),
            came: 0,
        }
    }

    fn free(&self) -> u32 {
        self.max - self.inside.len() as u32
    }

    fn comes(&mut self, client: Client, forward: ForwardId) -> bool {
        let places = Places {
            max: self.max,
            free: self.free(),
            kept: Places::kept_of(self.max),
        };
        let may = places.free > 0
            && self.shares.may_grow(forward, places)
            && self.shares.may_enter(client, None, places);
        if may {
            self.came += 1;
            self.shares
                .enter(self.came, forward, client, Some(Time::ZERO));
            self.inside.push(self.came);
        }
        may
    }
}

#[test]
fn who_takes_all_it_can_leaves_places_for_others() {
    let mut gate = Gate::new(10_000);
    while gate.comes(client(0), FORWARD) {}
    assert_eq!(gate.free(), 10_000 / 33);
    // Others of the same forward and of another one come in.
    for stranger in 1..50 {
        assert!(gate.comes(client(stranger), FORWARD), "{stranger}");
        assert!(gate.comes(client(stranger), OTHER), "{stranger}");
    }
    assert!(!gate.comes(client(0), OTHER));
}

#[test]
fn the_last_place_of_a_small_limit_is_for_somebody_who_has_none() {
    for max in 1..=32 {
        let mut gate = Gate::new(max);
        while gate.comes(client(0), FORWARD) {}
        assert_eq!(gate.free(), u32::from(max >= 8), "{max}");
        assert_eq!(gate.comes(client(1), FORWARD), max >= 8);
        assert_eq!(gate.free(), 0);
    }
}

/// Whoever has a /48 has 65,536 clients.
#[test]
fn a_site_that_takes_all_it_can_leaves_places_for_others() {
    let of = |site: u16, network: u16| {
        let segments = [0x2001, 0xdb8, site, network, 0, 0, 0, 1];
        Client::from(Some(IpAddr::from(segments)))
    };
    let mut gate = Gate::new(10_000);
    let mut network = 0;
    while gate.comes(of(1, network), FORWARD) {
        network += 1;
    }
    assert_eq!(gate.free(), 10_000 / 49);
    assert!(gate.comes(of(2, 0), FORWARD) && gate.comes(client(1), FORWARD));
}

#[test]
fn half_of_a_small_limit_is_many_silent_ones() {
    for (max, keepers, silent, makes_room) in [
        (4, 1, 2, true),
        (4, 1, 1, false),
        (40, 1, 20, true),
        (40, 1, 19, false),
        (40, 4, 5, true),
        (1_000, 1, 32, true),
        (1_000, 1, 31, false),
        (1, 1, 1, false),
    ] {
        let mut shares = Shares::new(keepers);
        for key in 0..silent {
            shares.enter(key, FORWARD, client(0), Some(Time::ZERO));
        }
        let named = shares.makes_room(None, max, seconds(1), |_| Manner::Silent);
        assert_eq!(named.is_some(), makes_room, "{silent} of {max}");
    }
}

#[test]
fn very_many_clients_of_one_forward_leave_places_for_another_forward() {
    let mut gate = Gate::new(10_000);
    let mut number = 10;
    while gate.comes(client(number), FORWARD) {
        number += 1;
    }
    assert_eq!(gate.free(), 10_000 / 65);
    assert!(gate.comes(client(1), OTHER));
}

#[test]
fn a_keeper_of_a_part_of_all_sees_the_whole() {
    let places = Places {
        max: 10_000,
        free: 300,
        kept: 0,
    };
    let mut shares = Shares::new(4);
    for key in 0..2_400 {
        shares.enter(key, FORWARD, client(0), None);
    }
    assert!(shares.may_enter(client(0), None, places));
    shares.enter(9_999, FORWARD, client(0), None);
    shares.enter(10_000, FORWARD, client(0), None);
    assert!(!shares.may_enter(client(0), None, places));
    // One session may be the only one, however few places are left.
    shares.enter(10_001, FORWARD, client(1), None);
    let last = Places {
        max: 10_000,
        free: 1,
        kept: 0,
    };
    assert!(shares.may_enter(client(1), None, last));
    // Who comes by a unix socket is as many as it is.
    for key in 20_000..30_000 {
        shares.enter(key, FORWARD, Client::from(None), None);
    }
    assert!(shares.may_enter(Client::from(None), None, last));
}

#[test]
fn the_oldest_of_whoever_has_most_makes_room_and_others_have_time() {
    let mut shares = Shares::new(1);
    let mut key = 0;
    let mut enter = |shares: &mut Shares<u32>, whose: u32, since: Time| {
        key += 1;
        shares.enter(key, FORWARD, client(whose), Some(since));
        key
    };
    // An innocent came first, and then somebody with very many.
    let innocent = enter(&mut shares, 1, seconds(9));
    let many: Vec<u32> = (0..40)
        .map(|_| enter(&mut shares, 0, seconds(10)))
        .collect();
    let silent = |_: u32| Manner::Silent;
    assert_eq!(shares.makes_room(None, MAX, seconds(10), silent), None);
    assert_eq!(
        shares.makes_room(None, MAX, seconds(11), silent),
        Some(many[0])
    );
    assert_eq!(
        shares.makes_room(Some(OTHER), MAX, seconds(11), silent),
        None
    );
    let of_forward = shares.makes_room(Some(FORWARD), MAX, seconds(11), silent);
    assert_eq!(of_forward, Some(many[1]));
    // Below that number ten seconds are everybody's.
    for key in &many[2..9] {
        assert_eq!(
            shares.makes_room(None, MAX, seconds(11), silent),
            Some(*key)
        );
    }
    assert_eq!(shares.makes_room(None, MAX, seconds(18), silent), None);
    assert_eq!(
        shares.makes_room(None, MAX, seconds(19), silent),
        Some(innocent)
    );
    assert_eq!(shares.makes_room(None, MAX, seconds(19), silent), None);
    assert_eq!(
        shares.makes_room(None, MAX, seconds(20), silent),
        Some(many[9])
    );
}

#[test]
fn who_has_spoken_or_was_not_heard_yet_does_not_make_room() {
    let mut shares = Shares::new(1);
    for key in 0..100 {
        shares.enter(key, FORWARD, client(0), Some(Time::ZERO));
    }
    let look = |key: u32| match key {
        0..50 => Manner::Spoken,
        50..99 => Manner::Unheard,
        _ => Manner::Silent,
    };
    assert_eq!(shares.makes_room(None, MAX, seconds(20), look), Some(99));
    assert_eq!(shares.makes_room(None, MAX, seconds(20), look), None);
    // Those that were not heard begin anew; those that spoke are not asked again.
    let mut asked = Vec::new();
    let noted = |key: u32| {
        asked.push(key);
        Manner::Spoken
    };
    assert_eq!(shares.makes_room(None, MAX, seconds(40), noted), None);
    asked.sort_unstable();
    assert_eq!(asked, (50..99).collect::<Vec<u32>>());
    shares.leave(99);
    let held = shares.all.clients[&client(0)].sessions;
    assert_eq!(held, 99, "all that are left count");
}

#[derive(Debug, Clone)]
enum Step {
    Enter(u32, u32, u32, Option<u64>),
    Leave(u32),
    MakeRoom(Option<u32>, u64, u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..60_u32, 0..3_u32, 0..4_u32, prop::option::of(0..30_u64))
            .prop_map(|(key, forward, client, since)| Step::Enter(key, forward, client, since)),
        2 => (0..60_u32).prop_map(Step::Leave),
        2 => (prop::option::of(0..3_u32), 0..60_u64, 1..5_u32)
            .prop_map(|(of, now, spoken)| Step::MakeRoom(of, now, spoken)),
    ]
}

/// Sessions of clients that belong to a site.
fn sixes(members: &[(&u32, &Member)]) -> u64 {
    let of_site = members.iter().filter(|(_, it)| it.client.site().is_some());
    of_site.count() as u64
}

/// Every figure counted anew.
fn check(shares: &Shares<u32>) {
    let groups = shares.forwards.iter().map(|(id, it)| (Some(*id), it));
    for (of, group) in groups.chain([(None, &shares.all)]) {
        let members: Vec<_> = shares
            .members
            .iter()
            .filter(|(_, it)| of.is_none_or(|of| it.forward == of))
            .collect();
        assert_eq!(group.sessions, members.len() as u64);
        assert_eq!(group.sites.values().sum::<u64>(), sixes(&members));
        let silent: BTreeMap<Order, u32> = members
            .iter()
            .filter_map(|(key, it)| Some((it.silent?, **key)))
            .collect();
        assert_eq!(group.silent, silent);
        let mut ranked = BTreeSet::new();
        for (client, holding) in &group.clients {
            let own = || members.iter().filter(|(_, it)| it.client == *client);
            assert_eq!(holding.sessions, own().count() as u64);
            let silent: BTreeSet<Order> = own().filter_map(|(_, it)| it.silent).collect();
            assert_eq!(holding.silent, silent);
            if !silent.is_empty() {
                ranked.insert((silent.len(), *client));
            }
        }
        assert_eq!(group.ranked, ranked);
    }
}

proptest! {
    #[test]
    fn the_books_are_those_of_a_count(steps in prop::collection::vec(step(), 0..120)) {
        let mut shares = Shares::new(1);
        for step in steps {
            match step {
                Step::Enter(key, forward, whose, since) => {
                    let since = since.map(seconds);
                    shares.enter(key, ForwardId::new(forward), either(whose), since);
                }
                Step::Leave(key) => shares.leave(key),
                Step::MakeRoom(of, now, spoken) => {
                    let of = of.map(ForwardId::new);
                    let before = shares.members.clone();
                    let named = shares.makes_room(of, MAX, seconds(now), |key| {
                        if key % 5 < spoken { Manner::Spoken } else { Manner::Silent }
                    });
                    if let Some(key) = named {
                        let member = before[&key];
                        prop_assert!(key % 5 >= spoken);
                        prop_assert!(of.is_none_or(|of| member.forward == of));
                        let since = member.silent.expect("it was thought to be silent");
                        prop_assert!(seconds(now).since(since.0) >= PATIENCE_OF_MANY);
                    }
                }
            }
            check(&shares);
        }
    }

    /// However many are greedy and in whatever order they come, a rest is left, as long as
    /// there is one for each.
    #[test]
    fn greed_of_several_leaves_a_rest(
        max in 33..4_000_u32,
        greedy in 1..30_u32,
        order in prop::collection::vec(0..30_u32, 1..400),
    ) {
        prop_assume!(u64::from(max) > FACTOR * u64::from(greedy));
        let mut gate = Gate::new(max);
        for turn in order.iter().cycle().take(2 * max as usize) {
            gate.comes(client(turn % greedy), FORWARD);
        }
        prop_assert!(gate.free() > 0);
        prop_assert!(gate.comes(client(1_000), OTHER));
    }
}
