//! How single values are read from the command line: closed sets, numbers with
//! a range, switches. The errors are clap's, so each names its flag and value.

use crate::config::{CheckpointChoice, DeviceChoice, Range};
use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::ffi::OsStr;

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
        let mut error = clap::Error::new(ErrorKind::InvalidValue).with_cmd(command);
        let flag = arg.map_or_else(|| "...".to_owned(), ToString::to_string);
        let allowed = self.values.iter().map(|&value| (self.name)(value).to_owned()).collect();
        error.insert(ContextKind::InvalidArg, ContextValue::String(flag));
        error.insert(ContextKind::InvalidValue, ContextValue::String(text.into_owned()));
        error.insert(ContextKind::ValidValue, ContextValue::Strings(allowed));
        Err(error)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.values.iter().map(|&value| PossibleValue::new((self.name)(value)))))
    }
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
