use super::*;

fn settings() -> connect::Settings {
    connect::Settings {
        header_max: 1024,
        realm: "x".into(),
    }
}

fn step(kind: StepKind) -> Step {
    let patience = Duration::from_secs(1);
    Step { kind, patience }
}

fn asks() -> Step {
    step(StepKind::HttpConnect(settings()))
}

#[test]
fn without_a_step_it_is_complete() {
    let opening = Opening::begin(&[].into());
    assert!(opening.is_complete() && opening.step().is_none());
    assert_eq!(opening.answer(Some(Cause::Rejected)), None);
}

#[test]
fn steps_are_read_one_after_the_other() {
    let steps: Arc<[Step]> = [asks(), asks()].into();
    let mut opening = Opening::begin(&steps);
    let (one, two) = (
        "CONNECT a:1 HTTP/1.1\r\n\r\n",
        "CONNECT b:2 HTTP/1.1\r\n\r\n",
    );
    assert_eq!(opening.feed(&one.as_bytes()[..9]), Read::More);
    let glued = format!("{}{two}payload", &one[9..]);
    assert_eq!(opening.feed(glued.as_bytes()), Read::Taken(one.len() - 9));
    assert!(!opening.is_complete());
    let rest = format!("{two}payload");
    assert_eq!(opening.feed(rest.as_bytes()), Read::Taken(two.len()));
    assert!(opening.is_complete());
    let target = opening.facts.target.as_ref().map(ToString::to_string);
    assert_eq!(target.as_deref(), Some("b:2"));
    let status = opening.answer(None).map(|answer| answer.status);
    assert_eq!(status, Some(200));
}

/// A header is taken, a look takes nothing, and a request follows that was looked at.
#[test]
fn a_header_a_look_and_a_request() {
    let header = "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
    let request = "CONNECT a:1 HTTP/1.1\r\n\r\n";
    let wanted = Wanted {
        hello: true,
        host: true,
    };
    let steps: Arc<[Step]> = [
        step(StepKind::ProxyHeader {
            settings: proxy::Settings { v1: true, v2: true },
            trust: Arc::default(),
        }),
        step(StepKind::Sniff(wanted)),
    ]
    .into();
    let mut opening = Opening::begin(&steps);
    let glued = format!("{header}{request}");
    assert_eq!(opening.feed(glued.as_bytes()), Read::Taken(header.len()));
    assert_eq!(opening.feed(&request.as_bytes()[..9]), Read::Wait);
    assert_eq!(opening.feed(request.as_bytes()), Read::Seen);
    assert!(opening.is_complete());
    assert!(opening.facts.announced.is_some() && opening.facts.sniffed.is_some());
    opening.go_on(&[asks()].into());
    assert!(!opening.is_complete());
    assert_eq!(opening.feed(request.as_bytes()), Read::Taken(request.len()));
    assert!(opening.is_complete() && opening.facts.target.is_some());
}
