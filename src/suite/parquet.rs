//! Parquet, as the Hub keeps its datasets, read into the rows that the same data gives as JSONL.
//!
//! Footers, pages, encodings and compression are read by Apache's `parquet` crate, column by column. Records are put
//! together here, from each column's values and levels (Dremel; Melnik et al., 2010): the crate's own assembly asserts
//! where a file is not what it says, and its `arrow` feature is a stack of crates more for the same.
use super::footer;
use crate::{mistake, mistake::Blame};
use anyhow::{Context, Result, bail, ensure};
use half::f16;
use parquet::{
    basic::{Compression, ConvertedType, LogicalType, Repetition, TimeUnit},
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::DataType,
    file::reader::{FileReader, SerializedFileReader},
    schema::types::{ColumnDescriptor, Type},
};
use serde_json::{Map, Number, Value};
use std::{cell::Cell, ops::Range, panic, sync::Once};

/// Values and nulls of one file, at most: a few bytes can say "the same, a billion times".
const MOST: usize = 1 << 27;
/// Records read at once.
const BATCH: usize = 4096;

/// The rows of one file, columns in the file's order; `label` is what errors call it.
pub fn rows(label: &str, bytes: Vec<u8>) -> Result<Vec<Value>> {
    match guarded(|| read(bytes)) {
        Some(rows) => rows.blame(format!("`{label}`: not a Parquet file that can be read")),
        None => mistake!("`{label}`: a damaged Parquet file: what it says of itself does not hold"),
    }
}

/// `None` where the work panics, without a word. The `parquet` crate checks much and not all: of files with a few bytes
/// changed, one in two hundred makes it index, add or assert too far. That is safe, and says only that the file is damaged.
fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    thread_local! {
        static QUIET: Cell<bool> = const { Cell::new(false) };
    }
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    QUIET.set(true);
    // Nothing that the work could leave half done outlives it.
    let done = panic::catch_unwind(panic::AssertUnwindSafe(work));
    QUIET.set(false);
    done.ok()
}

fn read(bytes: Vec<u8>) -> Result<Vec<Value>> {
    footer::check(&bytes)?;
    let file = SerializedFileReader::new(bytes::Bytes::from(bytes))?;
    let schema = file.metadata().file_metadata().schema_descr_ptr();
    ensure!(schema.num_columns() > 0, "it has no columns");
    let mut columns = 0;
    let Shape::Table(fields) = Shape::of(schema.root_schema(), Level::default(), &mut columns)? else {
        bail!("its root is no group");
    };
    ensure!(columns == schema.num_columns(), "its schema has other columns than its root");
    let (mut rows, mut room) = (Vec::new(), MOST);
    for i in 0..file.num_row_groups() {
        let group = file.get_row_group(i)?;
        let (about, count) = (group.metadata(), usize::try_from(group.metadata().num_rows())?);
        ensure!(
            group.num_columns() == columns,
            "row group {i} has {} of {columns} columns",
            group.num_columns()
        );
        let mut leaves = Vec::with_capacity(columns);
        for c in 0..columns {
            let path = || format!("column `{}`", schema.column(c).path().string());
            let said = usize::try_from(about.column(c).num_values()).with_context(path)?;
            ensure!(said <= room, "it holds more than {MOST} values");
            match about.column(c).compression() {
                Compression::UNCOMPRESSED
                | Compression::SNAPPY
                | Compression::GZIP(_)
                | Compression::ZSTD(_) => {}
                other => bail!("it is compressed with {other}; what can be read: none, snappy, gzip, zstd"),
            }
            let reader = group.get_column_reader(c).with_context(path)?;
            leaves.push(Leaf::read(&schema.column(c), reader, &mut room).with_context(path)?);
        }
        for _ in 0..count {
            rows.push(table(&fields, &mut leaves)?);
        }
        ensure!(leaves.iter().all(Leaf::is_done), "row group {i} has more values than rows");
    }
    Ok(rows)
}

/// How deep a field is: the levels at which it and its list begin to be there.
#[derive(Clone, Copy, Default)]
struct Level {
    def: i16,
    rep: i16,
}

/// A field of a table.
struct Node {
    name: String,
    /// From which definition level on it is not null; `None`: always there.
    there: Option<i16>,
    leaves: Range<usize>,
    shape: Shape,
}

enum Shape {
    Leaf,
    Table(Vec<Node>),
    /// An entry of a map: `[key, value]`.
    Pair(Vec<Node>),
    /// `Level`: from where on it has an item, and what repeats it.
    List(Level, Box<Node>),
}

impl Node {
    fn of(t: &Type, mut level: Level, next: &mut usize) -> Result<Self> {
        let first = *next;
        let mut there = None;
        let shape = match t.get_basic_info().repetition() {
            // A repeated field that no LIST holds is a list by itself.
            Repetition::REPEATED => {
                level = Level { def: level.def + 1, rep: level.rep + 1 };
                Shape::List(level, Box::new(Node::always(t.name(), Shape::of(t, level, next)?, first..*next)))
            }
            Repetition::OPTIONAL => {
                level.def += 1;
                there = Some(level.def);
                Shape::of(t, level, next)?
            }
            Repetition::REQUIRED => Shape::of(t, level, next)?,
        };
        Ok(Node { name: t.name().into(), there, leaves: first..*next, shape })
    }

    fn always(name: &str, shape: Shape, leaves: Range<usize>) -> Self {
        Node { name: name.into(), there: None, leaves, shape }
    }

    /// The field's next value. Every column below it moves on by what belongs to that value.
    fn take(&self, leaves: &mut [Leaf]) -> Result<Value> {
        if let Some(level) = self.there
            && leaves[self.leaves.start].def()? < level
        {
            self.skip(leaves)?;
            return Ok(Value::Null);
        }
        Ok(match &self.shape {
            Shape::Leaf => leaves[self.leaves.start].take()?,
            Shape::Table(fields) => table(fields, leaves)?,
            Shape::Pair(fields) => fields.iter().map(|f| f.take(leaves)).collect::<Result<_>>()?,
            Shape::List(level, item) => {
                let mut list = Vec::new();
                if leaves[self.leaves.start].def()? < level.def {
                    self.skip(leaves)?;
                } else {
                    list.push(item.take(leaves)?);
                    while leaves[self.leaves.start].repeats(level.rep) {
                        list.push(item.take(leaves)?);
                    }
                }
                Value::Array(list)
            }
        })
    }

    /// What is not there still takes one place in each column.
    fn skip(&self, leaves: &mut [Leaf]) -> Result<()> {
        for leaf in &mut leaves[self.leaves.clone()] {
            leaf.def()?;
            leaf.at += 1;
        }
        Ok(())
    }
}

fn table(fields: &[Node], leaves: &mut [Leaf]) -> Result<Value> {
    let pairs = fields.iter().map(|field| Ok((field.name.clone(), field.take(leaves)?)));
    Ok(Value::Object(pairs.collect::<Result<Map<_, _>>>()?))
}

impl Shape {
    /// What a type is, whatever repeats it.
    fn of(t: &Type, level: Level, next: &mut usize) -> Result<Self> {
        if t.is_primitive() {
            *next += 1;
            return Ok(Shape::Leaf);
        }
        let fields = t.get_fields();
        ensure!(!fields.is_empty(), "`{}` is a group of nothing", t.name());
        let info = t.get_basic_info();
        let says = |logical: LogicalType, converted: ConvertedType| {
            info.logical_type_ref() == Some(&logical) || info.converted_type() == converted
        };
        let inside = Level { def: level.def + 1, rep: level.rep + 1 };
        let first = *next;
        let repeated = |t: &Type| t.get_basic_info().repetition() == Repetition::REPEATED;
        if let [entry] = fields
            && repeated(entry)
        {
            if says(LogicalType::List, ConvertedType::LIST) {
                let item = match is_item(t, entry) {
                    true => {
                        let shape = Shape::of(entry, inside, next)?;
                        Node::always(entry.name(), shape, first..*next)
                    }
                    false => Node::of(&entry.get_fields()[0], inside, next)?,
                };
                return Ok(Shape::List(inside, Box::new(item)));
            }
            let map = says(LogicalType::Map, ConvertedType::MAP)
                || says(LogicalType::Map, ConvertedType::MAP_KEY_VALUE);
            if map && entry.is_group() && entry.get_fields().len() == 2 {
                let pair =
                    entry.get_fields().iter().map(|f| Node::of(f, inside, next)).collect::<Result<_>>()?;
                let item = Node::always(entry.name(), Shape::Pair(pair), first..*next);
                return Ok(Shape::List(inside, Box::new(item)));
            }
        }
        Ok(Shape::Table(fields.iter().map(|f| Node::of(f, level, next)).collect::<Result<_>>()?))
    }
}

/// Whether the repeated field of a LIST is the item itself, as older writers have it, and not a group around it: the
/// format's rules of compatibility (LogicalTypes.md).
fn is_item(list: &Type, entry: &Type) -> bool {
    if entry.is_primitive() {
        return true;
    }
    let [only] = entry.get_fields() else { return true };
    let name = entry.name();
    only.get_basic_info().repetition() == Repetition::REPEATED
        || name == "array"
        || name.strip_suffix("_tuple") == Some(list.name())
}

/// A column of one row group.
struct Leaf {
    /// The definition level of a value that is there.
    full: i16,
    defs: Vec<i16>,
    reps: Vec<i16>,
    /// The next place.
    at: usize,
    values: std::vec::IntoIter<Value>,
}

impl Leaf {
    fn read(column: &ColumnDescriptor, reader: ColumnReader, room: &mut usize) -> Result<Self> {
        let m = Meaning::of(column.self_type());
        let mut leaf = match reader {
            ColumnReader::BoolColumnReader(r) => drain(r, room, |v| Ok(Value::Bool(v))),
            ColumnReader::Int32ColumnReader(r) => {
                drain(r, room, |v| m.int(i64::from(v), u64::from(v as u32)))
            }
            ColumnReader::Int64ColumnReader(r) => drain(r, room, |v| m.int(v, v as u64)),
            ColumnReader::Int96ColumnReader(r) => drain(r, room, |v| {
                let &[low, high, day] = v.data() else { bail!("an INT96 is no time") };
                let nanos = i128::from(u64::from(high) << 32 | u64::from(low));
                // Days are counted from 4714 BC (Julian).
                Ok(moment((i128::from(day) - 2_440_588) * DAY + nanos, false).into())
            }),
            ColumnReader::FloatColumnReader(r) => drain(r, room, |v| Ok(float(f64::from(v)))),
            ColumnReader::DoubleColumnReader(r) => drain(r, room, |v| Ok(float(v))),
            ColumnReader::ByteArrayColumnReader(r) => drain(r, room, |v| m.bytes(v.data())),
            ColumnReader::FixedLenByteArrayColumnReader(r) => drain(r, room, |v| m.bytes(v.data())),
        }?;
        leaf.full = column.max_def_level();
        Ok(leaf)
    }

    fn def(&self) -> Result<i16> {
        self.defs.get(self.at).copied().context("it has fewer values than rows")
    }

    fn repeats(&self, rep: i16) -> bool {
        self.reps.get(self.at) == Some(&rep)
    }

    fn take(&mut self) -> Result<Value> {
        ensure!(self.def()? == self.full, "its levels contradict its schema");
        self.at += 1;
        self.values.next().context("it has fewer values than levels")
    }

    fn is_done(&self) -> bool {
        self.at == self.defs.len() && self.values.len() == 0
    }
}

fn drain<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    room: &mut usize,
    make: impl Fn(T::T) -> Result<Value>,
) -> Result<Leaf> {
    let (mut defs, mut reps, mut batch, mut values) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut places = 0;
    loop {
        let (records, _, levels) =
            reader.read_records(BATCH, Some(&mut defs), Some(&mut reps), &mut batch)?;
        if records == 0 && levels == 0 {
            break;
        }
        places += levels;
        *room =
            room.checked_sub(levels).with_context(|| format!("the file holds more than {MOST} values"))?;
        // Levels that can only be 0 are not written.
        defs.resize(places, 0);
        reps.resize(places, 0);
        for value in batch.drain(..) {
            values.push(make(value)?);
        }
    }
    Ok(Leaf { full: 0, defs, reps, at: 0, values: values.into_iter() })
}

/// What a column's numbers or bytes stand for.
enum Meaning {
    Plain,
    Text,
    Unsigned,
    Half,
    /// With so many digits behind the point.
    Decimal(i32),
    Date,
    /// In units of so many nanoseconds.
    Time(i128),
    Stamp(i128, bool),
}

impl Meaning {
    fn of(t: &Type) -> Self {
        let info = t.get_basic_info();
        let unit = |unit: &TimeUnit| match unit {
            TimeUnit::MILLIS => 1_000_000,
            TimeUnit::MICROS => 1_000,
            TimeUnit::NANOS => 1,
        };
        match info.logical_type_ref() {
            Some(LogicalType::String | LogicalType::Enum | LogicalType::Json) => return Meaning::Text,
            Some(LogicalType::Decimal(d)) => return Meaning::Decimal(d.scale),
            Some(LogicalType::Date) => return Meaning::Date,
            Some(LogicalType::Time(t)) => return Meaning::Time(unit(&t.unit)),
            Some(LogicalType::Timestamp(t)) => return Meaning::Stamp(unit(&t.unit), t.is_adjusted_to_u_t_c),
            Some(LogicalType::Integer(i)) if !i.is_signed => return Meaning::Unsigned,
            Some(LogicalType::Float16) => return Meaning::Half,
            _ => {}
        }
        match (info.converted_type(), t) {
            (ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON, _) => Meaning::Text,
            (ConvertedType::DECIMAL, Type::PrimitiveType { scale, .. }) => Meaning::Decimal(*scale),
            (ConvertedType::DATE, _) => Meaning::Date,
            (ConvertedType::TIME_MILLIS, _) => Meaning::Time(1_000_000),
            (ConvertedType::TIME_MICROS, _) => Meaning::Time(1_000),
            (ConvertedType::TIMESTAMP_MILLIS, _) => Meaning::Stamp(1_000_000, true),
            (ConvertedType::TIMESTAMP_MICROS, _) => Meaning::Stamp(1_000, true),
            (
                ConvertedType::UINT_8
                | ConvertedType::UINT_16
                | ConvertedType::UINT_32
                | ConvertedType::UINT_64,
                _,
            ) => Meaning::Unsigned,
            _ => Meaning::Plain,
        }
    }

    /// `bits`: the same number, read without a sign.
    fn int(&self, value: i64, bits: u64) -> Result<Value> {
        Ok(match self {
            Meaning::Unsigned => bits.into(),
            Meaning::Decimal(scale) => decimal(value.into(), *scale)?,
            Meaning::Date => day(value.into()).into(),
            Meaning::Time(unit) => clock(i128::from(value) * unit).into(),
            Meaning::Stamp(unit, utc) => moment(i128::from(value) * unit, *utc).into(),
            Meaning::Plain | Meaning::Text | Meaning::Half => value.into(),
        })
    }

    fn bytes(&self, bytes: &[u8]) -> Result<Value> {
        match self {
            Meaning::Decimal(scale) => {
                ensure!(matches!(bytes.len(), 1..=16), "a decimal of {} bytes", bytes.len());
                let sign = if bytes[0] >= 128 { -1 } else { 0 };
                decimal(bytes.iter().fold(sign, |n: i128, &b| n << 8 | i128::from(b)), *scale)
            }
            Meaning::Half => match bytes {
                &[low, high] => Ok(float(f16::from_le_bytes([low, high]).to_f64())),
                _ => bail!("a half of {} bytes", bytes.len()),
            },
            Meaning::Text => Ok(std::str::from_utf8(bytes).context("a text that is not UTF-8")?.into()),
            // Older writers do not say of a text that it is one. A picture is no part of a question to a language model.
            _ => Ok(std::str::from_utf8(bytes).map_or(Value::Null, Value::from)),
        }
    }
}

/// JSON has no infinities, and nothing that is no number.
fn float(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn decimal(digits: i128, scale: i32) -> Result<Value> {
    let text = format!("{digits}e{}", -i64::from(scale));
    Ok(float(text.parse().with_context(|| format!("{text} is no decimal"))?))
}

/// Nanoseconds of a day.
const DAY: i128 = 86_400_000_000_000;

/// Dates and times as Python prints them, which is what templates of lm-evaluation-harness see.
fn moment(nanos: i128, utc: bool) -> String {
    let zone = if utc { "+00:00" } else { "" };
    format!("{} {}{zone}", day(nanos.div_euclid(DAY)), clock(nanos))
}

fn clock(nanos: i128) -> String {
    let nanos = nanos.rem_euclid(DAY);
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let whole = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    match rest {
        0 => whole,
        _ if rest % 1000 == 0 => format!("{whole}.{:06}", rest / 1000),
        _ => format!("{whole}.{rest:09}"),
    }
}

/// A day counted from 1970-01-01, in the Gregorian calendar. Years begin in March here, so that the leap day is a
/// year's last; 146097 days are 400 years.
fn day(days: i128) -> String {
    let days = days + 719_468; // from 0000-03-01
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // 153 days are five months, from March and from August
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    format!("{:04}-{month:02}-{day:02}", year + 400 * era)
}
