//! Stopped at any moment and started again: byte for byte what an uninterrupted run leaves, seconds aside. And no
//! other way of cutting the work up can be seen in what it leaves.
use crate::kit::{Desk, Dice, assert_same, records, snapshot, values};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant},
};

/// Runs `study.toml` into `folder` to its end, with more arguments.
fn finish(desk: &Desk, folder: &str, more: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let (study, out) = (desk.arg("study.toml"), desk.arg(folder));
    let args: Vec<&str> = ["run", &study, "--out", &out].iter().chain(more).copied().collect();
    desk.run(&args).expect(0);
    snapshot(&desk.path(folder))
}

/// Starts a run into `folder` and kills it (SIGKILL) as soon as `when` says so. Whether it was still running.
fn kill(desk: &Desk, folder: &str, when: impl Fn() -> bool) -> bool {
    let (study, out) = (desk.arg("study.toml"), desk.arg(folder));
    let mut run = desk.bitsweep(&["run", &study, "--out", &out]);
    let mut child = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    loop {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if when() {
            child.kill().unwrap();
            child.wait().unwrap();
            return true;
        }
        sleep(Duration::from_micros(300));
    }
}

#[test]
fn killed_after_every_cell() {
    let desk = Desk::new();
    let whole = finish(&desk, "whole", &[]);
    assert_eq!(records(&desk.path("whole")).len(), 16);
    let lines = |folder: &str| {
        let path = desk.path(folder).join("records.jsonl");
        move || fs::read(&path).map_or(0, |b| b.iter().filter(|b| **b == b'\n').count())
    };
    // Killed once after each number of records.
    let mut killed = 0;
    for cells in 0..16 {
        let folder = format!("k{cells}");
        let count = lines(&folder);
        killed += u32::from(kill(&desk, &folder, || count() >= cells));
        assert_same(&whole, &finish(&desk, &folder, &[]), &format!("killed after {cells} cells"));
    }
    assert!(killed >= 8, "only {killed} runs were there to be killed");
    // Killed after every single record, again and again in one folder.
    for cells in 1..16 {
        let count = lines("again");
        kill(&desk, "again", || count() >= cells);
    }
    assert_same(&whole, &finish(&desk, "again", &[]), "killed fifteen times");
}

#[test]
fn killed_at_any_moment() {
    let desk = Desk::new();
    let began = Instant::now();
    let whole = finish(&desk, "whole", &[]);
    let length = began.elapsed();
    let mut dice = Dice(7);
    for round in 0..4 {
        let folder = format!("r{round}");
        for _ in 0..5 {
            let moment = Instant::now() + length.mul_f64(dice.below(1000) as f64 / 1000.);
            kill(&desk, &folder, || Instant::now() >= moment);
        }
        assert_same(&whole, &finish(&desk, &folder, &[]), &format!("round {round}"));
    }
}

#[test]
fn what_a_kill_may_leave_is_mended() {
    let desk = Desk::new();
    let whole = finish(&desk, "out", &[]);
    let path = desk.path("out/records.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    // A torn last line, of every kind of length.
    let lines: Vec<&str> = text.lines().collect();
    for keep in [1, lines[15].len() / 2, lines[15].len() - 1, lines[15].len()] {
        fs::write(&path, format!("{}\n{}", lines[..15].join("\n"), &lines[15][..keep])).unwrap();
        assert_same(&whole, &finish(&desk, "out", &[]), &format!("{keep} bytes of a line"));
    }
    // Items whose record was never written, and a temporary file.
    desk.write("out/items/0123456789abcdef.jsonl", "{}");
    desk.write("out/items/x.jsonl.17.tmp", "{");
    desk.write("out/weights-m.svg.tmp", "<");
    desk.write("out/mine.tmp", "not ours");
    finish(&desk, "out", &[]);
    assert_eq!(desk.read("out/mine.tmp"), "not ours");
    fs::remove_file(desk.path("out/mine.tmp")).unwrap();
    assert_same(&whole, &finish(&desk, "out", &[]), "orphans");
    // Items lost: measured again.
    let lost = whole.keys().find(|n| n.starts_with("items")).unwrap();
    fs::remove_file(desk.path("out").join(lost)).unwrap();
    assert_same(&whole, &finish(&desk, "out", &[]), "lost items");
    // Charts and tables lost: drawn again.
    fs::remove_file(desk.path("out/table.csv")).unwrap();
    assert_same(&whole, &finish(&desk, "out", &[]), "a lost table");
    // Lines in another order, and one of them twice.
    let mut mixed: Vec<&str> = lines.iter().rev().copied().collect();
    mixed.push(lines[3]);
    fs::write(&path, mixed.join("\n") + "\n").unwrap();
    assert_same(&whole, &finish(&desk, "out", &[]), "another order");
}

#[test]
fn shards_and_picks_together_are_the_whole() {
    let desk = Desk::new();
    let whole = finish(&desk, "whole", &[]);
    for shard in ["2/3", "1/3"] {
        let part = finish(&desk, "shards", &["--shard", shard]);
        assert!(part["records.jsonl"].len() < whole["records.jsonl"].len());
    }
    assert_same(&whole, &finish(&desk, "shards", &["--shard", "3/3"]), "three shards");
    for only in ["*/kv4/*", "n/*", "*/text"] {
        finish(&desk, "picks", &["--only", only]);
    }
    assert_same(&whole, &finish(&desk, "picks", &[]), "picks, then all");
    // Two at once in one folder.
    let (study, out) = (desk.arg("study.toml"), desk.arg("both"));
    let children: Vec<_> = ["1/2", "2/2"]
        .iter()
        .map(|shard| {
            let mut run = desk.bitsweep(&["run", &study, "--out", &out, "--shard", shard]);
            run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_same(&whole, &finish(&desk, "both", &[]), "two shards at once");
}

#[test]
fn threads_cannot_be_seen() {
    let desk = Desk::new();
    let whole = finish(&desk, "whole", &[]);
    for threads in ["1", "2", "5"] {
        let (study, out) = (desk.arg("study.toml"), desk.arg(threads));
        let ran = desk
            .bitsweep(&["run", &study, "--out", &out])
            .env("RAYON_NUM_THREADS", threads)
            .output()
            .unwrap();
        assert!(ran.status.success());
        assert_same(&whole, &snapshot(&desk.path(threads)), &format!("{threads} threads"));
    }
}

#[test]
fn another_order_of_recipes_and_tasks_gives_the_same_values() {
    let desk = Desk::new();
    finish(&desk, "one", &[]);
    desk.study(&["n", "m"], &["kv4", "w8a8", "w4"], &["quiz.toml", "text.toml"]);
    finish(&desk, "two", &[]);
    assert_eq!(values(&records(&desk.path("one"))), values(&records(&desk.path("two"))));
}

#[test]
fn a_limit_makes_other_cells_and_keeps_the_old_ones() {
    let desk = Desk::small();
    finish(&desk, "out", &[]);
    let before = records(&desk.path("out"));
    finish(&desk, "out", &["--limit", "2"]);
    let after = records(&desk.path("out"));
    assert_eq!((before.len(), after.len()), (1, 2));
    assert_eq!(after[0]["metrics"]["perplexity"]["n"], json!(2));
    assert_eq!(after[1]["metrics"], before[0]["metrics"]);
}

#[test]
fn a_failed_cell_is_tried_again_and_then_nothing_tells_it_failed() {
    let desk = Desk::new();
    let whole = finish(&desk, "whole", &[]);
    let good = fs::read(desk.path("n/model.safetensors")).unwrap();
    // Not a number, at the very end of the file; the other model goes on.
    let mut bad = good.clone();
    let end = bad.len();
    bad[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    desk.write("n/model.safetensors", &bad);
    desk.go().expect(2).says(&["NaN", "n/model.safetensors"]);
    let status = |s: &str| desk.records().iter().filter(|r| r["status"] == s).count();
    assert_eq!((status("done"), status("failed")), (8, 8));
    desk.write("n/model.safetensors", &good);
    desk.go().expect(0);
    assert_eq!(values(&desk.records()), values(&records(&desk.path("whole"))));
    assert_same(&whole, &snapshot(&desk.path("out")), "mended");
}
