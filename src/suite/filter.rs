//! What is done to generated answers before they are compared: a closed list, named as in
//! lm-evaluation-harness.
//!
//! Expressions are Python's: they look around, and what Python and Rust read differently is rewritten. One
//! that takes for ever is an error.
use crate::mistake;
use anyhow::{Context, Result};
use fancy_regex::{Captures, Regex};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A named chain of steps over an item's answers, one a sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// A metric of its own has it: `exact_match:NAME`.
    pub name: String,
    /// In order.
    #[serde(default)]
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// What an expression finds.
    Regex(Find),
    /// What the first of several expressions that finds anything finds.
    FirstRegex(Several),
    /// Every match of each expression goes.
    Remove(Vec<String>),
    /// White space at both ends goes.
    RemoveWhitespace,
    /// To lower case.
    Lowercase,
    /// To upper case.
    Uppercase,
    /// A word for a word.
    Map(Words),
    /// The first sample alone.
    TakeFirst,
    /// So many.
    TakeFirstK(usize),
    /// The answer that comes most often, the first of equals.
    MajorityVote,
}

/// See [`Step::Regex`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Find {
    /// With one group, its text; with several, the first that is not empty; with none, the whole match.
    pub pattern: String,
    /// Which match: 0 is the first, -1 the last.
    #[serde(default)]
    pub pick: i64,
    /// Where there is none.
    #[serde(default = "invalid")]
    pub fallback: String,
}

/// See [`Step::FirstRegex`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Several {
    /// Tried in order, each on the whole answer; the first match counts, its text as in [`Find::pattern`].
    pub patterns: Vec<String>,
    /// Where none finds anything.
    #[serde(default = "invalid")]
    pub fallback: String,
}

/// See [`Step::Map`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Words {
    /// Answer to answer.
    pub to: BTreeMap<String, String>,
    /// For all others.
    #[serde(default = "invalid")]
    pub fallback: String,
}

/// When an answer is the gold one. Both sides are treated alike: expressions, then case, punctuation, digits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExactMatch {
    /// Compared in lower case.
    pub ignore_case: bool,
    /// ASCII's goes.
    pub ignore_punctuation: bool,
    /// ASCII's digits go.
    pub ignore_numbers: bool,
    /// Every match of each goes, in order.
    pub regexes_to_ignore: Vec<String>,
}

fn invalid() -> String {
    "[invalid]".into()
}

/// An answer that went through a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// What is left of it.
    pub text: String,
    /// Whether every step that looks for something found it; else a fallback stood in.
    pub found: bool,
}

impl Parsed {
    /// What a step found, or its fallback.
    fn take(&mut self, found: Option<String>, fallback: &str) {
        self.found &= found.is_some();
        self.text = found.unwrap_or_else(|| fallback.into());
    }
}

/// A [`Filter`], its expressions compiled.
pub struct Chain {
    /// The filter's.
    pub name: String,
    steps: Vec<(Step, Vec<Expression>)>,
}

impl Chain {
    /// Compiles; an expression that is none is an error.
    pub fn new(filter: &Filter) -> Result<Self> {
        let expressions = |step: &Step| match step {
            Step::Regex(find) => Ok(vec![Expression::new(&find.pattern)?]),
            Step::FirstRegex(several) if several.patterns.is_empty() => {
                mistake!("`first-regex`: `patterns` is empty")
            }
            Step::FirstRegex(Several { patterns: list, .. }) | Step::Remove(list) => {
                list.iter().map(|p| Expression::new(p)).collect()
            }
            Step::TakeFirstK(0) => mistake!("`take-first-k` is at least 1"),
            _ => Ok(Vec::new()),
        };
        let steps = filter.steps.iter().map(|s| Ok((s.clone(), expressions(s)?))).collect::<Result<_>>();
        Ok(Self { name: filter.name.clone(), steps: steps.with_context(|| filter.name.clone())? })
    }

    /// Compiles a task's filters, each of which has a name of its own.
    pub fn all(filters: &[Filter]) -> Result<Vec<Self>> {
        for (i, filter) in filters.iter().enumerate() {
            if filter.name.is_empty() {
                mistake!("a filter has no name");
            }
            if filters[..i].iter().any(|f| f.name == filter.name) {
                mistake!("two filters are called `{}`", filter.name);
            }
        }
        filters.iter().map(Self::new).collect()
    }

    /// Whether the metrics that compare answers can be given.
    pub fn named(filters: &[Filter], gold: bool, metrics: &[String]) -> Result<()> {
        let names: Vec<&str> = filters.iter().map(|f| f.name.as_str()).collect();
        let compared = |m: &&String| m.starts_with("exact_match") || m.starts_with("unparsed");
        for metric in metrics.iter().filter(compared) {
            if !gold {
                mistake!("`{metric}` needs `gold`");
            }
            if let Some((_, name)) = metric.split_once(':').filter(|(_, name)| !names.contains(name)) {
                let all = if names.is_empty() { "none".into() } else { names.join(", ") };
                mistake!("`{metric}`: no filter `{name}`; there are: {all}");
            }
        }
        Ok(())
    }

    /// From an item's answers to those that count: one, where a step takes one.
    pub fn apply(&self, answers: Vec<String>) -> Result<Vec<String>> {
        Ok(self.parse(answers)?.into_iter().map(|a| a.text).collect())
    }

    /// The same, with whether anything was found in each.
    pub fn parse(&self, answers: Vec<String>) -> Result<Vec<Parsed>> {
        let mut answers: Vec<Parsed> = answers.into_iter().map(|text| Parsed { text, found: true }).collect();
        for (step, expressions) in &self.steps {
            match step {
                Step::TakeFirst => answers.truncate(1),
                Step::TakeFirstK(k) => answers.truncate(*k),
                Step::MajorityVote => {
                    let votes = |a: &Parsed| answers.iter().filter(|b| b.text == a.text).count();
                    let winner =
                        answers.iter().reduce(|best, a| if votes(a) > votes(best) { a } else { best });
                    answers = winner.cloned().into_iter().collect();
                }
                one => answers.iter_mut().try_for_each(|a| each(one, expressions, a))?,
            }
        }
        Ok(answers)
    }
}

/// What a step does to one answer.
fn each(step: &Step, expressions: &[Expression], a: &mut Parsed) -> Result<()> {
    match step {
        Step::Regex(find) => {
            let found = expressions[0].found(&a.text, find.pick)?;
            a.take(found, &find.fallback);
        }
        Step::FirstRegex(several) => {
            let mut found = None;
            for e in expressions {
                found = e.found(&a.text, 0)?;
                if found.is_some() {
                    break;
                }
            }
            a.take(found, &several.fallback);
        }
        Step::Remove(_) => {
            a.text = expressions.iter().try_fold(std::mem::take(&mut a.text), |a, e| e.remove(&a))?;
        }
        Step::RemoveWhitespace => a.text = strip(&a.text).into(),
        Step::Lowercase => a.text = a.text.to_lowercase(),
        Step::Uppercase => a.text = a.text.to_uppercase(),
        Step::Map(words) => {
            let word = words.to.get(&a.text).cloned();
            a.take(word, &words.fallback);
        }
        // These look at all answers together.
        Step::TakeFirst | Step::TakeFirstK(_) | Step::MajorityVote => {}
    }
    Ok(())
}

/// An [`ExactMatch`], its expressions compiled; and the one that finds English articles.
pub struct Same<'a>(&'a ExactMatch, Vec<Expression>, Expression);

impl<'a> Same<'a> {
    /// Compiles; an expression that is none is an error.
    pub fn new(settings: &'a ExactMatch) -> Result<Self> {
        let ignore = settings.regexes_to_ignore.iter().map(|p| Expression::new(p)).collect::<Result<_>>()?;
        Ok(Self(settings, ignore, Expression::new(r"\b(a|an|the)\b")?))
    }

    /// Whether an answer is one of the gold ones.
    pub fn any(&self, answer: &str, gold: &[String]) -> Result<bool> {
        let answer = self.bare(answer)?;
        for g in gold {
            if self.bare(g)? == answer {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether one of the gold ones stands somewhere in an answer.
    pub fn within(&self, answer: &str, gold: &[String]) -> Result<bool> {
        let answer = self.bare(answer)?;
        for g in gold {
            if answer.contains(&self.bare(g)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The same, of texts as SQuAD's script normalizes them, whatever the settings: `best_subspan_em` of Liu et al.
    /// (2023), "Lost in the Middle".
    pub fn subspan(&self, answer: &str, gold: &[String]) -> Result<bool> {
        let answer = self.squad(answer)?;
        for g in gold {
            if answer.contains(&self.squad(g)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lower case, then no punctuation, then no articles, then single spaces.
    fn squad(&self, text: &str) -> Result<String> {
        let text = text.to_lowercase().replace(|c: char| c.is_ascii_punctuation(), "");
        let text = self.2.replace(&text, " ")?;
        let words: Vec<&str> = text.split(super::python::is_space).filter(|w| !w.is_empty()).collect();
        Ok(words.join(" "))
    }

    fn bare(&self, text: &str) -> Result<String> {
        let mut text = text.to_string();
        for e in &self.1 {
            text = e.remove(&text)?;
        }
        if self.0.ignore_case {
            text = text.to_lowercase();
        }
        text.retain(|c| {
            !(self.0.ignore_punctuation && c.is_ascii_punctuation()
                || self.0.ignore_numbers && c.is_ascii_digit())
        });
        Ok(text)
    }
}

/// Python's `str.strip`.
fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '\x1c'..='\x1f'))
}

/// One of Python's.
struct Expression(Regex);

impl Expression {
    fn new(pattern: &str) -> Result<Self> {
        match Regex::new(&python(pattern)) {
            Ok(regex) => Ok(Self(regex)),
            Err(e) => mistake!("regex `{pattern}`: {e}"),
        }
    }

    /// Every match, as `re.finditer` gives them: an empty one may stand right behind another.
    fn each<'t>(&self, text: &'t str, mut visit: impl FnMut(&Captures<'t>)) -> Result<()> {
        let mut at = 0;
        while at <= text.len() {
            let found = self.0.captures_from_pos(text, at);
            let found = found.with_context(|| format!("regex `{}` on {} bytes", self.0.as_str(), text.len()));
            let Some((captures, whole)) = found?.and_then(|c| c.get(0).map(|m| (c, m))) else { break };
            visit(&captures);
            let step = text[whole.end()..].chars().next().map_or(1, char::len_utf8);
            at = if whole.end() > whole.start() { whole.end() } else { whole.end() + step };
        }
        Ok(())
    }

    /// The match number `pick`. `None`: there is no such match, or it has several groups and all are empty.
    fn found(&self, text: &str, pick: i64) -> Result<Option<String>> {
        let mut all: Vec<Option<String>> = Vec::new();
        self.each(text, |captures| {
            let group = |i| captures.get(i).map_or("", |m| m.as_str());
            let text = match captures.len() {
                1 => Some(group(0)),
                2 => Some(group(1)),
                n => (1..n).map(group).find(|g| !g.is_empty()),
            };
            all.push(text.map(|t| strip(t).to_string()));
        })?;
        let pick = if pick < 0 { all.len() as i64 + pick } else { pick };
        Ok(usize::try_from(pick).ok().and_then(|i| all.into_iter().nth(i)).flatten())
    }

    fn remove(&self, text: &str) -> Result<String> {
        self.replace(text, "")
    }

    fn replace(&self, text: &str, with: &str) -> Result<String> {
        let (mut kept, mut end) = (String::with_capacity(text.len()), 0);
        self.each(text, |captures| {
            if let Some(m) = captures.get(0) {
                kept.push_str(&text[end..m.start()]);
                kept.push_str(with);
                end = m.end();
            }
        })?;
        kept.push_str(&text[end..]);
        Ok(kept)
    }
}

/// What Python reads otherwise: `$` also stands before a last newline, `\Z` only at the very end; `[`, `&`, `~` and a
/// `-` that makes no range are themselves in a class, and `{` that begins no count; `\<` is `<`; four separators of ASCII
/// are white space.
fn python(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut class: Option<Class> = None;
    // Whether `$` stands at every line's end: in this group, and in those around it.
    let (mut multiline, mut around) = (false, Vec::new());
    let mut rest = pattern.char_indices();
    while let Some((i, c)) = rest.next() {
        let after = &pattern[i + c.len_utf8()..];
        match (c, &mut class) {
            ('\\', _) => {
                let Some((_, escaped)) = rest.next() else { return out + "\\" };
                match (escaped, &class) {
                    ('<' | '>', _) => out.push(escaped),
                    ('s', None) => out.push_str(r"[\s\x1c-\x1f]"),
                    ('s', Some(_)) => out.push_str(r"\s\x1c-\x1f"),
                    ('S', _) => out.push_str(r"[^\s\x1c-\x1f]"),
                    ('Z', None) => out.push_str(r"\z"),
                    ('b', Some(_)) => out.push_str(r"\x08"),
                    _ => out.extend(['\\', escaped]),
                }
                class.iter_mut().for_each(Class::member);
            }
            ('[', None) => {
                out.push(c);
                let not = after.starts_with('^');
                if not {
                    rest.next();
                    out.push('^');
                }
                class = Some(Class { start: i + 1 + usize::from(not), range: Range::None });
            }
            // The first of a class is itself.
            (']', Some(open)) if i > open.start => {
                class = None;
                out.push(c);
            }
            ('-', Some(open)) if open.range == Range::From && !after.starts_with(']') => {
                open.range = Range::To;
                out.push(c);
            }
            (_, Some(open)) => {
                open.member();
                if "[]&~-".contains(c) {
                    out.push('\\');
                }
                out.push(c);
            }
            ('(', None) => {
                out.push(c);
                around.push(multiline);
                match flags(after) {
                    // Of all that follows: `)` comes next.
                    Some((on, ')')) => {
                        around.pop();
                        around.push(on.unwrap_or(multiline));
                    }
                    Some((on, _)) => multiline = on.unwrap_or(multiline),
                    None => {}
                }
            }
            (')', None) => {
                out.push(c);
                multiline = around.pop().unwrap_or(multiline);
            }
            ('$', None) if !multiline => out.push_str("(?=\\n?\\z)"),
            ('{', None) if !is_count(after) => out.push_str("\\{"),
            _ => out.push(c),
        }
    }
    out
}

/// A class of characters that is not yet closed.
struct Class {
    /// Where its first character stands.
    start: usize,
    range: Range,
}

#[derive(PartialEq)]
enum Range {
    None,
    /// A character that one can begin with.
    From,
    /// Behind its `-`.
    To,
}

impl Class {
    /// One more stands in it.
    fn member(&mut self) {
        self.range = if self.range == Range::To { Range::None } else { Range::From };
    }
}

/// Behind `(`, where flags stand there: whether they say `m`, and the `)` or `:` behind them.
fn flags(after: &str) -> Option<(Option<bool>, char)> {
    let inside = after.strip_prefix('?')?;
    let end = inside.find([')', ':'])?;
    let (on, off) = inside[..end].split_once('-').unwrap_or((&inside[..end], ""));
    if end == 0 || !(on.to_string() + off).chars().all(|c| "aiLmsux".contains(c)) {
        return None;
    }
    let said = on.contains('m').then_some(true).or(off.contains('m').then_some(false));
    Some((said, inside[end..].chars().next()?))
}

/// `3}`, `3,}`, `,4}`, `3,4}`.
fn is_count(after: &str) -> bool {
    let Some((inside, _)) = after.split_once('}') else { return false };
    inside.bytes().any(|b| b.is_ascii_digit())
        && inside.bytes().all(|b| b.is_ascii_digit() || b == b',')
        && inside.bytes().filter(|&b| b == b',').count() < 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_pythons() {
        for (given, want) in [
            (r"\.$", r"\.(?=\n?\z)"),
            (r"[$0-9.,]{2,}", r"[$0-9.,]{2,}"),
            (r"(?P<number>\d)$", r"(?P<number>\d)(?=\n?\z)"),
            (r"(?m:a$)b$", r"(?m:a$)b(?=\n?\z)"),
            (r"(?m)(?-m:a$|(b))$", r"(?m)(?-m:a(?=\n?\z)|(b))$"),
            (r"[^-a&&b--~~-]", r"[^\-a\&\&b-\-\~\~\-]"),
            (r"[\w.-]\<", r"[\w.\-]<"),
            (r"[]$[]\Z", r"[\]$\[]\z"),
            (r"[^]a]", r"[^\]a]"),
            (r"\\boxed{(.*?)}", r"\\boxed\{(.*?)}"),
            (r"(?m)^x$", r"(?m)^x$"),
            (r"a{,3}\$", r"a{,3}\$"),
        ] {
            assert_eq!(python(given), want);
        }
    }
}
