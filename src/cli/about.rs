//! The tools that tell about the program itself: completions for shells and the manual, both made from the flags, and
//! lists ([`list`](super::list)).

use super::command;
use crate::config::Shell;
use crate::tools::Pages;
use crate::values::one_of;
use anyhow::Result;
use std::path::PathBuf;

/// What a shell completes the program's flags and their values with.
#[derive(Clone, Debug, clap::Args)]
pub struct CompletionsArgs {
    /// Shell that is to complete them
    ///
    /// bash: flatnce completions bash > ~/.local/share/bash-completion/completions/flatnce
    ///
    /// zsh: flatnce completions zsh > DIR/_flatnce, in a directory of $fpath
    ///
    /// fish: flatnce completions fish > ~/.config/fish/completions/flatnce.fish
    #[arg(value_name = "SHELL", value_parser = one_of!(Shell))]
    pub shell: Shell,
}

/// The manual: the program's page, or with --out those of all tools too.
#[derive(Clone, Debug, clap::Args)]
pub struct ManArgs {
    /// Directory for the pages of the program and of every tool, flatnce.1 and so on [default: print the first one]
    ///
    /// A directory man1 in one that MANPATH names is where `man flatnce` looks.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// The script that the shell reads.
pub fn completions(args: &CompletionsArgs) -> Pages {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "flatnce", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    Pages { pages: vec![(format!("flatnce.{}", args.shell), script)], out: None }
}

/// The pages in roff.
///
/// Errors: a page that cannot be put together.
pub fn man(args: &ManArgs) -> Result<Pages> {
    let program = command();
    let mut commands = vec![program.clone()];
    if args.out.is_some() {
        // Under the names that the pages of tools have among those of all programs.
        let named = |tool: &clap::Command| tool.clone().name(format!("flatnce-{}", tool.get_name()));
        commands.extend(program.get_subcommands().map(named));
    }
    let page = |command: clap::Command| -> Result<(String, String)> {
        let name = command.get_name().to_owned();
        // The title as people type it, the file as man looks for it.
        let command = command.bin_name(name.replacen('-', " ", 1));
        let mut text = Vec::new();
        clap_mangen::Man::new(command).render(&mut text)?;
        Ok((format!("{name}.1"), String::from_utf8_lossy(&text).into_owned()))
    };
    let pages = commands.into_iter().map(page).collect::<Result<_>>()?;
    Ok(Pages { pages, out: args.out.clone() })
}
