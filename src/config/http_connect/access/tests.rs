use super::*;

fn access(allow: &[&str], deny: &[&str]) -> Access {
    let rules = |texts: &[&str]| -> Vec<Rule> {
        let rules = texts.iter().map(|text| text.parse().expect(text));
        rules.collect()
    };
    Access::new(&rules(deny), &rules(allow))
}

fn admits(access: &Access, name: Option<&str>, address: &str) -> bool {
    access.admits(name, address.parse().expect(address))
}

fn compiled(rules: &AccessRules) -> Access {
    let no_files = |path: &Path| Err(path.to_owned());
    rules.compile(no_files).expect("no file is named")
}

/// The first rule decides, in one list as in that of clients.
fn ordered(rules: &[&str]) -> Access {
    let rules = rules.iter().map(|text| {
        let rule: OrderedRule = text.parse().expect(text);
        assert_eq!(rule.to_string().parse(), Ok(rule.clone()));
        rule
    });
    compiled(&AccessRules::Ordered(rules.collect()))
}

#[test]
fn b57_in_one_list_the_first_rule_decides() {
    let access = ordered(&[
        "allow 10.0.0.5:5432",
        "deny 10.0.0.0/8",
        "allow api.example:443",
        "deny *.example",
        "allow all",
    ]);
    assert!(admits(&access, None, "10.0.0.5:5432"));
    assert!(!admits(&access, None, "10.0.0.5:5433"));
    assert!(!admits(&access, None, "10.0.0.6:5432"));
    assert!(admits(&access, Some("api.example"), "1.1.1.1:443"));
    assert!(!admits(&access, Some("api.example"), "1.1.1.1:444"));
    assert!(!admits(&access, Some("b.example"), "1.1.1.1:443"));
    assert!(admits(&access, Some("c.test"), "1.1.1.1:22"));
    // A name or a port opens what is public alone, wherever the rule stands.
    assert!(!admits(&access, Some("api.example"), "192.168.0.1:443"));
    assert!(!admits(&access, Some("api.example"), "10.1.1.1:443"));
    assert!(access.is_hopeless("b.example", 443));
    assert!(!access.is_hopeless("api.example", 443));
    // It may lead to the one address that is listed.
    assert!(!access.is_hopeless("b.example", 5432));
    assert!(ordered(&[]).is_hopeless("a", 443));
    assert!(!admits(&ordered(&["deny all"]), None, "1.1.1.1:443"));
    assert!(!admits(&ordered(&["allow :443"]), None, "1.1.1.1:80"));
}

#[test]
fn b57_a_file_of_rules_stands_where_it_is_named() {
    let rules = ["allow @a.txt", "deny @b.txt", "allow all"].map(str::parse);
    let rules = rules.into_iter().collect::<Result<Vec<_>, RuleError>>();
    let read = |path: &Path| match path.to_str() {
        Some("a.txt") => Ok(vec!["1.1.1.1".parse().expect("a rule")]),
        Some("b.txt") => Ok(vec!["1.1.1.0/24".parse().expect("a rule")]),
        _ => Err(()),
    };
    let access = AccessRules::Ordered(rules.expect("rules")).compile(read);
    let access = access.expect("both files are there");
    assert!(admits(&access, None, "1.1.1.1:443"));
    assert!(
        !admits(&access, None, "1.1.1.1:80"),
        "443 is what is allowed"
    );
    assert!(!admits(&access, None, "1.1.1.2:443"));
    assert!(admits(&access, None, "1.0.0.1:80"));
}

#[test]
fn b57_by_default_public_addresses_at_443_and_nothing_else() {
    let access = compiled(&AccessRules::default());
    for address in [
        "1.1.1.1:443",
        "[2606:4700::1111]:443",
        "[64:ff9b::101:101]:443",
    ] {
        assert!(admits(&access, None, address), "{address}");
        assert!(admits(&access, Some("a.example"), address), "{address}");
    }
    for address in [
        "1.1.1.1:80",
        "127.0.0.1:443",
        "0.0.0.0:443",
        "10.1.2.3:443",
        "100.64.0.1:443",
        "169.254.169.254:443",
        "172.31.255.255:443",
        "192.168.1.1:443",
        "192.0.2.1:443",
        "198.18.0.1:443",
        "198.51.100.1:443",
        "203.0.113.1:443",
        "224.0.0.1:443",
        "255.255.255.255:443",
        "[::]:443",
        "[::1]:443",
        "[::ffff:127.0.0.1]:443",
        "[::ffff:10.0.0.1]:443",
        "[::7f00:1]:443",
        "[fe80::1]:443",
        "[fd00::1]:443",
        "[ff02::1]:443",
        "[2001:db8::1]:443",
        "[2002:7f00:1::]:443",
        "[64:ff9b::7f00:1]:443",
        "[3fff::1]:443",
        "[2001::1]:443",
    ] {
        assert!(!admits(&access, None, address), "{address}");
        assert!(!admits(&access, Some("a.example"), address), "{address}");
    }
}

#[test]
fn deny_wins_over_allow() {
    let access = access(
        &[":*", "10.0.0.0/8:*"],
        &["10.9.0.0/16", ":25", "*.evil.example", "bad.example:443"],
    );
    assert!(admits(&access, None, "10.8.0.1:80"));
    assert!(!admits(&access, None, "10.9.0.1:80"));
    assert!(!admits(&access, None, "[::ffff:10.9.0.1]:80"));
    assert!(!admits(&access, None, "1.1.1.1:25"));
    assert!(!admits(&access, Some("a.b.evil.example"), "1.1.1.1:80"));
    assert!(admits(&access, Some("evil.example"), "1.1.1.1:80"));
    assert!(!admits(&access, Some("bad.example"), "1.1.1.1:443"));
    assert!(admits(&access, Some("bad.example"), "1.1.1.1:80"));
    assert!(admits(&access, Some("notbad.example"), "1.1.1.1:443"));
}

#[test]
fn b57_a_name_opens_no_private_address() {
    let named = access(&["db.example:5432", "*.in.example"], &[]);
    assert!(admits(&named, Some("db.example"), "1.1.1.1:5432"));
    assert!(!admits(&named, Some("db.example"), "127.0.0.1:5432"));
    assert!(!admits(&named, None, "1.1.1.1:5432"));
    assert!(admits(&named, Some("x.in.example"), "1.1.1.1:443"));
    assert!(!admits(&named, Some("x.in.example"), "1.1.1.1:80"));
    assert!(!admits(&named, Some("xin.example"), "1.1.1.1:443"));
    let listed = access(&["10.0.0.5:5432", "[::1]:1-9"], &[]);
    assert!(admits(&listed, Some("db.example"), "10.0.0.5:5432"));
    assert!(!admits(&listed, Some("db.example"), "10.0.0.6:5432"));
    assert!(admits(&listed, None, "[::1]:9"));
    let everything = access(&["0.0.0.0/0:*", "::/0"], &[]);
    assert!(admits(&everything, None, "127.0.0.1:1"));
    assert!(
        !admits(&everything, None, "0.0.0.0:1"),
        "reaches this very host"
    );
}

#[test]
fn names_without_hope_are_not_looked_up() {
    let some = access(&["a.example", "10.0.0.0/8:22"], &["b.example"]);
    assert!(!some.is_hopeless("a.example", 443));
    assert!(some.is_hopeless("c.example", 443));
    assert!(
        !some.is_hopeless("c.example", 22),
        "it may be in 10.0.0.0/8"
    );
    assert!(some.is_hopeless("b.example", 22));
}

#[test]
fn rules_read_back() {
    for (text, shown) in [
        (":443", ":443"),
        (":*", ":*"),
        (":1-65535", ":*"),
        (":8000-8099", ":8000-8099"),
        ("Example.COM.", "example.com"),
        ("*.example.com:443", "*.example.com:443"),
        ("10.0.0.0/8:22", "10.0.0.0/8:22"),
        ("10.0.0.5", "10.0.0.5/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::1", "[::1/128]"),
        ("2001:db8::/32", "[2001:db8::/32]"),
        ("[2001:db8::/32]:443", "[2001:db8::/32]:443"),
        ("[::1]:443", "[::1/128]:443"),
    ] {
        let rule: Rule = text.parse().expect(text);
        assert_eq!(rule.to_string(), shown);
        assert_eq!(shown.parse(), Ok(rule));
    }
    for text in [
        "",
        "*",
        "*:443",
        "a.*.example",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "10.0.0/8",
        "a.example/8",
        "::ffff:10.0.0.1",
        ":0",
        ":443-80",
        ":+443",
        "a.example:http",
        "[::1",
        "[::1]443",
        "2130706433",
        "a b",
    ] {
        assert!(text.parse::<Rule>().is_err(), "{text}");
    }
}

#[test]
fn b57_what_is_denied_is_denied_behind_nat64_too() {
    let access = access(&[":443", "[64:ff9b::/96]:443"], &["1.1.0.0/16"]);
    assert!(!admits(&access, None, "1.1.1.1:443"));
    assert!(!admits(&access, None, "[64:ff9b::101:101]:443"));
    assert!(admits(&access, None, "[64:ff9b::202:202]:443"));
}
