//! The answer as people read it: a sentence for one model, a table for several.
use super::{cell, escape, table};
use crate::report::{
    answer::{Answer, Answers, KEEP, KINDS, Kind, Left, abilities, answers, counts},
    frame::{Frame, one_line},
};

/// The section; empty where nothing was quantized.
pub fn section(frame: &Frame) -> String {
    let all: Vec<Answers> = frame.groups.iter().map(|g| answers(frame, g)).collect();
    let abilities: Vec<String> =
        abilities(frame).into_iter().filter(|a| all.iter().any(|m| m.keys().any(|(_, b)| a == b))).collect();
    if abilities.is_empty() {
        return String::new();
    }
    let mut out = format!(
        "<section aria-labelledby=\"answer\">\n<h2 id=\"answer\">The answer</h2>\n<p>The fewest bits that keep {:.0} % of full \
         precision, by what is quantized and by ability: of the recipes that were tried, on average over an ability's tasks. \
         <span class=\"near\">≈</span> marks where these items cannot tell on which side of the line it lies.</p>\n",
        100. * KEEP
    );
    if let [answers] = &all[..] {
        out.push_str(&sentence(answers, &abilities));
    }
    if frame.groups.len() > 2 {
        out.push_str(&of_models(frame, &abilities));
    }
    let several = frame.groups.len() > 1;
    let mut head = vec!["quantized".to_owned()];
    if several {
        head.insert(0, "model".to_owned());
    }
    head.extend(abilities.iter().map(|a| escape(&one_line(a))));
    let mut rows = Vec::new();
    for (group, answers) in frame.groups.iter().zip(&all) {
        for (kind, name) in KINDS {
            if !answers.keys().any(|(k, _)| *k == kind) {
                continue;
            }
            let mut row = Vec::new();
            if several {
                row.push(format!("<th scope=\"row\">{}</th>", escape(&one_line(&group.title))));
            }
            row.push(format!("<th scope=\"row\">{name}</th>"));
            row.extend(abilities.iter().map(|a| one(answers.get(&(kind, a.clone())))));
            rows.push(row.concat());
        }
    }
    let table = table("answers", &head, &rows);
    // Of many models, the counts above are the answer, and this is where to look one up.
    match frame.groups.len() > MANY {
        true => format!("{out}<details>\n<summary>Model by model</summary>\n{table}</details>\n</section>\n"),
        false => format!("{out}{table}</section>\n"),
    }
}

/// Models whose own answers are shown at once, at most.
const MANY: usize = 12;

fn percent(left: &Left) -> String {
    let error = left.stderr.map_or_else(String::new, |se| format!(" ± {:.1}", 100. * se));
    format!("{:.1}{error} %", 100. * left.kept)
}

fn one(answer: Option<&Answer>) -> String {
    let Some(answer) = answer else { return cell("none", "", "–") };
    let (left, class) = match &answer.enough {
        Some(left) => (left, ""),
        None => (&answer.best, "lost"),
    };
    let near =
        if left.near() { " <span class=\"near\" title=\"these items cannot tell\">≈</span>" } else { "" };
    let tasks = if left.tasks == 1 { "1 task".to_owned() } else { format!("{} tasks", left.tasks) };
    let name = escape(&one_line(&left.recipe));
    let head =
        if class.is_empty() { format!("<strong>{name}</strong>") } else { format!("none; best {name}") };
    cell(class, &left.kept.to_string(), &format!("{head}{near}<span>{}, {tasks}</span>", percent(left)))
}

/// The recipe that abilities stop at, and whether their items cannot tell.
type Stop<'a> = (&'a str, bool);

/// What one model's table says, in words.
fn sentence(answers: &Answers, abilities: &[String]) -> String {
    let mut parts = Vec::new();
    for (kind, _) in KINDS {
        let mine: Vec<(&String, &Answer)> =
            abilities.iter().filter_map(|a| Some((a, answers.get(&(kind, a.clone()))?))).collect();
        if mine.is_empty() {
            continue;
        }
        // Abilities that stop at the same recipe are said together.
        let mut by_recipe: Vec<(Option<Stop>, Vec<&str>)> = Vec::new();
        for (ability, answer) in mine {
            let recipe = answer.enough.as_ref().map(|l| (l.recipe.as_str(), l.near()));
            match by_recipe.iter_mut().find(|(r, _)| *r == recipe) {
                Some((_, list)) => list.push(ability),
                None => by_recipe.push((recipe, vec![ability])),
            }
        }
        let what = match kind {
            Kind::Weights => "Weights alone",
            Kind::Joint => "Weights with activations",
            Kind::Cache => "The KV cache alone",
        };
        let one = |(recipe, list): &(Option<Stop>, Vec<&str>)| {
            let list = escape(&list.iter().map(|a| one_line(a)).collect::<Vec<_>>().join(", "));
            match recipe {
                Some((recipe, near)) => {
                    let near = if *near { " <span class=\"near\">≈</span>" } else { "" };
                    format!("<strong>{}</strong>{near} for {list}", escape(&one_line(recipe)))
                }
                None => format!("nothing that was tried for {list}"),
            }
        };
        let said: Vec<String> = by_recipe.iter().map(one).collect();
        parts.push(format!("<li>{what}: {}.</li>", said.join("; ")));
    }
    format!("<ul class=\"said\">\n{}\n</ul>\n", parts.join("\n"))
}

/// Of many models, how many keep enough under each recipe.
fn of_models(frame: &Frame, abilities: &[String]) -> String {
    let mut head = vec!["recipe".to_owned()];
    head.extend(abilities.iter().map(|a| escape(&one_line(a))));
    let rows: Vec<String> = counts(frame)
        .into_iter()
        .map(|(label, of)| {
            let cells = abilities.iter().map(|a| match of.get(a) {
                None => cell("none", "", "–"),
                Some(c) => {
                    let share = c.keep as f64 / c.of as f64;
                    let class = if share >= 0.9 { "most" } else { "" };
                    let error = c.stderr().map_or_else(String::new, |se| format!(" ± {:.1}", 100. * se));
                    let text =
                        format!("{} of {}<span>mean {:.1}{error} %</span>", c.keep, c.of, 100. * c.mean);
                    cell(class, &share.to_string(), &text)
                }
            });
            format!("<th scope=\"row\">{}</th>{}", escape(&one_line(&label)), cells.collect::<String>())
        })
        .collect();
    format!(
        "<p>Of {} models, how many keep {:.0} %, and what is kept on average:</p>\n{}",
        frame.groups.len(),
        100. * KEEP,
        table("answers fixed", &head, &rows)
    )
}
