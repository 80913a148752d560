//! Lists in a recipe's table are axes: `weights = { bits = [4, 3] }` is two recipes.
//!
//! A name says them by placeholder: `{weights.bits}`, or `{bits}` for the lists of that key in the table's order.
use crate::{mistake, mistake::Blame, quant::recipe::Recipe, quant::recipe::Table};
use anyhow::Result;
use std::collections::BTreeSet;
use toml::Value;

/// Every recipe that a `[[recipe]]` table stands for.
pub fn expand(label: &str, table: &toml::Table) -> Result<Vec<Recipe>> {
    let axes = axes(table);
    if let Some((path, _)) = axes.iter().find(|(_, values)| values.is_empty()) {
        mistake!("`{label}`: {} is an empty list", path.join("."));
    }
    let count = axes.iter().map(|(_, values)| values.len()).product::<usize>();
    if count > 10_000 {
        mistake!("`{label}`: a recipe with {count} points; at most 10000");
    }
    let mut recipes = Vec::new();
    let mut names = BTreeSet::new();
    for mut index in 0..count {
        let mut point = table.clone();
        let mut chosen = Vec::new();
        // The last axis turns fastest.
        for (path, values) in axes.iter().rev() {
            let value = &values[index % values.len()];
            index /= values.len();
            set(&mut point, path, value.clone());
            chosen.push((path.clone(), plain(value)));
        }
        chosen.reverse();
        if let Some(Value::String(name)) = point.get_mut("name") {
            *name = fill(label, name, &chosen)?;
        }
        let name = point.get("name").and_then(Value::as_str).unwrap_or_default().to_string();
        let table: Table = match serde_path_to_error::deserialize(Value::Table(point)) {
            Ok(table) => table,
            Err(e) => {
                let path = e.path().to_string();
                let said = e.into_inner().to_string();
                // toml says where a second time.
                let said =
                    said.lines().filter(|l| *l != format!("in `{path}`")).collect::<Vec<_>>().join("\n");
                mistake!("`{label}`: [[recipe]] `{name}`: `{path}`: {}", said.trim());
            }
        };
        let recipe = Recipe::from_table(table).blame(format!("`{label}`"))?;
        if !names.insert(recipe.name.clone()) {
            mistake!(
                "`{label}`: two recipes are called `{}`; name its lists, as in `w{{weights.bits}}`",
                recipe.name
            );
        }
        recipes.push(recipe);
    }
    Ok(recipes)
}

/// Paths of lists inside the methods' tables. `skip` and a budget's `among` are lists by nature.
fn axes(table: &toml::Table) -> Vec<(Vec<String>, Vec<Value>)> {
    let mut found = Vec::new();
    for part in ["weights", "budget", "acts", "kv", "calibrate"] {
        for (key, value) in table.get(part).and_then(Value::as_table).into_iter().flatten() {
            if let (Value::Array(values), false) = (value, key == "among") {
                found.push((vec![part.to_string(), key.clone()], values.clone()));
            }
        }
    }
    found
}

fn set(table: &mut toml::Table, path: &[String], value: Value) {
    if let [part, key] = path
        && let Some(inner) = table.get_mut(part).and_then(Value::as_table_mut)
    {
        inner.insert(key.clone(), value);
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

fn fill(label: &str, name: &str, chosen: &[(Vec<String>, String)]) -> Result<String> {
    let mut filled = String::new();
    let mut rest = name;
    let mut used = vec![false; chosen.len()];
    while let Some((before, after)) = rest.split_once('{') {
        let Some((key, after)) = after.split_once('}') else {
            mistake!("`{label}`: recipe name `{name}` has a `{{` without `}}`");
        };
        let fits = |path: &[String]| path.join(".") == key || path.last().is_some_and(|k| k == key);
        // The nth `{bits}` is the nth list of that key; after the last, the last again.
        let at = (0..chosen.len())
            .find(|&i| !used[i] && fits(&chosen[i].0))
            .or_else(|| (0..chosen.len()).rev().find(|&i| fits(&chosen[i].0)));
        let Some(at) = at else {
            mistake!(
                "`{label}`: recipe name `{name}`: no list `{key}`; there are: {}",
                chosen.iter().map(|(p, _)| p.join(".")).collect::<Vec<_>>().join(", ")
            );
        };
        used[at] = true;
        filled += before;
        filled += &chosen[at].1;
        rest = after;
    }
    Ok(filled + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        expand("t", &text.parse().unwrap()).unwrap().into_iter().map(|r| r.name).collect()
    }

    #[test]
    fn lists_are_axes() {
        assert_eq!(
            names(
                "name = 'w{bits}a{bits}kv4'\nweights = {method='rtn', bits=[4, 6]}\nacts = {bits=[4, 6]}\nkv={bits=4}"
            ),
            ["w4a4kv4", "w4a6kv4", "w6a4kv4", "w6a6kv4"]
        );
        assert_eq!(
            names("name = 'kv{kv.bits}g{group}'\nkv = {bits=[4, 2], group=[64, 32]}"),
            ["kv4g64", "kv4g32", "kv2g64", "kv2g32"]
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("name = 'x'\nkv = {bits=[4, 2]}", "two recipes are called `x`"),
            ("name = 'x{foo}'\nkv = {bits=[4, 2]}", "no list `foo`; there are: kv.bits"),
            ("name = 'x'\nkv = {bit=4}", "unknown field `bit`"),
            ("name = 'x'\nkv = {bits=17}", "17 bits"),
            ("name = 'x'\nweights = {method='gptp', bits=4}", "gptp"),
            ("name = 'x'\nkv = {bits=[]}", "empty list"),
        ] {
            let error = expand("t", &text.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
