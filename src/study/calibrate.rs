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
            if tokens.len() <= length {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::load,
        suite::data::{self, Instead},
    };

    fn drawn(protocol: &str, texts: &[&str], how: &Calibrate) -> (Vec<Vec<u32>>, Vec<Vec<u32>>) {
        let folder = tempfile::tempdir().unwrap();
        let rows: String = texts.iter().map(|t| format!("{}\n", serde_json::json!({ "text": t }))).collect();
        std::fs::write(folder.path().join("t.jsonl"), rows).unwrap();
        let task = format!(
            "about = 'a'\nversion = 1\nmetrics = ['perplexity']\n[data.file]\npath = 't.jsonl'\n\
             [ask.perplexity]\nprotocol = '{protocol}'\nwindow = 16\njoin = ''\n"
        );
        std::fs::write(folder.path().join("t.toml"), task).unwrap();
        let task = find("t.toml", folder.path()).unwrap();
        let hub = || anyhow::bail!("no hub");
        let items = data::load(&task.label, &task.task, &task.place, &Instead::default(), &hub).unwrap();
        let opened = load::open("builtin:llama", Path::new(""), None).unwrap();
        let words = Words::of(&opened);
        let all = match protocol {
            "drawn" => texts.iter().map(|t| words.encode(t, true).unwrap()).collect(),
            _ => vec![words.encode(&texts.concat(), true).unwrap()],
        };
        (sequences(words, how, &Text { task, items }).unwrap(), all)
    }

    fn how(samples: usize, seed: u64, draw: Option<Draw>) -> Calibrate {
        Calibrate { samples: Some(samples), length: Some(16), seed: Some(seed), draw, ..Calibrate::default() }
    }

    /// Numbers, so that no two places are alike.
    fn count(from: usize, to: usize) -> String {
        (from..to).map(|i| format!("{i} ")).collect()
    }

    fn cut(all: &[u32], start: usize) -> Vec<u32> {
        all[start..start + 16].to_vec()
    }

    /// As GPTQ's `get_wikitext2`: in CPython, `random.seed(S)` and `random.randint(0, N - 16 - 1)` for each.
    #[test]
    fn joined_texts_are_drawn_as_gptq_draws_them() {
        for (seed, starts) in [(0, [432, 197, 388, 455]), (7, [165, 77, 202, 333])] {
            let (got, all) = drawn("windows", &[&count(0, 99), &count(99, 150)], &how(4, seed, None));
            assert_eq!(all[0].len(), 491);
            assert_eq!(got, starts.map(|s| cut(&all[0], s)), "{seed}");
        }
    }

    /// As GPTQ's `get_c4`: a document by `randint(0, documents - 1)` until one is longer, then a place in it.
    #[test]
    fn documents_are_drawn_as_gptq_draws_them() {
        let texts = [count(0, 3), count(10, 40), count(50, 53), count(60, 99), count(100, 120)];
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let (got, all) = drawn("drawn", &texts, &how(4, 3, None));
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [7, 91, 10, 118, 81]);
        assert_eq!(
            got,
            [(1, 69), (1, 47), (4, 60), (4, 8)].map(|(document, start)| cut(&all[document], start))
        );
    }

    /// Documents in CPython's shuffled order, those that are too long passed over, the others joined and cut.
    #[test]
    fn blocks_are_of_whole_short_documents() {
        let texts = [count(0, 3), count(10, 40), count(50, 53), count(60, 63), count(70, 73), count(80, 83)];
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let (got, _) = drawn("windows", &texts, &how(4, 0, Some(Draw::Blocks)));
        let opened = load::open("builtin:llama", Path::new(""), None).unwrap();
        let order = [4, 2, 1, 0, 5, 3].into_iter().filter(|i| *i != 1).take(4);
        let joined: Vec<u32> =
            order.flat_map(|i| Words::of(&opened).encode(texts[i].trim(), true).unwrap()).collect();
        assert_eq!(got, joined.chunks_exact(16).map(<[u32]>::to_vec).collect::<Vec<_>>());
        assert!(!got.is_empty());
    }

    #[test]
    fn what_is_too_short_or_no_text_is_said() {
        let short = std::panic::catch_unwind(|| drawn("windows", &["one"], &how(4, 0, None)));
        assert!(short.is_err());
        let e = find("microworld/facts", Path::new("")).err().unwrap().to_string();
        assert!(e.contains("microworld/facts") && e.contains("calibration/"), "{e}");
        assert!(find("calibration/nothing", Path::new("")).is_err());
    }
}
