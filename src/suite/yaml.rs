//! YAML as PyYAML reads it, which is how lm-evaluation-harness reads its tasks: scalars of version 1.1 (`no` is false,
//! `1e3` is a text), merge keys, one document a file.
//!
//! `!function` is kept as what it is, a name; every other tag of one's own is an error. So is a key that stands twice
//! with two values: Python would take the last one and say nothing. Files and aliases are bounded.
use crate::{mistake, mistake::Blame};
use anyhow::Result;
use regex::Regex;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Tag};
use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

/// Bytes of a file. The longest task file that is released has a sixteenth of them.
pub const LARGEST: usize = 1 << 22;
/// Lists and tables in one another.
const LEVELS: usize = 64;
/// Values of a file, each as often as aliases name it.
const MOST: usize = 1 << 18;
/// Lines and texts that are indented anew.
const MENDED: usize = 256;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// `~`, `null`, or nothing.
    Null,
    /// `true`, `yes`, `on`.
    Bool(bool),
    /// In decimal, octal (`010`), hexadecimal, binary, or sixties (`1:30`).
    Int(i64),
    /// With a point.
    Float(f64),
    /// All else.
    Text(String),
    /// In order.
    List(Vec<Node>),
    /// In order.
    Table(Table),
    /// `!function module.name`, by that name.
    Function(String),
}

/// Keys with their values, as they stand.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table(pub Vec<(String, Node)>);

impl Table {
    /// By key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, node)| node)
    }

    /// Each in place of what its key had, or behind all others.
    pub fn over<'a>(&mut self, more: impl IntoIterator<Item = &'a (String, Node)>) {
        let mut places: HashMap<String, usize> =
            self.0.iter().enumerate().map(|(i, (key, _))| (key.clone(), i)).collect();
        for (key, node) in more {
            match places.get(key) {
                Some(&i) => self.0[i].1 = node.clone(),
                None => {
                    places.insert(key.clone(), self.0.len());
                    self.0.push((key.clone(), node.clone()));
                }
            }
        }
    }
}

impl Node {
    /// For errors: what it is, and what it says where that is short.
    pub fn words(&self) -> String {
        match self {
            Node::Null => "nothing".into(),
            Node::Bool(b) => format!("{b}, as YAML reads it (in quotes it is a text)"),
            Node::Int(n) => format!("the number {n}"),
            Node::Float(x) => format!("the number {x}"),
            Node::Text(text) if text.chars().count() <= 60 => format!("`{text}`"),
            Node::Text(text) => format!("`{}...`", text.chars().take(60).collect::<String>()),
            Node::List(_) => "a list".into(),
            Node::Table(_) => "a table".into(),
            Node::Function(name) => format!("`!function {name}`"),
        }
    }
}

/// Reads a file's bytes: one table.
pub fn parse(bytes: &[u8]) -> Result<Table> {
    if bytes.len() > LARGEST {
        mistake!("{} bytes; a task file has at most {LARGEST}", bytes.len());
    }
    let Ok(text) = std::str::from_utf8(bytes) else { mistake!("not UTF-8 text") };
    let mut text = Cow::from(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut mended = 0;
    loop {
        match build(&text)? {
            Ok(Some(Node::Table(table))) => return Ok(table),
            Ok(Some(other)) => mistake!("it holds {}, no table of keys", other.words()),
            Ok(None) => mistake!("it is empty"),
            Err(e) => match indented(&text, &e).filter(|t| mended < MENDED && t.len() <= LARGEST / 8) {
                Some(better) => text = better.into(),
                None => return Err(e).blame("no YAML"),
            },
        }
        mended += 1;
    }
}

/// The file's value; inside, what is no YAML at all.
fn build(text: &str) -> Result<Result<Option<Node>, ScanError>> {
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => builder.take(event).blame(format!("line {}", span.start.line()))?,
            Err(e) => return Ok(Err(e)),
        }
    }
    Ok(Ok(builder.root))
}

/// What libyaml, and so PyYAML, forgives: in quotes or brackets, a line that is less indented than what it belongs to.
/// White space at its beginning counts for nothing there, so it gets more.
fn indented(text: &str, error: &ScanError) -> Option<String> {
    let at = text.char_indices().nth(error.marker().index()).map(|(at, _)| at)?;
    let more = " ".repeat(80);
    match error.info() {
        "invalid indentation in quoted scalar" => {
            let end = at + quoted(&text[at..])?;
            let inside = text[at..end].replace('\n', &format!("\n{more}"));
            Some(format!("{}{inside}{}", &text[..at], &text[end..]))
        }
        "invalid indentation" | "invalid indentation in flow construct" => {
            let start = text[..at].rfind('\n').map_or(0, |i| i + 1);
            Some(format!("{}{more}{}", &text[..start], &text[start..]))
        }
        _ => None,
    }
}

/// Bytes of the text in quotes that stands here.
fn quoted(text: &str) -> Option<usize> {
    let mut rest = text.char_indices().peekable();
    let (_, quote) = rest.next().filter(|(_, c)| ['"', '\''].contains(c))?;
    while let Some((at, c)) = rest.next() {
        let twice = quote == '\'' && c == quote && rest.peek().is_some_and(|(_, next)| *next == quote);
        if twice || c == '\\' && quote == '"' {
            rest.next();
        } else if c == quote {
            return Some(at + 1);
        }
    }
    None
}

/// A list or a table that is not yet complete.
enum Open {
    List(Vec<Node>),
    /// With the places of its keys, and the key whose value comes next.
    Table(Table, HashMap<String, usize>, Option<String>),
}

/// From events to values, without recursion.
#[derive(Default)]
struct Builder {
    open: Vec<(Open, usize)>,
    /// Complete ones by the number that aliases name, with how many values they hold.
    anchors: HashMap<usize, (Node, usize)>,
    values: usize,
    documents: usize,
    root: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>) -> Result<()> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    mistake!("a second document begins; a task file is one");
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let node = scalar(&text, style, tag.as_deref())?;
                self.value(node, anchor, 1)?;
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some((node, values)) => {
                    let (node, values) = (node.clone(), *values);
                    self.value(node, 0, values)?;
                }
                None => mistake!("an alias stands inside what it names"),
            },
            Event::SequenceStart(anchor, tag) => {
                plain(tag.as_deref(), "seq")?;
                self.enter(Open::List(Vec::new()), anchor)?;
            }
            Event::MappingStart(anchor, tag) => {
                plain(tag.as_deref(), "map")?;
                self.enter(Open::Table(Table::default(), HashMap::new(), None), anchor)?;
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some((Open::List(list), anchor)) => self.close(Node::List(list), anchor)?,
                Some((Open::Table(table, ..), anchor)) => self.close(Node::Table(merged(table)?), anchor)?,
                _ => mistake!("an end without a beginning"),
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn enter(&mut self, open: Open, anchor: usize) -> Result<()> {
        if self.open.len() >= LEVELS {
            mistake!("more than {LEVELS} levels of lists and tables");
        }
        if let Some((Open::Table(_, _, None), _)) = self.open.last() {
            mistake!("a key is a list or a table; it is a text");
        }
        self.open.push((open, anchor));
        Ok(())
    }

    fn close(&mut self, node: Node, anchor: usize) -> Result<()> {
        let values = 1 + if anchor > 0 { size(&node) } else { 0 };
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), values));
        }
        self.values += 1;
        self.put(node)
    }

    /// A value that is complete as it comes.
    fn value(&mut self, node: Node, anchor: usize, values: usize) -> Result<()> {
        self.values += values;
        if self.values > MOST {
            mistake!("more than {MOST} values, aliases written out");
        }
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), values));
        }
        self.put(node)
    }

    fn put(&mut self, node: Node) -> Result<()> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some((Open::List(list), _)) => list.push(node),
            Some((Open::Table(_, _, key @ None), _)) => match node {
                Node::Text(text) => *key = Some(text),
                // As Python prints them.
                Node::Int(n) => *key = Some(n.to_string()),
                Node::Bool(b) => *key = Some(if b { "True" } else { "False" }.into()),
                other => mistake!("a key is {}; it is a text", other.words()),
            },
            Some((Open::Table(table, places, key), _)) => {
                let key = key.take().unwrap_or_default();
                match places.get(&key) {
                    Some(&i) if key != MERGE && table.0[i].1 != node => {
                        mistake!("`{key}` stands twice, and says two things")
                    }
                    Some(_) if key != MERGE => {}
                    _ => {
                        places.insert(key.clone(), table.0.len());
                        table.0.push((key, node));
                    }
                }
            }
        }
        Ok(())
    }
}

/// What a table's other keys are merged under.
const MERGE: &str = "<<";

/// A table with what `<<` names written out: its own keys win, then those of what is named first.
fn merged(table: Table) -> Result<Table> {
    if table.get(MERGE).is_none() {
        return Ok(table);
    }
    let (merge, own): (Vec<_>, Vec<_>) = table.0.into_iter().partition(|(key, _)| key == MERGE);
    let mut seen: HashSet<String> = own.iter().map(|(key, _)| key.clone()).collect();
    let mut all = Table(own);
    for (_, node) in merge {
        let named = match node {
            Node::List(list) => list,
            node => vec![node],
        };
        for node in named {
            let Node::Table(table) = node else { mistake!("`<<` names {}, no table", node.words()) };
            for (key, node) in table.0 {
                if seen.insert(key.clone()) {
                    all.0.push((key, node));
                }
            }
        }
    }
    Ok(all)
}

/// Values in a value.
fn size(node: &Node) -> usize {
    let mut values = 0;
    let mut left = vec![node];
    while let Some(node) = left.pop() {
        values += 1;
        match node {
            Node::List(list) => left.extend(list),
            Node::Table(table) => left.extend(table.0.iter().map(|(_, node)| node)),
            _ => {}
        }
    }
    values
}

/// A tag of YAML's own, without what all of them begin with.
fn core(tag: &Tag) -> Option<&str> {
    match tag.handle.as_str() {
        "tag:yaml.org,2002:" => Some(&tag.suffix),
        // `!!` that nothing stands for, and `!` alone: a text.
        "!!" => Some(&tag.suffix),
        "" if tag.suffix == "!" => Some("str"),
        "!" if tag.suffix.is_empty() => Some("str"),
        _ => None,
    }
}

/// A list or a table has no tag, or its own.
fn plain(tag: Option<&Tag>, own: &str) -> Result<()> {
    match tag {
        Some(tag) if core(tag) != Some(own) => unknown(tag),
        _ => Ok(()),
    }
}

fn unknown<T>(tag: &Tag) -> Result<T> {
    mistake!("the tag `{tag}` is not known here; `!function` is the only one of the harness")
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Node> {
    let Some(tag) = tag else {
        return Ok(if style == ScalarStyle::Plain { resolved(text) } else { Node::Text(text.into()) });
    };
    if tag.handle == "!" && tag.suffix == "function" {
        return Ok(Node::Function(text.into()));
    }
    let node = match core(tag) {
        Some("str") => return Ok(Node::Text(text.into())),
        Some(own @ ("null" | "bool" | "int" | "float")) => (own, resolved(text)),
        _ => return unknown(tag),
    };
    match node {
        ("null", Node::Null) | ("bool", Node::Bool(_)) | ("int", Node::Int(_)) => Ok(node.1),
        ("float", Node::Float(x)) => Ok(Node::Float(x)),
        ("float", Node::Int(n)) => Ok(Node::Float(n as f64)),
        (own, other) => mistake!("`!!{own}` before {}", other.words()),
    }
}

static INT: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let decimal = r"0|[1-9][0-9_]*";
    let sixties = r"[1-9][0-9_]*(?::[0-5]?[0-9])+";
    Regex::new(&format!(r"^[-+]?(?:0b[01_]+|0[0-7_]+|{decimal}|0x[0-9a-fA-F_]+|{sixties})$")).ok()
});
static FLOAT: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let whole = r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?";
    let rest = r"\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?";
    let sixties = r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*";
    let none = r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)";
    Regex::new(&format!("^(?:{whole}|{rest}|{sixties}|{none})$")).ok()
});

/// What version 1.1 takes a scalar without quotes for.
fn resolved(text: &str) -> Node {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Node::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Node::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => return Node::Bool(false),
        _ => {}
    }
    let is = |regex: &LazyLock<Option<Regex>>| regex.as_ref().is_some_and(|r| r.is_match(text));
    let number = match (is(&INT), is(&FLOAT)) {
        (true, _) => int(text).map(Node::Int),
        (_, true) => float(text).map(Node::Float),
        _ => None,
    };
    number.unwrap_or_else(|| Node::Text(text.into()))
}

/// `None` where it does not fit.
fn int(text: &str) -> Option<i64> {
    let text = text.replace('_', "");
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(&text)),
    };
    let n = if let Some(bits) = digits.strip_prefix("0b") {
        i64::from_str_radix(bits, 2).ok()?
    } else if let Some(hex) = digits.strip_prefix("0x") {
        i64::from_str_radix(hex, 16).ok()?
    } else if digits.contains(':') {
        let sixty = |sum: i64, part: &str| sum.checked_mul(60)?.checked_add(part.parse().ok()?);
        digits.split(':').try_fold(0, sixty)?
    } else if digits.len() > 1 && digits.starts_with('0') {
        i64::from_str_radix(digits, 8).ok()?
    } else {
        digits.parse().ok()?
    };
    Some(sign * n)
}

fn float(text: &str) -> Option<f64> {
    let text = text.replace('_', "").to_lowercase();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1., rest),
        None => (1., text.strip_prefix('+').unwrap_or(&text)),
    };
    let x = match digits {
        ".inf" => f64::INFINITY,
        ".nan" => f64::NAN,
        _ if digits.contains(':') => {
            digits.split(':').try_fold(0., |sum, part| Some(sum * 60. + part.parse::<f64>().ok()?))?
        }
        _ => digits.parse().ok()?,
    };
    Some(sign * x)
}
