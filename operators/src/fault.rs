//! What is wrong with an expression, told to the person who wrote it.
//!
//! DataFusion's errors speak of its own plans and types. Here they become a message in the words of the
//! manual and a remedy, for the checker, or a short reason, for a dead letter.

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, SchemaError};
use datafusion::logical_expr::{Expr, Volatility};
use datafusion::sql::sqlparser::ast::{ExprWithAlias, Query, Visit, Visitor};
use datafusion::sql::sqlparser::parser::ParserError;
use model::{Kind, Type};

/// Why an expression cannot be used, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

impl Fault {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Fault { message: message.into(), help: help.into() }
    }
}

/// Text that is no SQL expression.
pub fn syntax(error: &DataFusionError) -> Fault {
    let what = match error.find_root() {
        DataFusionError::SQL(error, _) => match error.as_ref() {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => place(&sentence(text)),
            ParserError::RecursionLimitExceeded => "it is nested too deeply".into(),
        },
        other => other.message().into_owned(),
    };
    Fault::new(
        format!("this is no SQL expression: {what}"),
        "write an expression over the columns, such as `price * quantity > 100000 AND side = 'buy'`",
    )
}

/// A parser's text, with the place told in characters of the expression.
fn place(text: &str) -> String {
    let (what, at) = text.split_once(" at Line: ").unwrap_or((text, ""));
    let what = what.replacen("expected:", "expected", 1).replace("found: EOF", "found the end");
    match at.split_once(", Column: ") {
        Some(("1", column)) => format!("{what} (character {column})"),
        Some((line, column)) => format!("{what} (line {line}, character {column})"),
        None => what,
    }
}

/// Refuses an expression that reads a table, and one that gives itself a name.
///
/// # Errors
/// Which of the two it does.
pub fn refuse_queries(parsed: &ExprWithAlias) -> Result<(), Fault> {
    struct FindQuery;
    impl Visitor for FindQuery {
        type Break = ();
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    if parsed.expr.visit(&mut FindQuery).is_break() {
        return Err(Fault::new(
            "a subquery reads a table, but an expression sees only the record at hand",
            "use the record's columns alone, and join afterwards with `marketprism sql`",
        ));
    }
    match &parsed.alias {
        Some(alias) => Err(Fault::new(format!("`AS {alias}` names nothing here"), format!("leave `AS {alias}` out"))),
        None => Ok(()),
    }
}

/// Refuses an expression whose value does not follow from the record at hand alone.
///
/// # Errors
/// The part that looks elsewhere.
pub fn refuse_beyond_row(expr: &Expr, text: &str, kind: &Kind) -> Result<(), Fault> {
    let many = |name: &str| {
        let message = format!("`{name}` looks at many records, but an expression sees one");
        Some(Fault::new(message, "aggregate with an operator such as `bars`, or over the table with `marketprism sql`"))
    };
    let mut found = None;
    let walked = expr.apply(|part| {
        found = match part {
            Expr::AggregateFunction(call) => many(call.func.name()),
            Expr::WindowFunction(call) => many(call.fun.name()),
            Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
                let times: Vec<_> = kind.columns.iter().filter(|c| c.ty == Type::Time).map(|c| format!("`{}`", c.name)).collect();
                let message = format!("`{}` gives another value each time, so a replay would not give the same records", call.func.name());
                Some(Fault::new(message, format!("use the record's own columns; its times are {}", times.join(", "))))
            }
            Expr::Placeholder(parameter) => {
                Some(Fault::new(format!("`{}` is a parameter, and nothing gives it a value", parameter.id), "write the value itself"))
            }
            Expr::ScalarVariable(_, names) => Some(Fault::new(
                format!("there is no variable `{}`", names.join(".")),
                "write the value itself, or `${VAR}` for one from the environment",
            )),
            Expr::Unnest(_) => Some(Fault::new("`unnest` makes many records of one", "take one element, for example `bid_prices[1]`")),
            _ => None,
        };
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walked.map_err(|e| planning(&e, text, kind))?;
    found.map_or(Ok(()), Err)
}

/// An expression that does not fit the columns of a kind.
pub fn planning(error: &DataFusionError, text: &str, kind: &Kind) -> Fault {
    let root = error.find_root();
    if let DataFusionError::SchemaError(error, _) = root
        && let SchemaError::FieldNotFound { field, .. } = error.as_ref()
    {
        return unknown_column(&field.flat_name(), kind);
    }
    let what = in_our_words(&root.message());
    if let Some(function) = what.strip_prefix("invalid function '").and_then(|rest| rest.split('\'').next()) {
        return Fault::new(
            format!("there is no function `{function}`"),
            "see the scalar functions of DataFusion, for example `round`, `coalesce` or `date_trunc`",
        );
    }
    if what.contains("would exceed max scale") {
        let help = "cut a part of it first: `CAST(price * price AS DECIMAL(38, 12))`";
        return Fault::new("a product of so many decimals has more than 76 fraction digits", help);
    }
    let used: Vec<_> =
        kind.columns.iter().filter(|c| text.contains(c.name.as_ref())).map(|c| format!("`{}` is {}", c.name, c.ty)).collect();
    let help = if used.is_empty() { "cast a part of it, for example `CAST('1.5' AS DECIMAL(38, 12))`".into() } else { used.join(", ") };
    Fault::new(what, help)
}

/// DataFusion's text with our names of types in it.
fn in_our_words(text: &str) -> String {
    let mut words = sentence(text);
    for decimal in ["Decimal128(", "Decimal256("] {
        while let Some((before, after)) = words.split_once(decimal).filter(|(_, after)| after.contains(')')) {
            words = format!("{before}{}{}", Type::Decimal, &after[after.find(')').map_or(0, |end| end + 1)..]);
        }
    }
    let types = [Type::Label, Type::Text, Type::Integer, Type::Float, Type::Time, Type::Boolean, Type::Bytes];
    types.iter().fold(words, |words, ty| words.replace(&ty.arrow().to_string(), &ty.to_string()))
}

/// A name that no column of the kind has.
pub fn unknown_column(name: &str, kind: &Kind) -> Fault {
    let column = name.rsplit('.').next().unwrap_or(name);
    let hint = match nearest(column, kind.columns.iter().map(|c| c.name.as_ref())) {
        Some(near) => format!("did you mean `{near}`? "),
        None => "text is written in single quotes; ".into(),
    };
    let columns: Vec<_> = kind.columns.iter().map(|c| format!("`{}`", c.name)).collect();
    Fault::new(format!("there is no column `{name}`"), format!("{hint}`{}` records have {}", kind.name, columns.join(", ")))
}

/// The name that was probably meant.
pub fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let (distance, near) = names.map(|n| (strsim::damerau_levenshtein(&name.to_lowercase(), n), n)).min()?;
    (distance <= 1 + name.len() / 4).then_some(near)
}

/// An expression that fails in every row.
pub fn always(error: &DataFusionError) -> Fault {
    Fault::new(format!("this fails in every record: {}", reason(error)), "correct the constant part of the expression")
}

/// An expression whose values no column can hold.
pub fn unholdable(data_type: &DataType) -> Fault {
    let (what, help) = match data_type {
        DataType::Null => ("nothing but null", "say of which type it is: `CAST(NULL AS DECIMAL(38, 12))`"),
        DataType::Duration(_) => {
            ("a length of time", "cast it to a whole number, which counts microseconds: `CAST(receive_time - event_time AS BIGINT)`")
        }
        DataType::Interval(_) => ("an interval", "add it to a time, or take a number out of it with `date_part`"),
        DataType::Date32 | DataType::Date64 => ("a date", "cast it to a time: `CAST(... AS TIMESTAMP)`"),
        DataType::Time32(_) | DataType::Time64(_) => ("a time of day", "cast it to text: `CAST(... AS VARCHAR)`"),
        DataType::UInt64 => ("an unsigned whole number", "cast it: `CAST(... AS BIGINT)`"),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
            ("a list", "take one element, for example `bid_prices[1]`")
        }
        _ => {
            return Fault::new(
                format!("this gives {data_type}, which no column can hold"),
                "cast it to DECIMAL(38, 12), BIGINT, DOUBLE, VARCHAR, TIMESTAMP or BOOLEAN",
            );
        }
    };
    Fault::new(format!("this gives {what}, which no column can hold"), help)
}

/// Why evaluating failed, for a dead letter.
pub fn reason(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::ArrowError(error, _) => arrow(error),
        other => sentence(&other.message()),
    }
}

/// As [`reason`], of an Arrow kernel.
pub fn arrow(error: &ArrowError) -> String {
    match error {
        ArrowError::DivideByZero => "division by zero".into(),
        ArrowError::ArithmeticOverflow(text)
        | ArrowError::CastError(text)
        | ArrowError::ComputeError(text)
        | ArrowError::ParseError(text) => sentence(text),
        other => other.to_string(),
    }
}

/// A library's text, beginning like the rest of ours.
fn sentence(text: &str) -> String {
    let mut letters = text.trim_end_matches('.').chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}
