//! From a recipe's `calibrate` to sequences of tokens: a task's text, drawn as papers draw it.
use super::engine::Words;
use crate::{
    mistake,
    mistake::Blame,
    quant::calibrate::{Calibrate, Draw},
    random::Random,
    suite::{
        Ask, Protocol,
        data::Items,
        find::{self, Found},
        requests,
    },
};
use anyhow::Result;
use std::path::Path;

/// The text that is looked at where nobody says which: for models of this project, and for others.
pub const USUAL: [&str; 2] = ["calibration/microworld", "calibration/wikitext2_train"];

/// A text to calibrate with.
pub struct Text {
    /// Whose it is.
    pub task: Found,
    /// Its documents.
    pub items: Items,
}

/// Finds a text by a task's name, or by a task's file.
pub fn find(word: &str, folder: &Path) -> Result<Found> {
    let mut found = find::find(word, folder).blame(format!("calibrate: `data = \"{word}\"`"))?;
    match found.pop() {
        Some(task) if found.is_empty() && matches!(task.task.ask, Ask::Perplexity(_)) => Ok(task),
        _ => mistake!(
            "calibrate: `data = \"{word}\"` is not one perplexity task, whose text would be looked at; there are: {}",
            USUAL.join(", ")
        ),
    }
}

/// Draws sequences of tokens.
pub fn sequences(words: Words, how: &Calibrate, text: &Text) -> Result<Vec<Vec<u32>>> {
    let Text { task, items } = text;
    let Ask::Perplexity(ask) = &task.task.ask else {
        mistake!("`{}` is no perplexity task", task.label);
    };
    let (count, length) = (how.count(), how.tokens(words.context()));
    if length > words.context() {
        mistake!("calibrate: sequences of {length} tokens; the model reads {}", words.context());
    }
    let mut random = Random::new(how.seed.unwrap_or(0));
    let own = if ask.protocol == Protocol::Drawn { Draw::Documents } else { Draw::Joined };
    match how.draw.unwrap_or(own) {
        Draw::Joined => {
            let tokens =
                words.encode(&requests::joined(&task.task, items, &ask.text, &ask.join, ask.items)?, true)?;
            if tokens.len() < length + 2 {
                mistake!(
                    "`{}` has {} tokens, too few to draw sequences of {length} from",
                    task.label,
                    tokens.len()
                );
            }
            let last = (tokens.len() - length - 1) as i64;
            let start = |_| random.between(0, last) as usize;
            Ok((0..count).map(start).map(|start| tokens[start..start + length].to_vec()).collect())
        }
        Draw::Documents => {
            let texts = requests::texts(&task.task, items, &ask.text)?;
            // Most documents are asked for more than once where few are long: each is tokenized once.
            let mut known: Vec<Option<Vec<u32>>> = vec![None; texts.len()];
            let (mut sequences, mut tried) = (Vec::new(), 0);
            while sequences.len() < count {
                let at = random.between(0, texts.len() as i64 - 1) as usize;
                let tokens = match &mut known[at] {
                    Some(tokens) => tokens,
                    none => none.insert(words.encode(&texts[at].text, true)?),
                };
                tried += 1;
                if tokens.len() > length {
                    let start = random.between(0, (tokens.len() - length - 1) as i64) as usize;
                    sequences.push(tokens[start..start + length].to_vec());
                } else if tried > 100 * (texts.len() + count) {
                    mistake!("`{}`: no document has more than {length} tokens", task.label);
                }
            }
            Ok(sequences)
        }
        Draw::Blocks => {
            let texts = requests::texts(&task.task, items, &ask.text)?;
            let mut order: Vec<usize> = (0..texts.len()).collect();
            random.shuffle(&mut order);
            let (mut tokens, mut taken) = (Vec::new(), 0);
            for at in order {
                let own = words.encode(texts[at].text.trim(), true)?;
                if own.is_empty() || own.len() > length {
                    continue;
                }
                tokens.extend(own);
                taken += 1;
                if taken == count {
                    break;
                }
            }
            let blocks: Vec<Vec<u32>> = tokens.chunks_exact(length).map(<[u32]>::to_vec).collect();
            if blocks.is_empty() {
                mistake!(
                    "`{}`: its documents of at most {length} tokens give no block of as many",
                    task.label
                );
            }
            Ok(blocks)
        }
    }
}
