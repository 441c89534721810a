//! Evaluation over columns: the reference's meaning case by case, random expressions against the record-by-record
//! evaluator, the estimates, the cache and the stored form.

use proptest::prelude::*;
use rvf_index::filter::{
    Columns, ColumnsBuilder, CompareOp, Expr, FieldRef, FilterCache, FilterError, Literal, Num, Value,
    matches, parse,
};
use rvf_index::{Bitmap, Family};
use std::collections::BTreeMap;
use std::sync::Arc;

type Record = BTreeMap<u16, Value>;

fn columns(names: &[(u16, &str)], records: &[Record]) -> Columns {
    let mut builder = ColumnsBuilder::new(records.len() as u32);
    for (id, name) in names {
        builder.field(*id, name);
    }
    for (row, record) in records.iter().enumerate() {
        for (id, value) in record {
            builder.set(row as u32, *id, value.clone()).expect("row exists");
        }
    }
    builder.build()
}

fn text(s: &str) -> Value {
    Value::String(s.into())
}

/// One field `v`, one value a row; the last row lacks it. Row numbers for which each filter holds.
#[test]
fn meaning_of_every_operator() {
    let values = [
        Value::U64(5),                  // 0
        Value::I64(5),                  // 1
        Value::F64(5.0),                // 2
        text("5"),                      // 3
        Value::Bool(true),              // 4
        Value::Null,                    // 5
        Value::Bytes(b"5".to_vec()),    // 6
        Value::U64(9007199254740993),   // 7
        Value::F64(9007199254740992.0), // 8
        Value::I64(-1),                 // 9
        text("Bar"),                    // 10
        Value::F64(-0.0),               // 11
        Value::F64(f64::NAN),           // 12
    ];
    let mut records: Vec<Record> = values.into_iter().map(|v| Record::from([(7, v)])).collect();
    records.push(Record::new()); // 13
    let columns = columns(&[(7, "v")], &records);
    let table: &[(&str, &[u32])] = &[
        ("v = 5", &[0, 1, 2]),
        ("v = 5.0", &[0, 1, 2]),
        ("v = 5::u64", &[0]),
        ("v = 5::i64", &[1]),
        ("v = 5::f64", &[2]),
        (r#"{"eq":{"field":7,"value":5}}"#, &[0]),
        (r#"{"eq":{"field":"v","value":5}}"#, &[0, 1, 2]),
        ("v != 5", &[3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
        ("v != 5::u64", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
        ("NOT v = 5", &[3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
        ("v < 5", &[9, 11]),
        ("v <= 5", &[0, 1, 2, 9, 11]),
        ("v > 5", &[7, 8]),
        ("v >= 5", &[0, 1, 2, 7, 8]),
        ("NOT v >= 5", &[3, 4, 5, 6, 9, 10, 11, 12, 13]),
        ("v > 9007199254740992", &[7]),
        ("v = 9007199254740993", &[7]),
        ("v = 9007199254740992.0", &[8]),
        ("v < 5::i64", &[9]),
        ("v = 0", &[11]),
        ("v = 0.0::f64", &[11]),
        ("v BETWEEN -1 AND 5", &[0, 1, 2, 9, 11]),
        ("v BETWEEN 5 AND -1", &[]),
        ("v NOT BETWEEN -1 AND 5", &[3, 4, 5, 6, 7, 8, 10, 12, 13]),
        ("v BETWEEN 5::u64 AND 100", &[0]),
        ("v = '5'", &[3]),
        ("v > ''", &[3, 10]),
        ("v >= '5' AND v < 'C'", &[3, 10]),
        ("v", &[4]),
        ("NOT v", &[0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
        ("v > FALSE", &[4]),
        ("v <= FALSE", &[]),
        ("v IN (5, 'Bar', TRUE)", &[0, 1, 2, 4, 10]),
        ("v IN ()", &[]),
        ("v NOT IN (5, 'Bar', TRUE)", &[3, 5, 6, 7, 8, 9, 11, 12, 13]),
        ("v LIKE '%a%'", &[10]),
        ("v LIKE '_'", &[3]),
        ("v LIKE 'bar'", &[]),
        ("v ILIKE 'bar'", &[10]),
        ("v NOT LIKE '%'", &[0, 1, 2, 4, 5, 6, 7, 8, 9, 11, 12, 13]),
        ("EXISTS v", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        ("NOT EXISTS v", &[13]),
        ("v IS NULL", &[5, 13]),
        ("v IS NOT NULL", &[0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12]),
        ("EXISTS v AND v IS NULL", &[5]),
        ("field.7 = '5' AND \"field.7\" = '5' AND v = '5'", &[3]),
        ("TRUE", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
        ("FALSE", &[]),
        ("nosuch = 1", &[]),
        ("nosuch < 1 OR v = '5'", &[3]),
        ("nosuch != 1 AND v = '5'", &[3]),
        ("nosuch IS NULL AND NOT EXISTS nosuch AND NOT nosuch AND v = '5'", &[3]),
    ];
    for (filter, want) in table {
        let expr = parse(filter).expect(filter);
        assert_eq!(columns.eval(&expr).expect(filter).iter().collect::<Vec<_>>(), *want, "{filter}");
        let naive: Vec<u32> = (0..records.len() as u32)
            .filter(|row| {
                matches(&expr, |field| match field {
                    FieldRef::Name(name) if name == "nosuch" => None,
                    _ => records[*row as usize].get(&7),
                })
            })
            .collect();
        assert_eq!(naive, *want, "one by one: {filter}");
    }
    assert_eq!(
        columns.unknown_fields(&parse("nosuch = 1 OR v = 2 OR field.8 = 3").expect("valid")),
        ["nosuch", "field.8"]
    );
    assert_eq!(columns.value(8, &FieldRef::Id(7)), Some(Value::F64(9007199254740992.0)));
    assert_eq!(columns.value(6, &FieldRef::Name("v".into())), Some(Value::Bytes(b"5".to_vec())));
    assert_eq!(columns.value(13, &FieldRef::Id(7)), None);
    assert_eq!(columns.value(14, &FieldRef::Id(7)), None);
}

#[test]
fn building_in_any_order_and_twice() {
    let mut builder = ColumnsBuilder::new(4);
    builder.set(3, 2, text("old")).expect("row exists");
    builder.set(1, 2, text("b")).expect("row exists");
    builder.set(3, 2, text("a")).expect("row exists");
    builder.set(0, 2, Value::U64(1)).expect("row exists");
    builder.set(0, 2, Value::Null).expect("row exists");
    builder.field(9, "empty");
    assert_eq!(builder.set(4, 2, Value::Null), Err(FilterError::Row { row: 4, rows: 4 }));
    let columns = builder.build();
    assert_eq!(columns.fields().collect::<Vec<_>>(), [(2, "field.2"), (9, "empty")]);
    let eval = |t: &str| columns.eval(&parse(t).expect(t)).expect(t).iter().collect::<Vec<_>>();
    assert_eq!(eval("field.2 = 'old'"), [0u32; 0]);
    assert_eq!(eval("field.2 >= 'a'"), [1, 3]);
    assert_eq!(eval("field.2 = 1"), [0u32; 0]);
    assert_eq!(eval("EXISTS field.2 AND field.2 IS NULL"), [0]);
    assert_eq!(eval("empty IS NULL"), [0, 1, 2, 3]);
    assert_eq!(columns.value(3, &FieldRef::Id(2)), Some(text("a")));
}

#[test]
fn no_rows_and_no_fields() {
    let none = ColumnsBuilder::new(0).build();
    assert_eq!(none.eval(&parse("a = 1 OR NOT b").expect("valid")).expect("evaluates"), Bitmap::new(0));
    let bare = ColumnsBuilder::new(3).build();
    assert_eq!(bare.eval(&parse("NOT b").expect("valid")).expect("evaluates").count(), 3);
    assert_eq!(bare.estimate(&parse("NOT b").expect("valid")), (3, 3));
}

/// More distinct values than 8 and 16 bits of code hold, and a field in few rows: every form of storage agrees.
#[test]
fn every_code_width() {
    let rows = 70_000u32;
    let mut builder = ColumnsBuilder::new(rows);
    for (id, name) in [(0, "narrow"), (1, "middle"), (2, "wide"), (3, "rare"), (4, "flag")] {
        builder.field(id, name);
    }
    for row in 0..rows {
        builder.set(row, 0, Value::U64(u64::from(row % 200))).expect("row exists");
        builder.set(row, 1, Value::I64(i64::from(row % 5000) - 2500)).expect("row exists");
        builder.set(row, 2, Value::String(format!("{:05}", rows - row))).expect("row exists");
        if row % 100 == 0 {
            builder.set(row, 3, Value::F64(f64::from(row) / 10.0)).expect("row exists");
        }
        builder.set(row, 4, Value::Bool(row % 3 == 0)).expect("row exists");
    }
    let columns = builder.build();
    let check = |filter: &str, want: &dyn Fn(u32) -> bool| {
        let expr = parse(filter).expect(filter);
        let want: Vec<u32> = (0..rows).filter(|r| want(*r)).collect();
        let got = columns.eval(&expr).expect(filter);
        assert!(
            got.iter().eq(want.iter().copied()),
            "{filter}: {} rows, expected {}",
            got.count(),
            want.len()
        );
        let (low, high) = columns.estimate(&expr);
        assert!((low..=high).contains(&(want.len() as u32)), "{filter}: {low}..={high}, {}", want.len());
    };
    check("narrow < 7", &|r| r % 200 < 7);
    check("narrow >= 7", &|r| r % 200 >= 7);
    check("narrow BETWEEN 50 AND 180", &|r| (50..=180).contains(&(r % 200)));
    check("middle > -3", &|r| i64::from(r % 5000) - 2500 > -3);
    check("middle = 0 OR middle = 2499", &|r| matches!(r % 5000, 2500 | 4999));
    check("wide < '35001'", &|r| rows - r < 35001);
    check("wide LIKE '%99' AND NOT wide LIKE '0%'", &|r| (rows - r) % 100 == 99 && rows - r >= 10000);
    check("wide LIKE '6_9%1'", &|r| {
        (rows - r) / 10000 == 6 && (rows - r) / 100 % 10 == 9 && (rows - r) % 10 == 1
    });
    check("rare > 100", &|r| r % 100 == 0 && r > 1000);
    check("rare IS NULL", &|r| r % 100 != 0);
    check("NOT rare > 100", &|r| !(r % 100 == 0 && r > 1000));
    check("flag AND rare < 500 AND narrow != 0", &|r| r % 300 == 0 && r % 200 != 0 && r < 5000);
    check("flag AND rare < 500 AND narrow = 0", &|r| r % 3 == 0 && r % 200 == 0 && r < 5000);
    check("NOT flag OR narrow = 3", &|r| r % 3 != 0 || r % 200 == 3);
    let stored = Columns::from_bytes(&columns.to_bytes()).expect("reads its own bytes");
    let expr = parse("rare > 100 OR wide LIKE '%7%' AND middle < 3 AND flag").expect("valid");
    assert_eq!(stored.eval(&expr), columns.eval(&expr));
    assert_eq!(stored.value(65, &FieldRef::Id(2)), Some(text("69935")));
    assert_eq!(stored.value(200, &FieldRef::Id(3)), Some(Value::F64(20.0)));
}

#[test]
fn trees_built_by_hand_are_bounded() {
    let mut expr = parse("a").expect("valid");
    for _ in 0..200 {
        expr = Expr::Not(Box::new(expr));
    }
    let columns = ColumnsBuilder::new(3).build();
    assert_eq!(columns.eval(&expr), Err(FilterError::TooDeep));
    assert_eq!(columns.estimate(&expr), (0, 3));
    let single = Expr::And(vec![Expr::Or(vec![parse("a = 1 AND b = 2").expect("valid")])]);
    assert_eq!(single.to_string(), "a = 1 AND b = 2");
}

#[test]
fn cache_keeps_the_latest_within_its_limits() {
    let cache = FilterCache::new(3, 1 << 20);
    let rows = Arc::new(Bitmap::full(2));
    for text in ["a = 1", "a = 2", "a = 3"] {
        cache.insert(text, Arc::clone(&rows));
    }
    assert!(Arc::ptr_eq(&cache.get("a = 1").expect("kept"), &rows));
    cache.insert("a = 4", Arc::clone(&rows));
    assert_eq!(cache.len(), 3);
    assert!(cache.get("a = 2").is_none(), "least recently used goes first");
    assert!(cache.get("a = 1").is_some());

    let small = FilterCache::new(10, 100);
    small.insert("x", Arc::new(Bitmap::new(10_000)));
    assert!(small.is_empty(), "a result above the byte limit is not kept");
}

#[test]
fn stored_columns_refuse_damage() {
    let records: Vec<Record> = (0..40u64)
        .map(|i| {
            Record::from([
                (1, Value::U64(i % 7)),
                (2, text(["x", "y", "\u{e9}"][i as usize % 3])),
                (3, if i % 2 == 0 { Value::Bytes(vec![i as u8]) } else { Value::F64(i as f64) }),
            ])
        })
        .collect();
    let columns = columns(&[(1, "a"), (2, "b")], &records);
    let bytes = columns.to_bytes();
    assert_eq!(Columns::from_bytes(&bytes).expect("reads").to_bytes(), bytes);
    for len in 0..bytes.len() {
        let error = Columns::from_bytes(&bytes[..len]).expect_err("cut short");
        assert_eq!(error.family(), Family::Corruption);
    }
    // With the checksum made right again, every flip must be refused or give columns that answer without a panic.
    let filters = ["a < 3", "b LIKE '%y%'", "field.3 > 1 OR a != 2", "b IS NULL"].map(|t| parse(t).expect(t));
    for bit in 0..(bytes.len() - 8) * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Columns::from_bytes(&damaged).is_err(), "bit {bit}");
        let body = damaged.len() - 8;
        let sum = xxhash_rust::xxh3::xxh3_64(&damaged[..body]);
        damaged[body..].copy_from_slice(&sum.to_le_bytes());
        if damaged[12..16] != bytes[12..16] {
            // Another number of rows is no contradiction where the rows named exist; keep this test's memory small.
            continue;
        }
        if let Ok(read) = Columns::from_bytes(&damaged) {
            for filter in &filters {
                assert!(read.eval(filter).expect("evaluates").count() <= 40);
            }
            for row in 0..40 {
                let _ = read.value(row, &FieldRef::Id(2));
            }
        }
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (0u64..6).prop_map(Value::U64),
        (-3i64..4).prop_map(Value::I64),
        prop::sample::select(vec![-2.5, -0.0, 0.0, 1.0, 2.5, 9007199254740992.0, 1e300, f64::NAN])
            .prop_map(Value::F64),
        prop::sample::select(vec![u64::MAX, (1 << 53) + 1, 1 << 53]).prop_map(Value::U64),
        "[ab%]{0,3}".prop_map(Value::String),
        prop::collection::vec(0u8..3, 0..3).prop_map(Value::Bytes),
    ]
}

fn any_num() -> impl Strategy<Value = Num> {
    prop_oneof![
        (0u64..6).prop_map(Num::U64),
        (-3i64..0).prop_map(Num::I64),
        prop::sample::select(vec![-2.5, -0.0, 1.0, 2.0, 9007199254740992.0, 1.8446744073709552e19, 1e300])
            .prop_map(Num::F64),
        prop::sample::select(vec![u64::MAX, (1 << 53) + 1]).prop_map(Num::U64),
    ]
}

fn any_literal() -> impl Strategy<Value = Literal> {
    prop_oneof![
        any_num().prop_map(Literal::Number),
        any_num().prop_map(Literal::Typed),
        (0i64..4).prop_map(|v| Literal::Typed(Num::I64(v))),
        any::<bool>().prop_map(Literal::Bool),
        "[ab%']{0,3}".prop_map(Literal::String),
    ]
}

fn any_field() -> impl Strategy<Value = FieldRef> {
    prop_oneof![
        (0u16..5).prop_map(FieldRef::Id),
        prop::sample::select(vec!["alpha", "in", "two words", "field.2", "nosuch"])
            .prop_map(|n| FieldRef::Name(n.into())),
    ]
}

fn any_expr() -> impl Strategy<Value = Expr> {
    let op = prop::sample::select(vec![
        CompareOp::Eq,
        CompareOp::Ne,
        CompareOp::Lt,
        CompareOp::Le,
        CompareOp::Gt,
        CompareOp::Ge,
    ]);
    let leaf = prop_oneof![
        4 => (any_field(), op, any_literal()).prop_map(|(field, op, value)| Expr::Compare { field, op, value }),
        1 => (any_field(), prop::collection::vec(any_literal(), 0..4)).prop_map(|(field, values)| Expr::In { field, values }),
        1 => (any_field(), any_literal(), any_literal()).prop_map(|(field, low, high)| Expr::Between { field, low, high }),
        1 => (any_field(), "[ab%_\\\\]{0,4}", any::<bool>())
            .prop_map(|(field, pattern, ignore_case)| Expr::Like { field, pattern, ignore_case }),
        1 => any_field().prop_map(Expr::Exists),
        1 => any_field().prop_map(Expr::IsNull),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Expr::And),
            prop::collection::vec(inner.clone(), 0..4).prop_map(Expr::Or),
            inner.prop_map(|e| Expr::Not(Box::new(e))),
        ]
    })
}

const NAMES: [(u16, &str); 4] = [(0, "alpha"), (1, "in"), (2, "two words"), (3, "beta")];

/// What a field reference means, spelled out once more: by id, by name, or `field.N` as an id.
fn lookup<'r>(record: &'r Record, field: &FieldRef) -> Option<&'r Value> {
    let id = match field {
        FieldRef::Id(id) => *id,
        FieldRef::Name(name) => match NAMES.iter().find(|(_, n)| n == name) {
            Some((id, _)) => *id,
            None => name.strip_prefix("field.")?.parse().ok()?,
        },
    };
    record.get(&id)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn columns_agree_with_one_record_at_a_time(
        records in prop::collection::vec(prop::collection::btree_map(0u16..5, any_value(), 0..5), 0..150),
        exprs in prop::collection::vec(any_expr(), 1..5),
    ) {
        let columns = columns(&NAMES, &records);
        let stored = Columns::from_bytes(&columns.to_bytes()).expect("reads its own bytes");
        for expr in &exprs {
            let want: Vec<u32> = (0..records.len() as u32)
                .filter(|row| matches(expr, |field| lookup(&records[*row as usize], field)))
                .collect();
            let got = columns.eval(expr).expect("not too deep");
            prop_assert_eq!(got.iter().collect::<Vec<_>>(), &want[..], "{}", expr);
            prop_assert_eq!(stored.eval(expr).expect("not too deep"), got, "{}", expr);
            let (low, high) = columns.estimate(expr);
            prop_assert!((low..=high).contains(&(want.len() as u32)), "{}: {}..={} but {}", expr, low, high, want.len());
        }
        for (row, record) in records.iter().enumerate() {
            for id in 0..5 {
                // Debug text, for NaN does not equal itself.
                let got = format!("{:?}", columns.value(row as u32, &FieldRef::Id(id)));
                prop_assert_eq!(got, format!("{:?}", record.get(&id).cloned()));
            }
        }
    }

    #[test]
    fn canonical_text_is_a_fixed_point_with_the_same_meaning(
        expr in any_expr(),
        records in prop::collection::vec(prop::collection::btree_map(0u16..5, any_value(), 0..5), 0..20),
    ) {
        let text = expr.to_string();
        let back = parse(&text).expect("canonical text parses");
        prop_assert_eq!(back.to_string(), &text[..]);
        for record in &records {
            let get = |field: &FieldRef| lookup(record, field);
            prop_assert_eq!(matches(&expr, get), matches(&back, get), "{}", text);
        }
        prop_assert_eq!(parse(&text).expect("parses"), back);
    }

    #[test]
    fn any_text_is_answered(text in "[ -~]{0,40}", words in prop::collection::vec(prop::sample::select(vec![
        "a", "=", "<", "(", ")", "AND", "OR", "NOT", "IN", "BETWEEN", "LIKE", "IS", "NULL", "EXISTS", "'x'", "\"q\"", "5",
        "-1.5e3", ",", "::u64", "TRUE", "{", "}", "[", "\"eq\":", "\u{e9}", "'",
    ]), 0..14)) {
        for text in [text, words.join(" "), words.concat(), format!("{{{}", words.concat())] {
            if let Ok(expr) = parse(&text) {
                let canonical = expr.to_string();
                prop_assert_eq!(parse(&canonical).expect("canonical text parses").to_string(), canonical);
            }
        }
    }
}
