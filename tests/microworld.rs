//! The built-in suite: a task of every group, and a built-in model that is above chance on each.
use crate::kit::{Desk, records};
use bitsweep::{
    model::{
        chat::{Date, Message},
        load,
    },
    suite::find::{Found, embedded, find},
};
use std::{collections::BTreeSet, path::Path};

fn tasks() -> Vec<Found> {
    find("microworld/*", Path::new("")).unwrap()
}

#[test]
fn every_group_has_a_task() {
    let tasks = tasks();
    let groups: BTreeSet<&str> = tasks.iter().map(|t| t.task.ability.as_str()).collect();
    assert_eq!(groups, BTreeSet::from(["language", "basic", "emergent", "trust", "dialogue", "long"]));
}

/// At full precision, by three standard errors of a guess; an answer that is written is right by chance one time in ten at
/// most.
#[test]
fn the_builtin_model_is_above_chance_on_every_task() {
    let desk = Desk::empty();
    desk.study(&["builtin:llama"], &[], &["microworld/*"]);
    let (study, out) = (desk.arg("study.toml"), desk.arg("out"));
    desk.run(&["run", &study, "--out", &out, "--limit", "60"]).expect(0);
    let records = records(&desk.path("out"));
    let mut judged = 0;
    for found in tasks() {
        let (name, metric) = (found.file_name(), &found.task.metrics[0]);
        let record = records.iter().find(|r| r["task"]["name"] == name).unwrap();
        let value = |metric: &str| record["metrics"][metric]["value"].as_f64().unwrap();
        let chance = match metric.as_str() {
            "acc" => found.task.chance.unwrap(),
            "exact_match" => 0.1,
            "perplexity" => {
                assert!(value(metric) < 2.8, "{name}: {}", value(metric));
                continue;
            }
            _ => continue,
        };
        let n = record["metrics"][metric.as_str()]["n"].as_f64().unwrap();
        let least = chance + 3. * (chance * (1. - chance) / n).sqrt();
        assert!(value(metric) > least, "{name}: {metric} {} where a guess gives {chance}", value(metric));
        judged += 1;
    }
    assert_eq!(judged + 2, tasks().len());
}

/// What the world calls a conversation is what the model's chat template writes.
#[test]
fn the_chat_template_writes_conversations_as_the_model_was_taught() {
    let template = load::open("builtin:llama", Path::new(""), None).unwrap().chat().unwrap();
    let rows = std::str::from_utf8(embedded("microworld/turns.jsonl").unwrap()).unwrap();
    assert!(rows.lines().count() >= 100);
    for row in rows.lines() {
        let row: serde_json::Value = serde_json::from_str(row).unwrap();
        let say = |role: &str, text: &serde_json::Value| Message {
            role: role.into(),
            content: text.as_str().unwrap().into(),
        };
        let [first, reply, second] = [&row["turns"][0], &row["reply"], &row["turns"][1]];
        let messages = [say("user", first), say("assistant", reply), say("user", second)];
        let text = template.render(&messages, true, Date::new(2025, 3, 9).unwrap()).unwrap();
        assert_eq!(text, format!("<s>{}", row["prompt"].as_str().unwrap()));
    }
}
