//! From items to the strings that a model is asked, character by character as lm-evaluation-harness builds them.
//!
//! Context: description, then for each shot its prompt, delimiter, answer and what stands between shots, then the
//! item's own prompt. Continuation: delimiter and ending; a cloze's ending stands as it is.
use super::{
    ask::{Ask, Choice, Cloze, Endings},
    clean::Cleaner,
    data::{Items, Part},
    dialogue::{Dialogue, Temperature},
    fewshot::Draws,
    python,
    task::Task,
    template::Template,
};
use crate::mistake;
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;

/// One question, rendered: several endings of a prompt, or one ending of several prompts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What stands before the endings: one text, or one an option.
    pub prompts: Vec<String>,
    /// Between prompt and ending.
    pub delimiter: String,
    /// One an option, or one text.
    pub endings: Vec<String>,
    /// The right options.
    pub golds: Vec<usize>,
    /// Several prompts without what stands before them: an option's length is that of its own text.
    pub bare: Vec<String>,
}

impl Question {
    /// A prompt with endings, one of them right.
    pub fn new(prompt: &str, delimiter: &str, endings: &[&str], gold: usize) -> Self {
        Self {
            prompts: vec![prompt.into()],
            delimiter: delimiter.into(),
            endings: endings.iter().map(|e| e.to_string()).collect(),
            golds: vec![gold],
            bare: Vec::new(),
        }
    }

    /// How many options there are.
    pub fn options(&self) -> usize {
        self.prompts.len().max(self.endings.len())
    }

    /// Context and continuation of every option.
    pub fn pairs(&self) -> Vec<(&str, String)> {
        (0..self.options())
            .map(|i| (one(&self.prompts, i).as_str(), format!("{}{}", self.delimiter, one(&self.endings, i))))
            .collect()
    }
}

/// One cloze item, rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blank {
    /// The context.
    pub prompt: String,
    /// The continuation, as it stands.
    pub ending: String,
}

/// What a model goes on from, rendered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// The item's place in the data, from 0: of the same data it draws the same, whoever else is asked.
    pub number: usize,
    /// The prompt, with all that stands before it.
    pub prompt: String,
    /// The same question before something was done to it.
    pub before: Option<String>,
    /// Right answers; none where nothing is compared.
    pub gold: Vec<String>,
}

/// An option's text, or the one text of all.
fn one(texts: &[String], i: usize) -> &String {
    &texts[if texts.len() == 1 { 0 } else { i }]
}

/// The items of a task as its templates see them: fields made, texts repaired.
pub fn rows(task: &Task, items: &Items, limit: Option<usize>) -> Result<Vec<Value>> {
    let rows = Rows::new(task)?;
    let one = |i: usize| match items.parts.iter().find(|p| p.rows.contains(&i)) {
        Some(part) => rows.prepare(&items.rows[i], part).with_context(|| format!("item {}", i + 1)),
        None => mistake!("there are {} items", items.rows.len()),
    };
    items.picked(limit).map(one).collect()
}

/// A text to be predicted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// As the model reads it.
    pub text: String,
    /// Before repairs: its words and bytes are what a loss is spread over.
    pub raw: String,
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self { text: text.into(), raw: text.into() }
    }
}

/// The texts of a perplexity or divergence task's items.
pub fn texts(task: &Task, items: &Items, template: &str) -> Result<Vec<Text>> {
    let (rows, template) = (Rows::new(task)?, Template::new("text", template)?);
    let mut all = Vec::new();
    for part in &items.parts {
        for i in part.rows.clone() {
            let one = || -> Result<Text> {
                let mut row = rows.derive(&items.rows[i], part)?;
                let raw = template.text(&row)?;
                rows.cleaner.apply(&mut row);
                let text = if task.clean.is_empty() { raw.clone() } else { template.text(&row)? };
                Ok(Text { text, raw })
            };
            all.push(one().with_context(|| format!("item {}", i + 1))?);
        }
    }
    Ok(all)
}

/// One text of a perplexity or divergence task's items, or of the first ones.
pub fn joined(
    task: &Task,
    items: &Items,
    template: &str,
    join: &str,
    first: Option<usize>,
) -> Result<String> {
    let texts = texts(task, items, template)?;
    let texts: Vec<String> = texts.into_iter().take(first.unwrap_or(usize::MAX)).map(|t| t.text).collect();
    Ok(texts.join(join))
}

/// A choice task's questions; `limit`: of each part.
pub fn questions(task: &Task, items: &Items, limit: Option<usize>) -> Result<Vec<Question>> {
    let mut builder = Builder::new(task, items)?;
    items.picked(limit).map(|i| builder.question(i)).collect()
}

/// A cloze task's items; `limit`: of each part.
pub fn blanks(task: &Task, items: &Items, limit: Option<usize>) -> Result<Vec<Blank>> {
    let mut builder = Builder::new(task, items)?;
    items.picked(limit).map(|i| builder.blank(i)).collect()
}

/// What a model goes on from, item by item; `limit`: of each part.
pub fn openings(task: &Task, items: &Items, limit: Option<usize>) -> Result<Vec<Opening>> {
    let mut builder = Builder::new(task, items)?;
    items.picked(limit).map(|i| builder.opening(i)).collect()
}

/// One talk, rendered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Talk {
    /// The item's place in the data, from 0: what is drawn is its own, whoever else is asked.
    pub number: usize,
    /// What the system says before all turns; empty: nothing.
    pub system: String,
    /// What the user says, turn after turn.
    pub turns: Vec<String>,
    /// Right answers, one a turn; none where nothing is compared.
    pub golds: Vec<String>,
    /// Of this item's draws.
    pub temperature: f64,
    /// What other files call the item.
    pub id: String,
    /// What kind of question it is.
    pub category: String,
    /// What a judge is told is right, one a turn, or none.
    pub references: Vec<String>,
}

/// A dialogue task's talks; `limit`: of each part.
pub fn talks(task: &Task, said: &Dialogue, items: &Items, limit: Option<usize>) -> Result<Vec<Talk>> {
    let template =
        |key: &str, source: &Option<String>| source.as_deref().map(|s| Template::new(key, s)).transpose();
    let judge = said.judge.clone().unwrap_or_default();
    let (turns, system) = (Template::new("turns", &said.turns)?, Template::new("system", &said.system)?);
    let gold = template("gold", &said.gold)?;
    let (id, category) = (template("id", &judge.id)?, template("category", &judge.category)?);
    let references = template("references", &judge.references)?;
    let heat = match &said.temperature {
        Temperature::Same(_) => None,
        Temperature::Each(t) => Some(Template::new("temperature", t)?),
    };
    let list = |key: &str, template: &Template, row: &Value| -> Result<Vec<String>> {
        let value = template.value(row)?;
        let text = |v: &Value| match v {
            Value::String(text) => Some(text.clone()),
            Value::Number(n) => Some(python::number(n)),
            _ => None,
        };
        match value.as_array().and_then(|l| l.iter().map(text).collect::<Option<Vec<_>>>()) {
            Some(texts) => Ok(texts),
            None => mistake!("`{key}` gives {value}, which is no list of texts"),
        }
    };
    let one = |row: &Value| -> Result<Talk> {
        let maybe =
            |key: &str, t: &Option<Template>| t.as_ref().map_or(Ok(Vec::new()), |t| list(key, t, row));
        let text = |t: &Option<Template>| t.as_ref().map_or(Ok(String::new()), |t| t.text(row));
        let temperature = match (&heat, &said.temperature) {
            (None, Temperature::Same(t)) => *t,
            (Some(template), _) => {
                let value = template.value(row)?;
                let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
                match number {
                    Some(t) => t,
                    None => mistake!("`temperature` gives {value}, which is no number"),
                }
            }
            _ => 0.,
        };
        Ok(Talk {
            number: 0,
            system: system.text(row)?,
            turns: list("turns", &turns, row)?,
            golds: maybe("gold", &gold)?,
            temperature,
            id: text(&id)?,
            category: text(&category)?,
            references: maybe("references", &references)?,
        })
    };
    let rows = rows(task, items, limit)?;
    let numbered = items.picked(limit).zip(&rows);
    numbered
        .map(|(number, row)| {
            let talk = one(row).with_context(|| format!("item {}", number + 1))?;
            Ok(Talk { number, ..talk })
        })
        .collect()
}

/// What becomes of a row before templates see it: its part, its derived fields, its repairs.
struct Rows {
    fields: Vec<(String, Template)>,
    cleaner: Cleaner,
}

impl Rows {
    fn new(task: &Task) -> Result<Self> {
        let fields = task.fields();
        let fields = fields.map(|(name, source)| Ok((name.to_string(), Template::new(name, source)?)));
        Ok(Self { fields: fields.collect::<Result<_>>()?, cleaner: Cleaner::new(&task.clean)? })
    }

    fn prepare(&self, row: &Value, part: &Part) -> Result<Value> {
        let mut row = self.derive(row, part)?;
        self.cleaner.apply(&mut row);
        Ok(row)
    }

    /// Without repairs.
    fn derive(&self, row: &Value, part: &Part) -> Result<Value> {
        let mut row = row.clone();
        if !part.name.is_empty() {
            row["part"] = part.name.as_str().into();
            row["title"] = part.title.as_str().into();
        }
        for (name, template) in &self.fields {
            row[name] = template.value(&row)?;
        }
        Ok(row)
    }
}

/// What an item says, before anything stands before it.
struct Said {
    prompts: Vec<String>,
    endings: Vec<String>,
    golds: Vec<usize>,
}

/// One template an option, or one expression that gives the list of them.
enum Options {
    Each(Vec<Template>),
    List(&'static str, Box<Template>),
    /// Answers: one, or a list of them; a number is one too.
    Answers(Box<Template>),
}

impl Options {
    fn new(key: &'static str, endings: &Endings) -> Result<Self> {
        Ok(match endings {
            Endings::List(list) => Self::List(key, Box::new(Template::new(key, list)?)),
            Endings::Each(each) => {
                Self::Each(each.iter().map(|e| Template::new(key, e)).collect::<Result<_>>()?)
            }
        })
    }

    fn single(key: &'static str, source: &str) -> Result<Self> {
        Ok(Self::Each(vec![Template::new(key, source)?]))
    }

    fn render(&self, row: &Value) -> Result<Vec<String>> {
        let (key, value) = match self {
            Self::Each(each) => return each.iter().map(|t| t.text(row)).collect(),
            Self::List(key, template) => (key, listed(template.value(row)?)),
            Self::Answers(template) => {
                return match template.value(row)? {
                    Value::Array(list) => list.into_iter().map(answer).collect(),
                    value => Ok(vec![answer(value)?]),
                };
            }
        };
        let text = |v: &Value| v.as_str().map(str::to_string);
        match value.as_array().map(|list| list.iter().map(text).collect::<Option<Vec<_>>>()) {
            Some(Some(texts)) => Ok(texts),
            _ => mistake!("`{key}` gives {value}, which is no list of texts"),
        }
    }
}

/// A list that is written as Python writes one, or a table's values, as a list.
fn listed(value: Value) -> Value {
    let read = value.as_str().and_then(|text| serde_json::to_value(python::literal(text).ok()?).ok());
    match read.unwrap_or(value) {
        Value::Object(table) => table.into_iter().map(|(_, value)| value).collect(),
        value => value,
    }
}

/// The right endings as `gold` says them: an index, the text of one, or a list of either.
fn right(gold: &Value, endings: &[String]) -> Result<Vec<usize>> {
    let labelled = |text: &str| match endings.iter().position(|e| e == text) {
        Some(at) => Ok(vec![at]),
        None => mistake!("`gold` is `{text}`: neither an index nor one of {} endings", endings.len()),
    };
    let index = match gold {
        Value::Number(n) => n.as_u64(),
        Value::Bool(b) => Some(u64::from(*b)),
        Value::String(text) => match (text.trim().parse().ok(), listed(gold.clone())) {
            (Some(n), _) => Some(n),
            (None, list @ Value::Array(_)) if text.starts_with('[') => return right(&list, endings),
            _ => return labelled(text),
        },
        Value::Array(list) if !list.is_empty() && list.iter().all(|g| !g.is_array()) => {
            return Ok(list.iter().map(|g| right(g, endings)).collect::<Result<Vec<_>>>()?.concat());
        }
        // As `told` gives it: digits that are no index.
        Value::Object(table) => match table.get("label").and_then(Value::as_str) {
            Some(text) => return labelled(text),
            None => None,
        },
        _ => None,
    };
    match index {
        Some(n) => Ok(vec![n as usize]),
        None => mistake!("`gold` gives {gold}, which is neither an index nor an ending"),
    }
}

fn answer(value: Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(n) => Ok(python::number(&n)),
        other => mistake!("`gold` gives {other}, which is no text"),
    }
}

enum Right {
    Index(Template),
    Labels(Template),
    Only,
}

/// How an example is written; what is not said is as the question's own.
struct Shots<'a> {
    prompt: Option<Template>,
    answer: Option<Template>,
    delimiter: &'a str,
    between: &'a str,
}

/// Builds requests of single items, in whatever order they are asked for.
pub struct Builder<'a> {
    items: &'a Items,
    rows: Rows,
    description: Template,
    prompts: Options,
    endings: Options,
    right: Right,
    delimiter: &'a str,
    shots: Shots<'a>,
    draws: Vec<Draws<'a>>,
    /// Shots as text, by index into the pool.
    turns: BTreeMap<usize, String>,
}

impl<'a> Builder<'a> {
    /// Of a choice, a cloze or a generate task.
    pub fn new(task: &'a Task, items: &'a Items) -> Result<Self> {
        let (prompts, endings, right, delimiter, description) = match &task.ask {
            Ask::Choice(c) => {
                let (prompts, endings) = options(c)?;
                let right = match (&c.gold, &c.labels) {
                    (Some(gold), _) => Right::Index(Template::new("gold", gold)?),
                    (None, Some(labels)) => Right::Labels(Template::new("labels", labels)?),
                    (None, None) => mistake!("`gold` or `labels` says which ending is right"),
                };
                (prompts, endings, right, &c.delimiter, &c.description)
            }
            Ask::Cloze(Cloze { prompt, ending, delimiter, description, .. }) => {
                let prompts = Options::single("prompt", prompt)?;
                (prompts, Options::single("ending", ending)?, Right::Only, delimiter, description)
            }
            Ask::Generate(g) => {
                let mut prompts = vec![Template::new("prompt", &g.prompt)?];
                if let Some(before) = &g.before {
                    prompts.push(Template::new("before", before)?);
                }
                let prompts = Options::Each(prompts);
                let endings = match &g.gold {
                    Some(gold) => Options::Answers(Box::new(Template::new("gold", gold)?)),
                    None => Options::Each(Vec::new()),
                };
                (prompts, endings, Right::Only, &g.delimiter, &g.description)
            }
            other => mistake!("a {} task asks no questions", other.kind()),
        };
        let fewshot = task.fewshot.as_ref().filter(|f| f.n > 0);
        let own = |key, source: Option<&String>| source.map(|s| Template::new(key, s)).transpose();
        let shots = Shots {
            prompt: own("fewshot.prompt", fewshot.and_then(|f| f.prompt.as_ref()))?,
            answer: own("fewshot.answer", fewshot.and_then(|f| f.answer.as_ref()))?,
            delimiter: fewshot.and_then(|f| f.delimiter.as_ref()).unwrap_or(delimiter),
            between: fewshot.map_or("", |f| &f.between),
        };
        let draws = fewshot.map(|f| {
            let pool = |part: &Part| match f.data {
                Some(_) => &items.pool[part.pool.clone()],
                None => &items.rows[part.rows.clone()],
            };
            items.parts.iter().map(|p| Draws::new(f, pool(p), &items.rows[p.rows.clone()])).collect()
        });
        Ok(Self {
            items,
            rows: Rows::new(task)?,
            description: Template::new("description", description)?,
            prompts,
            endings,
            right,
            delimiter,
            shots,
            draws: draws.unwrap_or_default(),
            turns: BTreeMap::new(),
        })
    }

    /// A choice task's question, by the item's index.
    pub fn question(&mut self, item: usize) -> Result<Question> {
        let (before, said) = self.item(item)?;
        let prompts = said.prompts.iter().map(|p| format!("{before}{p}")).collect();
        let (endings, golds, bare) = (said.endings, said.golds, said.prompts);
        Ok(Question { prompts, delimiter: self.delimiter.into(), endings, golds, bare })
    }

    /// A cloze task's item, by its index.
    pub fn blank(&mut self, item: usize) -> Result<Blank> {
        let (before, said) = self.item(item)?;
        Ok(Blank { prompt: format!("{before}{}", said.prompts[0]), ending: said.endings[0].clone() })
    }

    /// What a generate task's model goes on from, by the item's index.
    pub fn opening(&mut self, item: usize) -> Result<Opening> {
        let (shots, said) = self.item(item)?;
        let mut prompts = said.prompts.into_iter().map(|p| format!("{shots}{p}"));
        let prompt = prompts.next().unwrap_or_default();
        Ok(Opening { number: item, prompt, before: prompts.next(), gold: said.endings })
    }

    /// What stands before an item's prompt, and what it says.
    fn item(&mut self, item: usize) -> Result<(String, Said)> {
        self.whole(item).with_context(|| format!("item {}", item + 1))
    }

    fn whole(&mut self, item: usize) -> Result<(String, Said)> {
        let Some(at) = self.items.parts.iter().position(|p| p.rows.contains(&item)) else {
            mistake!("there are {} items", self.items.rows.len())
        };
        let part = &self.items.parts[at];
        let row = self.rows.prepare(&self.items.rows[item], part)?;
        let mut before = self.description.text(&row)?;
        let shots = match self.draws.get_mut(at) {
            Some(draws) => draws.of(item - part.rows.start)?.to_vec(),
            None => Vec::new(),
        };
        for shot in shots {
            let own = self.items.pool.is_empty();
            let (start, pool) =
                if own { (part.rows.start, &self.items.rows) } else { (part.pool.start, &self.items.pool) };
            let shot = start + shot;
            let turn = match self.turns.get(&shot) {
                Some(turn) => turn.clone(),
                None => self.turn(&pool[shot], part).with_context(|| format!("example {}", shot + 1))?,
            };
            before.push_str(&turn);
            self.turns.insert(shot, turn);
        }
        Ok((before, self.say(&row)?))
    }

    /// An example with its answer.
    fn turn(&self, row: &Value, part: &Part) -> Result<String> {
        let row = self.rows.prepare(row, part)?;
        let written = |own: &Option<Template>, usual: &Options| match own {
            Some(own) => Ok(vec![own.text(&row)?]),
            None => usual.render(&row),
        };
        let prompts = written(&self.shots.prompt, &self.prompts)?;
        let answers = written(&self.shots.answer, &self.endings)?;
        let options = prompts.len().max(answers.len());
        // An example that says its own answer need not say which of several is right.
        let gold = if options == 1 { 0 } else { self.golds(&row, &answers, options)?[0] };
        if prompts.is_empty() || answers.is_empty() || options <= gold {
            mistake!("{} endings, and gold is number {gold}", answers.len());
        }
        let (prompt, answer) = (one(&prompts, gold), one(&answers, gold));
        // The harness takes an empty answer for none, but where it is one of a list.
        if answer.is_empty() && answers.len() == 1 {
            return Ok(prompt.clone());
        }
        Ok(format!("{prompt}{}{answer}{}", self.shots.delimiter, self.shots.between))
    }

    fn say(&self, row: &Value) -> Result<Said> {
        let (prompts, endings) = (self.prompts.render(row)?, self.endings.render(row)?);
        let golds = self.golds(row, &endings, endings.len().max(prompts.len()))?;
        Ok(Said { prompts, endings, golds })
    }

    /// The right ones of so many options.
    fn golds(&self, row: &Value, endings: &[String], options: usize) -> Result<Vec<usize>> {
        Ok(match &self.right {
            Right::Only => vec![0],
            Right::Index(gold) => right(&gold.value(row)?, endings)?,
            Right::Labels(labels) => marked(&labels.value(row)?, options)?,
        })
    }
}

/// The keys that a choice has its options from.
fn options(c: &Choice) -> Result<(Options, Options)> {
    match (&c.prompt, &c.endings, &c.prompts, &c.ending) {
        (Some(prompt), Some(endings), None, None) => {
            Ok((Options::single("prompt", prompt)?, Options::new("endings", endings)?))
        }
        (None, None, Some(prompts), Some(ending)) => {
            Ok((Options::new("prompts", prompts)?, Options::single("ending", ending)?))
        }
        _ => mistake!("a choice has `prompt` and `endings`, or `prompts` and `ending`"),
    }
}

/// The indices that are marked with 1, or true.
fn marked(labels: &Value, options: usize) -> Result<Vec<usize>> {
    let is = |v: &Value| v.as_u64().or(v.as_bool().map(u64::from)).filter(|&n| n <= 1);
    let marks = labels.as_array().map(|l| l.iter().map(is).collect::<Option<Vec<_>>>());
    let Some(Some(marks)) = marks.filter(|m| m.as_ref().is_some_and(|m| m.len() == options)) else {
        mistake!(
            "`labels` gives {labels}, which is no list of a 1 (right) or 0 for each of {options} endings"
        )
    };
    let right: Vec<usize> = (0..options).filter(|&i| marks[i] == 1).collect();
    if right.is_empty() {
        mistake!("`labels` marks no ending as right");
    }
    Ok(right)
}
