//! Generates documents from the code: completions, manual pages, the configuration reference and
//! its schemas.

use super::{Program, TrainProgram};
use crate::config;
use crate::error::{Error, Result};
use crate::files;
use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use std::io::Write;
use std::path::{Path, PathBuf};

pub const COMPLETIONS_EXAMPLES: &str = "Examples:
  bitfit completions bash > ~/.local/share/bash-completion/completions/bitfit
  source <(bitfit completions zsh)             # in ~/.zshrc, after compinit
  bitfit completions fish > ~/.config/fish/completions/bitfit.fish";

/// The shells whose completions are kept in docs/.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// The date in the footers of the manual pages: when their text was last reviewed.
const DATE: &str = "2026-11-25";

#[derive(Args)]
pub struct Completions {
    /// The shell to complete for.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Args)]
pub struct Docs {
    /// The directory to write to.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

impl Completions {
    pub fn run(&self) -> Result<()> {
        let text: Vec<u8> =
            programs().into_iter().flat_map(|program| completions(self.shell, program)).collect();
        std::io::stdout().write_all(&text).map_err(Error::io("write", Path::new("stdout")))
    }
}

impl Docs {
    pub fn run(&self) -> Result<()> {
        let json = |schema| {
            let text = serde_json::to_string_pretty(&schema);
            text.map(|text| (text + "\n").into_bytes()).map_err(Error::bug)
        };
        let mut written = vec![
            (PathBuf::from("configuration.md"), config::page().into_bytes()),
            ("bitfit.schema.json".into(), json(config::schema())?),
            #[cfg(feature = "serve")]
            ("openapi.json".into(), json(crate::serve::document())?),
            #[cfg(feature = "compare")]
            ("bitfit-compare.schema.json".into(), json(crate::compare::schema())?),
        ];
        let [bitfit, train] = programs();
        let mut built = bitfit.clone().disable_help_subcommand(true);
        built.build();
        // `bitfit train` has no page of its own: bitfit-train's describes it.
        let commands =
            built.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "train");
        for command in commands.cloned().chain([built.clone(), train.clone()]) {
            let (name, page) = manual_page(command)?;
            written.push((Path::new("man").join(name), page));
        }
        for shell in SHELLS {
            for program in [&bitfit, &train] {
                let name = match (shell, program.get_name()) {
                    (Shell::Zsh, name) => format!("_{name}"),
                    (shell, name) => format!("{name}.{shell}"),
                };
                let path = Path::new("completions").join(name);
                written.push((path, completions(shell, program.clone())));
            }
        }
        for (name, bytes) in written {
            let path = self.dir.join(name);
            files::create_dir(path.parent().unwrap_or(&self.dir))?;
            files::replace_with(&path, &bytes)?;
        }
        Ok(())
    }
}

fn programs() -> [clap::Command; 2] {
    [Program::command(), TrainProgram::command()]
}

fn completions(shell: Shell, mut program: clap::Command) -> Vec<u8> {
    let (mut text, name) = (vec![], program.get_name().to_owned());
    generate(shell, &mut program, name, &mut text);
    text
}

/// Makes a manual page: clap's sections, then a verbatim section for each heading at the end of the
/// help. Returns its file name and contents.
fn manual_page(command: clap::Command) -> Result<(String, Vec<u8>)> {
    let source = concat!("bitfit ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).date(DATE).source(source).manual("bitfit");
    let name = man.get_filename();
    let title = name.trim_end_matches(".1").to_uppercase();
    let man = man.title(title);
    let mut page = vec![];
    let mut render = || -> std::io::Result<()> {
        man.render_title(&mut page)?;
        man.render_name_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
        if command.has_subcommands() {
            man.render_subcommands_section(&mut page)?;
        }
        let end = command.get_after_long_help().or(command.get_after_help());
        let end = end.map(ToString::to_string).unwrap_or_default();
        for part in end.split("\n\n") {
            let Some((heading, text)) = part.split_once(":\n") else { continue };
            let mut roff = Roff::new();
            roff.control("SH", [heading.to_uppercase().as_str()]);
            roff.control("nf", []);
            for line in text.lines() {
                roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
            }
            roff.control("fi", []);
            roff.to_writer(&mut page)?;
        }
        Ok(())
    };
    render().map_err(Error::bug)?;
    Ok((name, tidy(&String::from_utf8_lossy(&page)).into_bytes()))
}

/// Formats a page so that `mandoc -Tlint` is content: text in lines of at most 80 bytes, no
/// trailing spaces, no empty lines.
fn tidy(page: &str) -> String {
    const WIDTH: usize = 80;
    let (mut tidy, mut as_it_stands) = (String::new(), false);
    for line in page.replace("\n.br\n\n.br\n", "\n.sp\n").lines().map(str::trim_end) {
        as_it_stands = line == ".nf" || (as_it_stands && line != ".fi");
        if as_it_stands || line.starts_with('.') {
            tidy += line;
            tidy.push('\n');
            continue;
        }
        let mut width = 0;
        for word in line.split(' ') {
            if width > 0 && width + 1 + word.len() > WIDTH {
                tidy.push('\n');
                // At the beginning of a line, roff takes these characters for a command.
                tidy += if word.starts_with(['.', '\'']) { "\\&" } else { "" };
                width = 0;
            } else if width > 0 {
                tidy.push(' ');
                width += 1;
            }
            tidy += word;
            width += word.len();
        }
        tidy.push('\n');
    }
    tidy
}
