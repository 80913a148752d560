//! A task's data: what each kind of file gives, held to the same rows as JSONL; what is not a file of its kind; and the
//! Hub, by a server on loopback.
use crate::{
    common::{repo, shared},
    hub::{Answer, COMMIT, Request, Server, error, git_sha1, remains, says, settings, sha256},
    kit::{Desk, TEXT, records},
};
use anyhow::{Result, bail};
use bitsweep::{
    hub::{Hub, Settings},
    mistake::is_mistake,
    suite::{
        Task,
        data::{self, Items, Place},
        rows::{self, Layout},
    },
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, io::Write, path::Path};
use tempfile::TempDir;

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(repo("tests/goldens/data").join(name)).unwrap()
}

fn parse(name: &str, bytes: &[u8]) -> Result<Vec<Value>> {
    rows::parse(name, bytes.into(), Layout::default())
}

/// Rows as text, so that the order of columns and the last digit count.
fn text(rows: &[Value]) -> Vec<String> {
    rows.iter().map(Value::to_string).collect()
}

#[track_caller]
fn same(name: &str, rows: &[Value], expected: &str) {
    let expected = parse(expected, &golden(expected)).unwrap();
    assert_eq!(rows.len(), expected.len(), "{name}");
    for (i, (row, expected)) in text(rows).iter().zip(text(&expected)).enumerate() {
        assert_eq!(*row, expected, "{name} row {i}");
    }
}

fn task(data: &str) -> Result<Task> {
    let head = "about = 'x'\nversion = 1\nmetrics = ['perplexity']\n";
    Task::parse("suites/x/quiz.toml", &format!("{head}{data}\n[ask.perplexity]\n"))
}

fn no_hub() -> Result<Hub> {
    bail!("the Hub was asked")
}

fn load(folder: &Path, file: &str) -> Result<Items> {
    let task = task(&format!("[data.file]\n{file}"))?;
    data::load("quiz.toml", &task, &Place::Folder(folder.into()), &Default::default(), &no_hub)
}

#[test]
fn parquet_is_the_same_rows_as_jsonl() {
    for (file, expected) in [
        ("types.parquet", "types.jsonl"),
        ("int96.parquet", "int96.jsonl"),
        ("many-none-v1.parquet", "many.jsonl"),
        ("many-snappy-v1.parquet", "many.jsonl"),
        ("many-snappy-v2.parquet", "many.jsonl"),
        ("many-gzip-v1.parquet", "many.jsonl"),
        ("many-zstd-v2.parquet", "many.jsonl"),
        ("many-delta.parquet", "many.jsonl"),
        ("many-item.parquet", "many.jsonl"),
    ] {
        same(file, &parse(file, &golden(file)).unwrap(), expected);
    }
    for (file, codec) in [("lz4.parquet", "LZ4"), ("brotli.parquet", "BROTLI")] {
        says(&error(parse(file, &golden(file))), &[file, codec, "snappy, gzip, zstd"]);
    }
}

#[test]
fn several_files_are_one_data_set() {
    let folder = repo("tests/goldens/data");
    let whole = load(&folder, "path = 'many-snappy-v1.parquet'").unwrap();
    assert_eq!(whole.hash, sha256(&golden("many-snappy-v1.parquet")));
    let names = ["part-0.parquet", "part-1.parquet", "part-2.parquet"];
    let listed = load(&folder, &format!("path = {names:?}")).unwrap();
    same("listed", &listed.rows, "many.jsonl");
    let matched = load(&folder, "path = 'part-?.parquet'").unwrap();
    assert_eq!((&matched.rows, &matched.hash), (&listed.rows, &listed.hash));
    let hashes: Vec<String> = names.iter().map(|n| sha256(&golden(n))).collect();
    assert_eq!(listed.hash, sha256(hashes.join("\n").as_bytes()));
    // The order is the list's.
    let other = load(&folder, "path = ['part-1.parquet', 'part-0.parquet', 'part-2.parquet']").unwrap();
    assert_eq!(other.rows[0]["id"], 20);
    assert_ne!(other.hash, listed.hash);
    for (path, parts) in [
        ("path = 'part-*.jsonl'", &["part-*.jsonl", "no file"][..]),
        ("path = '*/x.jsonl'", &["*/x.jsonl", "not for folders"]),
        ("path = []", &["quiz.toml", "`path` is empty"]),
        ("path = 3", &["quiz.toml", "a list of names"]),
        ("path = '.'", &["is a folder", "*.parquet"]),
        ("path = 'none.parquet'", &["none.parquet", "No such file"]),
        ("path = 'x.parquet'\nfield = 'a'", &["quiz.toml", "only a .json file"]),
        ("path = 'x.jsonl'\ncolumns = ['a']", &["quiz.toml", "only a .csv or .tsv"]),
        ("path = 'x.csv'\nfild = 'a'", &["quiz.toml", "fild", "`field`"]),
    ] {
        says(&error(load(&folder, path)), parts);
    }
}

/// Lists as writers of ten years ago made them, and repeated fields that no list holds.
#[test]
fn older_lists() {
    use parquet::{
        data_type::{ByteArray, ByteArrayType, Int32Type},
        file::{properties::WriterProperties, writer::SerializedFileWriter},
        schema::parser::parse_message_type,
    };
    use std::sync::Arc;
    let levels = |defs: &[i16], reps: &[i16]| (defs.to_vec(), reps.to_vec());
    let cases = [
        (
            "optional group x (LIST) { repeated int32 element; }",
            levels(&[2, 2, 1, 0], &[0, 1, 0, 0]),
            json!([[1, 2], [], null]),
        ),
        ("repeated int32 x;", levels(&[1, 1, 0, 1], &[0, 1, 0, 0]), json!([[1, 2], [], [3]])),
        (
            "required group x (LIST) { repeated group array { required int32 a; } }",
            levels(&[1, 1, 0, 1], &[0, 1, 0, 0]),
            json!([[{ "a": 1 }, { "a": 2 }], [], [{ "a": 3 }]]),
        ),
        (
            "required group x (LIST) { repeated group x_tuple { optional int32 a; } }",
            levels(&[2, 1, 0, 2], &[0, 1, 0, 0]),
            json!([[{ "a": 1 }, { "a": null }], [], [{ "a": 2 }]]),
        ),
        (
            "required group x (LIST) { repeated group bag { optional int32 a; } }",
            levels(&[2, 1, 0, 2], &[0, 1, 0, 0]),
            json!([[1, null], [], [2]]),
        ),
        (
            "optional group x (LIST) { repeated group array (LIST) { repeated int32 array; } }",
            levels(&[3, 3, 2, 1, 0], &[0, 2, 1, 0, 0]),
            json!([[[1, 2], []], [], null]),
        ),
        (
            "repeated group x { required int32 a; }",
            levels(&[1, 1, 0, 0], &[0, 1, 0, 0]),
            json!([[{ "a": 1 }, { "a": 2 }], [], []]),
        ),
    ];
    for (field, (defs, reps), expected) in cases {
        let schema = Arc::new(parse_message_type(&format!("message m {{ {field} }}")).unwrap());
        let mut writer =
            SerializedFileWriter::new(Vec::new(), schema, Arc::new(WriterProperties::builder().build()))
                .unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let full = *defs.iter().max().unwrap();
        let values: Vec<i32> = (1..=defs.iter().filter(|d| **d == full).count() as i32).collect();
        column.typed::<Int32Type>().write_batch(&values, Some(&defs), Some(&reps)).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        let rows = parse("x.parquet", &writer.into_inner().unwrap()).unwrap();
        let rows: Vec<Value> = rows.into_iter().map(|row| row["x"].clone()).collect();
        assert_eq!(Value::from(rows), expected, "{field}");
    }
    // Bytes are a text where they can be; a text that is none is an error.
    let schema =
        Arc::new(parse_message_type("message m { required binary x; required binary y (UTF8); }").unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let written = |columns: [&[u8]; 2]| {
        let mut writer = SerializedFileWriter::new(Vec::new(), schema.clone(), properties.clone()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        for bytes in columns {
            let mut column = group.next_column().unwrap().unwrap();
            column
                .typed::<ByteArrayType>()
                .write_batch(&[ByteArray::from(bytes.to_vec())], None, None)
                .unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
        parse("x.parquet", &writer.into_inner().unwrap())
    };
    assert_eq!(written([b"a", b"b"]).unwrap(), [json!({ "x": "a", "y": "b" })]);
    assert_eq!(written([b"\xff", b""]).unwrap(), [json!({ "x": null, "y": "" })]);
    says(&error(written([b"a", b"\xff"])), &["x.parquet", "column `y`", "UTF-8"]);
}

#[test]
fn packed_files_are_what_is_in_them() {
    let gzip = |bytes: &[u8]| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    type Pack<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
    for (ending, pack) in [("gz", &gzip as Pack), ("zst", &zstd as Pack)] {
        for file in ["many.jsonl", "many-snappy-v1.parquet"] {
            let name = format!("{file}.{ending}");
            same(&name, &parse(&name, &pack(&golden(file))).unwrap(), "many.jsonl");
        }
        // Two archives in a row are one.
        let lines = golden("many.jsonl");
        let half = lines.iter().position(|b| *b == b'\n').unwrap() + 1;
        let name = format!("MANY.JSONL.{}", ending.to_uppercase());
        let both = [pack(&lines[..half]), pack(&lines[half..])].concat();
        same(&name, &parse(&name, &both).unwrap(), "many.jsonl");
        // Cut anywhere, or with a wrong byte, it is an error, or the same rows; never some of them.
        let name = format!("many.jsonl.{ending}");
        let whole = pack(&lines);
        for end in 1..whole.len() {
            says(&error(parse(&name, &whole[..end])), &[&name]);
        }
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 0x55;
            if let Ok(rows) = parse(&name, &bad)
                && ending == "gz"
            {
                same(&format!("byte {at}"), &rows, "many.jsonl");
            }
        }
        says(&error(parse(&name, b"no archive")), &[&name]);
    }
    for name in ["x", "x.gz", "x.zip", "x.jsonl.xz", "x.py", "jsonl", ".jsonl.gz.gz"] {
        says(&error(parse(name, b"{}")), &[name, "unknown kind of file", ".parquet", ".zst"]);
    }
}

#[test]
fn json_csv_and_text() {
    let with = |name: &str, text: &str, field: Option<&str>| {
        rows::parse(name, text.as_bytes().into(), Layout { field, ..Layout::default() })
            .map(|rows| text_of(&rows))
    };
    fn text_of(rows: &[Value]) -> String {
        text(rows).join("\n")
    }
    let two = "{\"b\":1,\"a\":[2]}\n{\"b\":2,\"a\":[]}";
    let list = format!("[{}]", two.replace('\n', ",\n"));
    // A list, a list in a table, lines under the name of `.json` (as C4 has them), and a mark that Windows leaves.
    assert_eq!(with("x.json", &list, None).unwrap(), two);
    assert_eq!(with("x.json", two, None).unwrap(), two);
    assert_eq!(with("x.json", &format!("\u{feff}{two}\n"), None).unwrap(), two);
    assert_eq!(with("x.jsonl", &format!("\u{feff}{two}\r\n\r\n"), None).unwrap(), two);
    let inside = format!("{{\"name\": \"x\", \"qqp\": {list}, \"deep\": {{\"er\": {list}}}}}");
    assert_eq!(with("x.json", &inside, Some("qqp")).unwrap(), two);
    assert_eq!(with("x.json", &inside, Some("deep.er")).unwrap(), two);
    for (bytes, field, parts) in [
        (inside.as_str(), None, &["one table", "`field`", "qqp, deep"][..]),
        (&inside, Some("qpq"), &["no field `qpq`", "did you mean `qqp`"]),
        (&inside, Some("deep.re"), &["no field `re`", "there are: er"]),
        (&inside, Some("name"), &["neither a list"]),
        (&inside, Some("name.x"), &["no table", "name.x"]),
        (&list, Some("qqp"), &["no table", "qqp"]),
        ("[1]", None, &["item 1", "not a JSON object"]),
        ("[{}, []]", None, &["item 2", "not a JSON object"]),
        ("1", None, &["neither"]),
        ("{\"a\": 1}", None, &["one table", "no list"]),
        ("[{]", None, &["not JSON"]),
        (&"[".repeat(100_000), None, &["not JSON", "recursion"]),
    ] {
        let text = error(with("x.json", bytes, field));
        says(&text, &["`x.json`"]);
        says(&text, parts);
    }
    says(&error(with("x.jsonl", "{}\n[]", None)), &["x.jsonl", "line 2", "not a JSON object"]);

    // Cells are texts: a number would lose its zeros.
    let csv = "id,text,n\n01,\"a, \"\"b\"\"\nc\",1.50\n1e3,true,inf\n";
    let expected = json!([{ "id": "01", "text": "a, \"b\"\nc", "n": "1.50" }, { "id": "1e3", "text": "true", "n": "inf" }]);
    assert_eq!(Value::from(parse("x.csv", csv.as_bytes()).unwrap()), expected);
    assert_eq!(Value::from(parse("x.csv", format!("\u{feff}{csv}").as_bytes()).unwrap()), expected);
    assert_eq!(parse("x.tsv", b"a\tb\n1, 2\t\n").unwrap(), [json!({ "a": "1, 2", "b": "" })]);
    let columns = ["better".to_string(), "worse".to_string()];
    let bare = |text: &str| {
        rows::parse("x.csv", text.as_bytes().into(), Layout { columns: Some(&columns), ..Layout::default() })
    };
    assert_eq!(
        bare("1,2\n3,4\n").unwrap(),
        [json!({ "better": "1", "worse": "2" }), json!({ "better": "3", "worse": "4" })]
    );
    says(&error(bare("1,2,3\n")), &["x.csv", "3 columns", "names 2"]);
    says(&error(parse("x.csv", b"a,b,a\n1,2,3\n")), &["x.csv", "column 3", "`a`"]);
    says(&error(parse("x.csv", b"a,b\n1,2\n3\n")), &["x.csv", "line: 3"]);

    assert_eq!(parse("x.txt", b" a\r\nb\n").unwrap(), [json!({ "text": " a\r\nb\n" })]);
    says(&error(parse("x.raw", b" \n")), &["x.raw", "empty"]);
    for name in ["x.txt", "x.jsonl", "x.json", "x.csv", "x.tsv"] {
        says(&error(parse(name, b"a\xffb")), &[name, "UTF-8"]);
        let _ = parse(name, b"");
    }
    // Layout is part of what was read: the same bytes, read otherwise, are other data.
    let folder = TempDir::new().unwrap();
    let list = "[{\"text\": \"a\"}]";
    std::fs::write(folder.path().join("x.json"), format!("{{\"a\": {list}, \"b\": {list}}}")).unwrap();
    let hash =
        |field: &str| load(folder.path(), &format!("path = 'x.json'\nfield = '{field}'")).unwrap().hash;
    assert_ne!(hash("a"), hash("b"));
}

/// Cut anywhere, and with any byte changed: an error that names the file, or rows; never a panic, never an abort.
#[test]
fn damaged_parquet() {
    for file in [
        "types.parquet",
        "many-snappy-v1.parquet",
        "many-zstd-v2.parquet",
        "many-delta.parquet",
        "int96.parquet",
    ] {
        let whole = golden(file);
        for end in (0..whole.len()).step_by(7) {
            says(&error(parse(file, &whole[..end])), &[file, "Parquet"]);
            says(&error(parse(file, &whole[end.max(1)..])), &[file, "Parquet"]);
        }
        // Every byte of the footer, and every third of what stands before it.
        let size: [u8; 4] = whole[whole.len() - 8..whole.len() - 4].try_into().unwrap();
        let body = whole.len() - 8 - u32::from_le_bytes(size) as usize;
        for at in (0..body).step_by(3).chain(body..whole.len()) {
            let mut bad = whole.clone();
            bad[at] ^= [0x01, 0x80, 0xff][at % 3];
            if let Err(e) = parse(file, &bad) {
                says(&format!("{e:#}"), &[file, "Parquet"]);
            }
        }
    }
}

/// Footers that no writer makes: groups without end, room for two thousand million fields, less than none.
#[test]
fn hostile_footers() {
    let varint = |mut n: u64| {
        let mut out = Vec::new();
        while n >= 128 {
            out.push(n as u8 | 128);
            n >>= 7;
        }
        out.push(n as u8);
        out
    };
    // An element: repetition (3), name (4) and number of children (5), in Thrift's compact protocol.
    let element = |children: i64| {
        let zigzag = (children << 1 ^ children >> 63) as u64;
        [&[0x35, 0x00, 0x18, 0x01, b'x', 0x15], varint(zigzag).as_slice(), &[0x00]].concat()
    };
    let file = |elements: &[Vec<u8>]| {
        let mut footer = vec![0x15, 0x02, 0x19, 0xfc];
        footer.extend(varint(elements.len() as u64));
        footer.extend(elements.concat());
        footer.extend([0x16, 0x00, 0x19, 0x0c, 0x00]);
        let size = (footer.len() as u32).to_le_bytes();
        [b"PAR1", footer.as_slice(), &size, b"PAR1"].concat()
    };
    let cases = [
        ("a hundred thousand groups in each other", file(&vec![element(1); 100_000]), "64 groups deep"),
        ("two thousand million fields", file(&[element(i64::from(i32::MAX))]), "more fields than there are"),
        ("less than no fields", file(&[element(-1)]), "less than no fields"),
        ("no elements", file(&[]), ""),
        ("no fields", file(&[element(0)]), ""),
        (
            "a list in a list in a list",
            {
                let mut footer = vec![0x99; 100_000];
                footer.push(0);
                let size = (footer.len() as u32).to_le_bytes();
                [b"PAR1", footer.as_slice(), &size, b"PAR1"].concat()
            },
            "nested without end",
        ),
        (
            "a footer longer than the file",
            [b"PAR1", [255; 4].as_slice(), b"PAR1"].concat(),
            "longer than the file",
        ),
        ("an encrypted footer", b"PAR1\0\0\0\0PARE".to_vec(), "encrypted"),
        ("nothing", Vec::new(), "PAR1"),
        ("a mark alone", b"PAR1".to_vec(), "PAR1"),
        ("another file", b"{\"text\": \"a\"}\n".to_vec(), "PAR1"),
    ];
    for (what, bytes, part) in cases {
        let text = error(parse("x.parquet", &bytes).inspect(|rows| panic!("{what}: {rows:?}")));
        says(&text, &["`x.parquet`", "Parquet", part]);
    }
}

/// A data set on a server: files by name, and what the API lists.
pub fn serve(files: &[(&str, Vec<u8>)]) -> Server {
    let files: BTreeMap<String, Vec<u8>> = files.iter().map(|(n, b)| (n.to_string(), b.clone())).collect();
    Server::start(move |request: &Request| {
        let listing = format!("/api/datasets/org/quiz/revision/{COMMIT}");
        if request.path == listing {
            let names: Vec<Value> = files.keys().map(|n| json!({ "rfilename": n })).collect();
            let body = json!({ "siblings": names, "sha": COMMIT }).to_string().into_bytes();
            return Answer { body, ..Answer::new(200) };
        }
        let name = request.path.strip_prefix(&format!("/datasets/org/quiz/resolve/{COMMIT}/"));
        match name.and_then(|n| files.get(n)) {
            Some(bytes) => Answer::file(request, bytes, &sha256(bytes)),
            None => Answer::new(404).with("X-Error-Code", "EntryNotFound").with("X-Repo-Commit", COMMIT),
        }
    })
}

fn on_hub(settings: &Settings, file: &str) -> Result<Items> {
    let task = task(&format!("[data.hub]\nrepo = 'org/quiz'\nrevision = '{COMMIT}'\nfile = {file}"))?;
    data::load("suites/x/quiz.toml", &task, &Place::Inside("x".into()), &Default::default(), &|| {
        Hub::new(settings.clone())
    })
}

const LOCAL: &[&str] =
    &["suites/x/quiz.toml", "org/quiz", "--set 'data.quiz=PATH'", "BITSWEEP_DATA=DIR with DIR/quiz/"];

#[test]
fn a_data_set_on_the_hub_is_fetched_once_and_hashed() {
    let cache = TempDir::new().unwrap();
    let file = "data/test-00000-of-00001.parquet";
    let server = serve(&[(file, golden("many-snappy-v1.parquet")), ("a.jsonl", golden("many.jsonl"))]);
    let online = settings(&cache, &server.url);
    let items = on_hub(&online, &format!("'{file}'")).unwrap();
    same("from the Hub", &items.rows, "many.jsonl");
    assert_eq!(items.hash, sha256(&golden("many-snappy-v1.parquet")));
    let place = cache.path().join("datasets--org--quiz/snapshots").join(COMMIT).join(file);
    assert_eq!(std::fs::read(place).unwrap(), golden("many-snappy-v1.parquet"));
    let asked = server.asked().len();
    assert!(server.asked().iter().all(|r| r.path == format!("/datasets/org/quiz/resolve/{COMMIT}/{file}")));
    // A second time, and offline, nobody is asked.
    let offline = Settings { offline: true, ..online.clone() };
    assert_eq!(on_hub(&online, &format!("'{file}'")).unwrap().hash, items.hash);
    assert_eq!(on_hub(&offline, &format!("['{file}']")).unwrap().hash, items.hash);
    let text = error(on_hub(&offline, "'a.jsonl'"));
    says(&text, LOCAL);
    says(&text, &["`a.jsonl`", "HF_HUB_OFFLINE", "holds the dataset", "DIR/quiz/a.jsonl"]);
    assert_eq!(server.asked().len(), asked);
    // Two files are one data set.
    let both = on_hub(&online, &format!("['{file}', 'a.jsonl']")).unwrap();
    assert_eq!(both.rows.len(), 2 * items.rows.len());
}

#[test]
fn data_that_is_not_to_be_had() {
    // Gated, private, or nowhere.
    for (status, code, parts) in [
        (401, "GatedRepo", &["gated", "accept its licence at", "/datasets/org/quiz", "HF_TOKEN"][..]),
        (403, "GatedRepo", &["gated", "accept its licence at", "/datasets/org/quiz", "HF_TOKEN"]),
        (401, "RepoNotFound", &["no repository org/quiz", "private", "HF_TOKEN"]),
        (404, "RepoNotFound", &["no repository org/quiz"]),
        (404, "RevisionNotFound", &["no revision", COMMIT]),
    ] {
        let cache = TempDir::new().unwrap();
        let server = Server::start(move |_| Answer::new(status).with("X-Error-Code", code));
        let text = error(on_hub(&settings(&cache, &server.url), "'test.parquet'"));
        says(&text, LOCAL);
        says(&text, parts);
        assert!(remains(cache.path()).is_empty());
    }
    // Moved: the error says what is there.
    let cache = TempDir::new().unwrap();
    let server =
        serve(&[("plain/test.parquet", vec![]), ("README.md", vec![]), ("dataset_infos.json", vec![])]);
    let text = error(on_hub(&settings(&cache, &server.url), "'plain_text/test.parquet'"));
    says(&text, LOCAL);
    says(
        &text,
        &[
            "no file `plain_text/test.parquet`",
            "did you mean `plain/test.parquet`",
            "it has: plain/test.parquet.",
        ],
    );
    assert!(!text.contains("README") && !text.contains("infos"), "{text}");
    // Nothing but a script, which is not even fetched.
    let cache = TempDir::new().unwrap();
    let script = ("quiz.py", b"raise SystemExit('run')".to_vec());
    let server =
        serve(&[script, ("dataset_infos.json", vec![]), ("README.md", vec![]), ("data.zip", vec![])]);
    let text = error(on_hub(&settings(&cache, &server.url), "'test.parquet'"));
    says(&text, LOCAL);
    says(&text, &["`quiz.py`", "never run", "refs/convert/parquet"]);
    let text = error(on_hub(&settings(&cache, &server.url), "'quiz.py'"));
    says(&text, &["`quiz.py`", "no file of data", "nothing is run"]);
    assert!(server.asked().iter().all(|r| !r.path.ends_with(".py")));
    assert!(remains(cache.path()).iter().all(|path| path.to_string_lossy().contains(".no_exist")));
    // Damaged on its way: refused, and not kept.
    let cache = TempDir::new().unwrap();
    let server =
        Server::start(|request| Answer::file(request, b"{\"text\": \"a\"}", &sha256(b"something else")));
    let text = error(on_hub(&settings(&cache, &server.url), "'a.jsonl'"));
    says(&text, LOCAL);
    says(&text, &["a.jsonl", "expected sha256", "run again"]);
    assert!(remains(cache.path()).is_empty());
    // What is not a data set's commit is a mistake in the task.
    for (repo, revision, parts) in [
        ("org/quiz", "main", &["`main` is no commit", "datasets/org/quiz/commits/main"][..]),
        ("org/quiz", "refs/convert/parquet", &["is no commit"]),
        ("quiz", COMMIT, &["no organisation", "rajpurkar/squad"]),
        ("org/../quiz", COMMIT, &["'/'"]),
    ] {
        let data = format!("[data.hub]\nrepo = '{repo}'\nrevision = '{revision}'\nfile = 'a.jsonl'");
        let text = error(task(&data));
        says(&text, &["quiz.toml", "data.hub"]);
        says(&text, parts);
    }
    says(
        &error(on_hub(&settings(&cache, "http://127.0.0.1:1"), "'../../x.jsonl'")),
        &["no file of a repository"],
    );
}

/// From the command line: a cell's data is the file's hash, whatever stands in for it.
#[test]
fn records_name_the_data_by_hash() {
    let desk = Desk::small();
    let words = "my own words ".repeat(30);
    let row = json!({ "text": words }).to_string();
    let files = [
        ("mine.txt", words.clone().into_bytes()),
        ("mine.jsonl", row.clone().into_bytes()),
        ("mine.jsonl.zst", zstd::encode_all(row.as_bytes(), 1).unwrap()),
        ("table.json", format!("{{\"own\": [{row}]}}").into_bytes()),
        ("bare.csv", words.clone().into_bytes()),
    ];
    for (name, bytes) in &files {
        desk.write(name, bytes);
    }
    let run = |what: &str, args: &[&str], root: Option<&str>| {
        let (study, out) = (desk.arg("study.toml"), desk.arg(what));
        let mut command = desk.bitsweep(&[&["run", &study, "--out", &out], args].concat());
        if let Some(root) = root {
            command.env("BITSWEEP_DATA", desk.path(root));
        }
        crate::kit::Ran::of(&mut command)
    };
    let record = |what: &str| records(&desk.path(what)).remove(0);
    let mut values = Vec::new();
    for (i, (set, hash)) in [
        ("data.text=mine.txt", Some(sha256(&files[0].1))),
        ("data.text=mine.jsonl", Some(sha256(&files[1].1))),
        ("data.text=['mine.jsonl.zst']", Some(sha256(&files[2].1))),
        ("data.text={path='table.json', field='own'}", None),
        ("data.text={path='bare.csv', columns=['text']}", None),
        ("data.text='mine.json*x'", None),
    ]
    .into_iter()
    .enumerate()
    {
        let out = format!("out{i}");
        let ran = run(&out, &["--set", set], None);
        if set.ends_with("*x'") {
            ran.expect(2).says(&["mine.json*x", "no file"]);
            continue;
        }
        ran.expect(0);
        let record = record(&out);
        if let Some(hash) = hash {
            assert_eq!(record["task"]["data"], hash, "{set}");
        }
        values.push(record["metrics"]["perplexity"]["value"].clone());
    }
    assert!(values.iter().all(|v| *v == values[0]), "{values:?}");
    for (set, parts) in [
        ("data.text={path='table.json'}", &["table.json", "`field`", "own"][..]),
        ("data.text={pth='x'}", &["data.text", "`path`, `field`"]),
        ("data.text=3", &["data.text", "a list of paths"]),
    ] {
        run("bad", &["--set", set], None).expect(2).says(parts);
    }

    // Below BITSWEEP_DATA: under the task's own name for it, or the task's name alone.
    desk.write("a/text/text.txt", &words);
    desk.write("b/text.jsonl.zst", &files[2].1);
    desk.write("b/text.old.jsonl", "nothing");
    desk.write("c/text/other.txt", &words);
    desk.write("d/text.txt", &words);
    desk.write("d/text.csv", &words);
    desk.write("e/quiz.jsonl", &words);
    run("a-out", &[], Some("a")).expect(0);
    assert_eq!(record("a-out")["task"]["data"], sha256(words.as_bytes()));
    run("b-out", &[], Some("b")).expect(0);
    assert_eq!(record("b-out")["task"]["data"], sha256(&files[2].1));
    run("c-out", &[], Some("c")).expect(2).says(&["BITSWEEP_DATA", "lacks text.txt"]);
    run("d-out", &[], Some("d")).expect(2).says(&["BITSWEEP_DATA", "`text`", "text.csv or text.txt"]);
    run("e-out", &[], Some("e")).expect(0);
    assert_eq!(record("e-out")["task"]["data"], sha256(desk.read("text.txt").as_bytes()));
    // A task on the Hub needs no Hub where its files are at hand, in folders as there, or without.
    let hub = format!(
        "[data.hub]\nrepo = 'org/x'\nrevision = '{COMMIT}'\nfile = ['x/a.jsonl', 'y/a.jsonl', 'b.txt']"
    );
    desk.write("text.toml", TEXT.replace("[data.file]\npath = 'text.txt'", &hub));
    for name in ["f/text/x/a.jsonl", "f/text/y/a.jsonl"] {
        desk.write(name, &row);
    }
    run("f-out", &[], Some("f")).expect(2).says(&["lacks b.txt"]);
    desk.write("f/text/b.txt", &words);
    run("f-out", &[], Some("f")).expect(0);
    run("g-out", &[], None).expect(2).says(&[
        "text.toml",
        "HF_HUB_OFFLINE",
        "data.text=PATH",
        "DIR/text/a.jsonl",
    ]);
}

/// Rows counted by Python's `csv` and `json`.
#[test]
fn real_files_have_the_rows_that_they_have() {
    let Some(folder) = shared("data") else { return };
    let read = |name: &str, layout: Layout<'_>| {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        rows::parse(name, bytes.into(), layout).unwrap_or_else(|e| panic!("{e:#}"))
    };
    for (name, field, count) in [
        ("arc_challenge/arc_challenge_test.jsonl", None, 1172),
        ("arc_easy/arc_easy_validation.jsonl", None, 570),
        ("c4/c4_sample.jsonl", None, 30),
        ("ethics/commonsense/cm_test.csv", None, 3885),
        ("ethics/deontology/deontology_test.csv", None, 3596),
        ("ethics/justice/justice_test.csv", None, 2704),
        ("ethics/virtue/virtue_test.csv", None, 4975),
        ("gsm8k/train.jsonl", None, 7473),
        ("hellaswag/hellaswag_val.jsonl", None, 10042),
        ("lambada/lambada_test.jsonl", None, 5153),
        ("longeval/lines/680_lines.jsonl", None, 50),
        ("mt_bench/question.jsonl", None, 80),
        ("openbookqa/dev.tsv", None, 500),
        ("openbookqa/test.tsv", None, 500),
        ("piqa/piqa_validation.jsonl", None, 1838),
        ("rte/rte_validation.jsonl", None, 277),
        ("social_iqa/social_iqa_validation.jsonl", None, 1954),
        ("winogrande/winogrande_validation.jsonl", None, 1267),
        ("truthfulqa/TruthfulQA.csv", None, 817),
        ("truthfulqa/mc_task.json", None, 817),
        ("strategyqa/dev.json", None, 229),
        ("strategyqa/bigbench_task.json", Some("examples"), 2290),
        ("advglue/dev.json", Some("sst2"), 148),
        ("advglue/dev.json", Some("mnli-mm"), 162),
        ("wikitext2/wiki.test.raw", None, 1),
        ("wikitext2/wiki.valid.tokens", None, 1),
    ] {
        assert_eq!(read(name, Layout { field, ..Layout::default() }).len(), count, "{name}");
    }
    let columns = ["better".to_string(), "worse".to_string()];
    let pairs =
        read("ethics/utilitarianism/util_test.csv", Layout { columns: Some(&columns), ..Layout::default() });
    assert_eq!(pairs.len(), 4808);
    assert!(pairs[0]["better"].as_str().unwrap().starts_with("I applied to adopt"));
    for (split, count) in [("dev", 285), ("test", 14042)] {
        let all = load(&folder.join("mmlu"), &format!("path = '{split}/*.csv'")).unwrap();
        assert_eq!(all.rows.len(), count);
        assert!(all.rows.iter().all(|row| row.as_object().unwrap().values().all(Value::is_string)));
    }
    // Keys keep their order: TruthfulQA's right answer is its first.
    for row in read("truthfulqa/mc_task.json", Layout::default()) {
        let targets: Vec<i64> =
            row["mc1_targets"].as_object().unwrap().values().map(|v| v.as_i64().unwrap()).collect();
        assert_eq!(targets.iter().sum::<i64>(), 1);
        assert_eq!(targets[0], 1);
    }
}

/// Small files on the Hub are known by git's hash; that one is checked too, and the record's is sha256 all the same.
#[test]
fn small_files_by_gits_hash() {
    let cache = TempDir::new().unwrap();
    let server =
        Server::start(|request| Answer::file(request, b"{\"text\": \"a\"}", &git_sha1(b"{\"text\": \"a\"}")));
    let items = on_hub(&settings(&cache, &server.url), "'a.jsonl'").unwrap();
    assert_eq!(items.hash, sha256(b"{\"text\": \"a\"}"));
}

/// One file with the items of all parts: each finds its own, in its order; what a task does not ask about is left out.
#[test]
fn items_find_their_part_or_are_left_out() {
    let head = "about = ''\nversion = 1\nmetrics = ['acc']\npart = '{{ kind }}'\nkeep = '{{ n != 3 }}'\n\
                [parts]\nb = 'Bees'\na = 'Ants'\n";
    let items: String = [("a", 1), ("b", 2), ("a", 3), ("a", 4), ("b", 5)]
        .iter()
        .map(|(kind, n)| format!("[[data.items]]\nkind = '{kind}'\nn = {n}\n"))
        .collect();
    let ask = "[ask.choice]\nprompt = '{{ title }} {{ n }}'\nendings = ['x', 'y']\ngold = '0'\n";
    let no_hub = || anyhow::bail!("no hub here");
    let load = |text: &str| {
        let task = Task::parse("t.toml", text).unwrap();
        let place = data::Place::Folder("".into());
        data::load("t.toml", &task, &place, &data::Instead::default(), &no_hub).map(|items| (task, items))
    };
    let (task, loaded) = load(&format!("{head}{items}{ask}")).unwrap();
    let asked = bitsweep::suite::requests::questions(&task, &loaded, None).unwrap();
    let prompts: Vec<&str> = asked.iter().map(|q| q.prompts[0].as_str()).collect();
    assert_eq!(prompts, ["Bees 2", "Bees 5", "Ants 1", "Ants 4"]);
    assert_eq!(loaded.part_names(Some(1)), ["b", "a"]);
    assert!(task.more().unwrap().to_string().contains("{{ n != 3 }}"));
    for (from, to, says) in [
        ("b = 'Bees'\n", "", "item 2: no part `b`"),
        ("n != 3", "n > 9", "`keep` leaves none of its 5 items"),
    ] {
        let error = load(&format!("{head}{items}{ask}").replace(from, to)).unwrap_err();
        assert!(is_mistake(&error) && format!("{error:#}").contains(says), "{error:#}");
    }
    let error = Task::parse(
        "t.toml",
        &format!("about = ''\nversion = 1\nmetrics = ['acc']\npart = 'a'\n{items}{ask}"),
    );
    assert!(format!("{:#}", error.unwrap_err()).contains("the task has no `parts`"));
}
