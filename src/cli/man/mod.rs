//! `isochrone man`: the manual pages, one for each command, made from the arguments themselves, and one for the configuration file.

mod configuration;
mod roff;

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use self::roff::Page;
use super::{Cli, terminal::print};

/// Print the manual page isochrone(1), or write all pages into a folder
#[derive(Debug, Args)]
#[command(after_help = "Example:
  isochrone man /usr/local/share/man
  isochrone man | man -l -

The pages of commands go into the folder's man1, isochrone.toml(5) into its man5, so that
man finds them: man isochrone-explain, man isochrone.toml.")]
pub struct ManArgs {
    /// Folder that man looks into, such as /usr/local/share/man
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// A manual page: the name of its file and its text.
struct Manual {
    file: String,
    section: u8,
    text: String,
}

/// Prints the first page, or writes them all.
pub fn run(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let pages = pages()?;
    let Some(folder) = &args.folder else {
        print(&pages[0].text)?;
        return Ok(ExitCode::SUCCESS);
    };
    for page in &pages {
        let folder = folder.join(format!("man{}", page.section));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let path = folder.join(&page.file);
        fs::write(&path, &page.text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    print(&format!("wrote {} manual pages below {}\n", pages.len(), folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// All pages; that of the program itself comes first.
fn pages() -> anyhow::Result<Vec<Manual>> {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build(); // gives each command its full name, `isochrone key new`, and the options that all have
    let mut pages = Vec::new();
    gather(&program, &mut pages)?;
    pages.push(Manual { file: "isochrone.toml.5".into(), section: 5, text: configuration::page() });
    Ok(pages)
}

/// The page of a command, and those of the commands below it.
fn gather(command: &Command, pages: &mut Vec<Manual>) -> anyhow::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    pages.push(Manual { file: format!("{name}.1"), section: 1, text: page(name, command, pages.is_empty())? });
    for command in command.get_subcommands() {
        gather(command, pages)?;
    }
    Ok(())
}

/// What the arguments say of themselves, and below it what they do not.
fn page(name: &str, command: &Command, is_program: bool) -> anyhow::Result<String> {
    let mut arguments = Vec::new();
    let man = Man::new(command.clone());
    man.render_name_section(&mut arguments)?;
    man.render_synopsis_section(&mut arguments)?;
    man.render_description_section(&mut arguments)?;
    man.render_options_section(&mut arguments)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut arguments)?;
    }
    let mut page = Page::titled(name, 1);
    page.roff(&String::from_utf8(arguments).context("the page is not UTF-8")?);
    if let Some(text) = command.get_after_help() {
        examples(&mut page, &text.to_string());
    }
    if is_program {
        of_the_program(&mut page);
    }
    page.section("See also");
    page.paragraph(match is_program {
        true => "`isochrone.toml`(5), `dig`(1)",
        false => "`isochrone`(1), `isochrone.toml`(5)",
    });
    Ok(page.finish())
}

/// What stands under a command's help: examples, which are indented or behind a colon, and words about them.
fn examples(page: &mut Page, text: &str) {
    page.section("Examples");
    for paragraph in text.split("\n\n") {
        let (code, prose): (Vec<&str>, Vec<&str>) =
            paragraph.lines().filter(|line| *line != "Example:").partition(|line| line.contains("  "));
        if !prose.is_empty() {
            page.paragraph(&prose.join(" "));
        }
        if !code.is_empty() {
            page.verbatim(code.into_iter().map(|line| line.strip_prefix("  ").unwrap_or(line)));
        }
    }
}

/// What is true of all commands.
fn of_the_program(page: &mut Page) {
    page.section("Exit status");
    page.item("`0`", "Success; of `serve` also the end by SIGTERM.");
    page.item(
        "`1`",
        "Something else went wrong: an address that is taken, a server that does not answer, a check that failed.",
    );
    page.item("`2`", "A configuration that cannot be used, or wrong usage.");
    page.item(
        "`101`",
        "A bug stopped a thread that answers queries; the process ends rather than serving half of them.",
    );
    page.section("Environment");
    page.item("`RUST_LOG`", "How much is logged: `isochrone=debug` says more.");
    page.item("`ISOCHRONE_TOKEN`", "The token that changes need through an admin interface that is not on loopback.");
    page.item("`NO_COLOR`", "Set: no colours, even on a terminal.");
    page.section("Files");
    page.item(
        "`config/isochrone.toml`, `/etc/isochrone/isochrone.toml`",
        "The configuration, where none is named: the first that exists.",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_every_command_and_one_for_the_file() {
        let pages = pages().unwrap();
        let names: Vec<&str> = pages.iter().map(|page| page.file.as_str()).collect();
        for name in ["isochrone.1", "isochrone-serve.1", "isochrone-key.1", "isochrone-key-new.1", "isochrone.toml.5"] {
            assert!(names.contains(&name), "{names:?}");
        }
        assert_eq!(names[0], "isochrone.1");
        assert!(!names.iter().any(|name| name.contains("help")), "{names:?}");
        for page in &pages {
            assert!(page.text.is_ascii(), "{}", page.file);
        }
    }

    #[test]
    fn a_page_has_the_arguments_and_the_examples() {
        let pages = pages().unwrap();
        let page = &pages.iter().find(|page| page.file == "isochrone-explain.1").unwrap().text;
        for part in
            ["isochrone explain", "\\-\\-client", "\\-\\-log\\-format", ".SH \"EXAMPLES\"", ".EX\nisochrone explain "]
        {
            assert!(page.contains(part), "{part}: {page}");
        }
    }
}
