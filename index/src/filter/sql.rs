//! Parser of SQL-like filter text: recursive descent, OR < AND < NOT < predicate, with a bounded depth.

use super::error::FilterError;
use super::expr::{CompareOp, Expr, FieldRef};
use super::lexer::{Lexer, Token, is_keyword};
use super::value::{Literal, Num};
use super::{MAX_DEPTH, MAX_PATTERN_BYTES, MAX_PREDICATES};

const A_PREDICATE: &str = "a field name, NOT, EXISTS, TRUE, FALSE or (";
const A_VALUE: &str = "a value ('text', a number, TRUE or FALSE)";
const AFTER_FIELD: &str = "a comparison, IN, BETWEEN, LIKE, IS, EXISTS, AND, OR or the end";

/// Reads a whole filter.
pub(super) fn parse(text: &str) -> Result<Expr, FilterError> {
    let mut parser = Parser::new(text)?;
    let expr = parser.any_of(0)?;
    if parser.token != Token::End {
        return Err(parser.unexpected("AND, OR or the end", parser.stray_hint()));
    }
    if expr.depth() > MAX_DEPTH {
        return Err(FilterError::TooDeep);
    }
    Ok(expr)
}

/// The value to the right of a comparison.
enum Operand {
    Null,
    Value(Literal),
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    token: Token,
    /// Byte offset where `token` starts.
    start: usize,
    predicates: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self, FilterError> {
        let mut lexer = Lexer::new(text);
        let (token, start) = lexer.next()?;
        Ok(Self { lexer, token, start, predicates: 0 })
    }

    fn advance(&mut self) -> Result<Token, FilterError> {
        let (token, start) = self.lexer.next()?;
        self.start = start;
        Ok(std::mem::replace(&mut self.token, token))
    }

    /// Takes the token when it is the given keyword.
    fn take(&mut self, keyword: &str) -> Result<bool, FilterError> {
        let hit = self.at(keyword);
        if hit {
            self.advance()?;
        }
        Ok(hit)
    }

    fn at(&self, keyword: &str) -> bool {
        matches!(&self.token, Token::Word(w) if w.eq_ignore_ascii_case(keyword))
    }

    fn expect(&mut self, token: &Token, what: &str) -> Result<(), FilterError> {
        if self.token != *token {
            return Err(self.unexpected(what, ""));
        }
        self.advance().map(drop)
    }

    fn unexpected(&self, expected: &str, hint: &str) -> FilterError {
        let found = match self.token {
            Token::End => "end of filter".to_owned(),
            _ => self.lexer.excerpt(self.start, self.lexer.offset()),
        };
        self.lexer.error(self.start, expected, found, hint)
    }

    /// Advice for a token that stands where the filter should go on or end.
    fn stray_hint(&self) -> &'static str {
        match self.token {
            Token::Close => "there is no ( for it",
            Token::Number(_) => "a name with a minus or other signs needs double quotes",
            _ => "",
        }
    }

    fn any_of(&mut self, depth: usize) -> Result<Expr, FilterError> {
        let first = self.all_of(depth)?;
        if !self.at("OR") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.take("OR")? {
            parts.push(self.all_of(depth)?);
        }
        Ok(Expr::Or(parts))
    }

    fn all_of(&mut self, depth: usize) -> Result<Expr, FilterError> {
        let first = self.negated(depth)?;
        if !self.at("AND") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.take("AND")? {
            parts.push(self.negated(depth)?);
        }
        Ok(Expr::And(parts))
    }

    fn negated(&mut self, mut depth: usize) -> Result<Expr, FilterError> {
        let mut nots = 0;
        while self.take("NOT")? {
            nots += 1;
            depth += 1;
            if depth > MAX_DEPTH {
                return Err(FilterError::TooDeep);
            }
        }
        let mut expr = if self.token == Token::Open {
            if depth >= MAX_DEPTH {
                return Err(FilterError::TooDeep);
            }
            self.advance()?;
            let inner = self.any_of(depth + 1)?;
            if self.token != Token::Close {
                return Err(self.unexpected("AND, OR or )", self.stray_hint()));
            }
            self.advance()?;
            inner
        } else {
            self.predicate()?
        };
        for _ in 0..nots {
            expr = Expr::Not(Box::new(expr));
        }
        Ok(expr)
    }

    fn predicate(&mut self) -> Result<Expr, FilterError> {
        self.predicates += 1;
        if self.predicates > MAX_PREDICATES {
            return Err(FilterError::TooManyPredicates);
        }
        if self.take("TRUE")? {
            return Ok(Expr::And(Vec::new()));
        }
        if self.take("FALSE")? {
            return Ok(Expr::Or(Vec::new()));
        }
        if self.take("EXISTS")? {
            let enclosed = self.token == Token::Open;
            if enclosed {
                self.advance()?;
            }
            let field = self.field("a field name")?;
            if enclosed {
                self.expect(&Token::Close, ")")?;
            }
            return Ok(Expr::Exists(field));
        }
        let field = self.field(A_PREDICATE)?;
        if let Token::Op(op) = self.token {
            self.advance()?;
            return self.comparison(field, op);
        }
        let negated = self.take("NOT")?;
        let expr = if self.take("IN")? {
            self.list(field)?
        } else if self.take("BETWEEN")? {
            let low = self.value(A_VALUE)?;
            if !self.take("AND")? {
                return Err(self.unexpected("AND and the upper bound of BETWEEN", ""));
            }
            Expr::Between { field, low, high: self.value(A_VALUE)? }
        } else if self.at("LIKE") || self.at("ILIKE") {
            let ignore_case = self.at("ILIKE");
            self.advance()?;
            self.pattern(field, ignore_case)?
        } else if self.take("EXISTS")? {
            Expr::Exists(field)
        } else if negated {
            return Err(self.unexpected("IN, BETWEEN, LIKE or EXISTS after NOT", ""));
        } else if self.take("IS")? {
            return self.is(field);
        } else {
            // A bare field is a boolean; what follows is checked by the caller, but the common slips are named here.
            return match self.token {
                Token::Text(_) | Token::Quoted(_) | Token::Number(_) | Token::Open | Token::Cast => {
                    Err(self.unexpected(AFTER_FIELD, self.stray_hint()))
                }
                Token::Word(ref word) if !is_keyword(word) => Err(self.unexpected(AFTER_FIELD, "")),
                _ => Ok(Expr::Compare { field, op: CompareOp::Eq, value: Literal::Bool(true) }),
            };
        };
        Ok(if negated { Expr::Not(Box::new(expr)) } else { expr })
    }

    fn field(&mut self, expected: &str) -> Result<FieldRef, FilterError> {
        let field = match &self.token {
            Token::Quoted(name) => FieldRef::Name(name.clone()),
            Token::Word(word) if !is_keyword(word) => FieldRef::from_name(word),
            Token::Word(_) => {
                return Err(self.unexpected(expected, "a field of that name needs double quotes"));
            }
            Token::Text(_) => {
                return Err(self.unexpected(
                    expected,
                    "the field comes first, then the value; names take double quotes",
                ));
            }
            _ => return Err(self.unexpected(expected, "")),
        };
        self.advance()?;
        Ok(field)
    }

    fn comparison(&mut self, field: FieldRef, op: CompareOp) -> Result<Expr, FilterError> {
        let start = self.start;
        Ok(match (self.operand(A_VALUE)?, op) {
            (Operand::Value(value), _) => Expr::Compare { field, op, value },
            (Operand::Null, CompareOp::Eq) => Expr::IsNull(field),
            (Operand::Null, CompareOp::Ne) => Expr::Not(Box::new(Expr::IsNull(field))),
            (Operand::Null, _) => {
                return Err(self.lexer.error(
                    start,
                    "a value that has an order",
                    "`NULL`".to_owned(),
                    "write IS NULL",
                ));
            }
        })
    }

    fn value(&mut self, expected: &str) -> Result<Literal, FilterError> {
        let start = self.start;
        match self.operand(expected)? {
            Operand::Value(value) => Ok(value),
            Operand::Null => Err(self.lexer.error(start, expected, "`NULL`".to_owned(), "write IS NULL")),
        }
    }

    fn operand(&mut self, expected: &str) -> Result<Operand, FilterError> {
        let value = match &self.token {
            Token::Text(text) => Literal::String(text.clone()),
            Token::Number(number) => {
                let number = *number;
                self.advance()?;
                return self.cast(number).map(Operand::Value);
            }
            Token::Word(_) if self.at("TRUE") => Literal::Bool(true),
            Token::Word(_) if self.at("FALSE") => Literal::Bool(false),
            Token::Word(_) if self.at("NULL") => {
                self.advance()?;
                return Ok(Operand::Null);
            }
            Token::Word(_) | Token::Quoted(_) => {
                return Err(self.unexpected(expected, "put text in single quotes"));
            }
            _ => return Err(self.unexpected(expected, "")),
        };
        self.advance()?;
        Ok(Operand::Value(value))
    }

    /// The optional `::type` after a number.
    fn cast(&mut self, number: Num) -> Result<Literal, FilterError> {
        if self.token != Token::Cast {
            return Ok(Literal::Number(number));
        }
        self.advance()?;
        let typed = match number {
            Num::U64(v) if self.at("u64") => Some(Num::U64(v)),
            Num::U64(v) if self.at("i64") => i64::try_from(v).ok().map(Num::I64),
            Num::I64(v) if self.at("i64") => Some(Num::I64(v)),
            Num::U64(v) if self.at("f64") => Some(Num::F64(v as f64)),
            Num::I64(v) if self.at("f64") => Some(Num::F64(v as f64)),
            Num::F64(v) if self.at("f64") => Some(Num::F64(v)),
            _ => None,
        };
        let Some(typed) = typed else {
            return Err(self.unexpected("u64, i64 or f64 that can hold the number", ""));
        };
        self.advance()?;
        Ok(Literal::Typed(typed))
    }

    fn list(&mut self, field: FieldRef) -> Result<Expr, FilterError> {
        self.expect(&Token::Open, "( and the list of values")?;
        let mut values = Vec::new();
        if self.token != Token::Close {
            loop {
                values.push(self.value(A_VALUE)?);
                if self.token != Token::Comma {
                    break;
                }
                self.advance()?;
            }
        }
        self.expect(&Token::Close, ", or ) in the list of values")?;
        Ok(Expr::In { field, values })
    }

    fn pattern(&mut self, field: FieldRef, ignore_case: bool) -> Result<Expr, FilterError> {
        let Token::Text(pattern) = &self.token else {
            return Err(
                self.unexpected("a pattern in single quotes, % for any text, _ for one character", "")
            );
        };
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(FilterError::PatternTooLong { bytes: pattern.len() });
        }
        let pattern = pattern.clone();
        self.advance()?;
        Ok(Expr::Like { field, pattern, ignore_case })
    }

    fn is(&mut self, field: FieldRef) -> Result<Expr, FilterError> {
        let negated = self.take("NOT")?;
        let expr = if self.take("NULL")? {
            Expr::IsNull(field)
        } else if self.at("TRUE") || self.at("FALSE") {
            let value = Literal::Bool(self.at("TRUE"));
            self.advance()?;
            Expr::Compare { field, op: CompareOp::Eq, value }
        } else {
            return Err(self.unexpected("NULL, NOT NULL, TRUE or FALSE after IS", ""));
        };
        Ok(if negated { Expr::Not(Box::new(expr)) } else { expr })
    }
}
