//! Answers that come when their flow is over.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::*;

/// A question, and where it came from.
type Asked = (Vec<u8>, SocketAddr);

/// Answers with what it was asked, later or twice as the question says, and notes where from each
/// question came.
struct Slow {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    ends: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// How much later the second answer to a question comes that begins with `2`, and the only one to
/// another.
const SECOND: Duration = Duration::from_millis(300);
const ONLY: Duration = Duration::from_millis(600);

impl Slow {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let patience = Duration::from_millis(5);
        socket.set_read_timeout(Some(patience)).unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let ends = Arc::new(AtomicBool::new(false));
        let (notes, ending) = (asked.clone(), ends.clone());
        let thread = std::thread::spawn(move || {
            let mut due = VecDeque::new();
            let mut room = [0; 2048];
            while !ending.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut room) {
                    let question = room[..len].to_vec();
                    let now = Instant::now();
                    if question.starts_with(b"2") {
                        let _ = socket.send_to(&question, from);
                        due.push_back((now + SECOND, question.clone(), from));
                    } else {
                        due.push_back((now + ONLY, question.clone(), from));
                    }
                    notes.lock().unwrap().push((question, from));
                }
                due.retain(|(at, answer, to)| {
                    let is_due = *at <= Instant::now();
                    if is_due {
                        let _ = socket.send_to(answer, to);
                    }
                    !is_due
                });
            }
        });
        Self {
            address,
            asked,
            ends,
            thread: Some(thread),
        }
    }

    /// The ports from which it was asked what begins so.
    fn ports(&self, beginning: &[u8]) -> Vec<(Vec<u8>, u16)> {
        let asked = self.asked.lock().unwrap();
        let these = asked.iter().filter(|it| it.0.starts_with(beginning));
        these.map(|it| (it.0.clone(), it.1.port())).collect()
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An answer to a question that was answered, while somebody else is served by the same socket: it
/// has another port by then.
#[test]
fn b92_an_answer_that_comes_again_meets_no_flow_of_another_client() {
    on_every_engine(|case| {
        let server = Slow::start();
        let forwarder = forwarder(case, &[server.address])
            .set("defaults.responses", 1)
            .set("log.sessions", "off")
            .start();
        let ask_all = |beginning: u8| {
            let clients: Vec<_> = (0..8).map(|n| (client(forwarder.address()), n)).collect();
            for (client, n) in &clients {
                client.send(&[beginning, *n]).unwrap();
            }
            clients
        };
        let twice = ask_all(b'2');
        for (client, n) in &twice {
            assert_eq!(answer(client), Some(vec![b'2', *n]));
        }
        // Their sockets have rested, and the second answers are still to come.
        std::thread::sleep(Duration::from_millis(150));
        let once = ask_all(b'1');
        let answers: Vec<_> = once.iter().map(|it| (answer(&it.0), it.1)).collect();
        let earlier: Vec<u16> = server.ports(b"2").into_iter().map(|it| it.1).collect();
        let later = server.ports(b"1");
        let again: Vec<_> = later
            .iter()
            .filter(|it| earlier.contains(&it.1))
            .map(|it| it.0[1])
            .collect();
        // The kernel draws ports at random, and may draw the same again: hardly ever two of them.
        assert!(again.len() < 2, "the ports of flows before: {again:?}");
        for (answer, n) in answers {
            assert!(again.contains(&n) || answer == Some(vec![b'1', n]));
        }
        for (client, _) in &twice {
            client.set_nonblocking(true).unwrap();
            assert_eq!(super::answer(client), None, "a second answer has passed");
        }
    });
}
