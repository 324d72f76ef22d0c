//! Records as JSON objects, one a line.

use std::borrow::Cow;
use std::io::Read;
use std::sync::Arc;

use arrow::array::RecordBatch;
use model::Kind;
use model::dialect::Reject;

use super::columns::{Cell, Columns};
use super::frames::{each, refuse};
use super::gather::{Gather, Part};
use super::lines::{Lines, Piece};
use crate::dialect::json::{Malformed, Scanner, Token, Value, unescaped};

/// A file of JSON lines.
pub(super) struct JsonLines<R> {
    lines: Lines<R>,
    columns: Columns,
}

impl<R: Read> JsonLines<R> {
    pub(super) fn new(lines: Lines<R>, kind: &Arc<Kind>) -> Self {
        JsonLines { lines, columns: Columns::new(kind) }
    }
}

impl<R: Read + Send> Part for JsonLines<R> {
    fn next(&mut self, until: u64, gather: &mut Gather) -> Option<RecordBatch> {
        let before = self.lines.offset();
        match self.lines.next(until) {
            Some(Piece::Lines(block)) => {
                for (line, end) in each(block) {
                    gather.number();
                    match put(&mut self.columns, line) {
                        Ok(()) => gather.mark(before + end as u64),
                        Err(why) => {
                            self.columns.undo();
                            gather.refuse(&why, line);
                        }
                    }
                }
            }
            Some(unusable) => refuse(unusable, gather),
            None => {
                let offset = self.lines.offset();
                self.lines.failure().inspect(|failure| gather.damage(offset, failure));
                return None;
            }
        }
        Some(self.columns.finish())
    }

    fn offset(&self) -> u64 {
        self.lines.offset()
    }
}

/// Takes in a JSON object as a row.
///
/// # Errors
/// What is wrong with it. The row is to be undone, then.
pub(crate) fn put(columns: &mut Columns, line: &[u8]) -> Result<(), Reject> {
    let mut refused = None;
    let malformed = |flaw: Malformed| Reject::new("malformed", flaw.to_string());
    let mut scanner = Scanner::new(line).map_err(malformed)?;
    let walk = scanner.object(|s, key| {
        let value = s.value()?;
        if refused.is_none() {
            refused = put_member(columns, line, key, value).err();
        }
        Ok(())
    });
    walk.and_then(|()| scanner.end()).map_err(malformed)?;
    refused.map_or_else(|| columns.commit(), Err)
}

fn put_member(columns: &mut Columns, line: &[u8], key: &[u8], value: Value) -> Result<(), Reject> {
    let column = columns
        .position(key)
        .ok_or_else(|| Reject::new("unknown_column", format!("the kind has no column `{}`", String::from_utf8_lossy(key))))?;
    let text = || String::from_utf8_lossy(value.of(line));
    columns.put(
        column,
        match value.token {
            Token::Null => Cell::Null,
            Token::True => Cell::Boolean(true),
            Token::False => Cell::Boolean(false),
            Token::Integer | Token::Number => Cell::Number(std::str::from_utf8(value.of(line)).expect("numbers are ASCII")),
            Token::Text => Cell::Text(text()),
            Token::Escaped => Cell::Text(Cow::Owned(
                unescaped(line, value).ok_or_else(|| Reject::new("malformed", format!("\"{}\" holds half a character", text())))?,
            )),
            Token::Array => Cell::Array(value.of(line)),
            Token::Object => return Err(Reject::new("wrong_type", format!("`{}` is an object", String::from_utf8_lossy(key)))),
        },
    )
}
