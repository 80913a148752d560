//! tokenizer_config.json, special_tokens_map.json and added_tokens.json as one, and a class's defaults.
use super::{Files, SETTINGS};
use crate::{mistake, mistake::Blame};
use anyhow::{Context, Result};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashSet};
use tokenizers::{AddedToken, Tokenizer};

/// What a `tokenizer_class` stands for, as far as ids go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    Llama,
    Gemma,
    ChatGlm,
    Gpt2,
    Qwen2,
    /// None is named.
    Unsaid,
    /// One that has no rules of its own here.
    Other,
}

impl Class {
    fn of(name: &str) -> Self {
        match name.strip_suffix("Fast").unwrap_or(name) {
            "" => Self::Unsaid,
            // The second is how the first conversions of LLaMA spell it.
            "LlamaTokenizer" | "LLaMATokenizer" | "CodeLlamaTokenizer" => Self::Llama,
            "GemmaTokenizer" => Self::Gemma,
            "ChatGLMTokenizer" => Self::ChatGlm,
            "GPT2Tokenizer" | "CodeGenTokenizer" => Self::Gpt2,
            "Qwen2Tokenizer" => Self::Qwen2,
            _ => Self::Other,
        }
    }

    /// Special tokens that the class has where the settings name none.
    fn defaults(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Llama => &[("bos", "<s>"), ("eos", "</s>"), ("unk", "<unk>")],
            Self::Gemma => &[("bos", "<bos>"), ("eos", "<eos>"), ("unk", "<unk>"), ("pad", "<pad>")],
            Self::Gpt2 => &[("bos", "<|endoftext|>"), ("eos", "<|endoftext|>"), ("unk", "<|endoftext|>")],
            Self::Qwen2 => &[("eos", "<|endoftext|>"), ("unk", "<|endoftext|>"), ("pad", "<|endoftext|>")],
            Self::ChatGlm | Self::Unsaid | Self::Other => &[],
        }
    }
}

/// The settings' files as one.
pub(super) struct Settings {
    pub class: Class,
    pub class_name: String,
    pub config: Map<String, Value>,
    /// Tokens with ids of their own, by id: `added_tokens_decoder`, or added_tokens.json.
    pub numbered: BTreeMap<u32, AddedToken>,
}

impl Settings {
    pub fn read(label: &str, files: &Files) -> Result<Self> {
        let object = |name: &str| -> Result<Map<String, Value>> {
            match files.get(name) {
                Some(bytes) => serde_json::from_slice(bytes).blame(format!("`{label}/{name}`")),
                None => Ok(Map::new()),
            }
        };
        let [config, map, added] = [SETTINGS[0], SETTINGS[1], SETTINGS[2]].map(object);
        let (mut config, map, added) = (config?, map?, added?);
        let mut numbered = BTreeMap::new();
        if let Some(decoder) = config.get("added_tokens_decoder") {
            let what = || format!("`{label}/tokenizer_config.json`: added_tokens_decoder");
            let decoder: BTreeMap<String, Value> = serde_json::from_value(decoder.clone()).blame(what())?;
            for (id, token) in decoder {
                let token = added_token(&token).with_context(|| format!("id {id}")).blame(what())?;
                numbered.insert(id.parse().with_context(|| format!("id `{id}`")).blame(what())?, token);
            }
        } else {
            // The older layout. A map of special tokens is newer than the config beside it.
            for (key, value) in map {
                config.insert(key, value);
            }
            for (content, id) in added {
                let Some(id) = id.as_u64().and_then(|id| u32::try_from(id).ok()) else {
                    mistake!("`{label}/added_tokens.json`: the id of `{content}` is {id}");
                };
                numbered.insert(id, AddedToken::from(content, false));
            }
        }
        // Remote code is named by where it is: `["tokenization_chatglm.ChatGLMTokenizer", null]`.
        let remote = &config.get("auto_map").map_or(&Value::Null, |m| &m["AutoTokenizer"]);
        let class_name = config.get("tokenizer_class").and_then(Value::as_str);
        let class_name = class_name.or_else(|| remote[0].as_str().or(remote.as_str())?.rsplit('.').next());
        let class_name = class_name.unwrap_or_default().to_string();
        let mut settings = Self { class: Class::of(&class_name), class_name, config, numbered };
        // In the older layout a numbered token is special if a role names it, and then it is not normalized.
        let special: HashSet<String> = settings.special(true).into_iter().map(|t| t.content).collect();
        if !settings.config.contains_key("added_tokens_decoder") {
            for token in settings.numbered.values_mut() {
                token.special = special.contains(&token.content);
                token.normalized = !token.special;
            }
        }
        Ok(settings)
    }

    pub fn flag(&self, key: &str) -> Option<bool> {
        self.config.get(key).and_then(Value::as_bool)
    }

    /// The text of the token that has a role; an empty one, as the first conversions of LLaMA have it, is
    /// none.
    pub fn role(&self, role: &str) -> Option<&str> {
        let default = || self.class.defaults().iter().find(|(r, _)| *r == role).map(|(_, text)| *text);
        match self.config.get(&format!("{role}_token")) {
            Some(Value::Null) => None,
            Some(token) => {
                token.as_str().or(token["content"].as_str()).filter(|t| !t.is_empty()).or(default())
            }
            None => default(),
        }
    }

    /// Tokens that have a role or are declared special. A class's own are left out with `said`.
    fn special(&self, said: bool) -> Vec<AddedToken> {
        const ROLES: [&str; 7] = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"];
        let mut all: Vec<AddedToken> = Vec::new();
        for role in ROLES {
            match self.config.get(&format!("{role}_token")) {
                Some(token) if token.is_object() => all.extend(added_token(token).ok()),
                Some(Value::Null) => {}
                value if value.is_some() || !said => {
                    all.extend(self.role(role).map(|text| AddedToken::from(text, true)))
                }
                _ => {}
            }
        }
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            let list = self.config.get(key).and_then(Value::as_array);
            all.extend(list.into_iter().flatten().filter_map(|token| match token.as_str() {
                Some(text) => Some(AddedToken::from(text, true)),
                None => added_token(token).ok(),
            }));
        }
        for token in &mut all {
            token.special = true;
        }
        all
    }

    /// All tokens that are found in raw text, each with its id where the settings give one.
    pub fn found_in_text(&self) -> Vec<(Option<u32>, AddedToken)> {
        let mut all: Vec<_> = self.numbered.iter().map(|(id, token)| (Some(*id), token.clone())).collect();
        // Its class keeps its special tokens to itself; what the config numbers is found in text all the
        // same.
        if self.class == Class::ChatGlm {
            all.iter_mut().for_each(|(_, token)| token.normalized = false);
            return all;
        }
        for token in self.special(false) {
            if !all.iter().any(|(_, other)| other.content == token.content) {
                all.push((None, token));
            }
        }
        all
    }

    /// BOS and EOS around every text, where the settings or the class ask for them.
    pub fn around(&self, tokenizer: &mut Tokenizer, bos: bool, eos: bool) -> Result<()> {
        let token = |on: bool, role: &str| -> Result<Vec<&str>> {
            let text = self.role(role);
            if on && text.is_none() {
                mistake!("tokenizer_config.json: add_{role}_token is set, but there is no {role}_token");
            }
            Ok(text.filter(|_| on).into_iter().collect())
        };
        super::around(tokenizer, &token(bos, "bos")?, &token(eos, "eos")?)
    }
}

/// `{"content": ..., "lstrip": ..., ...}`, with the library's defaults for what is left out.
fn added_token(value: &Value) -> Result<AddedToken> {
    let Some(content) = value["content"].as_str() else {
        anyhow::bail!("a token without its `content`: {value}")
    };
    let flag = |key: &str| value[key].as_bool();
    let special = flag("special").unwrap_or(false);
    Ok(AddedToken::from(content, special)
        .single_word(flag("single_word").unwrap_or(false))
        .lstrip(flag("lstrip").unwrap_or(false))
        .rstrip(flag("rstrip").unwrap_or(false))
        .normalized(flag("normalized").unwrap_or(!special)))
}
