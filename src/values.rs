//! How single values are read from the command line: closed sets, numbers with
//! a range, switches. The errors are clap's, so each names its flag and value.

use crate::config::{CheckpointChoice, DeviceChoice, Range};
use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::ffi::OsStr;
use std::path::PathBuf;

/// Reads one of a closed set of `crate::config`, in any case, with `-` and `_` alike.
#[derive(Clone)]
pub struct OneOf<T: 'static> {
    /// The values allowed for this flag, in the order of the help.
    pub values: &'static [T],
    pub name: fn(T) -> &'static str,
    pub parse: fn(&str) -> Option<T>,
}

impl<T: Copy + PartialEq + Send + Sync + 'static> TypedValueParser for OneOf<T> {
    type Value = T;

    fn parse_ref(&self, command: &clap::Command, arg: Option<&clap::Arg>, value: &OsStr) -> Result<T, clap::Error> {
        let text = value.to_string_lossy();
        if let Some(found) = (self.parse)(&text).filter(|found| self.values.contains(found)) {
            return Ok(found);
        }
        let meant = meant(&text, &self.values.iter().map(|&value| (self.name)(value)).collect::<Vec<_>>());
        let mut error = clap::Error::new(ErrorKind::InvalidValue).with_cmd(command);
        let flag = arg.map_or_else(|| "...".to_owned(), ToString::to_string);
        let allowed = self.values.iter().map(|&value| (self.name)(value).to_owned()).collect();
        error.insert(ContextKind::InvalidArg, ContextValue::String(flag));
        error.insert(ContextKind::InvalidValue, ContextValue::String(text.into_owned()));
        error.insert(ContextKind::ValidValue, ContextValue::Strings(allowed));
        if let Some(name) = meant {
            let tip = format!("did you mean '{name}'?").into();
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
        }
        Err(error)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.values.iter().map(|&value| PossibleValue::new((self.name)(value)))))
    }
}

/// Reads a path. `~/` stands for the user's home, where the shell has left it: it does so in `--save-dir=~/results`.
/// Settings and checkpoints keep paths as text, so that one which is none is refused.
#[derive(Clone)]
pub struct OnePath;

impl TypedValueParser for OnePath {
    type Value = PathBuf;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<PathBuf, clap::Error> {
        let refused = |reason: &str| {
            let flag = arg.map_or_else(|| "...".to_owned(), ToString::to_string);
            let text = format!("invalid value {value:?} for '{flag}': {reason}\n");
            Err(clap::Error::raw(ErrorKind::InvalidUtf8, text).with_cmd(command))
        };
        let Some(text) = value.to_str() else {
            return refused(
                "a path has to be UTF-8, because settings and checkpoints keep it as text; rename it, or give a \
                            link to it that has another name",
            );
        };
        match text.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/')) {
            Some(rest) => match std::env::home_dir().filter(|home| !home.as_os_str().is_empty()) {
                Some(home) => Ok(home.join(rest.trim_start_matches('/'))),
                None => refused("~ is the home directory, and HOME is not set; write the path in full"),
            },
            None if text.is_empty() => refused("a path is not empty"),
            None => Ok(text.into()),
        }
    }
}

/// What others call the values here.
const CALLED_ELSEWHERE: [(&str, &str); 18] = [
    ("flatnce", "flatclr"),
    ("infonce", "simclr"),
    ("ntxent", "simclr"),
    ("float32", "fp32"),
    ("float", "fp32"),
    ("bfloat16", "bf16"),
    ("float16", "fp16"),
    ("half", "fp16"),
    ("adamw", "adam"),
    ("pretrain", "ssl"),
    ("train", "ssl"),
    ("linear", "linear_eval"),
    ("finetuning", "finetune"),
    ("semisupervised", "semi"),
    ("mlp", "nonlinear"),
    ("ilsvrc2012", "imagenet"),
    ("imagefolder", "folder"),
    ("md", "markdown"),
];

/// Which of these names `text` stands for: one that others use, or that is a slip of a few letters away.
fn meant<'a>(text: &str, names: &[&'a str]) -> Option<&'a str> {
    let bare = |word: &str| word.to_ascii_lowercase().replace(['-', '_', ' '], "");
    let typed = bare(text).replace("resnet", "res");
    let called = CALLED_ELSEWHERE.iter().filter(|(other, _)| *other == typed).map(|(_, name)| *name);
    let exact = |wanted: &str| names.iter().copied().find(|name| bare(name) == bare(wanted));
    called.chain([typed.as_str()]).find_map(exact).or_else(|| {
        let near = names.iter().map(|name| (slips(&typed, &bare(name)), *name)).min_by_key(|(slips, _)| *slips)?;
        (near.0 * 3 <= typed.chars().count()).then_some(near.1)
    })
}

/// Letters to be changed, put in or left out on the way from one word to another.
fn slips(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (done, letter) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], done + 1);
        for at in 0..to.len() {
            let changed = diagonal + usize::from(to[at] != letter);
            diagonal = row[at + 1];
            row[at + 1] = changed.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row[to.len()]
}

/// `one_of!(Depth)`: every value; `one_of!(OptimizerName: Lars, Sgd)`: these only.
macro_rules! one_of {
    ($set:ident) => {
        $crate::values::OneOf { values: $set::ALL, name: $set::name, parse: $set::parse }
    };
    ($set:ident: $($value:ident),+) => {
        $crate::values::OneOf { values: &[$($set::$value),+], name: $set::name, parse: $set::parse }
    };
}
pub(crate) use one_of;

/// The parameters that LARS leaves alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LarsExclude {
    pub bn: bool,
    pub bias: bool,
}

/// `bn,bias`, one of them, or `none`.
pub fn lars_exclude(text: &str) -> Result<LarsExclude, String> {
    let mut exclude = LarsExclude { bn: false, bias: false };
    if text.eq_ignore_ascii_case("none") {
        return Ok(exclude);
    }
    for word in text.split(',') {
        match word.trim().to_ascii_lowercase().as_str() {
            "bn" => exclude.bn = true,
            "bias" => exclude.bias = true,
            _ => return Err("use bn, bias, both as bn,bias, or none".to_owned()),
        }
    }
    Ok(exclude)
}

/// `true` or `false` as Python, YAML and shells spell them.
pub fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err("use true or false".to_owned()),
    }
}

/// `auto`, `cpu`, `cuda` or `cuda:N`.
pub fn device(text: &str) -> Result<DeviceChoice, String> {
    DeviceChoice::try_from(text.to_ascii_lowercase()).map_err(|_| "use auto, cpu, cuda or cuda:N".to_owned())
}

/// An epoch's number, `last` or `all`.
pub fn checkpoint_choice(text: &str) -> Result<CheckpointChoice, String> {
    match text.to_ascii_lowercase().as_str() {
        "last" => Ok(CheckpointChoice::Last),
        "all" => Ok(CheckpointChoice::All),
        number => match number.parse() {
            Ok(epoch) => Ok(CheckpointChoice::Epoch(epoch)),
            Err(_) => Err("use the number in the checkpoint's name, last or all".to_owned()),
        },
    }
}

/// The number of views, which the objectives fix.
pub fn two_views(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(2) => Ok(2),
        _ => Err("the objectives compare exactly 2 views of an image; leave the flag out or give 2".to_owned()),
    }
}

/// An odd number of pixels.
pub fn odd(text: &str) -> Result<u32, String> {
    whole(text, Range::Odd)
}

/// A whole number of `LEAST` or more.
pub fn count<const LEAST: u32>(text: &str) -> Result<u32, String> {
    whole(text, Range::Whole { least: LEAST, most: u32::MAX })
}

/// A whole number from `LEAST` to `MOST`.
pub fn between<const LEAST: u32, const MOST: u32>(text: &str) -> Result<u32, String> {
    whole(text, Range::Whole { least: LEAST, most: MOST })
}

fn whole(text: &str, range: Range) -> Result<u32, String> {
    text.parse().ok().filter(|&value: &u32| range.allows(value.into())).ok_or_else(|| format!("use {range}"))
}

fn number(text: &str, range: Range) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "this is no number".to_owned())?;
    if range.allows(value) { Ok(value) } else { Err(format!("use {range}")) }
}

/// Numbers in a range: the reader's name, and what is allowed.
macro_rules! numbers {
    ($($name:ident: $range:ident;)+) => {$(
        #[doc = concat!("[`Range::", stringify!($range), "`].")]
        pub fn $name(text: &str) -> Result<f64, String> {
            number(text, Range::$range)
        }
    )+};
}

numbers! {
    above_zero: ABOVE_ZERO;
    not_negative: NOT_NEGATIVE;
    probability: PROBABILITY;
    share: SHARE;
    inside_unit: INSIDE_UNIT;
    momentum: MOMENTUM;
    jitter_strength: JITTER_STRENGTH;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_meant_is_found_and_others_are_not_guessed() {
        let objectives = ["flatclr", "simclr"];
        let depths = ["res10", "res18", "res34", "res50", "res101", "res152"];
        for (text, names, expected) in [
            ("flatnce", &objectives[..], Some("flatclr")),
            ("FlatNCE", &objectives, Some("flatclr")),
            ("InfoNCE", &objectives, Some("simclr")),
            ("NT-Xent", &objectives, Some("simclr")),
            ("simcrl", &objectives, Some("simclr")),
            ("byol", &objectives, None),
            ("resnet18", &depths, Some("res18")),
            ("ResNet-50", &depths, Some("res50")),
            ("res5", &depths, Some("res50")),
            ("vit", &depths, None),
            ("bfloat16", &["fp32", "bf16", "fp16"], Some("bf16")),
            ("", &objectives, None),
        ] {
            assert_eq!(meant(text, names), expected, "{text}");
        }
        assert_eq!(
            (slips("abc", "abc"), slips("abc", "ac"), slips("", "ab"), slips("kitten", "sitting")),
            (0, 1, 2, 3)
        );
    }
}
