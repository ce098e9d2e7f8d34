use super::*;

/// What every line of JSON has besides its fields.
const RESERVED: [&str; 6] = ["time", "kind", "level", "message", "suppressed", "id"];

#[test]
fn kinds_have_names_of_their_own_and_fields_that_overwrite_nothing() {
    for (index, kind) in Kind::ALL.iter().enumerate() {
        let name = kind.name();
        let before = &Kind::ALL[..index];
        assert!(before.iter().all(|other| other.name() != name), "{name}");
        assert!(!["session_start", "session_end"].contains(&name));
        let fields = kind.fields();
        assert!(fields.iter().all(|it| !RESERVED.contains(it)), "{name}");
    }
}

fn json(notice: &Notice) -> serde_json::Map<String, serde_json::Value> {
    let mut object = serde_json::Map::new();
    for (name, field) in notice.fields() {
        field.json(name, &mut |name, value| {
            assert!(object.insert(name.to_owned(), value).is_none(), "{name}");
        });
    }
    object
}

#[test]
fn a_server_is_two_fields_and_a_time_has_its_unit() {
    let notice = Notice::ServerMarked {
        server: ServerName {
            endpoint: Endpoint::Inet(([10, 0, 0, 1], 80).into()),
            pool: "web".into(),
        },
        cause: Cause::Refused,
        fail_timeout: Duration::from_secs(10),
        max_fails: 3,
    };
    assert_eq!(
        notice.to_string(),
        "server 10.0.0.1:80 of web is marked for 10s: refused (max_fails 3)"
    );
    let object = serde_json::json!({
        "server": "10.0.0.1:80", "pool": "web", "cause": "refused",
        "fail_timeout_us": 10_000_000, "max_fails": 3,
    });
    assert_eq!(serde_json::Value::Object(json(&notice)), object);
    assert_eq!(notice.level(), LogLevel::Warn);
    assert_eq!(notice.kind().name(), "server_marked");
}

#[test]
fn figures_are_fields_of_their_own() {
    let counters = Snapshot {
        accepted: 7,
        ..Snapshot::default()
    };
    let notice = Notice::Counters {
        counters: Box::new(counters),
        process: ProcessSnapshot {
            log_dropped: 2,
            helper_panics: 0,
        },
    };
    let object = json(&notice);
    assert_eq!(object["accepted"], 7);
    assert_eq!(object["log_dropped"], 2);
    let mut line = notice.to_string();
    for (_, field) in notice.fields() {
        field.text(&mut line);
    }
    assert!(line.starts_with("counters accepted=7 ended=0 "), "{line}");
    assert!(
        line.ends_with(" accept_overflows=0 log_dropped=2 helper_panics=0"),
        "{line}"
    );
}

#[test]
fn the_level_may_depend_on_what_is_said() {
    let chosen = |refused| Notice::EngineChosen {
        engine: "epoll",
        reason: "it is".into(),
        refused,
    };
    assert_eq!(chosen(true).level(), LogLevel::Warn);
    assert_eq!(chosen(false).level(), LogLevel::Info);
}
