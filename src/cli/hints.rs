//! What people write who know another forwarder, and what it is called here.

use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What to write instead of what clap did not understand; without it a hint would be no
/// more than the list of all flags.
pub(super) fn of(error: &clap::Error) -> Option<String> {
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::UnknownArgument => for_argument(word(ContextKind::InvalidArg)?),
        ErrorKind::InvalidSubcommand => file(word(ContextKind::InvalidSubcommand)?),
        _ => None,
    }
}

fn for_argument(word: &str) -> Option<String> {
    let hint = match word {
        "-f" | "--file" | "--conf" | "--config-file" => {
            "a configuration file is given with -c: -c FILE"
        }
        "-t" | "-T" | "-tt" | "--test" | "--check" | "--validate" => {
            "a configuration is tested with `thalweg check -c FILE`"
        }
        "-d" | "-D" | "--daemon" | "--daemonize" | "--background" => {
            "it stays in the foreground, for a service manager to watch; in a shell put `&` behind"
        }
        "-u" | "--udp" => "only TCP and unix stream sockets are forwarded",
        "-b" | "--bind" | "--local" => "where to listen is given with -l",
        "-p" | "--port" => "a port to listen on is given with -l, such as -l :5000",
        "--to" | "--upstream" | "--backend" | "--server" | "--target" => {
            "servers are given with -r, such as -r 10.0.0.1:443"
        }
        "-w" | "--workers" | "--threads" => "threads that forward are given with --reactors",
        word => return file(word),
    };
    Some(hint.to_owned())
}

/// A word that stands alone and looks like an address, or like a file.
fn file(word: &str) -> Option<String> {
    if word.starts_with('-') {
        return None;
    }
    if word.contains(':') {
        let hint = "addresses are given in pairs: -l ADDRESS -r SERVER";
        return Some(hint.to_owned());
    }
    let looks = word.contains(['/', '.']) || Path::new(word).is_file();
    looks.then(|| format!("a configuration file is given with -c: -c {word}"))
}
