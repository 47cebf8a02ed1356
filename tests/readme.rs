//! The READMEs against the program: their command lines parse, their flags exist, their files and chapters are there.

use flatnce::cli;
use flatnce::config::LearningRateScaling;
use flatnce::optim::scaled_lr;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md and the pages that it leads to.
const PAGES: [&str; 5] =
    ["README.md", "results/README.md", "datasets/README.md", "scripts/README.md", "tests/README.md"];

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// All pages, one after the other.
fn pages() -> String {
    PAGES.map(page).join("\n")
}

/// The lines of code blocks, indented by four or fenced, with continued lines (`\` at the end) put together.
fn block_lines(text: &str) -> Vec<String> {
    let (mut lines, mut fenced, mut open) = (Vec::<String>::new(), false, false);
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if !fenced && !line.starts_with("    ") {
            open = false;
            continue;
        }
        let continues = line.ends_with('\\');
        let words = line.trim_end_matches('\\').trim();
        match lines.last_mut().filter(|_| open) {
            Some(last) => *last = format!("{last} {words}"),
            None => lines.push(words.to_owned()),
        }
        open = continues;
    }
    lines
}

/// Code within running text, between single backquotes.
fn spans(text: &str) -> Vec<String> {
    let (mut prose, mut fenced) = (String::new(), false);
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced && !line.starts_with("    ") {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ")).collect()
}

/// The words of a shell line, up to its comment. The pages quote nothing in their commands.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().take_while(|word| !word.starts_with('#')).collect()
}

/// The long flags among words, without their values.
fn flags<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let names = words.iter().filter_map(|word| word.strip_prefix("--"));
    names.map(|name| name.split(['=', ',', ')']).next().unwrap_or(name)).filter(|name| !name.is_empty()).collect()
}

/// The script that a line calls, from the root: `scripts/setup.sh`.
fn script<'a>(words: &[&'a str]) -> Option<&'a str> {
    words.iter().map(|word| word.trim_start_matches("./")).find(|word| word.starts_with("scripts/"))
}

#[test]
fn every_command_of_the_program_parses() {
    let lines = block_lines(&pages());
    let commands: Vec<Vec<&str>> =
        lines.iter().map(|line| words(line)).filter(|words| words.first() == Some(&"flatnce")).collect();
    assert!(commands.len() >= 10, "{} commands", commands.len());
    for command in commands {
        if let Err(error) = cli::parse(&command) {
            panic!("{}\n{error}", command.join(" "));
        }
    }
}

#[test]
fn every_flag_exists() {
    let command = cli::command();
    let has = |command: &clap::Command, name: &str| {
        let mut arguments = command.get_arguments();
        arguments.any(|arg| arg.get_long() == Some(name) || arg.get_all_aliases().unwrap_or_default().contains(&name))
    };
    // Behind a tool's name, the tool's flags.
    let ours = |words: &[&str], name: &str| {
        let tool = words.get(1).filter(|_| words[0] == "flatnce").and_then(|tool| command.find_subcommand(tool));
        has(tool.unwrap_or(&command), name)
    };
    let mut seen = 0;
    let text = pages();
    for code in block_lines(&text).iter().chain(&spans(&text)) {
        let words = words(code);
        // The flags of other programs are their business.
        if words.first().is_some_and(|first| ["cargo", "tensorboard"].contains(first)) {
            continue;
        }
        let launched = words.first().is_some_and(|first| ["torchrun", "srun"].contains(first));
        let ours_from = if launched { words.iter().position(|word| *word == "flatnce") } else { Some(0) };
        let flags = flags(&words[ours_from.unwrap_or(words.len())..]);
        let script = script(&words).map(|path| std::fs::read_to_string(root().join(path)).expect(path));
        for flag in flags {
            let exists = match &script {
                Some(script) => script.contains(&format!("--{flag}")),
                None => ours(&words, flag) || flag == "help",
            };
            assert!(exists, "--{flag} in `{code}`");
            seen += 1;
        }
    }
    assert!(seen > 80, "{seen} flags");
}

#[test]
fn the_table_of_flags_names_every_one() {
    let text = page("README.md");
    let (_, section) = text.split_once("\n## Flags and tools\n").expect("a section");
    let section = section.split("\n## ").next().expect("its text");
    let command = cli::command();
    let missing: Vec<&str> = command
        .get_arguments()
        .filter_map(|arg| arg.get_long())
        .filter(|name| !section.contains(&format!("`--{name}`")) && *name != "help" && *name != "version")
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_file_of_the_project_is_there() {
    let text = pages();
    let separators = |c: char| c.is_whitespace() || "`()[]|,;:#".contains(c);
    let tops = ["scripts/", "datasets/README.md", "results/README.md", "benches/", "src/", "tests/"];
    let mut seen = 0;
    for word in text.split(separators) {
        let path = word.trim_start_matches("./").trim_end_matches('.');
        if tops.iter().any(|top| path.starts_with(top)) {
            assert!(root().join(path).exists(), "{path}");
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen} paths");
}

/// What a heading is called in a link: lower case, hyphens for spaces, nothing else but letters and digits.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    heading.trim_start_matches('#').trim().chars().filter(kept).collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_leads_to_a_file_and_a_chapter() {
    let mut seen = 0;
    for name in PAGES {
        let text = page(name);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (path, chapter) = link.split_once('#').unwrap_or((link, ""));
            let place = root().join(name).parent().expect("a page is in a directory").join(path);
            let target = if path.is_empty() { root().join(name) } else { place };
            assert!(target.exists(), "{link} in {name}");
            if !chapter.is_empty() {
                let target = std::fs::read_to_string(&target).expect("a page is text");
                let chapters = target.lines().filter(|line| line.starts_with('#')).map(anchor);
                assert!(chapters.collect::<Vec<_>>().iter().any(|has| has == chapter), "{link} in {name}");
            }
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen} links");
}

#[test]
fn the_first_page_is_read_in_one_sitting() {
    let lines = page("README.md").lines().count();
    assert!(lines <= 220, "{lines} lines: move what is about results, data, scripts or checks to their pages");
}

#[test]
fn the_table_of_learning_rates_is_what_the_program_computes() {
    let text = page("README.md");
    let rows: Vec<[f64; 3]> = text
        .lines()
        .filter_map(|line| {
            let cells = line.trim_matches('|').split('|').map(|cell| cell.trim().parse().ok());
            cells.collect::<Option<Vec<f64>>>()?.try_into().ok()
        })
        .collect();
    assert_eq!(rows.len(), 7);
    for [batch, linear, sqrt] in rows {
        let of = |scaling| scaled_lr(scaling, batch as u32);
        assert!((of(LearningRateScaling::Linear) - linear).abs() < 1e-12, "{batch}: {linear}");
        assert!((of(LearningRateScaling::Sqrt) - sqrt).abs() <= 0.005, "{batch}: {sqrt}");
    }
}
