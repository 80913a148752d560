//! How a model is spoken to: its chat template, and the settings it was published with for generating.
//!
//! A chat template is a Jinja program from the checkpoint. It is rendered as transformers' `apply_chat_template` does
//! it (`utils/chat_template_utils.py`): blocks trimmed, names that are missing print nothing, Python's methods on
//! strings and dicts, `break` and `continue`, `raise_exception`, `strftime_now`, JSON as Python writes it, `generation`
//! blocks that leave no trace. It cannot read files or the clock. It has fuel for steps and for text, so that none runs
//! for ever; what minijinja itself does not charge for is adding a list to a list, and `~` of a nested value. A model
//! without a template has none: nothing is invented.
use crate::{mistake, mistake::Blame};
use anyhow::Result;
use minijinja::{
    Environment, Error, ErrorKind, State, UndefinedBehavior, Value,
    syntax::SyntaxConfig,
    value::{Kwargs, Serde, ValueKind, from_args},
};
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// The day that a template is told, at midnight. A template that asks for it (`strftime_now`, as Llama 3.1's does) would
/// otherwise make every result depend on the clock; so the caller says which day it is, and says so in its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// Four digits.
    pub year: u16,
    /// From 1.
    pub month: u8,
    /// From 1.
    pub day: u8,
}

/// A model's chat template, parsed once.
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Special tokens' text, by the names that templates use: `bos_token`.
    special: BTreeMap<String, String>,
    label: String,
}

/// Instructions and output of one rendering. A long conversation takes about ten thousand.
const FUEL: u64 = 2_000_000;
/// Bytes of stack for [`roomy`]: address space, not memory, until it is used.
const STACK: usize = 1 << 29;
/// Bytes of a template, at most; published ones have up to 30 thousand.
const LONGEST: usize = 1 << 17;
/// The templates of a checkpoint that names several: what transformers takes where nothing is said.
const DEFAULT: &str = "default";
/// Special tokens that templates are given.
const SPECIAL: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl ChatTemplate {
    /// From a checkpoint's files, of which all may be missing but one: `chat_template.jinja` counts before the key
    /// `chat_template` of `tokenizer_config.json` (a template, or a list of named ones), and that before the same key of
    /// `chat_template.json`. `label` is the checkpoint, for errors. Fails where there is no template, or it does not
    /// parse.
    pub fn new(
        label: &str,
        tokenizer_config: &serde_json::Value,
        jinja: Option<&str>,
        json: Option<&str>,
    ) -> Result<Self> {
        let json: serde_json::Value = match json {
            Some(text) => serde_json::from_str(text).blame(format!("`{label}/chat_template.json`"))?,
            None => serde_json::Value::Null,
        };
        let mut found = (jinja.map(str::to_string), "chat_template.jinja");
        for (value, file) in [(tokenizer_config, "tokenizer_config.json"), (&json, "chat_template.json")] {
            if found.0.is_none() {
                found = (named(value).blame(format!("`{label}/{file}`: `chat_template`"))?, file);
            }
        }
        let (Some(source), file) = found else {
            mistake!(
                "`{label}` has no chat template: neither chat_template.jinja nor the key `chat_template` in \
                 tokenizer_config.json or chat_template.json. Is it a base model, and not one for chats?"
            )
        };
        Self::of(format!("{label}/{file}"), tokenizer_config, &source)
    }

    /// From the template itself, with the special tokens that `tokenizer_config.json` names. Fails where it does not
    /// parse.
    pub fn of(label: String, tokenizer_config: &serde_json::Value, source: &str) -> Result<Self> {
        let special = SPECIAL.iter().filter_map(|&name| {
            let value = &tokenizer_config[name];
            let text = value.as_str().or_else(|| value["content"].as_str())?;
            Some((name.to_string(), text.to_string()))
        });
        if source.len() > LONGEST {
            mistake!("chat template `{label}` has {} bytes, more than {LONGEST}", source.len());
        }
        let environment =
            roomy(|| environment(&label, source)).blame(format!("chat template `{label}`"))??;
        Ok(Self { environment, special: special.collect(), label })
    }

    /// The conversation as the model wants to read it; with `add_generation_prompt`, up to where its answer begins. `date`
    /// is the day that the template is told. Tools and documents are none. Fails where there are no messages, where the
    /// template refuses them (`raise_exception`: roles that do not alternate), and where it runs out of fuel; the error
    /// names the template and the line.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool, date: Date) -> Result<String> {
        if messages.is_empty() {
            mistake!("chat template `{}`: a conversation of no messages", self.label);
        }
        let mut context: BTreeMap<&str, Value> =
            self.special.iter().map(|(name, text)| (name.as_str(), Value::from(text.as_str()))).collect();
        context.insert("messages", Value::from(Serde(messages)));
        context.insert("add_generation_prompt", Value::from(add_generation_prompt));
        context.insert("tools", Value::from(()));
        context.insert("documents", Value::from(()));
        let mut environment = self.environment.clone();
        environment.add_function("strftime_now", move |format: &str| date.strftime(format));
        let rendered = roomy(move || {
            let rendered =
                environment.get_template("chat").and_then(|t| t.render(Value::from_pairs(context)));
            rendered.map_err(|e| said(&e))
        });
        match rendered.blame(format!("chat template `{}`", self.label))? {
            Ok(text) => Ok(text),
            Err(why) => mistake!("chat template `{}`: {why}", self.label),
        }
    }
}

/// Does it where there is room for recursion: minijinja parses by it, without a limit for some operators (`not not`),
/// and a template can build a value of as many levels as it has fuel, each of which takes stack when it is dropped.
fn roomy<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    let thread = std::thread::Builder::new().stack_size(STACK);
    match std::thread::scope(|s| -> Result<_> { Ok(thread.spawn_scoped(s, work)?.join()) })? {
        Ok(done) => Ok(done),
        Err(_) => mistake!("cannot be handled"),
    }
}

/// The template under a file's key `chat_template`; of several, the default one.
fn named(file: &serde_json::Value) -> Result<Option<String>> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "neither a template nor a list of `name` and `template`")]
    enum Key {
        One(String),
        Several(Vec<Named>),
    }
    #[derive(Deserialize)]
    struct Named {
        name: String,
        template: String,
    }
    let Some(value) = file.get("chat_template").filter(|v| !v.is_null()) else { return Ok(None) };
    match Key::deserialize(value)? {
        Key::One(source) => Ok(Some(source)),
        Key::Several(all) => match all.iter().rev().find(|t| t.name == DEFAULT) {
            Some(template) => Ok(Some(template.template.clone())),
            None => {
                let names: Vec<&str> = all.iter().map(|t| t.name.as_str()).collect();
                mistake!("has several templates ({}), and none is called `{DEFAULT}`", names.join(", "))
            }
        },
    }
}

/// transformers' sandbox, as far as a template can see it.
fn environment(label: &str, source: &str) -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(method);
    environment.set_formatter(|out, state, value| {
        weigh(state, value, 1)?;
        minijinja::escape_formatter(out, state, value)
    });
    environment.add_filter("tojson", tojson);
    environment.add_filter("string", |state: &State, value: &Value| {
        weigh(state, value, 1)?;
        Ok::<_, Error>(value.to_string())
    });
    environment.add_filter("trim", |state: &State, value: &Value, chars: Option<&str>| {
        weigh(state, value, 1)?;
        let text = value.to_string();
        let cut = |c: char| chars.map_or(is_space(c), |all| all.contains(c));
        Ok::<_, Error>(text.trim_matches(cut).to_string())
    });
    environment.add_function("raise_exception", |why: &str| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, format!("the template says: {why}")))
    });
    // `{% generation %}` marks what the model said; to a reader of text it is a scope and nothing else.
    let mark = Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")?;
    let source = mark.replace_all(source, |c: &regex::Captures<'_>| {
        let word = if c.get(2).is_some() { "endwith" } else { "with" };
        format!("{{%{} {word} {}%}}", &c[1], &c[3])
    });
    if let Err(e) = environment.add_template_owned("chat", source.into_owned()) {
        mistake!("chat template `{label}`: {}", said(&e));
    }
    Ok(environment)
}

/// What went wrong, and in which line.
fn said(error: &Error) -> String {
    let line = error.line().map_or(String::new(), |l| format!("line {l}: "));
    format!("{line}{}", error.detail().map_or_else(|| error.kind().to_string(), str::to_string))
}

/// Levels of a value that is printed, at most.
const LEVELS: usize = 100;

/// Pays for printing a value before it is printed: sixty lists, each of the one before and again the one before, are
/// cheap to make and have no end as text.
fn weigh(state: &State, value: &Value, level: usize) -> Result<(), Error> {
    if level > LEVELS {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("a value of more than {LEVELS} levels")));
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            for item in value.try_iter()? {
                if value.kind() == ValueKind::Map {
                    weigh(state, &value.get_item(&item)?, level + 1)?;
                }
                weigh(state, &item, level + 1)?;
            }
            state.consume_fuel(1)
        }
        _ => state.consume_fuel(1 + value.as_str().map_or(0, str::len) as u64 / 64),
    }
}

/// White space as Python's `str` sees it.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Python's methods: those of `minijinja_contrib`, but for what it does otherwise or not at all.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let (Some(text), ValueKind::String) = (value.as_str(), value.kind()) {
        let parts = |all: Vec<&str>| Value::from(all.into_iter().map(Value::from).collect::<Vec<_>>());
        match (name, args) {
            ("strip", []) => return Ok(text.trim_matches(is_space).into()),
            ("lstrip", []) => return Ok(text.trim_start_matches(is_space).into()),
            ("rstrip", []) => return Ok(text.trim_end_matches(is_space).into()),
            ("split", []) => return Ok(parts(text.split(is_space).filter(|p| !p.is_empty()).collect())),
            ("splitlines", []) => return Ok(parts(lines(text))),
            ("title", []) => {
                let mut cased = false;
                let mut out = String::new();
                for c in text.chars() {
                    match cased {
                        true => out.extend(c.to_lowercase()),
                        false => out.extend(c.to_uppercase()),
                    }
                    cased = c.is_lowercase() || c.is_uppercase();
                }
                return Ok(out.into());
            }
            ("rsplit", [_, ..]) => {
                let (at, most): (&str, Option<i64>) = from_args(args)?;
                if at.is_empty() {
                    return Err(Error::new(ErrorKind::InvalidOperation, "empty separator"));
                }
                let mut all: Vec<&str> = match most.and_then(|m| usize::try_from(m).ok()) {
                    Some(most) => text.rsplitn(most.saturating_add(1), at).collect(),
                    None => text.rsplit(at).collect(),
                };
                all.reverse();
                return Ok(parts(all));
            }
            ("partition" | "rpartition", [_]) => {
                let (at,): (&str,) = from_args(args)?;
                let found = if name == "partition" { text.split_once(at) } else { text.rsplit_once(at) };
                return Ok(parts(match (found, name) {
                    (Some((a, b)), _) => vec![a, at, b],
                    (None, "partition") => vec![text, "", ""],
                    (None, _) => vec!["", "", text],
                }));
            }
            ("removeprefix", [_]) => {
                let (cut,): (&str,) = from_args(args)?;
                return Ok(text.strip_prefix(cut).unwrap_or(text).into());
            }
            ("removesuffix", [_]) => {
                let (cut,): (&str,) = from_args(args)?;
                return Ok(text.strip_suffix(cut).unwrap_or(text).into());
            }
            _ => {}
        }
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

/// Where Python's `splitlines` ends a line, which is at more than line feeds.
fn lines(text: &str) -> Vec<&str> {
    let ends = |c: char| {
        matches!(c, '\n' | '\x0b' | '\x0c' | '\r' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let (mut all, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(ends) {
        all.push(&rest[..at]);
        let end = if rest[at..].starts_with("\r\n") {
            2
        } else {
            rest[at..].chars().next().map_or(1, char::len_utf8)
        };
        rest = &rest[at + end..];
    }
    if !rest.is_empty() {
        all.push(rest);
    }
    all
}

/// `json.dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
fn tojson(state: &State, value: &Value, args: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = args.get("indent")?;
    let separators: Option<Vec<String>> = args.get("separators")?;
    let (between, after) = match separators.as_deref() {
        Some([a, b]) => (a.clone(), b.clone()),
        Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "separators are not two")),
        None => (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string()),
    };
    let ascii = args.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sorted = args.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    args.assert_all_used()?;
    let mut json = Json { state, indent, between, after, ascii, sorted, out: String::new() };
    json.write(value, 1)?;
    Ok(json.out.into())
}

/// JSON as Python's `json` writes it.
struct Json<'a> {
    state: &'a State<'a, 'a>,
    indent: Option<usize>,
    between: String,
    after: String,
    ascii: bool,
    sorted: bool,
    out: String,
}

impl Json<'_> {
    fn write(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let bad = |why: &str| Error::new(ErrorKind::InvalidOperation, format!("tojson: {why}"));
        if depth > LEVELS {
            return Err(bad(&format!("more than {LEVELS} levels")));
        }
        self.state.consume_fuel(1 + (depth * self.indent.unwrap_or(0) / 64) as u64)?;
        match value.kind() {
            ValueKind::None => self.out += "null",
            ValueKind::Bool => self.out += if value.is_true() { "true" } else { "false" },
            ValueKind::Number => self.out += &value.to_string(),
            ValueKind::String => self.text(value.as_str().unwrap_or_default())?,
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list(['[', ']'], items.len(), depth, |json, i| json.write(&items[i], depth + 1))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorted {
                    keys.sort();
                }
                self.list(['{', '}'], keys.len(), depth, |json, i| {
                    let key = &keys[i];
                    match key.as_str() {
                        Some(text) => json.text(text)?,
                        None => {
                            json.out.push('"');
                            json.write(key, depth + 1)?;
                            json.out.push('"');
                        }
                    }
                    json.out += &json.after.clone();
                    json.write(&value.get_item(key)?, depth + 1)
                })?;
            }
            kind => return Err(bad(&format!("{kind} is not JSON"))),
        }
        Ok(())
    }

    fn list(
        &mut self,
        [open, close]: [char; 2],
        count: usize,
        depth: usize,
        mut item: impl FnMut(&mut Self, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        for i in 0..count {
            if i > 0 {
                self.out += &self.between.clone();
            }
            self.line(depth);
            item(self, i)?;
        }
        if count > 0 {
            self.line(depth - 1);
        }
        self.out.push(close);
        Ok(())
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent.min(64) * depth));
        }
    }

    fn text(&mut self, text: &str) -> Result<(), Error> {
        self.state.consume_fuel((text.len() / 64) as u64)?;
        let quoted = serde_json::Value::from(text).to_string();
        match self.ascii {
            false => self.out += &quoted,
            true => {
                for c in quoted.chars() {
                    match c.is_ascii() && c != '\x7f' {
                        true => self.out.push(c),
                        false => {
                            for unit in c.encode_utf16(&mut [0; 2]) {
                                self.out += &format!("\\u{unit:04x}");
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl Date {
    /// A day of the calendar. Fails where there is no such day.
    pub fn new(year: u16, month: u8, day: u8) -> Result<Self> {
        let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let days = match month {
            2 => 28 + u8::from(leap),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => 0,
        };
        if !(1..=days).contains(&day) || !(1..=9999).contains(&year) {
            mistake!("{year:04}-{month:02}-{day:02} is no day");
        }
        Ok(Self { year, month, day })
    }

    /// From 0, Sunday; by Sakamoto's rule.
    fn weekday(self) -> usize {
        let shift = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4][usize::from(self.month.clamp(1, 12)) - 1];
        let year = usize::from(self.year.max(1)) - usize::from(self.month < 3);
        (year + year / 4 - year / 100 + year / 400 + shift + usize::from(self.day)) % 7
    }

    /// Python's `strftime` at midnight, in the C locale.
    fn strftime(self, format: &str) -> Result<String, Error> {
        let (month, weekday) = (MONTHS[usize::from(self.month.clamp(1, 12)) - 1], DAYS[self.weekday()]);
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let code = match chars.next() {
                Some('-') => format!("-{}", chars.next().unwrap_or(' ')),
                other => other.map(String::from).unwrap_or_default(),
            };
            out += &match code.as_str() {
                "Y" => format!("{:04}", self.year),
                "y" => format!("{:02}", self.year % 100),
                "m" => format!("{:02}", self.month),
                "-m" => self.month.to_string(),
                "d" => format!("{:02}", self.day),
                "-d" => self.day.to_string(),
                "e" => format!("{:2}", self.day),
                "B" => month.to_string(),
                "b" | "h" => month[..3].to_string(),
                "A" => weekday.to_string(),
                "a" => weekday[..3].to_string(),
                "F" => format!("{:04}-{:02}-{:02}", self.year, self.month, self.day),
                "H" | "M" | "S" => "00".to_string(),
                "I" => "12".to_string(),
                "p" => "AM".to_string(),
                "T" => "00:00:00".to_string(),
                "%" => "%".to_string(),
                _ => {
                    let why = format!("strftime_now: `%{code}` is not known here");
                    return Err(Error::new(ErrorKind::InvalidOperation, why));
                }
            };
        }
        Ok(out)
    }
}

/// What a checkpoint says of generating. `None`: it does not say, and transformers' own defaults hold (`do_sample`
/// false, `temperature`, `top_p` and `repetition_penalty` 1, `top_k` 50, `max_length` 20).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Tokens that end an answer; none: nothing ends it.
    pub eos: Vec<u32>,
    /// Begins a text.
    pub bos: Option<u32>,
    /// Fills up a batch.
    pub pad: Option<u32>,
    /// Draws tokens, instead of taking the likeliest.
    pub do_sample: Option<bool>,
    /// Divides logits, before a draw.
    pub temperature: Option<f64>,
    /// Draws from the likeliest tokens that have this share together.
    pub top_p: Option<f64>,
    /// Draws from this many; 0: from all.
    pub top_k: Option<u64>,
    /// Divides the logits of tokens that have been there.
    pub repetition_penalty: Option<f64>,
    /// Tokens of an answer, at most.
    pub max_new_tokens: Option<u64>,
    /// Tokens of prompt and answer, at most.
    pub max_length: Option<u64>,
}

impl GenerationConfig {
    /// From `generation_config.json`; where a checkpoint has none, from the same keys of `config.json`, which is what
    /// they were before there was a file for them (transformers' `GenerationConfig.from_model_config`). `label` is the
    /// checkpoint, for errors. Fails where a value is of another kind, or out of range.
    pub fn new(label: &str, generation_config: Option<&str>, config: &serde_json::Value) -> Result<Self> {
        let what = match generation_config {
            Some(_) => format!("`{label}/generation_config.json`"),
            None => format!("`{label}/config.json`"),
        };
        let mut file: serde_json::Value = match generation_config {
            Some(text) => serde_json::from_str(text).blame(&what)?,
            None => config.clone(),
        };
        // A model that also sees has a config for its text.
        if let (None, Some(text)) = (generation_config, config.get("text_config").and_then(|t| t.as_object()))
        {
            for (key, value) in text {
                if file.get(key).is_none_or(serde_json::Value::is_null) {
                    file[key] = value.clone();
                }
            }
        }
        let keys: Keys = serde_path_to_error::deserialize(&file).blame(&what)?;
        let token = |id: i64| u32::try_from(id).ok();
        let found = Self {
            eos: match keys.eos_token_id {
                Some(Ids::One(id)) => token(id).into_iter().collect(),
                Some(Ids::Several(ids)) => ids.into_iter().filter_map(token).collect(),
                None => Vec::new(),
            },
            // LLaMA's first file has -1 for none.
            bos: keys.bos_token_id.and_then(token),
            pad: keys.pad_token_id.and_then(token),
            do_sample: keys.do_sample,
            temperature: keys.temperature,
            top_p: keys.top_p,
            top_k: keys.top_k,
            repetition_penalty: keys.repetition_penalty,
            max_new_tokens: keys.max_new_tokens,
            max_length: keys.max_length,
        };
        for (key, value, fits) in [
            ("temperature", found.temperature, found.temperature.is_none_or(|t| t >= 0.0)),
            ("top_p", found.top_p, found.top_p.is_none_or(|p| (0.0..=1.0).contains(&p))),
            (
                "repetition_penalty",
                found.repetition_penalty,
                found.repetition_penalty.is_none_or(|p| p > 0.0),
            ),
        ] {
            if let (Some(value), false) = (value, fits) {
                mistake!("{what}: `{key}` is {value}");
            }
        }
        Ok(found)
    }
}

#[derive(Deserialize)]
struct Keys {
    eos_token_id: Option<Ids>,
    bos_token_id: Option<i64>,
    pad_token_id: Option<i64>,
    do_sample: Option<bool>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<u64>,
    repetition_penalty: Option<f64>,
    max_new_tokens: Option<u64>,
    max_length: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "neither a token's id nor a list of them")]
enum Ids {
    One(i64),
    Several(Vec<i64>),
}
