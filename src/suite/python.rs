//! What tasks written for Python expect of a text, a list and a literal.
//!
//! minijinja's own filters are near to Python's, and `pycompat` brings its methods; here is what either does otherwise
//! or not at all, so that a template gives the text that Jinja gives.
use crate::random::Random;
use minijinja::{
    Environment, Error, ErrorKind, State, Value, escape_formatter, filters,
    value::{Kwargs, StringInput, ValueKind, from_args},
};
use std::collections::BTreeMap;

/// What Python's `\s`, `strip` and `split` take for white space: Unicode's, and four separators of ASCII.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// `str.strip`.
pub fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.capitalize`: the first character in title case, the rest in lower case.
pub fn capitalize(text: &str) -> String {
    let Some(first) = text.chars().next() else { return String::new() };
    // Lowered with the first one before it: a sigma at a word's end looks back.
    let lowered = text.to_lowercase();
    let skip: usize = first.to_lowercase().map(char::len_utf8).sum();
    title(first) + &lowered[skip..]
}

/// A character in title case, which is upper case but where one character stands for two letters, and in Georgian.
fn title(c: char) -> String {
    match c {
        'Ǆ'..='ǆ' => return 'ǅ'.into(),
        'Ǉ'..='ǉ' => return 'ǈ'.into(),
        'Ǌ'..='ǌ' => return 'ǋ'.into(),
        'Ǳ'..='ǳ' => return 'ǲ'.into(),
        'ა'..='ჺ' | 'ჽ'..='ჿ' => return c.into(),
        'ŉ' => return "ʼN".into(),
        // Greek with an iota below, which has a capital of its own.
        '\u{1f80}'..='\u{1faf}' => return char::from_u32(c as u32 | 8).unwrap_or(c).into(),
        '\u{1fb3}' | '\u{1fc3}' | '\u{1ff3}' => return char::from_u32(c as u32 + 9).unwrap_or(c).into(),
        '\u{1fbc}' | '\u{1fcc}' | '\u{1ffc}' => return c.into(),
        _ => {}
    }
    let mut upper = c.to_uppercase();
    let mut out: String = upper.next().into_iter().collect();
    for rest in upper {
        match rest {
            'Ι' if ('\u{1f00}'..='\u{1fff}').contains(&c) => out.push('\u{345}'),
            // A mark above, or a letter.
            _ => out.extend(rest.to_lowercase()),
        }
    }
    out
}

/// Bytes that a call of a method makes, at most: fuel pays for them only when they are there.
const MOST: usize = 1 << 24;
/// Levels of a value that is written out.
const DEEP: usize = 128;

/// `repr` of a float: the shortest digits that read back as it.
pub fn float(x: f64) -> String {
    let shown = match x {
        _ if x.is_nan() => "nan".into(),
        f64::INFINITY => "inf".into(),
        f64::NEG_INFINITY => "-inf".into(),
        x => format!("{x:?}"),
    };
    match shown.split_once('e') {
        Some((digits, power)) => {
            let (sign, power) = power.strip_prefix('-').map_or(('+', power), |p| ('-', p));
            format!("{digits}e{sign}{power:0>2}")
        }
        None => shown,
    }
}

/// `str` of a number.
pub fn number(n: &serde_json::Number) -> String {
    n.as_f64().filter(|_| n.is_f64()).map_or_else(|| n.to_string(), float)
}

/// `str` of a value.
fn text(value: &Value) -> Result<String, Error> {
    Ok(match as_float(value) {
        Some(x) => float(x),
        None => {
            if value.as_object().is_some() {
                let mut left = MOST;
                count(value, 0, &mut left)?;
            }
            value.to_string()
        }
    })
}

fn as_float(value: &Value) -> Option<f64> {
    let is = value.kind() == ValueKind::Number && !value.is_integer();
    f64::try_from(value.clone()).ok().filter(|_| is)
}

/// Whether a value is one that may be copied out of a template: a repeated list takes no room before.
pub fn bounded(value: &Value) -> Result<(), Error> {
    let mut left = MOST << 4;
    count(value, 0, &mut left)
}

/// Takes from what is left the bytes of a value as a text, more or less, without writing it.
fn count(value: &Value, level: usize, left: &mut usize) -> Result<(), Error> {
    if level > DEEP {
        return Err(wrong(format!("more than {DEEP} levels of lists and tables")));
    }
    let own = match (value.as_str(), value.kind()) {
        (Some(text), _) => text.len(),
        (_, ValueKind::Number) => 8,
        _ => 1,
    };
    take(own, left)?;
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            value.try_iter()?.try_for_each(|item| count(&item, level + 1, left))
        }
        ValueKind::Map => value.try_iter()?.try_for_each(|key| {
            count(&value.get_item(&key)?, level + 1, left)?;
            count(&key, level + 1, left)
        }),
        _ => Ok(()),
    }
}

fn take(bytes: usize, left: &mut usize) -> Result<(), Error> {
    *left = left
        .checked_sub(bytes)
        .ok_or_else(|| wrong(format!("it would make more than {} MB of text", MOST >> 20)))?;
    Ok(())
}

/// Whether what `str.format` makes is not too long, every field as long as the longest value.
fn formatted(text: &str, args: &[Value]) -> Result<(), Error> {
    let mut longest = 0;
    for value in args {
        let mut left = MOST;
        count(value, 0, &mut left)?;
        longest = longest.max(MOST - left);
    }
    let fields = text.split('{').skip(1).map(|f| f.split('}').next().unwrap_or(f));
    // Widths and precisions.
    let numbers = |field: &str| -> usize {
        let digits = field.split(|c: char| !c.is_ascii_digit()).filter(|d| !d.is_empty());
        digits.fold(0, |sum, d| sum.saturating_add(d.parse().unwrap_or(usize::MAX)))
    };
    let bytes = fields.fold(text.len(), |sum, f| sum.saturating_add(longest).saturating_add(numbers(f)));
    take(bytes, &mut { MOST })
}

/// Jinja's `join`: minijinja counts what stands between the items before it writes, and not the items.
fn join(
    state: &mut State,
    value: &Value,
    joiner: Option<StringInput<'_>>,
    attribute: Option<&str>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let mut left = MOST;
    count(value, 0, &mut left)?;
    let floats = value.kind() == ValueKind::Seq && value.try_iter()?.any(|v| as_float(&v).is_some());
    if !floats {
        return filters::join(state, value, joiner, attribute, kwargs);
    }
    let item = |v: Value| as_float(&v).map_or(v, |x| float(x).into());
    let value: Vec<Value> = value.try_iter()?.map(item).collect();
    filters::join(state, &Value::from(value), joiner, attribute, kwargs)
}

/// Gives a template's environment all of this.
pub fn install(environment: &mut Environment) {
    environment.set_unknown_method_callback(method);
    environment.set_formatter(|out, state, value| match (as_float(value), value.as_object()) {
        (None, None) => escape_formatter(out, state, value),
        _ => Ok(out.write_str(&text(value)?)?),
    });
    environment.add_filter("string", |value: &Value| match known(value)?.kind() {
        ValueKind::String => Ok(value.clone()),
        _ => text(value).map(Value::from),
    });
    environment.add_filter("join", join);
    environment.add_function("fail", |why: &str| Err::<Value, _>(wrong(why)));
    environment.add_filter("capitalize", |value: &Value| Ok::<_, Error>(capitalize(&text(known(value)?)?)));
    environment.add_filter("literal", |value: &Value| match known(value)?.as_str() {
        Some(text) => literal(text).map_err(wrong),
        // Data that was read as what it means needs no reading.
        None => Ok(value.clone()),
    });
    environment.add_filter("trim", |value: &Value, chars: Option<&str>| {
        let text = text(known(value)?)?;
        let cut = |c: char| chars.map_or(is_space(c), |all| all.contains(c));
        Ok::<_, Error>(text.trim_matches(cut).to_string())
    });
    environment.add_function("shuffled", shuffled);
    environment.add_function("field", field);
    environment.add_filter("words", words);
    environment.add_filter("told", told);
    environment.add_filter("answers", answers);
}

/// A value, but none that is not there: filters of ours are as strict about names as a template is.
fn known(value: &Value) -> Result<&Value, Error> {
    if value.is_undefined() { Err(Error::from(ErrorKind::UndefinedError)) } else { Ok(value) }
}

fn wrong(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, why.into())
}

/// `random.Random(seed).shuffle(list)`, of a copy.
fn shuffled(list: &Value, seed: &Value) -> Result<Value, Error> {
    let mut random = match (seed.as_str(), u64::try_from(seed.clone())) {
        (Some(text), _) => Random::of_text(text),
        (None, Ok(number)) => Random::new(number),
        _ => return Err(wrong(format!("`shuffled` takes a text or a whole number as seed, not {seed}"))),
    };
    let mut items: Vec<Value> = known(list)?.try_iter()?.collect();
    random.shuffle(&mut items);
    Ok(Value::from(items))
}

/// What lm-evaluation-harness makes of a text without braces: the item's field of that name, else the text itself.
fn field(state: &State, name: &str) -> Value {
    match state.lookup(name) {
        // A function of Jinja's is no field.
        Some(value) if !value.is_undefined() && value.kind() != ValueKind::Plain => value,
        _ => name.into(),
    }
}

/// A text as it stands, and nothing else.
fn words(value: &Value) -> Result<Value, Error> {
    match (value.as_str(), value.kind()) {
        (Some(_), _) => Ok(value.clone()),
        (_, ValueKind::Number | ValueKind::Bool) => Err(wrong(format!(
            "{value} where a text belongs; the index of one of several contexts is said in TOML: `prompts` and `ending`"
        ))),
        _ => Err(wrong(format!("{value} where a text belongs"))),
    }
}

/// What a field says of the right ending: an index, or, where it is a text, digits too, that ending's own text.
fn told(value: &Value) -> Result<Value, Error> {
    match (value.as_str(), value.kind()) {
        (Some(text), _) => Ok(Value::from(BTreeMap::from([("label".to_string(), Value::from(text))]))),
        (_, ValueKind::Number | ValueKind::Bool | ValueKind::Seq) => Ok(value.clone()),
        _ => Err(wrong(format!("{value} is neither an index nor an ending"))),
    }
}

/// What is compared with a written answer: a text, or a list of them, which may be written as Python writes one.
fn answers(value: &Value) -> Result<Value, Error> {
    match (known(value)?.as_str(), value.kind()) {
        (Some(text), _) if text.len() >= 2 && text.starts_with('[') && text.ends_with(']') => {
            Ok(literal(text).unwrap_or_else(|_| value.clone()))
        }
        (_, ValueKind::String | ValueKind::Seq) => Ok(value.clone()),
        _ => Ok(text(value)?.into()),
    }
}

fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let parts = |all: Vec<&str>| Value::from(all.into_iter().map(Value::from).collect::<Vec<_>>());
    match (value.kind(), value.as_str(), name, args) {
        (ValueKind::String, Some(text), "strip", []) => return Ok(strip(text).into()),
        (ValueKind::String, Some(text), "lstrip", []) => return Ok(text.trim_start_matches(is_space).into()),
        (ValueKind::String, Some(text), "rstrip", []) => return Ok(text.trim_end_matches(is_space).into()),
        (ValueKind::String, Some(text), "capitalize", []) => return Ok(capitalize(text).into()),
        (ValueKind::String, Some(text), "split", []) => {
            return Ok(parts(text.split(is_space).filter(|p| !p.is_empty()).collect()));
        }
        (ValueKind::String, Some(text), "split", [_, ..]) => {
            let (at, most): (&str, Option<i64>) = from_args(args)?;
            if at.is_empty() {
                return Err(wrong("empty separator"));
            }
            return Ok(parts(match most.and_then(|m| usize::try_from(m).ok()) {
                Some(most) => text.splitn(most.saturating_add(1), at).collect(),
                None => text.split(at).collect(),
            }));
        }
        (ValueKind::String, Some(text), "index", [_]) => {
            let (what,): (&str,) = from_args(args)?;
            return match text.find(what) {
                Some(at) => Ok(text[..at].chars().count().into()),
                None => Err(wrong(format!("`{what}` is not in `{text}`"))),
            };
        }
        // What these make is paid for when it is there.
        (ValueKind::String, Some(text), "format", _) => formatted(text, args)?,
        (ValueKind::String, Some(text), "join", [list]) => {
            let mut left = MOST;
            for item in list.try_iter()? {
                take(text.len(), &mut left)?;
                count(&item, 0, &mut left)?;
            }
        }
        (ValueKind::String, Some(text), "replace", [old, new, ..]) => {
            let (old, new) = (old.as_str().unwrap_or_default(), new.as_str().unwrap_or_default());
            // Nothing stands between any two characters.
            let times = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
            take(times.saturating_mul(new.len()).saturating_add(text.len()), &mut { MOST })?;
        }
        (ValueKind::Seq, _, "index", [wanted]) => {
            return match value.try_iter()?.position(|v| v == *wanted) {
                Some(at) => Ok(at.into()),
                None => Err(wrong(format!("{wanted} is not in {value}"))),
            };
        }
        _ => {}
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

/// Levels of a literal, at most: it is read by recursion.
const LEVELS: usize = 64;

/// `ast.literal_eval`: texts, numbers, lists, tuples, dicts, True, False, None.
pub fn literal(text: &str) -> Result<Value, String> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    match reader.peek() {
        None => Ok(value),
        Some(c) => Err(reader.error(&format!("`{c}` after the end"))),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn error(&self, what: &str) -> String {
        format!("no Python literal: {what}, at byte {}", self.at)
    }

    fn next(&mut self) -> Option<char> {
        let c = self.text[self.at..].chars().next()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// The next character that is no white space, not taken.
    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        let rest = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
        self.at = self.text.len() - rest.len();
        rest.chars().next()
    }

    /// Takes a character if it is the next one.
    fn take(&mut self, wanted: char) -> bool {
        let is = self.peek() == Some(wanted);
        if is {
            self.at += wanted.len_utf8();
        }
        is
    }

    fn value(&mut self, level: usize) -> Result<Value, String> {
        if level > LEVELS {
            return Err(self.error("too many levels"));
        }
        match self.peek() {
            Some('[') => Ok(Value::from(self.list(']', level)?.0)),
            Some('(') => {
                let (items, comma) = self.list(')', level)?;
                // One value in parentheses is itself.
                match items.first() {
                    Some(only) if items.len() == 1 && !comma => Ok(only.clone()),
                    _ => Ok(Value::from(items)),
                }
            }
            Some('{') => self.dict(level),
            Some('\'' | '"') => {
                let mut text = String::new();
                // Texts side by side are one.
                while let Some(quote @ ('\'' | '"')) = self.peek() {
                    self.string(quote, &mut text)?;
                }
                Ok(Value::from(text))
            }
            Some(_) => self.word(),
            None => Err(self.error("nothing")),
        }
    }

    /// What stands between brackets, and whether a comma was last.
    fn list(&mut self, end: char, level: usize) -> Result<(Vec<Value>, bool), String> {
        self.next();
        let (mut items, mut comma) = (Vec::new(), false);
        while !self.take(end) {
            if !items.is_empty() && !comma {
                return Err(self.error(&format!("neither `,` nor `{end}`")));
            }
            items.push(self.value(level + 1)?);
            comma = self.take(',');
        }
        Ok((items, comma))
    }

    fn dict(&mut self, level: usize) -> Result<Value, String> {
        self.next();
        let (mut items, mut comma) = (BTreeMap::new(), true);
        while !self.take('}') {
            if !comma {
                return Err(self.error("neither `,` nor `}`"));
            }
            let key = self.value(level + 1)?;
            if !self.take(':') {
                return Err(self.error("no `:`"));
            }
            items.insert(key.to_string(), self.value(level + 1)?);
            comma = self.take(',');
        }
        Ok(Value::from(items))
    }

    fn string(&mut self, quote: char, out: &mut String) -> Result<(), String> {
        self.next();
        loop {
            match self.next() {
                None | Some('\n') => return Err(self.error("a text without an end")),
                Some(c) if c == quote => return Ok(()),
                Some('\\') => self.escape(out)?,
                Some(c) => out.push(c),
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<(), String> {
        let plain = |c| match c {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'v' => '\x0b',
            c => c,
        };
        let digits = match self.next() {
            Some('\n') => return Ok(()),
            Some(c @ ('\\' | '\'' | '"' | 'n' | 't' | 'r' | 'a' | 'b' | 'f' | 'v')) => {
                out.push(plain(c));
                return Ok(());
            }
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            _ => return Err(self.error("an escape that is not read here")),
        };
        let code = self.text.get(self.at..self.at + digits).and_then(|d| u32::from_str_radix(d, 16).ok());
        let Some(c) = code.and_then(char::from_u32) else {
            return Err(self.error("an escape that is no character"));
        };
        self.at += digits;
        out.push(c);
        Ok(())
    }

    fn word(&mut self) -> Result<Value, String> {
        let rest = &self.text[self.at..];
        let end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c))).unwrap_or(rest.len());
        let word = &rest[..end];
        let value = match word {
            "True" => Value::from(true),
            "False" => Value::from(false),
            "None" => Value::from(()),
            _ => match (word.parse::<i64>(), word.parse::<f64>()) {
                (Ok(whole), _) => Value::from(whole),
                (_, Ok(number)) if number.is_finite() => Value::from(number),
                _ => return Err(self.error(&format!("`{word}`"))),
            },
        };
        self.at += end;
        Ok(value)
    }
}
