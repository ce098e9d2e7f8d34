//! `thalweg man`: the manual, from the same definitions as `--help`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueHint;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::output;

const EXAMPLES: &str = "\
Examples:
  thalweg man | man -l -
  thalweg man --out /usr/local/share/man/man1";

/// Print the manual pages
///
/// Print the manual page and those of all commands, one after the other, or write each to
/// its own file.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Write thalweg.1, thalweg-run.1, ... into DIR
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,
}

/// Prints or writes the pages.
pub fn run(args: Args) -> ExitCode {
    let pages = match pages() {
        Ok(pages) => pages,
        Err(error) => {
            output::complain(&format!("cannot render the manual: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let Some(dir) = args.out else {
        let all: Vec<u8> = pages.into_iter().flat_map(|page| page.text).collect();
        return output::result(&all);
    };
    match write_pages(&dir, &pages) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("cannot write into {}: {error}", dir.display()));
            ExitCode::FAILURE
        }
    }
}

struct Page {
    file: String,
    text: Vec<u8>,
}

fn write_pages(dir: &Path, pages: &[Page]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for page in pages {
        fs::write(dir.join(&page.file), &page.text)?;
    }
    Ok(())
}

fn pages() -> io::Result<Vec<Page>> {
    let mut root = super::definition().disable_help_subcommand(true);
    root.build();
    let commands: Vec<clap::Command> = root.get_subcommands().cloned().collect();
    std::iter::once(root).chain(commands).map(page).collect()
}

/// One page. The examples get a section in which lines stay as they are; the
/// library's own would run them together.
fn page(command: clap::Command) -> io::Result<Page> {
    let examples = command.get_after_help().map(ToString::to_string);
    let has_commands = command.has_subcommands();
    let version = env!("CARGO_PKG_VERSION");
    let man = Man::new(command)
        .source(format!("thalweg {version}"))
        .manual("thalweg");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if has_commands {
        man.render_subcommands_section(&mut text)?;
    }
    if let Some(examples) = examples {
        example_section(&examples).to_writer(&mut text)?;
    }
    Ok(Page {
        file: man.get_filename(),
        text,
    })
}

fn example_section(examples: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXAMPLES"]);
    roff.control("nf", []);
    for line in examples.lines().filter(|line| *line != "Examples:") {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff
}
