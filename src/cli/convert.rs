//! `thalweg convert`: the configuration of another forwarder, as one of ours.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use super::against::{self, Original};
use super::{USAGE, output};
use crate::convert::{Converted, Kind, Outcome, convert};
use crate::observe::aside::aside;

const EXAMPLES: &str = "\
Examples:
  thalweg convert /etc/nginx/nginx.conf > thalweg.toml
  thalweg convert haproxy.cfg --output thalweg.toml
  thalweg convert --check-against nginx /etc/nginx/nginx.conf
  thalweg convert --from rinetd /etc/rinetd.conf | thalweg check -c -

What behaves differently, is not needed or could not be converted is told on standard error, each with its
file, line and reason.

Exit code: 0 if nothing that matters is left, 1 if something is (the rest is still written), 2 if
the file cannot be read, by us or by whom it was written for. With --check-against: 0 if both do the same, 1 if
not, 2 if that could not be found out.";

/// Convert the configuration of nginx (stream), HAProxy (mode tcp), realm or rinetd
///
/// Prints a configuration of thalweg that does what the file does, with the place that each
/// forward came from above it. Files that it includes are read too. Where defaults differ they are
/// written out, with what ours would be: once all is well those lines can go.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, max_term_width = 100)]
pub struct Args {
    /// The file to convert
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Whose file it is; found out from its name and its contents unless said
    #[arg(long, value_enum, value_name = "WHOSE")]
    from: Option<Kind>,

    /// Write the configuration to a file that is not there yet, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Run that program and thalweg beside one another, in namespaces of their own, and say what clients meet otherwise;
    /// needs the program, unshare and ip, and root or user namespaces
    #[arg(long, value_enum, value_name = "PROGRAM", conflicts_with = "output")]
    check_against: Option<Original>,

    /// This is the run in the namespaces
    #[arg(long, hide = true, requires = "check_against")]
    inside: bool,

    /// Say only what could not be converted
    #[arg(short, long)]
    quiet: bool,
}

/// Converts, prints, and tells what is not the same.
pub fn run(args: &Args) -> ExitCode {
    if args.check_against.is_some() && !args.inside {
        return against::enter();
    }
    let whose = args.from.or(args.check_against.map(Original::kind));
    let Some(kind) = whose.or_else(|| guess(args)) else {
        output::complain(&format!(
            "cannot tell whose configuration {} is: say --from nginx, haproxy, realm or rinetd",
            args.file.display()
        ));
        return ExitCode::from(USAGE);
    };
    let converted = match convert(kind, &args.file) {
        Ok(converted) => converted,
        Err(failure) => {
            output::complain(&failure.to_string());
            return ExitCode::from(USAGE);
        }
    };
    tell(&converted, args.quiet);
    if let Some(original) = args.check_against {
        return against::compare(original, &args.file, &converted);
    }
    let written = match &args.output {
        None => output::say(converted.toml.as_bytes()),
        Some(path) => std::fs::File::create_new(path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, converted.toml.as_bytes()))
            .map_err(|error| {
                output::complain(&format!("cannot write {}: {error}", path.display()));
                ExitCode::FAILURE
            }),
    };
    match written {
        Err(code) => code,
        Ok(()) if converted.is_complete() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
    }
}

/// By the name, else by the first lines.
fn guess(args: &Args) -> Option<Kind> {
    const BEGINNING: u64 = 64 << 10;
    let mut bytes = Vec::new();
    // What cannot be read is said when it is converted.
    if std::fs::metadata(&args.file).is_ok_and(|metadata| metadata.is_file())
        && let Ok(file) = std::fs::File::open(&args.file)
    {
        let _ = file.take(BEGINNING).read_to_end(&mut bytes);
    }
    Kind::guess(&args.file, &String::from_utf8_lossy(&bytes))
}

fn tell(converted: &Converted, quiet: bool) {
    let mut counts = [0_usize; 3];
    for finding in &converted.findings {
        let (index, aloud) = match finding.outcome {
            Outcome::Left(_) => (0, true),
            Outcome::Differs(_) => (1, !quiet),
            Outcome::Needless(_) => (2, !quiet),
        };
        counts[index] += 1;
        if aloud {
            aside(&format!("{finding}\n"));
        }
    }
    let [left, differs, needless] = counts;
    if !quiet {
        output::complain(&format!(
            "{} converted, {differs} of them with a difference, {needless} not needed, \
             {left} not converted",
            converted.converted
        ));
    }
}
