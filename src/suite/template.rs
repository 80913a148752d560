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
                python::bounded(&value).blame(format!("template `{}`", self.source))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_and_line_ends_are_pythons() {
        let item =
            json!({ "x": [1e-5, 1e20, 1.0, 0.1, 1e16, 0.0001, -1.5e-7, 123456789012345680.0, 3, 1e-100] });
        let want = "1e-05 1e+20 1.0 0.1 1e+16 0.0001 -1.5e-07 1.2345678901234568e+17 3 1e-100";
        for source in [
            "{% for x in x %}{{ x }}{% if not loop.last %} {% endif %}{% endfor %}",
            "{{ x | join(' ') }}",
            "{{ x | map('string') | join(' ') }}",
        ] {
            assert_eq!(Template::new("t", source).unwrap().text(&item).unwrap(), want, "{source}");
        }
        let text = |source: &str| Template::new("t", source).unwrap().text(&item).unwrap();
        assert_eq!(text("a\r\nb\rc\n{{ '\\r' }}"), "a\nb\nc\n\r");
        assert_eq!(text("{{ [1, 'a', None] }} {{ 'é {}'.format(x[8]) }}"), "[1, 'a', None] é 3");
    }

    #[test]
    fn what_takes_too_much_is_an_error_before_it_is_made() {
        for (source, says) in [
            ("{{ '{:>100000000000}'.format('x') }}", "16 MB"),
            ("{{ '{:.99999999999f}'.format(1.5) }}", "16 MB"),
            ("{{ ('{}' * 9999).format('x' * 9999) }}", "16 MB"),
            ("{{ ''.join(['x' * 1000000] * 1000000) }}", "16 MB"),
            ("{{ ('x' * 1000000).join('y' * 1000) }}", "16 MB"),
            ("{{ ['x' * 1000000] * 1000000 }}", "MB of text"),
            ("{{ (['x' * 1000000] * 1000000) | join }}", "16 MB"),
            ("{{ (['x' * 1000000] * 1000000) | string }}", "16 MB"),
            ("{{ 'a'.replace('', 'x' * 1000000).replace('', 'y' * 1000000) }}", "16 MB"),
            ("{{ 'x' * 1000000000000 }}", "steps"),
            ("{{ fail('because') }}", "because"),
        ] {
            let template = Template::new("t", source).unwrap();
            for said in [template.text(&json!({})).unwrap_err(), template.value(&json!({})).unwrap_err()] {
                assert!(format!("{said:#}").contains(says), "{source}: {said:#}");
            }
        }
        let fits = Template::new(
            "t",
            "{{ 'ab'.replace('b', 'c' * 9) ~ ', '.join(['d'] * 3) ~ '{:>3}'.format('e') }}",
        );
        assert_eq!(fits.unwrap().text(&json!({})).unwrap(), "acccccccccd, d, d  e");
    }
}
