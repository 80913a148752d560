//! The page in headless Chromium: no error, tables that sort and filter, paper, a narrow screen. Without one, its text alone.
use crate::{
    common::skipped,
    report::{ACC, done, record, right, study},
};
use bitsweep::{report, results::Store};
use serde_json::Value;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Chromium, if there is one: `BITSWEEP_CHROMIUM`, or on the path.
fn chromium() -> Option<PathBuf> {
    if let Some(named) = env::var_os("BITSWEEP_CHROMIUM").filter(|n| !n.is_empty()) {
        return Some(named.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    env::split_paths(&path).flat_map(|d| names.map(|n| d.join(n))).find(|p| p.is_file())
}

/// Runs it on a page; what it printed.
fn open(browser: &Path, page: &Path, arguments: &[&str]) -> String {
    let profile = tempfile::tempdir().unwrap();
    let mut command = Command::new(browser);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(arguments)
        .arg(format!("file://{}", page.display()));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A copy of the page that does something, and says in its title what came of it.
fn act(browser: &Path, page: &Path, script: &str, arguments: &[&str]) -> Value {
    let text = fs::read_to_string(page).unwrap();
    // Errors are heard from the first script on.
    let ears = "<script>window.heard = []; addEventListener('error', (e) => heard.push(e.message)); \
                console.error = console.warn = (...all) => heard.push(all.join(' '));</script>";
    let text = text.replacen("<head>", &format!("<head>{ears}"), 1);
    let end = format!(
        "<script>const said = (() => {{ {script} }})(); said.heard = heard; \
                       document.title = JSON.stringify(said); parent.postMessage(document.title, '*');</script></body>"
    );
    let text = text.replacen("</body>", &end, 1);
    let mut copy = page.with_file_name("acted.html");
    fs::write(&copy, text).unwrap();
    // No window is as narrow as a telephone, but a frame is.
    if let Some(width) = arguments.iter().find_map(|a| a.strip_prefix("frame=")) {
        let frame = format!(
            "<title></title><body><script>addEventListener('message', (e) => {{ document.title = e.data; }});</script>\
             <iframe src=\"acted.html\" width=\"{width}\" height=\"800\"></iframe></body>"
        );
        copy = page.with_file_name("frame.html");
        fs::write(&copy, frame).unwrap();
    }
    let mut all = vec!["--dump-dom", "--virtual-time-budget=5000"];
    all.extend(arguments.iter().filter(|a| a.starts_with("--")));
    let dom = open(browser, &copy, &all);
    let title = dom
        .split("<title>")
        .nth(1)
        .and_then(|t| t.split("</title>").next())
        .unwrap_or_else(|| panic!("{dom}"));
    let title = title.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&title).unwrap_or_else(|e| panic!("{e}: {arguments:?}: {title}"))
}

/// Several models, so that there is something to filter.
fn models(dir: &Path) -> Store {
    let store = study(dir, false);
    for (m, model) in ["org/one", "org/two", "org/three"].into_iter().enumerate() {
        for (r, (recipe, n)) in [("full", 38), ("w8", 38), ("w4", 37), ("w2", 12 + m)].into_iter().enumerate()
        {
            let outcomes: String = (0..40).map(|i| if i < n { '1' } else { '0' }).collect();
            let (record, items) =
                done(record(&format!("m{m}{r}"), model, recipe, "facts", ACC), &right(&outcomes));
            store.push(&record, &items).unwrap();
        }
    }
    store
}

fn drawn(dir: &Path) -> PathBuf {
    report::draw(&models(dir)).unwrap();
    dir.join("report.html")
}

/// What must hold in any browser, and without one.
#[test]
fn it_needs_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(drawn(dir.path())).unwrap();
    for fetches in
        ["src=", "@import", "url(", "<link", "fetch(", "XMLHttpRequest", "eval(", " onclick", "innerHTML"]
    {
        assert!(!text.contains(fetches), "{fetches}");
    }
    let mut ids: Vec<&str> = text.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "ids are not unique: {ids:?}");
    for link in text.split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(ids.contains(&link), "a link to #{link}, which is not there");
    }
    // The answer stands before what it rests on; failures are said at the top.
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what}"));
    assert!(at("id=\"answer\"") < at("id=\"results\"") && at("id=\"results\"") < at("id=\"numbers\""));
    assert!(at("1 cell failed") < at("id=\"answer\"") && at("6 cells skipped") < at("id=\"answer\""));
    assert!(text.contains("bitsweep run study.toml") && text.contains("recipes = [&quot;w8&quot;, "));
}

#[test]
fn it_works_in_a_browser() {
    let Some(browser) = chromium() else {
        skipped("no Chromium on the path, and BITSWEEP_CHROMIUM names none");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let page = drawn(dir.path());
    let done = act(
        &browser,
        &page,
        "const texts = (table, i) => [...table.tBodies[0].rows].filter((r) => !r.hidden).map((r) => r.cells[i].innerText.trim());
         const table = document.querySelector('table.results');
         const value = [...table.tHead.rows[0].cells].findIndex((c) => c.textContent.startsWith('facts'));
         const press = (t, i) => t.tHead.rows[0].cells[i].querySelector('button').click();
         const before = texts(table, 0);
         press(table, value); const up = texts(table, 0); const first = table.tHead.rows[0].cells[value].getAttribute('aria-sort');
         press(table, value); const down = texts(table, 0);
         const bits = texts(table, 1);
         press(table, 1); const by_bits = texts(table, 1).map(Number);
         const all = document.querySelector('table.all');
         const numbers = all.tBodies[0].rows.length;
         press(all, 4); const values = texts(all, 4).filter((t) => t !== '').map(Number);
         const filter = document.querySelector('input[type=search]');
         const type = (text) => { filter.value = text; filter.dispatchEvent(new Event('input')); };
         type('org/two w4'); const filtered = texts(all, 0).concat(texts(all, 1));
         const kept = [...document.querySelectorAll('table.results')].map((t) => texts(t, 0).join(' '));
         type(''); const back = all.tBodies[0].rows.length;
         document.querySelector('#theme').click();
         const theme = document.documentElement.dataset.theme;
         return { before, up, first, down, by_bits, numbers, values, filtered, kept, back, theme };",
        &[],
    );
    assert_eq!(done["heard"], Value::Array(vec![]), "errors in the console");
    assert_eq!(done["before"], serde_json::json!(["full", "w8", "w4", "w2", "w4a4", "kv4"]));
    assert_eq!(done["first"], "ascending");
    let list = |key: &str| -> Vec<String> {
        done[key]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_str().map_or_else(|| v.to_string(), Into::into))
            .collect()
    };
    // w2 loses most of the facts.
    assert_eq!(list("up")[0], "w2");
    assert_eq!(list("down").last().unwrap(), "w2");
    let numbers = |key: &str| -> Vec<f64> {
        done[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    };
    assert!(numbers("by_bits").is_sorted() && numbers("values").is_sorted(), "{done}");
    assert_eq!((done["numbers"].as_u64(), done["back"].as_u64()), (Some(36), Some(36)));
    assert_eq!(list("filtered"), ["org/two", "w4"]);
    // Full precision stays beside what is compared with it.
    assert_eq!(list("kept"), ["full", "full", "full w4", "full"]);
    assert_eq!(done["theme"], "dark");
}

#[test]
fn it_fits_a_phone_and_paper() {
    let Some(browser) = chromium() else {
        skipped("no Chromium on the path, and BITSWEEP_CHROMIUM names none");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let page = drawn(dir.path());
    let measure = "return { screen: innerWidth, page: document.documentElement.scrollWidth };";
    for size in ["--window-size=1280,900", "frame=360"] {
        let said = act(&browser, &page, measure, &[size]);
        let (screen, page) = (said["screen"].as_u64().unwrap(), said["page"].as_u64().unwrap());
        assert!(screen == 360 || size.starts_with("--"), "{said}");
        assert!(page <= screen, "the page is {page} wide on a screen of {screen}");
    }
    // Paper opens what is folded, and folds it again.
    let folds = "const open = () => document.querySelectorAll('details[open]').length;
                 const before = open(); dispatchEvent(new Event('beforeprint')); const paper = open();
                 dispatchEvent(new Event('afterprint')); return { before, paper, after: open() };";
    let said = act(&browser, &page, folds, &[]);
    assert!(said["before"] == 0 && said["after"] == 0 && said["paper"].as_u64() > Some(0), "{said}");
    let paper = dir.path().join("report.pdf");
    open(&browser, &page, &[&format!("--print-to-pdf={}", paper.display())]);
    let pdf = fs::read(paper).unwrap();
    let text = String::from_utf8_lossy(&pdf);
    let pages = text.matches("/Type /Page\n").count() + text.matches("/Type /Page ").count();
    assert!(pdf.starts_with(b"%PDF") && pages > 1, "{pages} pages");
}
