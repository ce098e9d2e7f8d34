//! From argv to a command and its exit code.
//!
//! A subcommand is one variant of `Command` and one file with `pub struct Args`
//! and `pub fn run(args: Args) -> ExitCode`. Without a subcommand the flags of
//! `run` stand at the top: `thalweg -l :5000 -r 10.0.0.1:443`.
//!
//! Exit codes: 0 done, 1 failed while running, 2 usage or configuration. Help,
//! completions and man pages all come from the definitions here.

mod against;
pub mod bench;
pub mod check;
pub mod completions;
pub mod convert;
pub mod ctl;
pub mod demo;
pub mod doctor;
mod failure;
mod flags;
mod hints;
mod host;
pub mod init;
pub mod man;
pub mod origin;
mod output;
pub mod probe;
pub mod route;
pub mod run;
pub mod schema;
mod sources;
pub mod top;
pub mod tune;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

/// Exit code of wrong usage and of a wrong configuration.
const USAGE: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  Forward port 5000, on IPv4 and IPv6, to one server:
    thalweg -l :5000 -r 10.0.0.1:443

  Two servers in turn, the next one when one fails:
    thalweg -l :5000 -r 10.0.0.1:443,10.0.0.2:443

  Ten ports to ten ports, and a unix socket, in one process:
    thalweg -l :5000-5009 -r db.example:6000-6009 -l unix:/run/x.sock -r '[::1]:80'

  The same as a file, with every default, and that file with one value changed:
    thalweg check -l :5000 -r 10.0.0.1:443 > thalweg.toml
    thalweg run -c thalweg.toml --set defaults.idle_timeout=5s";

/// Forward TCP and UDP at line rate: one reactor per core, zero-copy where it pays.
#[derive(Debug, Parser)]
#[command(
    name = "thalweg",
    version,
    long_version = crate::engine::choice::VERSION,
    long_about = "Forward TCP and UDP at line rate: one reactor per core, zero-copy where it pays, \
                  every socket option per leg.\n\n\
                  Without a command, thalweg runs: `thalweg -l ...` is short for `thalweg run -l ...`.",
    override_usage = "thalweg -l ADDRESS -r SERVER[,SERVER...] [OPTIONS]\n       \
                      thalweg run -c FILE [OPTIONS]\n       \
                      thalweg COMMAND [OPTIONS]",
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true,
    max_term_width = 100,
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Check(check::Args),
    Init(init::Args),
    Convert(convert::Args),
    Ctl(ctl::Args),
    Demo(demo::Args),
    Doctor(doctor::Args),
    Bench(bench::Args),
    Top(top::Args),
    Tune(tune::Args),
    Origin(origin::Args),
    Probe(probe::Args),
    Schema(schema::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Reads argv, runs the command, and answers with its exit code.
pub fn main() -> ExitCode {
    if let Some(code) = completions::answer() {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::usage(error),
    };
    match cli.command {
        None => run::run(cli.run),
        Some(Command::Run(args)) => run::run(args),
        Some(Command::Check(args)) => check::run(args),
        Some(Command::Init(args)) => init::run(args),
        Some(Command::Convert(args)) => convert::run(&args),
        Some(Command::Ctl(args)) => ctl::run(args),
        Some(Command::Demo(args)) => demo::run(args),
        Some(Command::Doctor(args)) => doctor::run(args),
        Some(Command::Bench(args)) => bench::run(args),
        Some(Command::Top(args)) => top::run(&args),
        Some(Command::Tune(args)) => tune::run(args),
        Some(Command::Origin(args)) => origin::run(args),
        Some(Command::Probe(args)) => probe::run(args),
        Some(Command::Schema(args)) => schema::run(args),
        Some(Command::Completions(args)) => completions::run(args),
        Some(Command::Man(args)) => man::run(args),
    }
}

/// The whole command line as clap sees it, for completions and man pages.
fn definition() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    #[test]
    fn the_definition_is_consistent() {
        super::definition().debug_assert();
    }

    /// The words of a line of shell: blanks part them, quotes hold them together.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), None, None);
        for c in line.chars() {
            match (c, quote) {
                (c, Some(open)) if c == open => quote = None,
                ('\'' | '"', None) => {
                    quote = Some(c);
                    word.get_or_insert_with(String::new);
                }
                (' ', None) => words.extend(word.take()),
                ('#', None) if word.is_none() => break,
                (c, _) => word.get_or_insert_with(String::new).push(c),
            }
        }
        words.extend(word);
        words
    }

    /// Every command that a document or a help shows is one.
    #[test]
    fn documented_commands_are_understood() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut texts = vec!["README.md".to_owned()];
        for entry in std::fs::read_dir(root.join("docs")).expect("docs") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|it| it == "md") {
                let name = path.file_name().expect("a name").display();
                texts.push(format!("docs/{name}"));
            }
        }
        let mut count = 0;
        let mut look = |place: &str, text: &str| {
            let text = text.replace("\\\n", " ");
            for line in text.lines().map(str::trim) {
                let Some(line) = line.strip_prefix("thalweg ") else {
                    continue;
                };
                // What follows belongs to the shell.
                let line = line.split([';', '|', '>', '&']).next().unwrap_or(line);
                let line = line.split(" ...").next().unwrap_or(line);
                let arguments = words(line);
                // What is to be filled in.
                let blank = |it: &String| {
                    it.len() > 2 && it.chars().all(|c| c.is_ascii_uppercase() || c == ':')
                };
                if arguments.is_empty() || arguments.iter().any(blank) {
                    continue;
                }
                count += 1;
                let all = std::iter::once("thalweg".to_owned()).chain(arguments);
                if let Err(error) = super::Cli::try_parse_from(all) {
                    let fine = error.exit_code() == 0;
                    assert!(fine, "{place}: thalweg {line}: {error}");
                }
            }
        };
        for name in &texts {
            let text = std::fs::read_to_string(root.join(name)).expect(name);
            let blocks = text.split("```").skip(1).step_by(2);
            for block in blocks.filter(|it| it.starts_with("sh\n") || it.starts_with('\n')) {
                look(name, block);
            }
        }
        for command in super::definition().get_subcommands() {
            let after = command.get_after_help().map(ToString::to_string);
            look(command.get_name(), &after.unwrap_or_default());
        }
        look("--help", super::EXAMPLES);
        assert!(count > 60, "{count}");
    }

    /// What can be run can be looked at before.
    #[test]
    fn check_and_doctor_take_every_flag_that_run_takes() {
        let definition = super::definition();
        let flags = |command: &str| {
            let command = definition.find_subcommand(command).expect(command);
            let arguments = command.get_arguments();
            let flags =
                arguments.map(|it| (it.get_long(), it.get_short(), it.get_action().clone()));
            flags
                .map(|(long, short, action)| format!("{long:?} {short:?} {action:?}"))
                .collect::<Vec<_>>()
        };
        let (check, doctor) = (flags("check"), flags("doctor"));
        let run = flags("run");
        assert!(run.len() > 10, "{run:?}");
        // Whose place it takes is nothing that could be looked at before.
        let looked_at = run.into_iter().filter(|it| !it.contains("take-over"));
        for flag in looked_at {
            assert!(check.contains(&flag), "check has no {flag}");
            assert!(doctor.contains(&flag), "doctor has no {flag}");
        }
    }
}
