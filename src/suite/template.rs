//! Jinja templates over an item, as lm-evaluation-harness renders them: strict about names, trailing newline kept.
use super::python;
use crate::{mistake, mistake::Blame};
use anyhow::{Context, Result};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, syntax::SyntaxConfig, value::Serde};
use serde_json::Value;

/// Bytes of a template.
const LONGEST: usize = 1 << 15;
/// Steps of a template; a step pays for 64 bytes.
const FUEL: u64 = 10_000_000;

/// A template, parsed once.
pub struct Template {
    environment: Environment<'static>,
    /// What stands between `{{` and `}}`, where that is all there is: its value keeps its type.
    expression: Option<String>,
    source: String,
}

impl Template {
    /// Parses; `what` names the key for errors.
    pub fn new(what: &str, source: &str) -> Result<Self> {
        Self::with(what, source, |_| ())
    }

    /// The same, with functions and globals of one's own.
    pub fn with(what: &str, source: &str, more: impl FnOnce(&mut Environment<'static>)) -> Result<Self> {
        // The parser recurses, without a limit of its own.
        if source.len() > LONGEST {
            mistake!("`{what}`: a template of {} bytes; it is at most {LONGEST}", source.len());
        }
        // As Jinja reads it; `"\r"` inside of a text of its own stays.
        let source = source.replace("\r\n", "\n").replace('\r', "\n");
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_syntax(SyntaxConfig::builder().keep_trailing_newline(true).build()?);
        // A template that never ends is an error, not a run that never ends.
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        python::install(&mut environment);
        more(&mut environment);
        environment.add_template_owned("it", source.clone()).blame(format!("`{what}`"))?;
        let inside = source.strip_prefix("{{").and_then(|s| s.strip_suffix("}}"));
        let expression = inside.filter(|s| !s.contains("{{") && !s.contains("}}")).map(str::to_string);
        Ok(Self { environment, expression, source })
    }

    /// As text.
    pub fn text(&self, item: &Value) -> Result<String> {
        let rendered = self.environment.get_template("it").and_then(|t| t.render(Serde(item)));
        rendered.map_err(spent).blame(format!("template `{}`", self.source))
    }

    /// As a value: a list stays a list where the template is one expression.
    pub fn value(&self, item: &Value) -> Result<Value> {
        match &self.expression {
            Some(source) => {
                let value = self.environment.compile_expression(source).and_then(|e| e.eval(Serde(item)));
                let value = value.map_err(spent).blame(format!("template `{}`", self.source))?;
                // As a text it would be an error, and a name alone is no use that the engine objects to.
                if value.is_undefined() {
                    mistake!("template `{}`: undefined value: the item has no such field", self.source);
                }
                Ok(serde_json::to_value(value)?)
            }
            None => Ok(Value::String(self.text(item)?)),
        }
    }

    /// The rows for which it is true, as Python has truth.
    pub fn kept(&self, rows: Vec<Value>) -> Result<Vec<Value>> {
        let mut kept = Vec::new();
        for (i, row) in rows.into_iter().enumerate() {
            let holds = match self.value(&row).with_context(|| format!("item {}", i + 1))? {
                Value::Null => false,
                Value::Bool(b) => b,
                Value::Number(n) => n.as_f64() != Some(0.),
                Value::String(s) => !s.is_empty(),
                Value::Array(list) => !list.is_empty(),
                Value::Object(table) => !table.is_empty(),
            };
            if holds {
                kept.push(row);
            }
        }
        Ok(kept)
    }

    /// As an index.
    pub fn index(&self, item: &Value) -> Result<usize> {
        let value = self.value(item)?;
        let number = match &value {
            Value::Number(n) => n.as_u64(),
            Value::String(s) => s.trim().parse().ok(),
            Value::Bool(b) => Some(u64::from(*b)),
            _ => None,
        };
        match number {
            Some(n) => Ok(n as usize),
            None => mistake!("template `{}` gives {value}, which is no index", self.source),
        }
    }
}

/// What it means that fuel is gone.
fn spent(e: Error) -> Error {
    match e.kind() {
        ErrorKind::OutOfFuel => Error::new(
            ErrorKind::OutOfFuel,
            format!("it takes more than {FUEL} steps, or makes more than {} MB of text", (FUEL * 64) >> 20),
        ),
        _ => e,
    }
}
