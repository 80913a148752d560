//! A judge behind an OpenAI-compatible address: `POST {url}/chat/completions`, greedy, several at once.
use super::{Case, Judgement, prompts};
use crate::mistake;
use anyhow::Result;
use serde_json::{Value, json};
use std::{
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

/// Whom to ask.
pub struct Endpoint {
    /// Up to and without `/chat/completions`.
    pub url: String,
    /// As the endpoint calls the judge.
    pub model: String,
    /// What opens it. Never shown.
    pub key: Option<String>,
    /// Questions under way, at most.
    pub at_once: usize,
    /// Seconds before what went wrong is tried once more, doubled each time.
    pub pause: Duration,
}

/// Tries of one question: what is busy now may not be in a minute.
const TRIES: u32 = 5;
/// Tokens of a judgement.
const LIMIT: usize = 2048;
/// Bytes of an answer, at most.
const LARGEST: u64 = 16 << 20;

impl Endpoint {
    /// Asks all, and hands over each judgement as it comes. The first failure ends it; what came before is handed over.
    pub fn ask(
        &self,
        cases: &[Case],
        hash: &str,
        keep: &mut dyn FnMut(Judgement) -> Result<()>,
    ) -> Result<()> {
        let agent = ureq::Agent::new_with_config(
            ureq::Agent::config_builder()
                .timeout_global(Some(Duration::from_secs(600)))
                .http_status_as_error(false)
                .build(),
        );
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let (send, receive) = mpsc::channel();
            for _ in 0..self.at_once.clamp(1, cases.len().max(1)) {
                let (send, agent, next, stop) = (send.clone(), agent.clone(), &next, &stop);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed)
                        && let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        let one = self.one(&agent, case, stop).map(|text| (case, text));
                        stop.fetch_or(one.is_err(), Ordering::Relaxed);
                        if send.send(one).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(send);
            let mut failed = None;
            for one in receive {
                let kept = one.and_then(|(case, text)| {
                    keep(Judgement {
                        cell: case.cell.clone(),
                        item: case.item.clone(),
                        turn: case.turn,
                        judge: self.model.clone(),
                        prompts: hash.into(),
                        score: prompts::score(&text),
                        text,
                    })
                });
                if let Err(e) = kept {
                    stop.store(true, Ordering::Relaxed);
                    failed.get_or_insert(e);
                }
            }
            failed.map_or(Ok(()), Err)
        })
    }

    /// One question: again after a pause where the endpoint is busy, broken or away.
    fn one(&self, agent: &ureq::Agent, case: &Case, stop: &AtomicBool) -> Result<String> {
        let body = json!({
            "model": self.model, "temperature": 0, "max_tokens": LIMIT,
            "messages": [{"role": "system", "content": case.system}, {"role": "user", "content": case.prompt}],
        });
        let url = format!("{}/chat/completions", self.url.trim_end_matches('/'));
        if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
            mistake!("judge `{}`: an address begins with http:// or https://", self.url);
        }
        let mut pause = self.pause;
        let mut tries = 0;
        loop {
            tries += 1;
            let why = match self.once(agent, &url, &body.to_string()) {
                Ok((200, text)) => match content(&text) {
                    Some(said) => return Ok(said),
                    None => mistake!(
                        "judge `{url}` answers without `choices[0].message.content`: {}",
                        short(&text)
                    ),
                },
                Ok((status, text)) => {
                    let why = format!("status {status}: {}", short(&text));
                    // Refused for good: nothing will be different in a minute.
                    if status != 429 && status < 500 {
                        mistake!("judge `{url}`: {why}");
                    }
                    why
                }
                Err(e) => format!("{e}"),
            };
            if tries == TRIES || stop.load(Ordering::Relaxed) {
                mistake!("judge `{url}`: {why}; tried {tries} times. What was judged before is kept");
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
    }

    fn once(&self, agent: &ureq::Agent, url: &str, body: &str) -> Result<(u16, String), ureq::Error> {
        let mut request = agent.post(url).header("Content-Type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("Authorization", &format!("Bearer {key}"));
        }
        let mut response = request.send(body)?;
        let text = response.body_mut().with_config().limit(LARGEST).read_to_string()?;
        Ok((response.status().as_u16(), text))
    }
}

fn content(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    Some(value["choices"][0]["message"]["content"].as_str()?.to_string())
}

fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(300).collect()
}
