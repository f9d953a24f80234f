//! `isochrone completions`: what a shell needs to complete our arguments, made from the arguments themselves.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory, ValueEnum};

use super::{Cli, terminal::print};

/// Print what makes a shell complete the arguments of isochrone
#[derive(Debug, Args)]
#[command(after_help = "Example:
  isochrone completions bash > /usr/local/share/bash-completion/completions/isochrone
  isochrone completions zsh > /usr/local/share/zsh/site-functions/_isochrone
  isochrone completions fish > /usr/local/share/fish/vendor_completions.d/isochrone.fish

A shell that is started afterwards knows them. bash needs the package bash-completion to
find the file by itself; without it: source <(isochrone completions bash)")]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    print(&script(args.shell)?)?;
    Ok(ExitCode::SUCCESS)
}

fn script(shell: Shell) -> anyhow::Result<String> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "isochrone", &mut bytes);
    String::from_utf8(bytes).context("the script is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shell_is_told_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell).unwrap();
            for command in Cli::command().get_subcommands() {
                assert!(script.contains(command.get_name()), "{shell:?}: {}", command.get_name());
            }
        }
    }
}
