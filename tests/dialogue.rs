//! Talks of several turns, and what a judge makes of them: asked on loopback, or by way of files.
use crate::kit::{Desk, records};
use anyhow::Result;
use bitsweep::{
    eval::{
        Lm, Logits, Next, Outcome, Sequence,
        dialogue::{self, Said},
        metrics::metric,
    },
    mistake::is_mistake,
    stats::{self, Share},
    suite::{dialogue::Dialogue, requests::Talk},
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    ops::ControlFlow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

const VOCAB: usize = 128;
const EOS: u32 = 2;

/// Bytes are tokens. It writes the letter after the last one that it read, up to `stop`, and ends there.
struct Alphabet {
    stop: u8,
    asked: Vec<String>,
}

impl Alphabet {
    fn new(stop: u8) -> Self {
        Self { stop, asked: Vec::new() }
    }

    fn logits(&self, last: u32) -> Vec<f32> {
        let next = if last >= u32::from(self.stop) { EOS } else { last + 1 };
        (0..VOCAB as u32).map(|v| if v == next { 8. } else { 0. }).collect()
    }
}

impl Lm for Alphabet {
    fn encode(&self, text: &str, _: bool) -> Result<Vec<u32>> {
        Ok(text.bytes().map(u32::from).collect())
    }
    fn decode(&self, tokens: &[u32]) -> Result<String> {
        Ok(tokens.iter().map(|&t| char::from(t as u8)).collect())
    }
    fn context(&self) -> usize {
        40
    }
    fn vocab(&self) -> usize {
        VOCAB
    }
    fn prefix(&self) -> Option<u32> {
        Some(1)
    }
    fn ends(&self) -> Result<Vec<u32>> {
        Ok(vec![EOS])
    }
    fn chat(&self, said: &[Said], template: Option<&str>) -> Result<String> {
        let all: Vec<String> =
            said.iter().map(|s| format!("{}{}", s.role.chars().next().unwrap(), s.text)).collect();
        Ok(format!("{}{}", template.unwrap_or(""), all.join("|")))
    }
    fn score(
        &mut self,
        all: &[Sequence],
        visit: &mut dyn FnMut(usize, Logits<'_>) -> Result<()>,
    ) -> Result<()> {
        for (i, s) in all.iter().enumerate() {
            let rows: Vec<f32> = s.rows().flat_map(|r| self.logits(s.tokens[r])).collect();
            visit(i, Logits { first: 0, rows: &rows, vocab: VOCAB })?;
        }
        Ok(())
    }
    fn generate(&mut self, prompts: &[Vec<u32>], limit: usize, next: &mut Next) -> Result<()> {
        for (i, prompt) in prompts.iter().enumerate() {
            self.asked.push(self.decode(prompt)?);
            let mut last = *prompt.last().unwrap();
            for _ in 0..limit {
                match next(self, i, &self.logits(last))? {
                    ControlFlow::Continue(token) => last = token,
                    ControlFlow::Break(()) => break,
                }
            }
        }
        Ok(())
    }
}

fn settings(more: &str) -> Dialogue {
    toml::from_str(&format!("turns = '{{{{ turns }}}}'\nlimit = 8\n{more}")).unwrap()
}

fn talk(turns: &[&str], golds: &[&str]) -> Talk {
    let texts = |list: &[&str]| list.iter().map(|t| t.to_string()).collect();
    Talk { turns: texts(turns), golds: texts(golds), ..Talk::default() }
}

fn value(outcomes: &[(String, Outcome)], name: &str) -> Option<f64> {
    let share = |o: &Outcome| bitsweep::eval::metrics::share(name, o);
    let shares: Vec<Share> = outcomes.iter().filter_map(|(_, o)| share(o)).collect();
    stats::ratio(&shares, metric(name).unwrap().scale).map(|e| e.value)
}

#[test]
fn each_answer_stands_in_the_next_prompt() {
    let talks = [
        talk(&["xa", "xd"], &["bcde", "e"]),
        Talk { system: "S".into(), ..talk(&["c"], &["wrong"]) },
        talk(&["b", "b", "c"], &[]),
    ];
    let (mut lm, mut full) = (Alphabet::new(b'e'), Alphabet::new(b'd'));
    let out = dialogue::run(&mut lm, Some(&mut full), &talks, &settings(""), 0).unwrap();
    assert_eq!(
        lm.asked,
        ["uxa", "sS|uc", "ub", "uxa|abcde|uxd", "ub|acde|ub", "ub|acde|ub|acde|uc"],
        "turn by turn, and within a turn item by item"
    );
    let Outcome::Dialogue(first) = &out[0].1 else { panic!() };
    assert_eq!(first.turns.iter().map(|t| t.sample.text.as_str()).collect::<Vec<_>>(), ["bcde", "e"]);
    // Full precision stops after `d`: of b c d e EOS it would have written three, of e EOS none.
    let same: Vec<usize> = first.turns.iter().map(|t| t.sample.full.unwrap().same).collect();
    assert_eq!(same, [3, 0]);
    // Of three answers with a gold one, two are it.
    let golds = [value(&out[..1], "exact_match"), value(&out[1..2], "exact_match")];
    assert_eq!(golds, [Some(1.), Some(0.)]);
    assert_eq!((value(&out, "judge"), value(&out, "unfinished")), (None, Some(0.)));
    let json = serde_json::to_string(&out[0].1).unwrap();
    assert_eq!(serde_json::from_str::<Outcome>(&json).unwrap(), out[0].1);

    // The system's words and the template count; so does a prompt's loss.
    let own = settings("template = '<<0123456789012345678901234567890123456789>>'");
    let mut lm = Alphabet::new(b'e');
    let out = dialogue::run(&mut lm, None, &talks[..1], &own, 0).unwrap();
    assert_eq!((lm.asked[0].len(), value(&out, "cut_prompts")), (32, Some(1.)));
    assert!(lm.asked[0].ends_with(">>uxa"), "{}", lm.asked[0]);
}

#[test]
fn temperatures_are_an_item_s_own() {
    let hot = Talk { temperature: 50., number: 4, ..talk(&["a"; 6], &[]) };
    let cold = talk(&["a"; 6], &[]);
    let run = |talks: &[Talk], seed| {
        let out = dialogue::run(&mut Alphabet::new(b'z'), None, talks, &settings(""), seed).unwrap();
        let answers = |o: &Outcome| match o {
            Outcome::Dialogue(a) => a.turns.iter().map(|t| t.sample.tokens.clone()).collect::<Vec<_>>(),
            _ => panic!(),
        };
        out.iter().map(|(_, o)| answers(o)).collect::<Vec<_>>()
    };
    let both = run(&[hot.clone(), cold.clone()], 0);
    assert!(both[1].iter().all(|t| *t == b"bcdefghi".map(u32::from)));
    assert_ne!(both[0][0], both[1][0]);
    assert_ne!(both[0][0], both[0][1], "a turn has draws of its own");
    assert_eq!(run(&[cold, hot.clone()], 0)[1], both[0], "whoever talks beside it");
    let other = Talk { number: 5, ..hot.clone() };
    assert_ne!(run(&[other], 0)[0], both[0]);
    assert_ne!(run(&[hot], 1)[0], both[0]);
}

#[test]
fn talks_that_nobody_can_lead() {
    for (wrong, says) in [
        (talk(&[], &[]), "`turns` is empty"),
        (talk(&["a", "b"], &["c"]), "2 turns, 1 of `gold`"),
        (Talk { references: vec!["r".into(); 3], ..talk(&["a"], &[]) }, "3 of `references`"),
        (Talk { temperature: -1., ..talk(&["a"], &[]) }, "`temperature` gives -1"),
        (Talk { temperature: f64::NAN, ..talk(&["a"], &[]) }, "`temperature`"),
    ] {
        let error = dialogue::check(&[wrong]).unwrap_err();
        assert!(is_mistake(&error) && error.to_string().contains(says), "{error}");
    }
}

const TALK: &str = r#"
about = 'A talk'
version = 1
metrics = ['judge', 'judge_turn_1', 'judge_turn_2', 'same_tokens', 'full_ppl']
part = '{{ kind }}'
[parts]
one = 'the first kind'
two = 'the second kind'
[[data.items]]
id = 1
kind = 'two'
turns = ['the cat', 'and the dog']
reference = []
[[data.items]]
id = 2
kind = 'one'
turns = ['the sun', 'the map']
reference = ['it sat', 'it ran']
[[data.items]]
id = 3
kind = 'two'
turns = ['a dog', 'an inn']
reference = []
[ask.dialogue]
turns = '{{ turns }}'
limit = 6
temperature = "{{ {'one': 0.7}[kind] | default(0) }}"
template = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"
[ask.dialogue.judge]
id = '{{ id }}'
category = '{{ kind }}'
references = '{{ reference }}'
"#;

fn desk() -> Desk {
    let desk = Desk::new();
    desk.write("talk.toml", TALK);
    desk.study(&["m"], &["w4"], &["talk.toml"]);
    desk.go().expect(0);
    desk
}

/// What the judge was sent: its key, and the body.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// An OpenAI-compatible judge.
struct Judge {
    url: String,
    asked: Asked,
    stop: Arc<AtomicBool>,
}

impl Judge {
    fn new(answer: impl Fn(usize, &Value) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let (asked, stop) = (Asked::default(), Arc::new(AtomicBool::new(false)));
        let (log, end, answer) = (asked.clone(), stop.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let (log, answer) = (log.clone(), answer.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &log, &*answer).ok());
            }
        });
        Self { url, asked, stop }
    }
    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://").trim_end_matches("/v1"));
    }
}

fn serve(
    stream: TcpStream,
    log: &Asked,
    answer: &dyn Fn(usize, &Value) -> (u16, String),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let (mut length, mut key, mut line) = (0, String::new(), String::new());
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        assert!(line.starts_with("POST /v1/chat/completions "), "{line}");
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap(),
                "authorization" => key = value.into(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body: Value = serde_json::from_slice(&body).unwrap();
        let number = {
            let mut log = log.lock().unwrap();
            log.push((key, body.clone()));
            log.len()
        };
        let (status, text) = answer(number, &body);
        let mut stream = &stream;
        write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{text}", text.len())?;
    }
}

fn says(text: &str) -> (u16, String) {
    (200, json!({"choices": [{"message": {"role": "assistant", "content": text}}]}).to_string())
}

/// By what was asked alone, so that no order can show.
fn fair(body: &Value) -> String {
    let asked = body["messages"][1]["content"].as_str().unwrap();
    let second = asked.contains("### User, turn 2");
    if asked.contains("a dog") && !second {
        return "No grade.".into();
    }
    format!("Reasons. [[{}]]", if asked.contains("Reference") { 9 } else { 4 } - i32::from(second))
}

#[test]
fn a_judge_is_asked_once() {
    let desk = desk();
    let judge = Judge::new(|number, body| if number == 1 { (503, "busy".into()) } else { says(&fair(body)) });
    let out = desk.arg("out");
    let args = ["judge", &out, "--url", &judge.url, "--judge", "grader", "--at-once", "3"];
    let plain = fs::read(desk.path("out/records.jsonl")).unwrap();
    let ran = desk.bitsweep(&args).env("OPENAI_API_KEY", "sesame").output().unwrap();
    let err = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(0), "{err}");
    // Two cells of three talks of two turns, and the try that came to nothing.
    assert_eq!(judge.count(), 13);
    assert!(
        err.contains("12 answers judged in 2 cells; 2 judgements without a score, 0 answers not judged"),
        "{err}"
    );
    assert!(
        !err.contains("sesame") && judge.asked.lock().unwrap().iter().all(|(key, _)| key == "Bearer sesame")
    );
    {
        let asked = judge.asked.lock().unwrap();
        let body = &asked[0].1;
        assert_eq!((&body["model"], &body["temperature"]), (&json!("grader"), &json!(0)));
    }
    for record in desk.records() {
        // The talk whose first answer has no grade does not count. Of the others: 9, 8 and 4, 3.
        let metrics = &record["metrics"];
        assert_eq!((&metrics["judge"]["value"], &metrics["judge"]["n"]), (&json!(6.), &json!(2)));
        assert_eq!(metrics["judge_turn_1"]["value"], json!(6.5));
        assert_eq!(metrics["judge_turn_2"]["value"], json!(5.5));
        assert_eq!(record["parts"]["one"]["judge"]["value"], json!(8.5));
        assert_eq!(record["parts"]["two"]["judge"]["value"], json!(3.5));
        assert!(metrics["same_tokens"]["value"].is_number());
    }
    let table = desk.read("out/table.csv");
    assert!(table.lines().any(|l| l.contains(",judge,true,6,") || l.contains(",judge,true,6.0,")), "{table}");

    // Nothing is left to ask, and nothing changes.
    let before: Vec<Vec<u8>> = ["records.jsonl", "judgements.jsonl", "table.csv"]
        .map(|f| fs::read(desk.path(&format!("out/{f}"))).unwrap())
        .to_vec();
    desk.run(&args).expect(0);
    let after: Vec<Vec<u8>> = ["records.jsonl", "judgements.jsonl", "table.csv"]
        .map(|f| fs::read(desk.path(&format!("out/{f}"))).unwrap())
        .to_vec();
    assert!(judge.count() == 13 && before == after);
    // A study that goes on keeps what was judged.
    desk.go().expect(0);
    assert_eq!(fs::read(desk.path("out/records.jsonl")).unwrap(), before[0]);
    assert_ne!(plain, before[0]);

    let other = ["judge", &out, "--url", &judge.url, "--judge", "another"];
    desk.run(&other).expect(2).says(&["judged by `grader`", "--again"]);
    desk.run(&[&other[..], &["--again"]].concat()).expect(0);
    assert_eq!(judge.count(), 25);
}

#[test]
fn what_was_judged_before_a_failure_is_kept() {
    let desk = desk();
    let judge =
        Judge::new(|number, body| if number > 5 { (401, "who are you?".into()) } else { says(&fair(body)) });
    let out = desk.arg("out");
    let args = ["judge", &out, "--url", &judge.url, "--judge", "grader", "--at-once", "1"];
    desk.run(&args).expect(2).says(&["/v1/chat/completions", "status 401: who are you?"]);
    assert_eq!(desk.read("out/judgements.jsonl").lines().count(), 5);
    let honest = Judge::new(|_, body| says(&fair(body)));
    desk.run(&["judge", &out, "--url", &honest.url, "--judge", "grader"]).expect(0);
    assert_eq!((honest.count(), desk.read("out/judgements.jsonl").lines().count()), (7, 12));
    let broken = Judge::new(|_, _| (200, "{}".into()));
    desk.run(&["judge", &out, "--url", &broken.url, "--judge", "b", "--again"])
        .expect(2)
        .says(&["answers without `choices[0].message.content`"]);
}

#[test]
fn answers_go_out_and_come_back() {
    let desk = desk();
    let (out, file) = (desk.arg("out"), desk.arg("answers.jsonl"));
    desk.run(&["judge", &out, "--write", &file]).expect(0).says(&["12 answers in"]);
    let lines: Vec<Value> =
        desk.read("answers.jsonl").lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 12);
    assert!(lines.iter().all(|l| l["prompt"].as_str().unwrap().contains("### Assistant")));
    // Judged by hand: some with a grade, some with the judge's words; all that was handed out may come back.
    let back: String = lines
        .iter()
        .enumerate()
        .map(|(i, line)| {
            let mut line = line.clone();
            let key = if i % 2 == 0 { ("score", json!(5)) } else { ("text", json!("So be it: [[7]]")) };
            line[key.0] = key.1;
            format!("{line}\n")
        })
        .collect();
    let read = |text: &str| {
        desk.write("back.jsonl", text);
        desk.run(&["judge", &out, "--read", &desk.arg("back.jsonl"), "--judge", "us"])
    };
    read(&back).expect(0);
    for record in records(&desk.path("out")) {
        assert_eq!(
            (&record["metrics"]["judge"]["value"], &record["metrics"]["judge"]["n"]),
            (&json!(6.), &json!(3))
        );
    }
    let first = back.lines().next().unwrap();
    for (wrong, says) in [
        (first.replace("\"turn\":1", "\"turn\":9"), "turn 9"),
        (first.replace("\"score\":5", "\"score\":50"), "`score` is 50"),
        (first.replace("\"score\":5", "\"note\":5"), "unknown field `note`"),
        (first.replace(",\"score\":5", ""), "neither `score` nor `text`"),
        ("not json".into(), "line 1"),
    ] {
        read(&wrong).expect(2).says(&["back.jsonl` line 1", says]);
    }
    desk.run(&["judge", &out, "--read", &desk.arg("nothing"), "--judge", "us"])
        .expect(2)
        .says(&["is no file"]);
    desk.run(&["judge", &out]).expect(2);
    let plain = Desk::small();
    plain.go().expect(0);
    plain
        .run(&["judge", &plain.arg("out"), "--write", "x"])
        .expect(2)
        .says(&["no finished cell is to be judged"]);
}

/// FastChat's files: prompts by name, references by question.
#[test]
fn prompts_of_a_file() {
    let desk = desk();
    let line = |name: &str, template: &str| {
        json!({"name": name, "type": "single", "system_prompt": "SYS", "prompt_template": template})
            .to_string()
    };
    let prompts = [
        line("single-v1", "Q {question} A {answer} {{}}"),
        line("single-v1-multi-turn", "{question_1} {answer_1} {question_2} {answer_2}"),
        line("single-math-v1", "R {ref_answer_1} Q {question}"),
        line("single-math-v1-multi-turn", "R {ref_answer_1} {ref_answer_2} Q {question_2}"),
    ];
    desk.write("prompts.jsonl", prompts.join("\n"));
    let reference = json!({"question_id": 1, "choices": [{"index": 0, "turns": ["first", "second"]}]});
    desk.write("references.jsonl", reference.to_string());
    let (out, file) = (desk.arg("out"), desk.arg("answers.jsonl"));
    let (p, r) = (desk.arg("prompts.jsonl"), desk.arg("references.jsonl"));
    let write = |more: &[&str]| {
        desk.run(&[&["judge", &out, "--write", &file, "--prompts", &p], more].concat()).expect(0);
        let asked: Vec<Value> =
            desk.read("answers.jsonl").lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert!(asked.iter().all(|c| c["system"] == "SYS"));
        move |id: &str, turn: u64| {
            let found = asked.iter().find(|c| c["id"] == id && c["turn"] == turn).unwrap();
            found["prompt"].as_str().unwrap().to_string()
        }
    };
    let of = write(&["--references", &r]);
    assert_eq!(of("1", 1), "R first Q the cat");
    assert_eq!(of("1", 2), "R first second Q and the dog");
    assert!(of("3", 1).starts_with("Q a dog A ") && of("3", 1).ends_with(" {}"));
    // A file of references has all that there are: FastChat compares with no others.
    assert!(of("2", 2).starts_with("the sun "), "{}", of("2", 2));
    let of = write(&[]);
    assert_eq!(of("2", 2), "R it sat it ran Q the map");
    assert!(of("1", 1).starts_with("Q the cat A "));
    desk.write("prompts.jsonl", line("single-math-v1", "Q {questoin}"));
    desk.run(&["judge", &out, "--write", &file, "--prompts", &p])
        .expect(2)
        .says(&["begins no name; there are: answer, answer_1"]);
}

/// A folder judged again by somebody else: nothing of the first judge stays, and nothing of him goes before the second has
/// said something.
#[test]
fn judged_again_is_judged_by_one() {
    let desk = desk();
    let out = desk.arg("out");
    desk.run(&["judge", &out, "--write", &desk.arg("a.jsonl")]).expect(0);
    let lines: Vec<Value> = desk.read("a.jsonl").lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let scored = |score: f64, which: &dyn Fn(&Value) -> bool| -> String {
        let some = lines.iter().filter(|l| which(l)).map(|l| {
            let mut line = l.clone();
            line["score"] = json!(score);
            format!("{line}\n")
        });
        some.collect()
    };
    let judge = |text: &str, who: &str, again: bool| {
        desk.write("b.jsonl", text);
        let mut args = vec!["judge", &out, "--read"];
        let file = desk.arg("b.jsonl");
        args.extend([file.as_str(), "--judge", who]);
        args.extend(again.then_some("--again"));
        desk.run(&args)
    };
    let means = || -> Vec<(String, Option<f64>)> {
        let value = |r: &Value| r["metrics"]["judge"]["value"].as_f64();
        desk.records().iter().map(|r| (r["recipe"]["name"].as_str().unwrap().into(), value(r))).collect()
    };
    let both = |a, b| vec![("full".to_string(), a), ("w4".to_string(), b)];
    judge(&scored(8., &|_| true), "first", false).expect(0);
    assert_eq!(means(), both(Some(8.), Some(8.)));
    let before = desk.read("out/judgements.jsonl");
    judge("nonsense\n", "second", true).expect(2).says(&["b.jsonl` line 1"]);
    assert_eq!((desk.read("out/judgements.jsonl"), means()), (before.clone(), both(Some(8.), Some(8.))));
    desk.run(&["judge", &out, "--url", "localhost:9/v1", "--judge", "second", "--again"])
        .expect(2)
        .says(&["begins with http:// or https://"]);
    assert_eq!(desk.read("out/judgements.jsonl"), before);
    // The second says something of one recipe only, and of one answer of it nothing that is a grade.
    let some = scored(3., &|l| l["recipe"] == "full" && l["id"] != "1");
    judge(&some, "second", true).expect(0).says(&["8 answers not judged"]);
    assert_eq!(means(), both(Some(3.), None));
    let items = desk.read(&format!("out/items/{}.jsonl", desk.records()[1]["cell"].as_str().unwrap()));
    assert!(!items.contains("\"judge\"") && !items.contains("\"score\""), "{items}");
    judge(&format!("{some}{some}"), "second", false).expect(2).says(&["the answer of line 1 once more"]);

    // A kill in the middle of a line.
    let whole = desk.read("out/judgements.jsonl");
    desk.write("out/judgements.jsonl", &whole[..whole.len() - 30]);
    let (url, honest) = ("--url", Judge::new(|_, body| says(&fair(body))));
    desk.run(&["judge", &out, url, &honest.url, "--judge", "second"]).expect(0);
    assert_eq!((honest.count(), desk.read("out/judgements.jsonl").lines().count()), (9, 12));
    desk.run(&["judge", &out, "--write", &desk.arg("out/records.jsonl")])
        .expect(2)
        .says(&["files are its own"]);
    // Other prompts than those that the answers were written with.
    let template = |name: &str| {
        let question = if name.ends_with("turn") { "{question_2}" } else { "{question}" };
        json!({ "name": name, "prompt_template": question }).to_string()
    };
    let names = ["single-v1", "single-math-v1", "single-v1-multi-turn", "single-math-v1-multi-turn"];
    desk.write("p.jsonl", names.map(template).join("\n"));
    desk.write("b.jsonl", format!("{}\n", lines[0]).replace("\"turn\"", "\"score\":1,\"turn\""));
    let (b, p) = (desk.arg("b.jsonl"), desk.arg("p.jsonl"));
    desk.run(&["judge", &out, "--read", &b, "--judge", "third", "--prompts", &p, "--again"])
        .expect(2)
        .says(&["written with other prompts"]);
}

/// Where each part counts the same, it does for the judge.
#[test]
fn parts_weigh_as_the_task_says() {
    let desk = Desk::new();
    desk.write("talk.toml", TALK.replace("version = 1", "version = 1\nweigh = 'parts'"));
    desk.study(&["m"], &[], &["talk.toml"]);
    desk.go().expect(0);
    let out = desk.arg("out");
    desk.run(&["judge", &out, "--write", &desk.arg("a.jsonl")]).expect(0);
    let back: String = desk
        .read("a.jsonl")
        .lines()
        .map(|l| {
            let mut line: Value = serde_json::from_str(l).unwrap();
            line["score"] = json!(if line["category"] == "one" { 2 } else { 8 });
            format!("{line}\n")
        })
        .collect();
    desk.write("b.jsonl", back);
    desk.run(&["judge", &out, "--read", &desk.arg("b.jsonl"), "--judge", "us"]).expect(0);
    // One talk of the first part, two of the second.
    assert_eq!(desk.records()[0]["metrics"]["judge"]["value"], json!(5.));
}

/// Until somebody has judged, the first metric that there is stands for the task; some of the parts are a task too.
#[test]
fn a_talk_without_a_judge() {
    let desk = desk();
    let table = desk.read("out/table.md");
    assert!(
        table.contains("same_tokens (↑ higher is better): talk (n = 3)") && !table.contains("judge ("),
        "{table}"
    );
    let out = desk.arg("some");
    let some = ["run", &desk.arg("study.toml"), "--out", &out, "--set", "parts.talk=['two']"];
    desk.run(&some).expect(0);
    assert_eq!(records(&desk.path("some"))[0]["metrics"]["same_tokens"]["n"], 2);
    desk.run(&[&some[..], &["--set", "data.talk=quiz.jsonl"]].concat())
        .expect(2)
        .says(&["item 1", "{{ kind }}"]);
}
