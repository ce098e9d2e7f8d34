//! One value of the raw tree to one typed value, or the fault and its remedy.
//! Places and key names are added by the table's reader.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::raw::{Node, Value};
use super::report::{Fault, nearest};
use super::units::{self, UnitError};

/// Parts of a year are enough for any timeout, and far from overflowing a clock.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 86_400);

impl From<UnitError> for Fault {
    fn from(error: UnitError) -> Self {
        Fault::new(error.problem).remedy(error.remedy)
    }
}

fn wanted(what: &str, node: &Node) -> Fault {
    Fault::new(format!("this must be {what}, not {}", node.kind()))
}

pub(super) fn string(node: &Node) -> Result<&str, Fault> {
    match &node.value {
        Value::String(text) => Ok(text),
        Value::Integer(number) => {
            Err(wanted("a string", node).remedy(format!("put it in quotes: \"{number}\"")))
        }
        Value::Float(number) => {
            Err(wanted("a string", node).remedy(format!("put it in quotes: \"{number}\"")))
        }
        _ => Err(wanted("a string in quotes", node)),
    }
}

pub(super) fn boolean(node: &Node) -> Result<bool, Fault> {
    match &node.value {
        Value::Boolean(truth) => Ok(*truth),
        Value::String(text) if node.is_expanded && text == "true" => Ok(true),
        Value::String(text) if node.is_expanded && text == "false" => Ok(false),
        Value::String(text) if text == "on" || text == "yes" || text == "true" => {
            Err(wanted("true or false", node).remedy("write true, without quotes"))
        }
        Value::String(text) if text == "off" || text == "no" || text == "false" => {
            Err(wanted("true or false", node).remedy("write false, without quotes"))
        }
        _ => Err(wanted("true or false", node)),
    }
}

/// A whole number within the type and the range.
pub(super) fn integer<T: TryFrom<i64>>(
    node: &Node,
    range: RangeInclusive<i64>,
) -> Result<T, Fault> {
    let (low, high) = (range.start(), range.end());
    let number = match &node.value {
        Value::Integer(number) => *number,
        Value::String(text) => match text.parse::<i64>() {
            Ok(number) if node.is_expanded => number,
            Ok(number) => {
                let fault = wanted("a number", node);
                return Err(fault.remedy(format!("write {number}, without quotes")));
            }
            Err(_) => {
                let fault = wanted("a number", node);
                return Err(fault.remedy(format!("write a number from {low} to {high}")));
            }
        },
        _ => return Err(wanted("a whole number", node)),
    };
    let out = || {
        Fault::new(format!("{number} is out of range"))
            .remedy(format!("write a number from {low} to {high}"))
    };
    if !range.contains(&number) {
        return Err(out());
    }
    T::try_from(number).map_err(|_| out())
}

/// One word of a table.
pub(super) fn choice<T: Copy>(node: &Node, choices: &[(&'static str, T)]) -> Result<T, Fault> {
    let words = || choices.iter().map(|(word, _)| *word);
    let list = || words().collect::<Vec<_>>().join(", ");
    let Value::String(text) = &node.value else {
        return Err(wanted("a word in quotes", node).remedy(format!("one of: {}", list())));
    };
    if let Some((_, value)) = choices.iter().find(|(word, _)| word == text) {
        return Ok(*value);
    }
    let short: String = text.chars().take(40).collect();
    let fault = Fault::new(format!("`{short}` is not one of: {}", list()));
    Err(match nearest(text, words()) {
        Some(word) => fault.remedy(format!("did you mean `{word}`?")),
        None => fault,
    })
}

/// A duration with a unit, within the range and a whole multiple of `step`, the
/// finest that the kernel takes for this option.
pub(super) fn duration(
    node: &Node,
    range: RangeInclusive<Duration>,
    step: Duration,
) -> Result<Duration, Fault> {
    let value = units::parse_duration(duration_text(node)?)?;
    let (low, high) = (*range.start(), *range.end());
    if !range.contains(&value) {
        return Err(Fault::new("this duration is out of range").remedy(format!(
            "write a duration from {} to {}",
            units::format_duration(low),
            units::format_duration(high)
        )));
    }
    if !value.as_nanos().is_multiple_of(step.as_nanos()) {
        return Err(Fault::new(format!(
            "the kernel takes this in steps of {}",
            units::format_duration(step)
        ))
        .remedy("round it"));
    }
    Ok(value)
}

/// A timeout: `0` and `off` are `Duration::MAX`.
pub(super) fn timeout(node: &Node) -> Result<Duration, Fault> {
    if matches!(node.value, Value::Integer(0)) {
        return Ok(Duration::MAX);
    }
    let value = units::parse_timeout(duration_text(node)?)?;
    if value > TIMEOUT_MAX && value != Duration::MAX {
        return Err(
            Fault::new("this timeout is longer than a year").remedy("write \"off\" for no timeout")
        );
    }
    Ok(value)
}

fn duration_text(node: &Node) -> Result<&str, Fault> {
    match &node.value {
        Value::String(text) => Ok(text),
        Value::Integer(number) => Err(Fault::new("a duration needs a unit").remedy(format!(
            "write \"{number}s\" for seconds, \"{number}ms\" for milliseconds (us, ms, s, m, h, d)"
        ))),
        Value::Float(number) => Err(Fault::new("a duration needs a unit")
            .remedy(format!("write \"{number}s\" for seconds"))),
        _ => Err(wanted("a duration such as \"10s\"", node)),
    }
}

/// A size in bytes within the type and the range; a number alone is bytes.
pub(super) fn size<T: TryFrom<u64>>(node: &Node, range: RangeInclusive<u64>) -> Result<T, Fault> {
    let bytes = match &node.value {
        Value::String(text) => units::parse_size(text)?,
        Value::Integer(number) => u64::try_from(*number).map_err(|_| {
            Fault::new(format!("{number} is not a size")).remedy("such as \"64KiB\"")
        })?,
        _ => return Err(wanted("a size such as \"64KiB\"", node)),
    };
    let out = || {
        Fault::new("this size is out of range").remedy(format!(
            "write a size from {} to {}",
            units::format_size(*range.start()),
            units::format_size(*range.end())
        ))
    };
    if !range.contains(&bytes) {
        return Err(out());
    }
    T::try_from(bytes).map_err(|_| out())
}

/// A percentage from none to `most`.
pub(super) fn percent(node: &Node, most: u8) -> Result<u8, Fault> {
    let percent = match &node.value {
        Value::String(text) => units::parse_percent(text)?,
        Value::Integer(number) => {
            return Err(
                Fault::new("a percentage needs its sign").remedy(format!("write \"{number}%\""))
            );
        }
        _ => return Err(wanted("a percentage such as \"10%\"", node)),
    };
    if percent > most {
        let fault = Fault::new("this percentage is out of range");
        return Err(fault.remedy(format!("write one from \"0%\" to \"{most}%\"")));
    }
    Ok(percent)
}

/// A rate in bytes a second, more than none.
pub(super) fn rate(node: &Node) -> Result<u64, Fault> {
    let rate = match &node.value {
        Value::String(text) => units::parse_rate(text)?,
        Value::Integer(number) => {
            return Err(Fault::new("a rate needs a unit").remedy(format!(
                "write \"{number}Mbit\" for bits a second, \"{number}MB/s\" for bytes"
            )));
        }
        _ => return Err(wanted("a rate such as \"100Mbit\"", node)),
    };
    match rate {
        0 => {
            Err(Fault::new("a rate of zero lets nothing pass")
                .remedy("leave the key out for no limit"))
        }
        rate => Ok(rate),
    }
}

/// A limit on connections; `"auto"` is none of its own.
pub(super) fn connections(node: &Node) -> Result<Option<u32>, Fault> {
    match &node.value {
        Value::String(text) if text == "auto" => Ok(None),
        Value::String(text) if text.parse::<u32>().is_err() => {
            Err(Fault::new("this must be a number or \"auto\"").remedy("such as 10000"))
        }
        _ => integer(node, 1..=i64::from(u32::MAX)).map(Some),
    }
}

/// A name that appears in messages, keys and metrics.
pub(super) fn check_name(name: &str) -> Result<(), Fault> {
    if name.is_empty() {
        return Err(Fault::new("a name cannot be empty"));
    }
    if name.len() > NAME_MAX {
        return Err(Fault::new(format!(
            "this name is longer than {NAME_MAX} bytes"
        )));
    }
    if name.chars().any(char::is_control) {
        Err(Fault::new("a name cannot contain control characters"))
    } else {
        Ok(())
    }
}

/// Bytes of a name: the longest that a listener's address can give is a unix path
/// of 107 bytes, each shown as an escape of four.
const NAME_MAX: usize = 512;
