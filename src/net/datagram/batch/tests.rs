use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::Duration;

use super::*;
use crate::net::datagram::{may_be_pending, take_trains};

/// A socket on a port of its own, and one connected to it.
fn pair(ip: &str) -> (UdpSocket, UdpSocket) {
    let one = UdpSocket::bind((ip, 0)).unwrap();
    let other = UdpSocket::bind((ip, 0)).unwrap();
    other.connect(one.local_addr().unwrap()).unwrap();
    one.set_nonblocking(true).unwrap();
    other
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    (one, other)
}

fn receive(batch: &mut Batch, fd: &UdpSocket, first: usize) -> usize {
    for _ in 0..1000 {
        match batch.receive(fd.as_fd(), first, SLOTS, true) {
            Ok(count) => return count,
            Err(Errno::EAGAIN) => std::thread::sleep(Duration::from_millis(5)),
            Err(errno) => panic!("{errno}"),
        }
    }
    panic!("nothing came");
}

/// Everything in one slot, back to who sent it.
fn whole(batch: &Batch, slot: usize, segment: u16) -> (Message, Piece) {
    let train = batch.train(slot);
    let message = Message {
        pieces: (0, 1),
        to: Some((train.from, train.to)),
        segment,
    };
    let piece = Piece {
        slot: slot as u16,
        start: 0,
        len: train.len,
    };
    (message, piece)
}

#[test]
fn datagrams_come_with_their_senders_and_go_back_whole() {
    for ip in ["127.0.0.1", "::1"] {
        let (port, client) = pair(ip);
        let mut batch = Batch::new();
        for len in [0, 1, 1472, 65_507] {
            let payload = vec![7; len];
            client.send(&payload).unwrap();
            assert_eq!(receive(&mut batch, &port, 3), 1);
            let train = *batch.train(3);
            assert_eq!(train.from, client.local_addr().unwrap());
            assert_eq!(
                (train.len as usize, train.segment, train.is_cut),
                (len, 0, false)
            );
            assert_eq!(batch.payload(3), payload);
            let (message, piece) = whole(&batch, 3, 0);
            let sent = batch.send(port.as_fd(), ip == "::1", &[message], &[piece]);
            assert_eq!(sent, Ok(1));
            let mut back = vec![0; 70_000];
            assert_eq!(client.recv(&mut back).unwrap(), len);
        }
    }
}

#[test]
fn a_train_comes_in_one_piece_and_goes_on_in_one() {
    let (port, client) = pair("127.0.0.1");
    let (sink, out) = pair("127.0.0.1");
    take_trains(port.as_fd());
    take_trains(sink.as_fd());
    let mut batch = Batch::new();
    // What GSO sends GRO takes: on loopback nothing cuts it in between.
    client.send(&[1; 3500]).unwrap();
    assert_eq!(receive(&mut batch, &port, 0), 1);
    let (message, piece) = whole(&batch, 0, 1000);
    let message = Message {
        to: None,
        ..message
    };
    assert_eq!(batch.send(out.as_fd(), false, &[message], &[piece]), Ok(1));
    assert_eq!(receive(&mut batch, &sink, 0), 1);
    let train = *batch.train(0);
    assert_eq!(
        (train.len, train.segment, train.datagrams()),
        (3500, 1000, 4)
    );
}

#[test]
fn b93_an_error_of_icmp_is_taken_off_and_fails_no_send() {
    let (server, client) = pair("127.0.0.1");
    drop(server);
    super::super::report_errors(client.as_fd(), crate::net::options::Family::V4);
    client.send(b"one").unwrap();
    assert_eq!(take_errors(client.as_fd()), 1);
    assert_eq!(client.send(b"two").unwrap(), 3, "nothing is pending");
    let error = client.send(b"three").unwrap_err();
    assert!(may_be_pending(Errno::from_raw(
        error.raw_os_error().unwrap()
    )));
}

/// What is left of them has the room of datagrams: a turn's worth is taken off at once.
#[test]
fn b93_the_errors_of_many_clients_that_are_gone_are_taken_off_at_once() {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap();
    super::super::report_errors(port.as_fd(), crate::net::options::Family::V4);
    let gone = {
        let (gone, _) = pair("127.0.0.1");
        gone.local_addr().unwrap()
    };
    for _ in 0..256 {
        // An error that is pending is told once, in the place of one that is sent.
        if port.send_to(b"x", gone).is_err() {
            port.send_to(b"x", gone).unwrap();
        }
    }
    let refused = take_errors(port.as_fd());
    assert!(refused > 64, "the kernel told of {refused} of 256");
    assert_eq!(take_errors(port.as_fd()), 0);
}

#[test]
fn b91_the_address_that_was_asked_is_told_and_answers() {
    let port = UdpSocket::bind("0.0.0.0:0").unwrap();
    port.set_nonblocking(true).unwrap();
    let family = crate::net::options::Family::V4;
    super::super::prepare_listener(port.as_fd(), family, true, true);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let asked = ("127.0.0.9", port.local_addr().unwrap().port());
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    client.send_to(b"x", asked).unwrap();
    let mut batch = Batch::new();
    assert_eq!(receive(&mut batch, &port, 0), 1);
    let (message, piece) = whole(&batch, 0, 0);
    assert_eq!(batch.send(port.as_fd(), false, &[message], &[piece]), Ok(1));
    let (_, from) = client.recv_from(&mut [0; 9]).unwrap();
    assert_eq!(from.ip().to_string(), "127.0.0.9");
}
