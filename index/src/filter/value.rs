//! Metadata values, literals of filters, and how the two compare.

use std::cmp::Ordering;

/// A metadata value of one field of one row, with the types the format stores.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Present but without a value.
    Null,
    /// UTF-8 text.
    String(String),
    /// Opaque bytes; no comparison but `!=` is ever true for them.
    Bytes(Vec<u8>),
    /// Signed integer.
    I64(i64),
    /// Unsigned integer.
    U64(u64),
    /// Floating point number (finite in stored metadata; NaN is tolerated and equals nothing).
    F64(f64),
    /// Boolean.
    Bool(bool),
}

/// A number that remembers its type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Num {
    /// Signed integer.
    I64(i64),
    /// Unsigned integer.
    U64(u64),
    /// Floating point number.
    F64(f64),
}

/// The right-hand side of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// Text.
    String(String),
    /// Boolean.
    Bool(bool),
    /// A number that compares by numeric value with stored numbers of any type.
    Number(Num),
    /// A number that compares only with stored values of the same type, as in the reference.
    Typed(Num),
}

impl Num {
    /// Exact numeric order across types, `None` when either is NaN. No rounding: integers above 2^53 keep every digit.
    pub fn compare(self, other: Num) -> Option<Ordering> {
        match (self.integer(), other.integer()) {
            (Ok(a), Ok(b)) => Some(a.cmp(&b)),
            (Ok(a), Err(b)) => integer_with_float(a, b),
            (Err(a), Ok(b)) => integer_with_float(b, a).map(Ordering::reverse),
            (Err(a), Err(b)) => a.partial_cmp(&b),
        }
    }

    /// Order between numbers of the same type only, `None` for different types or NaN.
    pub fn compare_typed(self, other: Num) -> Option<Ordering> {
        match (self, other) {
            (Num::I64(a), Num::I64(b)) => Some(a.cmp(&b)),
            (Num::U64(a), Num::U64(b)) => Some(a.cmp(&b)),
            (Num::F64(a), Num::F64(b)) => a.partial_cmp(&b),
            _ => None,
        }
    }

    fn integer(self) -> Result<i128, f64> {
        match self {
            Num::I64(v) => Ok(v.into()),
            Num::U64(v) => Ok(v.into()),
            Num::F64(v) => Err(v),
        }
    }
}

/// Compares an integer in the range of i64 or u64 with a float, exactly.
fn integer_with_float(integer: i128, float: f64) -> Option<Ordering> {
    if float.is_nan() {
        return None;
    }
    // The cast saturates and integers here lie within +-2^64, so infinities and huge floats order correctly;
    // below that range truncation is exact.
    let whole = float.trunc() as i128;
    Some(integer.cmp(&whole).then_with(|| 0.0f64.total_cmp(&((float - float.trunc()) + 0.0))))
}

impl Value {
    pub(super) fn num(&self) -> Option<Num> {
        match self {
            Value::I64(v) => Some(Num::I64(*v)),
            Value::U64(v) => Some(Num::U64(*v)),
            Value::F64(v) => Some(Num::F64(*v)),
            _ => None,
        }
    }

    /// Order of a stored value against a literal, `None` where they do not compare: different kinds, null, bytes, NaN.
    pub fn compare(&self, literal: &Literal) -> Option<Ordering> {
        match (self, literal) {
            (Value::String(a), Literal::String(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
            (Value::Bool(a), Literal::Bool(b)) => Some(a.cmp(b)),
            (value, Literal::Number(b)) => value.num()?.compare(*b),
            (value, Literal::Typed(b)) => value.num()?.compare_typed(*b),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Ordering::{Equal, Greater, Less};

    #[test]
    fn numbers_compare_exactly_across_types() {
        const P53: u64 = 1 << 53;
        let table = [
            (Num::U64(P53 + 1), Num::F64(P53 as f64), Some(Greater)),
            (Num::U64(P53), Num::F64(P53 as f64), Some(Equal)),
            (Num::I64(-((P53 + 1) as i64)), Num::F64(-(P53 as f64)), Some(Less)),
            (Num::U64(u64::MAX), Num::F64(18446744073709551616.0), Some(Less)),
            (Num::U64(u64::MAX), Num::I64(-1), Some(Greater)),
            (Num::I64(i64::MIN), Num::F64(-9223372036854775808.0), Some(Equal)),
            (Num::I64(3), Num::F64(3.5), Some(Less)),
            (Num::I64(-3), Num::F64(-3.5), Some(Greater)),
            (Num::I64(0), Num::F64(-0.5), Some(Greater)),
            (Num::I64(0), Num::F64(0.5), Some(Less)),
            (Num::U64(0), Num::F64(-0.0), Some(Equal)),
            (Num::I64(1), Num::F64(f64::INFINITY), Some(Less)),
            (Num::I64(1), Num::F64(f64::NEG_INFINITY), Some(Greater)),
            (Num::I64(1), Num::F64(f64::NAN), None),
            (Num::F64(f64::NAN), Num::F64(f64::NAN), None),
            (Num::U64(1), Num::F64(1e300), Some(Less)),
        ];
        for (a, b, want) in table {
            assert_eq!(a.compare(b), want, "{a:?} {b:?}");
            assert_eq!(b.compare(a), want.map(Ordering::reverse), "{b:?} {a:?}");
        }
    }

    #[test]
    fn typed_numbers_do_not_cross_types() {
        assert_eq!(Value::U64(5).compare(&Literal::Typed(Num::I64(5))), None);
        assert_eq!(Value::U64(5).compare(&Literal::Typed(Num::U64(5))), Some(Equal));
        assert_eq!(Value::U64(5).compare(&Literal::Number(Num::I64(5))), Some(Equal));
        assert_eq!(Value::Null.compare(&Literal::Bool(false)), None);
        assert_eq!(Value::Bytes(vec![b'a']).compare(&Literal::String("a".into())), None);
        assert_eq!(Value::String("b".into()).compare(&Literal::String("a".into())), Some(Greater));
    }
}
