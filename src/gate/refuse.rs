//! What must not be compared: records that ask another question, and in what it is another.
use crate::results::Record;

/// In what two records' questions differ, each with both answers. Empty: they may be compared. `device` and arithmetic are not
/// among them: what those move is what a baseline is for.
pub fn differences(old: &Record, new: &Record) -> Vec<String> {
    let (a, b) = (&old.task, &new.task);
    let limit = |r: &Record| r.made_by.limit.map_or("all items".to_owned(), |n| format!("{n} items"));
    let profile = |p: &Option<String>| p.clone().unwrap_or_else(|| "none".into());
    let pairs = [
        ("task version", a.version.to_string(), b.version.to_string()),
        ("data", short(&a.data), short(&b.data)),
        ("protocol", a.protocol.clone(), b.protocol.clone()),
        ("profile", profile(&a.profile), profile(&b.profile)),
        ("items a task", limit(old), limit(new)),
        ("seed", old.made_by.seed.to_string(), new.made_by.seed.to_string()),
        ("tokenizer", short(&old.model.tokenizer), short(&new.model.tokenizer)),
        ("model's revision", short(&old.model.revision), short(&new.model.revision)),
    ];
    let known = |what: &str, a: &str, b: &str| what != "tokenizer" || !(a.is_empty() || b.is_empty());
    pairs
        .into_iter()
        .filter(|(what, a, b)| a != b && known(what, a, b))
        .map(|(what, a, b)| format!("{what}: {} -> {}", or_none(&a), or_none(&b)))
        .collect()
}

/// Differences that are worth a word where two records are compared all the same.
pub fn remarks(old: &Record, new: &Record) -> Vec<String> {
    let mut all = Vec::new();
    let (a, b) = (&old.recipe.settings, &new.recipe.settings);
    if a != b {
        all.push(format!("the recipe's settings changed: {a} -> {b}"));
    }
    let by = |r: &Record| format!("{} in {}", r.made_by.device, r.made_by.dtype);
    if by(old) != by(new) {
        all.push(format!("{} -> {}", by(old), by(new)));
    }
    all
}

/// The beginning of a hash: what tells two apart.
fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}
