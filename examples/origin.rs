//! A far end for measurements with a command of one's own: `REVERSE` answers each line backwards.
//!
//!     cargo run --example origin
#![allow(clippy::print_stdout, reason = "what an example shows")]

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use thalweg::bench::origin::handlers::{Action, Conversation, Next, Turn};
use thalweg::bench::origin::{Handlers, Origin, OriginOptions, Role};

/// Longest line that is kept until its end comes.
const LINE_MAX: usize = 4096;

/// What has come of a line.
#[derive(Default)]
struct Reverse(Vec<u8>);

impl Conversation for Reverse {
    fn input(&mut self, input: &[u8], output: &mut Vec<u8>) -> Turn {
        for byte in input {
            if *byte == b'\n' {
                output.extend(self.0.drain(..).rev());
                output.push(b'\n');
            } else if self.0.len() < LINE_MAX {
                self.0.push(*byte);
            } else {
                output.extend_from_slice(b"ERR line too long\n");
                return Turn {
                    used: input.len(),
                    next: Next::Close,
                };
            }
        }
        Turn {
            used: input.len(),
            next: Next::More,
        }
    }

    fn held(&self) -> usize {
        self.0.capacity()
    }
}

/// Runs it.
pub fn main() -> Result<(), Box<dyn Error>> {
    let mut handlers = Handlers::default();
    handlers.register("REVERSE", |_| {
        Ok(Action::Converse(Box::new(Reverse::default())))
    });
    let origin = Origin::start(&OriginOptions::default(), handlers)?;
    let at = origin.address(Role::Command).ok_or("no command port")?;

    let mut client = TcpStream::connect(at)?;
    client.write_all(b"REVERSE\nthalweg\n")?;
    let mut answer = String::new();
    BufReader::new(client).read_line(&mut answer)?;
    println!("{}", answer.trim_end());
    Ok(())
}
