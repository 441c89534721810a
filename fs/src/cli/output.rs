//! What goes to stdout and stderr, in the reference's form.

use super::failure::Failure;
use crate::data::error::printable;
use serde_json::{Number, Value};
use std::fmt::Display;
use std::io::{self, BufWriter, StdoutLock, Write};

/// Buffered stdout.
#[derive(Debug)]
pub(super) struct Out {
    to: BufWriter<StdoutLock<'static>>,
}

impl Out {
    pub(super) fn new() -> Self {
        Self { to: BufWriter::with_capacity(1 << 16, io::stdout().lock()) }
    }

    /// Writes one line.
    pub(super) fn line(&mut self, text: impl Display) -> Result<(), Failure> {
        Ok(writeln!(self.to, "{text}")?)
    }

    /// Writes `  key                  value`.
    pub(super) fn pair(&mut self, key: &str, value: impl Display) -> Result<(), Failure> {
        Ok(writeln!(self.to, "  {key:<20} {value}")?)
    }

    /// Writes pretty JSON: two spaces, keys sorted.
    pub(super) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        serde_json::to_writer_pretty(&mut self.to, value).map_err(io::Error::from)?;
        self.line("")
    }

    /// Writes bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.to.write_all(bytes)?)
    }

    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.to.flush()?)
    }
}

/// Writes one line to stderr. That stderr is gone is nobody's business.
pub(super) fn note(text: &str) {
    let safe = printable(text, 4000);
    let _gone = writeln!(io::stderr().lock(), "{safe}");
}

/// A distance as the reference's JSON has it: the float32 widened, shortest decimal of that.
pub(super) fn distance(value: f32) -> Value {
    Number::from_f64(f64::from(value)).map_or(Value::Null, Value::Number)
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
