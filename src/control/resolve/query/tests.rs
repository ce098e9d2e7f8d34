use hickory_proto::rr::rdata::{CNAME, SRV};

use super::*;

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).expect("a name");
    name.set_fqdn(true);
    name
}

fn address(owner: &str, ttl: u32, ip: &str) -> Record {
    let ip: IpAddr = ip.parse().expect("an address");
    Record::from_rdata(name(owner), ttl, RData::from(ip))
}

fn alias(owner: &str, ttl: u32, target: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
}

fn of(answers: &[Record]) -> (Vec<String>, u32) {
    let asked = name("a.test");
    let chain = follow(answers, &asked);
    let records = chain.records(RecordType::A);
    let ttls = records.map(|it| it.ttl).chain([chain.ttl]);
    let addresses = chain.records(RecordType::A).map(|it| it.data.to_string());
    (addresses.collect(), ttls.min().unwrap_or_default())
}

#[test]
fn only_records_of_the_name_and_of_what_it_leads_to_count() {
    let answers = [
        address("b.test", 50, "192.0.2.1"),
        address("other.test", 1, "192.0.2.66"),
        alias("A.test", 70, "B.test"),
        address("b.test", 60, "192.0.2.2"),
        address("b.test", 1, "2001:db8::1"),
    ];
    assert_eq!(
        of(&answers),
        (vec!["192.0.2.1".to_owned(), "192.0.2.2".to_owned()], 50)
    );
    let short = [
        alias("a.test", 7, "b.test"),
        address("b.test", 9, "192.0.2.1"),
    ];
    assert_eq!(of(&short).1, 7, "the shortest time to live on the way");
}

#[test]
fn a_loop_in_one_answer_ends() {
    let answers = [alias("a.test", 1, "b.test"), alias("b.test", 1, "a.test")];
    assert_eq!(follow(&answers, &name("a.test")).links, LINKS_MAX + 1);
    let itself = [
        alias("a.test", 1, "a.test"),
        address("a.test", 1, "192.0.2.1"),
    ];
    assert_eq!(follow(&itself, &name("a.test")).links, LINKS_MAX + 1);
}

fn manner(search: &[&str], ndots: usize) -> Manner {
    Manner {
        rounds: 1,
        timeout: Duration::from_secs(1),
        ndots,
        search: search.iter().map(|it| name(it)).collect(),
        over_tcp: false,
        no_aaaa: false,
    }
}

#[test]
fn the_search_list_goes_first_for_names_with_few_dots() {
    let shown = |manner: &Manner, host: &str, absolute: bool| {
        let names = candidates(manner, &parse(host).expect("a name"), absolute);
        names.iter().map(Name::to_ascii).collect::<Vec<_>>()
    };
    let two = manner(&["x", "y"], 2);
    assert_eq!(shown(&two, "a", false), ["a.x.", "a.y.", "a."]);
    assert_eq!(shown(&two, "a.b", false), ["a.b.x.", "a.b.y.", "a.b."]);
    assert_eq!(
        shown(&two, "a.b.c", false),
        ["a.b.c.", "a.b.c.x.", "a.b.c.y."]
    );
    assert_eq!(shown(&two, "a.", false), ["a."]);
    assert_eq!(shown(&two, "a", true), ["a."]);
    assert_eq!(shown(&manner(&[], 1), "a", false), ["a."]);
    let long = vec!["a"; 126].join(".");
    let below = manner(&["too.long"], 1);
    assert_eq!(shown(&below, &long, false), [format!("{long}.")]);
}

fn services(targets: &[(u16, u16, &str)]) -> Result<(Vec<Target>, Duration), LookupError> {
    let owner = name("_db._tcp.test");
    let records = targets.iter().map(|&(priority, port, target)| {
        let data = RData::SRV(SRV::new(priority, 1, port, name(target)));
        Record::from_rdata(owner.clone(), 30, data)
    });
    let records: Vec<Record> = records.collect();
    super::targets(&records, Duration::from_secs(30))
}

#[test]
fn targets_are_hosts_with_ports_in_a_fixed_order() {
    let (targets, ttl) = services(&[
        (2, 5, "B.test"),
        (1, 6, "c.test"),
        (2, 5, "a.test"),
        (2, 5, "b.test"),
    ])
    .expect("targets");
    let shown: Vec<_> = targets
        .iter()
        .map(|it| (it.host.as_str(), it.port))
        .collect();
    assert_eq!(shown, [("c.test", 6), ("a.test", 5), ("b.test", 5)]);
    assert_eq!(ttl, Duration::from_secs(30));

    assert_eq!(services(&[(0, 0, ".")]), Err(LookupError::NotOffered));
    assert_eq!(
        services(&[(0, 0, "a.test")]),
        Err(LookupError::NoRecord("SRV"))
    );
    assert_eq!(services(&[]), Err(LookupError::NoRecord("SRV")));
    let names: Vec<String> = (0..100).map(|n| format!("n{n}.test")).collect();
    let many: Vec<_> = names.iter().map(|name| (0, 1, name.as_str())).collect();
    assert_eq!(services(&many).expect("targets").0.len(), TARGETS_MAX);
}

#[test]
fn families_with_nothing_usable_are_failures() {
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let families = Families::from_addresses(&[ip("0.0.0.0"), ip("ff02::1")], HOSTS_TTL);
    assert_eq!(families.error(), Some(LookupError::NoRecord("A or AAAA")));
    let one = Families::from_addresses(&[ip("0.0.0.0"), ip("::1")], HOSTS_TTL);
    assert_eq!(one.error(), None);
    let half = Families {
        v6: Err(silence(LATE)),
        ..Families::from_addresses(&[ip("192.0.2.1")], HOSTS_TTL)
    };
    assert_eq!(half.error(), Some(silence(LATE)));
    assert_eq!(Families::silent(LATE).error(), Some(silence(LATE)));
    let unsure = Families {
        v6: Err(silence(LATE)),
        v4: Err(LookupError::NoSuchName),
    };
    assert_eq!(unsure.error(), Some(silence(LATE)));
}
