//! The two filter languages: what they accept, what canonical text they give, and what they say about mistakes.

use rvf_index::Family;
use rvf_index::filter::{
    CompareOp, Expr, FieldRef, FilterError, Literal, MAX_DEPTH, MAX_PATTERN_BYTES, MAX_PREDICATES,
    MAX_TEXT_BYTES, Num, parse,
};

fn canonical(text: &str) -> String {
    parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).to_string()
}

#[test]
fn sql_to_canonical_text() {
    let table = [
        (
            "genre = 'sci-fi' AND (year > 2020 OR tag IN ('a','b')) AND NOT draft",
            "genre = 'sci-fi' AND (year > 2020 OR tag IN ('a', 'b')) AND NOT draft = TRUE",
        ),
        ("a==1", "a = 1"),
        ("a<>1", "a != 1"),
        ("a!=1", "a != 1"),
        ("a<=1", "a <= 1"),
        ("a >=1", "a >= 1"),
        ("a<-1", "a < -1"),
        ("a = +1", "a = 1"),
        ("a = -0", "a = 0"),
        ("a = -0.0", "a = -0.0"),
        ("a = .5", "a = 0.5"),
        ("a = 5.", "a = 5.0"),
        ("a = 1e3", "a = 1000.0"),
        ("a = 1E+30", "a = 1e30"),
        ("a = -2.5e-7", "a = -2.5e-7"),
        ("a = 18446744073709551615", "a = 18446744073709551615"),
        ("a = 18446744073709551616", "a = 1.8446744073709552e19"),
        ("a = -9223372036854775808", "a = -9223372036854775808"),
        ("a = -9223372036854775809", "a = -9.223372036854776e18"),
        ("a = 5::u64 OR a = 5::I64 OR a = 5::f64", "a = 5::u64 OR a = 5::i64 OR a = 5.0::f64"),
        ("a = 'it''s'", "a = 'it''s'"),
        ("a = ''", "a = ''"),
        ("a = 'line\nbreak\u{e9}'", "a = 'line\nbreak\u{e9}'"),
        ("\"two words\" = true", "\"two words\" = TRUE"),
        ("\"say \"\"hi\"\"\" = 1", "\"say \"\"hi\"\"\" = 1"),
        ("\"plain\" = 1", "plain = 1"),
        ("\"in\" = 1 and \"Between\"", "\"in\" = 1 AND \"Between\" = TRUE"),
        ("field.3 = 1", "field.3 = 1"),
        ("\"field.3\" = 1", "\"field.3\" = 1"),
        ("field.03 = 1", "field.03 = 1"),
        ("field.65536 = 1", "field.65536 = 1"),
        ("a.b_c.d2 = 1", "a.b_c.d2 = 1"),
        ("\u{e9}t\u{e9} = 1", "\u{e9}t\u{e9} = 1"),
        ("a between 1 and 2 and b", "a BETWEEN 1 AND 2 AND b = TRUE"),
        ("a NOT BETWEEN 'x' AND 'y'", "a NOT BETWEEN 'x' AND 'y'"),
        ("a not in (1, -2, 3.5, 'x', TRUE)", "a NOT IN (1, -2, 3.5, 'x', TRUE)"),
        ("a IN ()", "a IN ()"),
        ("NOT a IN (1)", "a NOT IN (1)"),
        (
            "a LIKE 'lib%' OR a NOT LIKE '_' OR a ILIKE 'X\\%'",
            "a LIKE 'lib%' OR a NOT LIKE '_' OR a ILIKE 'X\\%'",
        ),
        ("EXISTS a", "EXISTS a"),
        ("exists(a)", "EXISTS a"),
        ("a EXISTS", "EXISTS a"),
        ("a NOT EXISTS", "NOT EXISTS a"),
        ("NOT EXISTS ( a )", "NOT EXISTS a"),
        ("a IS NULL", "a IS NULL"),
        ("a is not null", "a IS NOT NULL"),
        ("a = NULL", "a IS NULL"),
        ("a <> NULL", "a IS NOT NULL"),
        ("a IS TRUE", "a = TRUE"),
        ("a IS NOT FALSE", "NOT a = FALSE"),
        ("TRUE", "TRUE"),
        ("NOT (FALSE)", "NOT FALSE"),
        ("TRUE AND a = 1", "TRUE AND a = 1"),
        ("NOT NOT a", "NOT NOT a = TRUE"),
        ("NOT (a AND b)", "NOT (a = TRUE AND b = TRUE)"),
        ("NOT a = 1 AND b = 2", "NOT a = 1 AND b = 2"),
        ("a OR b AND c", "a = TRUE OR (b = TRUE AND c = TRUE)"),
        ("(((a)))", "a = TRUE"),
        ("(a AND b) AND c", "(a = TRUE AND b = TRUE) AND c = TRUE"),
        ("\t a \n=\r1 ", "a = 1"),
    ];
    for (text, want) in table {
        assert_eq!(canonical(text), want, "{text}");
        assert_eq!(canonical(want), want, "canonical text must be a fixed point: {want}");
        assert_eq!(parse(text), parse(want), "{text}");
    }
}

#[test]
fn trees() {
    assert_eq!(
        parse("a >= 1 AND NOT field.7 = -2::i64"),
        Ok(Expr::And(vec![
            Expr::Compare {
                field: FieldRef::Name("a".into()),
                op: CompareOp::Ge,
                value: Literal::Number(Num::U64(1)),
            },
            Expr::Not(Box::new(Expr::Compare {
                field: FieldRef::Id(7),
                op: CompareOp::Eq,
                value: Literal::Typed(Num::I64(-2)),
            })),
        ]))
    );
    let expr = parse("b = 1 OR (a = 2 AND b = 3) OR NOT EXISTS field.9").expect("valid");
    let fields: Vec<String> = expr.fields().into_iter().map(ToString::to_string).collect();
    assert_eq!(fields, ["b", "a", "field.9"]);
}

#[test]
fn sql_mistakes_are_explained() {
    let a_value = "a value ('text', a number, TRUE or FALSE)";
    let after = "a comparison, IN, BETWEEN, LIKE, IS, EXISTS, AND, OR or the end";
    let a_predicate = "a field name, NOT, EXISTS, TRUE, FALSE or (";
    let unquoted = "put text in single quotes, names with a minus or other signs in double quotes";
    let table: Vec<(&str, String)> = vec![
        ("", format!("column 1: expected {a_predicate}, found end of filter")),
        ("   ", format!("column 4: expected {a_predicate}, found end of filter")),
        ("genre =", format!("column 8: expected {a_value}, found end of filter")),
        ("genre = scifi", format!("column 9: expected {a_value}, found `scifi`; put text in single quotes")),
        (
            "genre = \"scifi\"",
            format!("column 9: expected {a_value}, found `\"scifi\"`; put text in single quotes"),
        ),
        ("\u{e9} = x", format!("column 5: expected {a_value}, found `x`; put text in single quotes")),
        ("genre 'x'", format!("column 7: expected {after}, found `'x'`")),
        ("genre like", "column 11: expected a pattern in single quotes, % for any text, _ for one character, found end of filter".into()),
        ("a b", format!("column 3: expected {after}, found `b`")),
        ("a AND", format!("column 6: expected {a_predicate}, found end of filter")),
        ("AND a", format!("column 1: expected {a_predicate}, found `AND`; a field of that name needs double quotes")),
        ("'x' = a", format!("column 1: expected {a_predicate}, found `'x'`; the field comes first, then the value; names take double quotes")),
        ("5 < a", format!("column 1: expected {a_predicate}, found `5`")),
        ("(a", "column 3: expected AND, OR or ), found end of filter".into()),
        ("a)", "column 2: expected AND, OR or the end, found `)`; there is no ( for it".into()),
        ("a = 1 b = 2", "column 7: expected AND, OR or the end, found `b`".into()),
        ("sci-fi = 1", format!("column 4: expected a number, found `-fi`; {unquoted}")),
        ("a = 12abc", "column 5: expected a number, found `12abc`; put text in single quotes".into()),
        ("a = 1.2.3", "column 5: expected a number, found `1.2.3`; put text in single quotes".into()),
        ("a = 1e999", "column 5: expected a number within the range of a 64-bit float, found `1e999`".into()),
        ("a = -", format!("column 5: expected a number, found `-`; {unquoted}")),
        ("a = 'open", "column 5: expected a closing ' for the text that starts here, found end of filter; a ' inside text is written ''".into()),
        ("\"open = 1", "column 1: expected a closing \" for the name that starts here, found end of filter; a \" inside a name is written \"\"".into()),
        ("\"\" = 1", "column 1: expected a field name in the quotes, found nothing".into()),
        ("a IN", "column 5: expected ( and the list of values, found end of filter".into()),
        ("a IN ('x' 'y')", "column 11: expected , or ) in the list of values, found `'y'`".into()),
        ("a IN ('x',)", format!("column 11: expected {a_value}, found `)`")),
        ("a IN (NULL)", format!("column 7: expected {a_value}, found `NULL`; write IS NULL")),
        ("a < NULL", "column 5: expected a value that has an order, found `NULL`; write IS NULL".into()),
        ("a BETWEEN 1", "column 12: expected AND and the upper bound of BETWEEN, found end of filter".into()),
        ("a IS 5", "column 6: expected NULL, NOT NULL, TRUE or FALSE after IS, found `5`".into()),
        ("a NOT 5", "column 7: expected IN, BETWEEN, LIKE or EXISTS after NOT, found `5`".into()),
        ("EXISTS", "column 7: expected a field name, found end of filter".into()),
        ("EXISTS (a", "column 10: expected ), found end of filter".into()),
        ("a && b", "column 3: expected a name, a value or an operator, found `&`; write AND".into()),
        ("a || b", "column 3: expected a name, a value or an operator, found `|`; write OR".into()),
        ("!a", "column 1: expected a name, a value or an operator, found `!`; write NOT to negate, != for not equal".into()),
        ("a = 1;", "column 6: expected a name, a value or an operator, found `;`; put text in single quotes and unusual field names in double quotes".into()),
        ("a = 5::u32", "column 8: expected u64, i64 or f64 that can hold the number, found `u32`".into()),
        ("a = -5::u64", "column 9: expected u64, i64 or f64 that can hold the number, found `u64`".into()),
        ("a = 'x'::u64", "column 8: expected AND, OR or the end, found `::`".into()),
        (
            "a = xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            format!("column 5: expected {a_value}, found `{}...`; put text in single quotes", "x".repeat(40)),
        ),
    ];
    for (text, want) in table {
        let error = parse(text).expect_err(text);
        assert_eq!(error.to_string(), want, "{text}");
        assert_eq!(error.family(), Family::Caller, "{text}");
    }
}

#[test]
fn json_to_canonical_text() {
    let table = [
        (r#"{"eq":{"field":3,"value":{"u64":5}}}"#, "field.3 = 5::u64"),
        (r#" {"ne":{"field":3,"value":{"i64":5}}}"#, "field.3 != 5::i64"),
        (r#"{"lt":{"field":3,"value":{"f64":5}}}"#, "field.3 < 5.0::f64"),
        (r#"{"le":{"field":3,"value":{"string":"x"}}}"#, "field.3 <= 'x'"),
        (r#"{"gt":{"field":3,"value":{"bool":false}}}"#, "field.3 > FALSE"),
        (r#"{"ge":{"field":3,"value":5}}"#, "field.3 >= 5::u64"),
        (r#"{"eq":{"field":3,"value":-5}}"#, "field.3 = -5::i64"),
        (r#"{"eq":{"field":3,"value":-0}}"#, "field.3 = -0.0::f64"),
        (r#"{"eq":{"field":3,"value":5.0}}"#, "field.3 = 5.0::f64"),
        (r#"{"eq":{"field":3,"value":1e2}}"#, "field.3 = 100.0::f64"),
        (r#"{"eq":{"field":3,"value":18446744073709551616}}"#, "field.3 = 1.8446744073709552e19::f64"),
        (r#"{"eq":{"field":3,"value":"it's"}}"#, "field.3 = 'it''s'"),
        (r#"{"eq":{"field":3,"value":true}}"#, "field.3 = TRUE"),
        // The reference cuts field numbers to 16 bits.
        (r#"{"eq":{"field":65539,"value":1}}"#, "field.3 = 1::u64"),
        // The reference takes the first operator of its list and the first type of its list, whatever their order in the text.
        (r#"{"not":{"x":1},"or":[],"and":[]}"#, "TRUE"),
        (r#"{"ge":{"field":1,"value":1},"ne":{"field":2,"value":2}}"#, "field.2 != 2::u64"),
        (r#"{"eq":{"field":3,"value":{"bool":true,"u64":9}}}"#, "field.3 = 9::u64"),
        (
            r#"{"and":[{"eq":{"field":1,"value":1}},{"not":{"eq":{"field":2,"value":2}}}]}"#,
            "field.1 = 1::u64 AND NOT field.2 = 2::u64",
        ),
        (r#"{"or":[{"eq":{"field":1,"value":1}}]}"#, "field.1 = 1::u64"),
        (r#"{"or":[]}"#, "FALSE"),
        // Beyond the reference.
        (r#"{"eq":{"field":"year","value":2020}}"#, "year = 2020"),
        (r#"{"eq":{"field":"field.4","value":{"i64":2020}}}"#, "field.4 = 2020::i64"),
        (r#"{"in":{"field":3,"value":[1,"a",true]}}"#, "field.3 IN (1::u64, 'a', TRUE)"),
        (r#"{"range":{"field":3,"low":1,"high":9}}"#, "field.3 >= 1::u64 AND field.3 < 9::u64"),
        (r#"{"not":{"like":{"field":"a","value":"x%"}}}"#, "a NOT LIKE 'x%'"),
        (r#"{"exists":{"field":"a"}}"#, "EXISTS a"),
        (r#"{"is_null":{"field":1}}"#, "field.1 IS NULL"),
        // Tree form.
        (r#"{"op":"eq","field":"section","value":"python"}"#, "section = 'python'"),
        (r#"{"op":"in","field":"section","value":["libs","devel"]}"#, "section IN ('libs', 'devel')"),
        (r#"{"op":"gt","field":5,"value":10}"#, "field.5 > 10"),
        (r#"{"op":"gt","field":5,"value":{"u64":10}}"#, "field.5 > 10::u64"),
        (
            r#"{"op":"or","args":[{"op":"and","args":[{"op":"gt","field":"s","value":150},{"op":"not","args":[{"op":"eq","field":"c","value":"doc"}]}]},{"op":"ilike","field":"c","value":"RUST"}]}"#,
            "(s > 150 AND NOT c = 'doc') OR c ILIKE 'RUST'",
        ),
        (r#"{"op":"range","field":"s","low":1,"high":2}"#, "s >= 1 AND s < 2"),
    ];
    for (text, want) in table {
        assert_eq!(canonical(text), want, "{text}");
        assert_eq!(parse(text), parse(want), "{text}");
    }
}

#[test]
fn json_mistakes_are_explained() {
    let operators = "eq, ne, lt, le, gt, ge, and, or, not, in, range, like, ilike, exists, is_null";
    let table: Vec<(&str, String)> = vec![
        ("{", "line 1 column 1: not valid JSON: EOF while parsing an object".into()),
        ("{} x", "line 1 column 4: not valid JSON: trailing characters".into()),
        ("{}", format!("$: no operator; expected one of {operators}, or \"op\" naming one")),
        (r#"{"op":"equals"}"#, format!("$.op: unknown operator \"equals\"; expected one of {operators}")),
        (r#"{"and":{}}"#, "$.and: 'and' takes an array of filters".into()),
        (r#"{"and":[{"or":[7]}]}"#, "$.and[0].or[0]: a filter must be a JSON object".into()),
        (r#"{"op":"and"}"#, "$.args: 'and' takes an array of filters".into()),
        (r#"{"op":"not","args":[]}"#, "$.args: 'not' takes an array of exactly one filter".into()),
        (r#"{"eq":5}"#, "$.eq: 'eq' takes an object with 'field' and 'value'".into()),
        (r#"{"eq":{"value":5}}"#, "$.eq.field: expected a field id or name, found nothing".into()),
        (r#"{"eq":{"field":-1,"value":5}}"#, "$.eq.field: expected a field id or name, found -1".into()),
        (r#"{"eq":{"field":"","value":5}}"#, "$.eq.field: expected a field id or name, found \"\"".into()),
        (r#"{"eq":{"field":1}}"#, "$.eq: 'value' is missing".into()),
        (r#"{"eq":{"field":1,"value":{"u64":-1}}}"#, "$.eq.value: expected an unsigned 64-bit integer in 'u64', found an object with 'u64'".into()),
        (r#"{"eq":{"field":1,"value":{"u8":1}}}"#, "$.eq.value: expected one of u64, i64, f64, string, bool in the object, found an object with 'u8'".into()),
        (r#"{"eq":{"field":1,"value":null}}"#, "$.eq.value: expected a value (use is_null to find missing ones), found null".into()),
        (r#"{"eq":{"field":1,"value":1e999}}"#, "$.eq.value: expected a number in the range of f64, found 1e+999".into()),
        (r#"{"in":{"field":1,"value":[1,[]]}}"#, "$.in.value[1]: expected text, a number, true, false, or an object such as {\"u64\": 5}, found an array".into()),
        (r#"{"in":{"field":1,"value":5}}"#, "$.in.value: 'in' takes an array of values".into()),
        (r#"{"like":{"field":1,"value":5}}"#, "$.like.value: a pattern must be a string".into()),
        (r#"{"range":{"field":1,"low":5}}"#, "$.range: 'high' is missing".into()),
    ];
    for (text, want) in table {
        assert_eq!(parse(text).expect_err(text).to_string(), want, "{text}");
    }
}

/// Nesting, length and count are bounded, so that no text can exhaust the stack, the memory or the time of the daemon.
#[test]
fn hostile_text_is_refused() {
    for deep in [
        format!("{}a{}", "(".repeat(100_000), ")".repeat(100_000)),
        "(".repeat(100_000),
        format!("{}a", "NOT ".repeat(50_000)),
        format!("{}a", "NOT (".repeat(40_000)),
    ] {
        let error = parse(&deep).expect_err("too deep");
        assert_eq!(error, FilterError::TooDeep);
        assert_eq!(error.to_string(), "nested deeper than 128 levels");
    }
    let json = format!("{}{{}}{}", "{\"not\":".repeat(30_000), "}".repeat(30_000));
    assert_eq!(parse(&json), Err(FilterError::TooDeep));
    let long = " ".repeat(MAX_TEXT_BYTES + 1);
    assert_eq!(parse(&long), Err(FilterError::TooLong { bytes: MAX_TEXT_BYTES + 1 }));
    let many = vec!["a=1"; MAX_PREDICATES + 1].join(" OR ");
    assert_eq!(parse(&many), Err(FilterError::TooManyPredicates));
    let many =
        format!("{{\"or\":[{}]}}", vec![r#"{"eq":{"field":1,"value":1}}"#; MAX_PREDICATES + 1].join(","));
    assert_eq!(parse(&many), Err(FilterError::TooManyPredicates));
    let pattern = format!("a LIKE '{}'", "%a".repeat(MAX_PATTERN_BYTES));
    assert_eq!(parse(&pattern), Err(FilterError::PatternTooLong { bytes: 2 * MAX_PATTERN_BYTES }));
}

/// Each level of parentheses may add an OR over an AND; the limit counts levels of the tree, so what is accepted prints and
/// parses again.
#[test]
fn the_deepest_accepted_filter_round_trips() {
    let nest = |levels: usize| format!("{}a{}", "(b OR c AND ".repeat(levels), ")".repeat(levels));
    let deepest = (1..=MAX_DEPTH).rev().find(|n| parse(&nest(*n)).is_ok()).expect("some depth is accepted");
    assert_eq!(deepest, MAX_DEPTH / 2);
    let text = canonical(&nest(deepest));
    assert_eq!(canonical(&text), text);
    assert_eq!(parse(&nest(deepest + 1)), Err(FilterError::TooDeep));
    assert!(parse(&format!("{}a{}", "(".repeat(MAX_DEPTH), ")".repeat(MAX_DEPTH))).is_ok());
    assert!(parse(&format!("{}a", "NOT ".repeat(MAX_DEPTH))).is_ok());
}
