//! Too little memory for pipes: behaviour 37.

use crate::kit::crowd::connections_that_fit;
use crate::kit::shortage::Nobody;
use crate::kit::*;

/// Sessions at a time. A user may have 64 MiB in pipes (fs.pipe-user-pages-soft):
/// pipes of 1 MiB for a tenth of these.
const SESSIONS: usize = 600;

/// Bytes each way that the test sends through each.
const BYTES: u64 = 768 * KIB;

/// Behaviour 37.
#[test]
fn b37_pipes_shrink_for_a_user_without_privileges() {
    let Some(nobody) = Nobody::new() else { return };
    let sessions = connections_that_fit(SESSIONS);
    on_every_engine(|case| {
        let server = Listener::new();
        // Little fits into the kernel's buffer towards a client that does not
        // read, so the rest waits in the pipe.
        let setup = Setup::new(server.address())
            .case(case)
            .set("defaults.data_path", "splice")
            .set("profile.small.send_buffer", "\"32KiB\"")
            .set("defaults.client_profile", "small");
        let forwarder = nobody.runs(setup).start();
        let mut crowd = Crowd::default();
        for number in 0..sessions as u64 {
            let client = Peer::connect_small(forwarder.address(), 8 * 1024);
            let upstream = server.accept();
            crowd.clients.push(client.numbered_client(number));
            crowd.servers.push(upstream.numbered_server(number));
        }
        // The kernel's buffer of each server takes all of it at once.
        for upstream in &mut crowd.servers {
            upstream.send(BYTES);
            upstream.half_close();
        }
        for mut client in crowd.clients {
            client.expect_then_eof(BYTES);
        }
        drop(crowd.servers);
        let records = forwarder.wait_for_sessions(sessions);
        let copied = |r: &&Record| r.text("fallback_down") == "no_pipe";
        let spliced = |r: &&Record| r.text("path_down") == "splice";
        let copied = records.iter().filter(copied).count();
        let spliced = records.iter().filter(spliced).count();
        // io_uring has the first bytes in user memory before a lane asks for a pipe,
        // so there it is for each session to say.
        if case.engine == "epoll" {
            assert!(spliced >= 10, "{spliced} of {sessions} had a pipe");
            let enough = sessions < SESSIONS || copied >= 10;
            assert!(enough, "{copied} of {sessions} had no pipe");
        }
        assert!(records.iter().all(|r| r.bytes() == (0, BYTES)));
        forwarder.check_idle();
    });
}
