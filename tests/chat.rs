//! Chat templates render as transformers' `apply_chat_template` does, character by character (`tests/make_chat.py`); and
//! what a checkpoint says of generating.
use crate::common::{repo, shared};
use anyhow::Result;
use bitsweep::{
    mistake::is_mistake,
    model::chat::{ChatTemplate, Date, GenerationConfig, Message},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;

fn goldens() -> Value {
    serde_json::from_str(&fs::read_to_string(repo("tests/goldens/chat/chat.json")).unwrap()).unwrap()
}

fn date() -> Date {
    Date::new(2025, 3, 9).unwrap()
}

fn said(roles: &[(&str, &str)]) -> Vec<Message> {
    roles.iter().map(|(r, c)| Message { role: r.to_string(), content: c.to_string() }).collect()
}

/// Renders as transformers did, or fails where it failed, with the template's own words; what differs.
fn compare(what: &str, template: &ChatTemplate, goldens: &Value, cases: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for case in cases.as_array().unwrap() {
        let messages: Vec<Message> =
            serde_json::from_value(goldens["conversations"][case["conversation"].as_str().unwrap()].clone())
                .unwrap();
        let have = template.render(&messages, case["prompt"].as_bool().unwrap(), date());
        let fits = match &have {
            Ok(text) if case["sha256"].is_string() => format!("{:x}", Sha256::digest(text)) == case["sha256"],
            Ok(text) => *text == case["text"],
            Err(e) => {
                is_mistake(e) && case["error"].as_str().is_some_and(|want| format!("{e:#}").ends_with(want))
            }
        };
        if !fits {
            wrong.push(format!("{what}, {case:#}\ngives {have:#?}"));
        }
    }
    wrong
}

#[test]
fn templates_render_as_in_transformers() {
    let goldens = goldens();
    let ours = goldens["ours"].as_object().unwrap();
    let mut wrong = Vec::new();
    let mut files = 0;
    for entry in fs::read_dir(repo("tests/goldens/chat")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "jinja") {
            continue;
        }
        files += 1;
        let name = path.file_stem().unwrap().to_str().unwrap();
        let source = fs::read_to_string(&path).unwrap();
        let template = ChatTemplate::new(name, &goldens["special"], Some(&source), None).unwrap();
        wrong.extend(compare(name, &template, &goldens, &ours[name]));
    }
    assert_eq!(files, ours.len());
    assert!(wrong.is_empty(), "{} wrong:\n\n{}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn real_templates_render_as_in_transformers() {
    let goldens = goldens();
    for (name, cases) in goldens["shared"].as_object().unwrap() {
        let Some(path) = shared(&format!("tokenizers/{name}/tokenizer_config.json")) else { continue };
        let config: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let template = ChatTemplate::new(name, &config, None, None).unwrap();
        let wrong = compare(name, &template, &goldens, cases);
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    }
    if let Some(path) = shared("tokenizers/phi-2/tokenizer_config.json") {
        let config: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let error = format!("{:#}", ChatTemplate::new("phi-2", &config, None, None).err().unwrap());
        assert!(error.contains("`phi-2` has no chat template"), "{error}");
    }
}

/// The text of one message under whatever template a checkpoint's files give.
fn found(config: Value, jinja: Option<&str>, json: Option<&str>) -> Result<String> {
    ChatTemplate::new("org/model", &config, jinja, json)?.render(&said(&[("user", "x")]), false, date())
}

#[track_caller]
fn refused(result: Result<String>, parts: &[&str]) {
    let error = result.unwrap_err();
    let text = format!("{error:#}");
    assert!(is_mistake(&error), "{text}");
    for part in parts {
        assert!(text.contains(part), "lacks `{part}`: {text}");
    }
}

#[test]
fn where_a_template_is_looked_for() {
    let several = json!({ "chat_template": [
        { "name": "tool_use", "template": "tools" },
        { "name": "default", "template": "{{ eos_token }} default" },
        { "name": "rag", "template": "{{ broken" },
    ], "eos_token": { "content": "</s>", "lstrip": false } });
    let file = r#"{"chat_template": "file"}"#;
    assert_eq!(found(json!({ "chat_template": "key" }), None, None).unwrap(), "key");
    assert_eq!(found(json!({ "chat_template": "key" }), Some("jinja"), Some(file)).unwrap(), "jinja");
    assert_eq!(found(json!({ "chat_template": "key" }), None, Some(file)).unwrap(), "key");
    assert_eq!(found(json!({ "chat_template": null }), None, Some(file)).unwrap(), "file");
    assert_eq!(found(several, None, None).unwrap(), "</s> default");
    let none = ["`org/model` has no chat template", "chat_template.jinja", "base model"];
    refused(found(Value::Null, None, None), &none);
    refused(found(json!({ "bos_token": "<s>" }), None, Some("{}")), &none);
    for (config, jinja, json, parts) in [
        (json!({ "chat_template": 5 }), None, None, &["org/model/tokenizer_config.json", "neither"][..]),
        (json!({ "chat_template": [{ "name": "a" }] }), None, None, &["tokenizer_config.json", "neither"]),
        (
            json!({ "chat_template": [{ "name": "rag", "template": "" }] }),
            None,
            None,
            &["(rag)", "`default`"],
        ),
        (json!({}), None, Some("{"), &["org/model/chat_template.json", "line 1"]),
        (json!({}), Some("a\nb {{ c"), None, &["org/model/chat_template.jinja", "line 2"]),
        (json!({}), Some("{% for x in y %}"), None, &["chat_template.jinja", "line 1"]),
        (json!({}), Some("\n\n{{ x.y.z }}"), None, &["chat_template.jinja", "line 3", "undefined"]),
        (json!({}), Some("\n{{ 'a' | nofilter }}"), None, &["chat_template.jinja", "line 2", "nofilter"]),
        (json!({}), Some("{{ messages[0].content.nomethod() }}"), None, &["line 1", "nomethod"]),
        (json!({}), Some("{{ nofunction() }}"), None, &["line 1", "nofunction"]),
        (json!({}), Some("{{ 'a' + 1 }}"), None, &["line 1"]),
        (json!({}), Some("{% include 'x' %}"), None, &["line 1", "x"]),
        (
            json!({}),
            Some("\n{{ raise_exception('not so') }}"),
            None,
            &["line 2", "the template says: not so"],
        ),
        (json!({}), Some("{{ strftime_now('%Q') }}"), None, &["line 1", "`%Q`"]),
        (json!({}), Some("{{ [1] | tojson(separators=[1]) }}"), None, &["line 1"]),
    ] {
        refused(found(config, jinja, json), parts);
    }
    let template = ChatTemplate::new("m", &Value::Null, Some("x"), None).unwrap();
    refused(template.render(&[], true, date()), &["m/chat_template.jinja", "no messages"]);
}

/// A template comes from the network: it ends, in bounded memory, and takes nothing with it.
#[test]
fn templates_that_never_end() {
    for source in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set ns = namespace(x='ab') %}{% for i in range(99999) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(99999) %}{% set ns.x = ns.x.replace('a', 'aaaa') %}{% endfor %}",
        "{{ 'a' * 99999999999 }}",
        "{{ range(99999999999) | list }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
    ] {
        refused(found(Value::Null, Some(source), None), &["chat_template.jinja"]);
    }
    for print in ["{{ ns.x }}", "{{ ns.x | string }}", "{{ ns.x | tojson }}", "{{ ns.x | trim }}"] {
        for (times, part) in [(60, ""), (200, "100 levels")] {
            let source = format!(
                "{{% set ns = namespace(x=[]) %}}{{% for i in range({times}) %}}{{% set ns.x = [ns.x, ns.x] %}}\
                 {{% endfor %}}{print}"
            );
            refused(found(Value::Null, Some(&source), None), &["chat_template.jinja", part]);
        }
    }
    // As deep as fuel lets it be, and dropped again.
    let deep = "{% set ns = namespace(x=[]) %}{% for j in range(99999) %}{% for i in range(99999) %}\
                {% set ns.x = [ns.x] %}{% endfor %}{% endfor %}";
    refused(found(Value::Null, Some(deep), None), &["chat_template.jinja"]);
    // Text, or an error; never a crash.
    for (before, one, after) in [
        ("", "{{ ", ""),
        ("{{ ", "(", ""),
        ("{{ ", "[", ""),
        ("{{ ", "not ", "x }}"),
        ("{{ ", "-", "1 }}"),
        ("{{ 1", " + 1", " }}"),
        ("{{ 1", " ~ 1", " }}"),
        ("{{ x", ".x", " }}"),
        ("{{ x", "|trim", " }}"),
        ("{{ x", " if x else x", " }}"),
        ("", "{% if x %}", ""),
        ("", "{% for x in x %}", ""),
    ] {
        // As many as overflowed an ordinary stack; folding constants takes time by the square of it.
        drop(found(Value::Null, Some(&format!("{before}{}{after}", one.repeat(10_000))), None));
    }
    refused(found(Value::Null, Some(&"x".repeat(1 << 19)), None), &["chat_template.jinja", "524288 bytes"]);
}

#[test]
fn days() {
    let day = |y, m, d, format: &str| {
        let template = format!("{{{{ strftime_now('{format}') }}}}");
        let template = ChatTemplate::new("m", &Value::Null, Some(&template), None).unwrap();
        template.render(&said(&[("user", "")]), false, Date::new(y, m, d).unwrap()).unwrap()
    };
    assert_eq!(day(2024, 2, 29, "%a %d %b %Y"), "Thu 29 Feb 2024");
    assert_eq!(day(2000, 1, 1, "%A %-d.%-m.%y"), "Saturday 1.1.00");
    assert_eq!(day(1999, 12, 31, "%F %T %I %p %e%%"), "1999-12-31 00:00:00 12 AM 31%");
    for (y, m, d) in
        [(2025, 2, 29), (1900, 2, 29), (2025, 13, 1), (2025, 0, 1), (2025, 4, 31), (2025, 1, 0), (0, 1, 1)]
    {
        assert!(is_mistake(&Date::new(y, m, d).unwrap_err()));
    }
}

#[test]
fn generation_configs() {
    let config = json!({
        "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": -1, "temperature": 0.5, "model_type": "llama",
        "text_config": { "top_k": 3, "eos_token_id": 9 },
    });
    let file = r#"{"eos_token_id": [128001, 128009], "do_sample": true, "temperature": 0.6, "top_p": 0.9, "top_k": 20,
                   "repetition_penalty": 1.05, "max_new_tokens": 2048, "max_length": 4096, "pad_token_id": null,
                   "transformers_version": "4.42.3"}"#;
    let said = GenerationConfig::new("m", Some(file), &config).unwrap();
    let want = GenerationConfig {
        eos: vec![128001, 128009],
        bos: None,
        pad: None,
        do_sample: Some(true),
        temperature: Some(0.6),
        top_p: Some(0.9),
        top_k: Some(20),
        repetition_penalty: Some(1.05),
        max_new_tokens: Some(2048),
        max_length: Some(4096),
    };
    assert_eq!(said, want, "the file alone counts where there is one");
    let want = GenerationConfig {
        eos: vec![2],
        bos: Some(1),
        temperature: Some(0.5),
        top_k: Some(3),
        ..GenerationConfig::default()
    };
    assert_eq!(GenerationConfig::new("m", None, &config).unwrap(), want);
    assert_eq!(GenerationConfig::new("m", None, &json!({})).unwrap(), GenerationConfig::default());
    if let Some(path) = shared("models/stories260K/generation_config.json") {
        let said = GenerationConfig::new("m", Some(&fs::read_to_string(path).unwrap()), &json!({})).unwrap();
        assert_eq!(
            (said.eos, said.bos, said.do_sample, said.max_length),
            (vec![2], Some(1), Some(false), Some(512))
        );
    }
    for (file, parts) in [
        ("", &["m/generation_config.json", "line 1"][..]),
        ("[]", &["m/generation_config.json"]),
        ("5", &["m/generation_config.json"]),
        (r#"{"eos_token_id": "</s>"}"#, &["eos_token_id", "neither a token's id nor a list"]),
        (r#"{"eos_token_id": [1.5]}"#, &["eos_token_id"]),
        (r#"{"do_sample": 1}"#, &["do_sample"]),
        (r#"{"top_k": -1}"#, &["top_k"]),
        (r#"{"top_p": 1.5}"#, &["`top_p` is 1.5"]),
        (r#"{"temperature": -1}"#, &["`temperature` is -1"]),
        (r#"{"repetition_penalty": 0}"#, &["`repetition_penalty` is 0"]),
    ] {
        let error = GenerationConfig::new("m", Some(file), &json!({})).unwrap_err();
        let text = format!("{error:#}");
        assert!(is_mistake(&error) && parts.iter().all(|p| text.contains(p)), "{file}: {text}");
    }
    let error = GenerationConfig::new("m", None, &json!({ "top_p": "x" })).unwrap_err();
    assert!(format!("{error:#}").contains("m/config.json"), "{error:#}");
}

#[test]
fn an_opened_model_says_how_it_is_spoken_to() {
    use bitsweep::model::load;
    let desk = crate::kit::Desk::new();
    let open = || load::open(desk.path("m").to_str().unwrap(), std::path::Path::new(""), None).unwrap();
    let told = open().chat().err().unwrap().to_string();
    assert!(told.contains("chat_template.jinja") && told.contains("/m`"), "{told}");
    assert_eq!(open().generation().unwrap().top_p, None);
    desk.write("m/chat_template.jinja", "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}");
    desk.write("m/generation_config.json", r#"{"eos_token_id": [2, 5], "top_p": 0.9, "do_sample": true}"#);
    let model = open();
    let text = model.chat().unwrap().render(&said(&[("user", "Hi")]), false, date()).unwrap();
    assert_eq!(text, "user: Hi\n");
    let generation = model.generation().unwrap();
    assert_eq!((generation.eos, generation.top_p, generation.do_sample), (vec![2, 5], Some(0.9), Some(true)));
    desk.write("m/generation_config.json", r#"{"top_p": 3}"#);
    let told = open().generation().err().unwrap().to_string();
    assert!(told.contains("generation_config.json") && told.contains("top_p"), "{told}");
}
