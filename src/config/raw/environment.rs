//! `${NAME}` in the values of a file.
//!
//! Every string may have some, keys none. `$${` stands for `${`; a `$` without a brace is
//! one. What a variable has is taken as it is, and not looked at again.

use super::node::{Node, Value};
use crate::config::report::{Fault, Report};
use crate::config::surroundings::Surroundings;

/// Puts what variables have in their places, in all of a tree.
pub(in crate::config) fn expand(report: &mut Report, node: &mut Node, around: &dyn Surroundings) {
    match &mut node.value {
        Value::String(text) if text.contains("${") => match expanded(text, around) {
            Ok((new, has_variables)) => {
                *text = new;
                node.is_expanded = has_variables;
            }
            Err(fault) => {
                report.error(&node.span, fault);
                report.mark_damaged();
                report.mark_unknown(&node.span);
            }
        },
        Value::Array(nodes) => {
            for node in nodes {
                expand(report, node, around);
            }
        }
        Value::Table(entries) => {
            for entry in entries {
                expand(report, &mut entry.node, around);
            }
        }
        _ => {}
    }
}

/// The text with what variables have, and whether there was one.
fn expanded(text: &str, around: &dyn Surroundings) -> Result<(String, bool), Fault> {
    const LITERAL: &str = "write `$${` for a `${` that is meant as it is";
    let (mut new, mut rest, mut found) = (String::new(), text, false);
    while let Some(at) = rest.find("${") {
        let (before, variable) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            new.push_str(before);
            new.push_str("${");
            rest = &variable[2..];
            continue;
        }
        new.push_str(before);
        let Some((name, after)) = variable[2..].split_once('}') else {
            return Err(Fault::new("`${` has no `}`").remedy(LITERAL));
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty()
            || !name.chars().all(fits)
            || name.starts_with(|c: char| c.is_ascii_digit())
        {
            let short: String = name.chars().take(40).collect();
            let fault = Fault::new(format!("`{short}` is no name of a variable"));
            return Err(fault.remedy(LITERAL));
        }
        let Some(value) = around.variable(name) else {
            let fault = Fault::new(format!("the variable `{name}` is not set"));
            return Err(fault.remedy(format!("set it for this process; {LITERAL}")));
        };
        new.push_str(&value);
        rest = after;
        found = true;
    }
    new.push_str(rest);
    Ok((new, found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::inputs::FileText;

    struct Known;

    impl Surroundings for Known {
        fn include(&self, _: &str, _: &str) -> Result<Vec<FileText>, String> {
            Ok(Vec::new())
        }

        fn variable(&self, name: &str) -> Option<String> {
            match name {
                "HOST" => Some("10.0.0.1".to_owned()),
                "_E2" => Some(String::new()),
                "LOOP" => Some("${LOOP}".to_owned()),
                _ => None,
            }
        }
    }

    #[test]
    fn variables_are_replaced_once_and_two_dollars_are_a_brace_as_it_is() {
        for (text, becomes) in [
            ("${HOST}:80", "10.0.0.1:80"),
            ("${HOST}${_E2}-${HOST}", "10.0.0.1-10.0.0.1"),
            ("${LOOP}", "${LOOP}"),
            ("$${HOST}", "${HOST}"),
            ("a$$${HOST}", "a$${HOST}"),
            ("cost: 5$ {HOST} $HOST", "cost: 5$ {HOST} $HOST"),
        ] {
            let new = expanded(text, &Known).map(|it| it.0);
            assert_eq!(new.as_deref(), Ok(becomes), "{text}");
        }
        for (text, says) in [
            ("${PORT}", "`PORT` is not set"),
            ("${HOST", "has no `}`"),
            ("${}", "no name of a variable"),
            ("${2}", "no name of a variable"),
            ("${HOST:-x}", "no name of a variable"),
        ] {
            let fault = expanded(text, &Known).expect_err(text);
            assert!(fault.message.contains(says), "{fault:?}");
        }
    }
}
