//! `pytorch_model.bin`: the same numbers as safetensors, in every way that torch saves them (`tests/make_pickles.py`);
//! and nothing in a file is ever run, trusted or allowed to exhaust this program.
use crate::{
    common::repo,
    kit::{Desk, Dice, records, values},
};
use anyhow::Result;
use bitsweep::{
    mistake::is_mistake,
    model::checkpoint::{Checkpoint, WEIGHTS, weight_files},
};
use candle_core::Tensor;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// What a folder's checkpoint consists of.
fn paths(folder: &Path) -> Result<Vec<PathBuf>> {
    weight_files(|name| Ok(Some(folder.join(name)).filter(|p| p.is_file())), |name| Ok(folder.join(name)))
}

fn all(checkpoint: &Checkpoint) -> Result<BTreeMap<String, Tensor>> {
    checkpoint.names().map(|name| Ok((name.to_string(), checkpoint.tensor(name)?))).collect()
}

fn bits(tensor: &Tensor) -> (Vec<usize>, Vec<u32>) {
    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    (tensor.dims().to_vec(), values.into_iter().map(f32::to_bits).collect())
}

fn pickled(name: &str) -> PathBuf {
    repo("tests/fixtures/pickles").join(name)
}

/// Opens bytes as a file of this name and reads every tensor; an error must be the user's, and name the file.
#[track_caller]
fn read_as(name: &str, bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let read = Checkpoint::open(&[path]).and_then(|c| all(&c));
    if let Err(e) = &read {
        let text = format!("{e:#}");
        assert!(is_mistake(e) && text.contains(name) && text.len() < 1500, "{text}");
    }
    read
}

fn read(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    read_as("pytorch_model.bin", bytes)
}

#[track_caller]
fn refused(what: &str, bytes: &[u8], parts: &[&str]) {
    let error = match read(bytes) {
        Ok(tensors) => panic!("{what}: was read as {:?}", tensors.keys()),
        Err(e) => format!("{e:#}"),
    };
    for part in parts {
        assert!(error.contains(part), "{what}: lacks `{part}`: {error}");
    }
}

#[test]
fn the_same_numbers_as_safetensors() {
    for (case, source, stored) in [
        ("single", "opt/old-names", "f32"),
        ("bf16", "llama/bf16", "bf16"),
        ("sharded-f16", "llama/sharded-f16", "f16"),
        ("strided", "gpt2/untied", "f32"),
        ("one-storage", "opt/no-bias", "f32"),
        ("parameters", "opt/350m", "f32"),
        ("attribute", "opt/350m", "f32"),
        ("nested", "gpt2/untied", "f32"),
        ("buffers", "opt/no-bias", "f32"),
        ("before-1.6", "opt/old-names", "f32"),
        ("before-1.6-strided", "gpt2/untied", "f32"),
        ("protocol-4", "opt/no-bias", "f32"),
    ] {
        let want = Checkpoint::open(&paths(&repo("tests/fixtures").join(source)).unwrap()).unwrap();
        let have =
            Checkpoint::open(&paths(&pickled(case)).unwrap()).unwrap_or_else(|e| panic!("{case}: {e:#}"));
        let mut seen = 0;
        for name in want.names() {
            let (want, have) = (want.tensor(name).unwrap(), have.tensor(name).unwrap());
            assert!(bits(&want) == bits(&have), "{case}: `{name}` differs");
            seen += 1;
        }
        let extra: Vec<&str> = have.names().filter(|n| !n.starts_with("buffer.")).collect();
        assert_eq!(extra.len(), seen, "{case}: {extra:?}");
        assert_eq!(have.stored(), stored, "{case}");
        assert_ne!(have.hash(), want.hash(), "{case}: other bytes");
        assert_eq!(have.hash(), Checkpoint::open(&paths(&pickled(case)).unwrap()).unwrap().hash(), "{case}");
    }
}

/// Masks and counters do not stand in the way, and none of them is taken for a weight.
#[test]
fn tensors_of_other_types_are_there_and_no_weights() {
    let checkpoint = Checkpoint::open(&paths(&pickled("buffers")).unwrap()).unwrap();
    let buffers: Vec<&str> = checkpoint.names().filter(|n| n.starts_with("buffer.")).collect();
    assert_eq!(buffers.len(), 15, "{buffers:?}");
    for (name, part) in [
        ("buffer.bool", "BOOL"),
        ("buffer.int64", "I64"),
        ("buffer.float64", "F64"),
        ("buffer.uint16", "U16"),
        ("buffer.float8_e4m3fn", "F8_E4M3"),
        ("buffer.expanded", "I64"),
    ] {
        let error = format!("{:#}", checkpoint.tensor(name).unwrap_err());
        assert!(
            error.contains(part) && error.contains(name) && error.contains("F32, F16 and BF16"),
            "{error}"
        );
    }
    assert_eq!(bits(&checkpoint.tensor("buffer.scalar").unwrap()).1, [(-1e4f32).to_bits()]);
    assert_eq!(checkpoint.tensor("buffer.empty").unwrap().dims(), [0, 4]);
}

/// Through the command line: a model that is only pickled scores as its safetensors do.
#[test]
fn a_study_of_a_pickled_model() {
    let desk = Desk::small();
    for (name, fixture, case) in
        [("n", "opt/old-names", "before-1.6"), ("s", "llama/sharded-f16", "sharded-f16")]
    {
        desk.model(name, fixture);
        desk.study(&[name], &["w4"], &["text.toml"]);
        desk.go().expect(0);
        let want = values(&records(&desk.path("out")));
        for file in fs::read_dir(desk.path(name)).unwrap().map(|f| f.unwrap().path()) {
            if file.display().to_string().contains(".safetensors") {
                fs::remove_file(file).unwrap();
            }
        }
        desk.go().expect(2).says(&WEIGHTS);
        for file in fs::read_dir(pickled(case)).unwrap().map(|f| f.unwrap().path()) {
            fs::copy(&file, desk.path(name).join(file.file_name().unwrap())).unwrap();
        }
        fs::remove_dir_all(desk.path("out")).unwrap();
        desk.go().expect(0);
        assert_eq!(values(&records(&desk.path("out"))), want, "{case}");
        fs::remove_dir_all(desk.path("out")).unwrap();
    }
}

/// Each of these runs a command in Python.
#[test]
fn nothing_is_called() {
    let mut seen = 0;
    for (name, callee) in [
        ("reduce", "posix.system"),
        ("reduce-os", "os.system"),
        ("at-the-end", "posix.system"),
        ("eval", "builtins.eval"),
        ("eval-of-python-2", "__builtin__.eval"),
        ("stack-global", "os.system"),
        ("dotted", "torch.os.system"),
        ("inst", "os.system"),
        ("inst-class", "subprocess.getoutput"),
        ("obj", "os.system"),
        ("newobj", "subprocess.Popen"),
        ("in-an-argument", "posix.system"),
        ("in-a-shape", "posix.system"),
        ("in-the-metadata", "posix.system"),
        ("as-a-name", "posix.system"),
        ("getattr", "builtins.getattr"),
        ("runpy", "runpy._run_code"),
    ] {
        let bytes = fs::read(pickled("hostile").join(format!("{name}.bin"))).unwrap();
        let part = format!("asks to call `{callee}`: a checkpoint holds tensors only; refused");
        refused(name, &bytes, &[&part]);
        seen += 1;
    }
    assert_eq!(seen, fs::read_dir(pickled("hostile")).unwrap().count(), "files in hostile/");
    assert!(!Path::new("bitsweep-was-here").exists() && !repo("bitsweep-was-here").exists());
}

/// A zip archive of stored entries, as torch lays it out.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    archive_by(entries, 0)
}

fn archive_by(entries: &[(&str, &[u8])], method: u16) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let at = out.len() as u32;
        let mut common = Vec::new();
        for field in [20u16, 0, method, 0, 0x21] {
            common.extend(field.to_le_bytes());
        }
        for field in [0u32, bytes.len() as u32, bytes.len() as u32] {
            common.extend(field.to_le_bytes());
        }
        common.extend((name.len() as u16).to_le_bytes());
        common.extend(0u16.to_le_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend(name.as_bytes());
        out.extend(*bytes);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (at, size, n) = (out.len() as u32, directory.len() as u32, entries.len() as u16);
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([n.to_le_bytes(), n.to_le_bytes()].concat());
    out.extend([size.to_le_bytes(), at.to_le_bytes()].concat());
    out.extend([0, 0]);
    out
}

fn text(s: &str) -> Vec<u8> {
    [b"X", &(s.len() as u32).to_le_bytes()[..], s.as_bytes()].concat()
}

/// `{"w": tensor}` over storage 0 of `count` floats, its offset, shape and strides as pickled bytes.
fn stream(count: &[u8], offset: &[u8], shape: &[u8], strides: &[u8]) -> Vec<u8> {
    [
        b"\x80\x02}",
        &text("w")[..],
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        &text("storage"),
        b"ctorch\nFloatStorage\n",
        &text("0"),
        &text("cpu"),
        count,
        b"tQ",
        offset,
        shape,
        strides,
        b"\x89}tRs.",
    ]
    .concat()
}

fn with_pickle(pickle: &[u8]) -> Vec<u8> {
    archive(&[("a/data.pkl", pickle), ("a/data/0", &[0; 24]), ("a/version", b"3\n")])
}

#[test]
fn shapes_strides_and_storages() {
    let whole = stream(b"K\x06", b"K\x00", b"K\x02K\x03\x86", b"K\x03K\x01\x86");
    assert_eq!(read(&with_pickle(&whole)).unwrap()["w"].dims(), [2, 3]);
    let huge = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"; // 2^63 - 1
    let s = |what: &str, pickle: Vec<u8>, parts: &[&str]| refused(what, &with_pickle(&pickle), parts);
    let beyond = &["`w`", "reach beyond its storage of 6"][..];
    s("too wide", stream(b"K\x06", b"K\x00", b"K\x02K\x04\x86", b"K\x04K\x01\x86"), beyond);
    s("an offset", stream(b"K\x06", b"K\x01", b"K\x02K\x03\x86", b"K\x03K\x01\x86"), beyond);
    s("a stride", stream(b"K\x06", b"K\x00", b"K\x02K\x03\x86", b"K\x04K\x01\x86"), beyond);
    s("a huge offset", stream(b"K\x06", huge, b"K\x02K\x03\x86", b"K\x03K\x01\x86"), beyond);
    s("an offset of none", stream(b"K\x06", b"K\x07", b"K\x00K\x03\x86", b"K\x03K\x01\x86"), beyond);
    let both = [&huge[..], huge, b"\x86"].concat();
    s("a huge stride", stream(b"K\x06", b"K\x00", b"K\x02K\x03\x86", &both), beyond);
    s("a huge shape", stream(b"K\x06", b"K\x00", &both, b"K\x00K\x00\x86"), &["`w`", "shape"]);
    let empty = [b"(K\x00", &huge[..], huge, b"t"].concat();
    s("a shape of nothing", stream(b"K\x06", b"K\x00", &empty, b"K\x01K\x01K\x01\x87"), &["`w`", "shape"]);
    s(
        "one number, a thousand times",
        stream(b"K\x06", b"K\x00", b"M\xe8\x03K\x03\x86", b"K\x00K\x01\x86"),
        &["`w`", "repeats"],
    );
    s("negative", stream(b"K\x06", b"K\x00", b"J\xff\xff\xff\xffK\x03\x86", b"K\x03K\x01\x86"), &["-1"]);
    s("a negative offset", stream(b"K\x06", b"\x8a\x01\xff", b"K\x02K\x03\x86", b"K\x03K\x01\x86"), &["-1"]);
    s("strides of other rank", stream(b"K\x06", b"K\x00", b"K\x02K\x03\x86", b"K\x01\x85"), &["strides [1]"]);
    s(
        "a shape of text",
        stream(b"K\x06", b"K\x00", &[&text("x")[..], b"\x85"].concat(), b"K\x01\x85"),
        &["number"],
    );
    s("no shape", stream(b"K\x06", b"K\x00", b"N", b"K\x01\x85"), &["shape"]);
    s("a storage of more", stream(b"K\x07", b"K\x00", b"K\x02\x85", b"K\x01\x85"), &["`w`", "7", "24 bytes"]);
    s("a storage of 2^63 - 1", stream(huge, b"K\x00", b"K\x02\x85", b"K\x01\x85"), &["`w`", "24 bytes"]);
    s(
        "a storage of -1",
        stream(b"J\xff\xff\xff\xff", b"K\x00", b"K\x02\x85", b"K\x01\x85"),
        &["-1 elements"],
    );
    let rank = [&b"("[..], &b"K\x01".repeat(17), b"t"].concat();
    s("17 dimensions", stream(b"K\x06", b"K\x00", &rank, &rank), &["at most 16"]);
    let gone = archive(&[("a/data.pkl", &whole[..]), ("a/data/1", &[0; 24])]);
    refused("no storage", &gone, &["a/data/0"]);
    let mut nan = [0u8; 24];
    nan[20..].copy_from_slice(&f32::NAN.to_le_bytes());
    refused(
        "not a number",
        &archive(&[("data.pkl", &whole[..]), ("data/0", &nan)]),
        &["`w`", "NaN", "element 5"],
    );
    // Twice one name: the last counts, as in Python.
    let body = &whole[3..whole.len() - 1];
    let second = stream(b"K\x06", b"K\x00", b"K\x06\x85", b"K\x01\x85");
    let twice = [b"\x80\x02}", body, &second[3..]].concat();
    assert_eq!(read(&with_pickle(&twice)).unwrap()["w"].dims(), [6]);
}

/// Streams that no torch wrote: each ends in an error, in time and memory that its own length bounds.
#[test]
fn streams_that_are_damaged_or_made_to_exhaust() {
    let s = |what: &str, pickle: &[u8], parts: &[&str]| refused(what, &with_pickle(pickle), parts);
    for (what, pickle, parts) in [
        ("empty", &b""[..], &["cut short"][..]),
        ("no stop", b"\x80\x02}", &["cut short"]),
        ("stop alone", b".", &["damaged"]),
        ("protocol 9", b"\x80\x09}.", &["protocol 9"]),
        ("an unknown step", b"\x80\x02\xee.", &["0xee"]),
        ("an extension", b"\x80\x02\x82\x01.", &["0x82"]),
        ("a persistent id as text", b"\x80\x02Pabc\n.", &["0x50"]),
        ("a number", b"K\x01.", &["holds no tensors"]),
        ("an empty dict", b"}.", &["holds no tensors", "state_dict"]),
        ("a name that is no text", b"c\xff\xfe\nx\n.", &["no text"]),
        ("a name without end", b"cabc", &["cut short"]),
        ("a name from numbers", b"K\x01K\x02\x93.", &["no text"]),
        ("an allowed name by INST", b"(icollections\nOrderedDict\n.", &["INST"]),
        ("a call of a number", b"K\x01)R.", &["calls what is no function"]),
        ("a call with a number", b"ccollections\nOrderedDict\nK\x01R.", &["damaged"]),
        ("a tensor of nothing", b"ctorch._utils\n_rebuild_tensor_v2\n)R.", &["wrong arguments"]),
        ("a parameter of nothing", b"ctorch._utils\n_rebuild_parameter\n)R.", &["wrong arguments"]),
        ("a type of nothing", b"ctorch._tensor\n_rebuild_from_type_v2\n)R.", &["of nothing"]),
        (
            "a type of a type",
            b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\nN)tR.",
            &["of nothing"],
        ),
        ("a call of a dtype", b"ctorch\nfloat32\n)R.", &["wrong arguments"]),
        ("a state of a number", b"K\x01}b.", &["refused"]),
        ("a storage of a number", b"K\x01Q.", &["a storage's name"]),
        ("a storage of one part", b"K\x01\x85Q.", &["1 parts"]),
        ("a memo of nothing", b"h\x05.", &["recalls number 5"]),
        ("a mark taken away", b"}(s.", &["damaged"]),
        ("no mark", b"}u.", &["mark"]),
        ("an odd dict", b"}(K\x01u.", &["damaged"]),
        ("an item of a number", b"K\x01K\x02K\x03s.", &["damaged"]),
        ("an entry of a number", b"K\x01K\x02a.", &["damaged"]),
        ("a text of 4 GB", b"X\xff\xff\xff\xffab", &["cut short"]),
        ("a text of 2^64 bytes", b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffab", &["cut short"]),
        ("bytes of 2^64 bytes", b"\x8e\xff\xff\xff\xff\xff\xff\xff\xffab", &["cut short"]),
        ("a number of 4 GB", b"\x8b\xff\xff\xff\xffab", &["cut short"]),
        ("a number of nothing", b"\x8a\x00.", &["holds no tensors"]),
        ("a frame of 2^64 bytes", b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff}.", &["holds no tensors"]),
    ] {
        s(what, pickle, parts);
    }
    let long = [b"\x8a\xff", &[0x55; 255][..], b"."].concat();
    s("a number of 255 bytes", &long, &["holds no tensors"]);
    let name = [b"c", &[b'a'; 5000][..], b"\nb\n."].concat();
    s("a name of 5000 letters", &name, &["cut short"]);
    s("a name with an escape", b"cos\x1b[2J\nx\n.", &["os\\u{1b}[2J.x"]);
    // Python's own reader doubles with each of these lines; candle's copies.
    let mut bomb = b"]q\x00".to_vec();
    for _ in 0..200 {
        bomb.extend(b"h\x00h\x00\x86q\x00");
    }
    s("2^200 references", &[&bomb[..], b"."].concat(), &["holds no tensors"]);
    for (what, one) in
        [("tuples in tuples", &b"\x85"[..]), ("marks", b"("), ("states", b"}b"), ("copies", b"2")]
    {
        s(what, &[b"}", &one.repeat(1_000_000)[..], b"."].concat(), &[]);
    }
    s("lists in lists", &[b"}", &b"]".repeat(1_000_000)[..], &b"a".repeat(1_000_000), b"."].concat(), &[]);
    s("a dict in itself", &[b"}q\x00", &text("model")[..], b"h\x00s."].concat(), &["holds no tensors"]);
    s("12 million steps", &[&b"N0".repeat(6_000_000)[..], b"."].concat(), &["10000000 steps"]);
    // A list of 100,000 pairs, made into a dict 10,000 times.
    let mut list = b"(".to_vec();
    list.extend(b"K\x01K\x02\x86".repeat(100_000));
    list.extend(b"lq\x00ccollections\nOrderedDict\nq\x01");
    list.extend(b"h\x01h\x00\x85R0".repeat(10_000));
    s("dicts of one list", &[&list[..], b"."].concat(), &["10000000 steps"]);
}

#[test]
fn files_that_are_something_else() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n";
    let page = "\n<!DOCTYPE html><html><head>";
    for name in ["pytorch_model.bin", "model.safetensors"] {
        for (bytes, part) in [
            (&b""[..], "is empty"),
            (pointer.as_bytes(), "Git LFS pointer"),
            (page.as_bytes(), "web page"),
            (b"<HTML>", "web page"),
        ] {
            let error = format!("{:#}", read_as(name, bytes).unwrap_err());
            assert!(error.contains(part), "{error}");
        }
    }
    let good = stream(b"K\x06", b"K\x00", b"K\x02K\x03\x86", b"K\x03K\x01\x86");
    let data: (&str, &[u8]) = ("a/data/0", &[0; 24]);
    refused("words", b"hello", &["not what `torch.save` writes"]);
    refused("a pickle alone", b"\x80\x02}.", &["not what `torch.save` writes"]);
    refused("a zip of something", &archive(&[("x.txt", b"x")]), &["0 `data.pkl`"]);
    refused("an empty zip", &archive(&[]), &["0 `data.pkl`"]);
    refused("deep inside", &archive(&[("a/b/data.pkl", &good[..]), data]), &["0 `data.pkl`"]);
    refused("two", &archive(&[("a/data.pkl", &good[..]), ("b/data.pkl", &good[..])]), &["2 `data.pkl`"]);
    let script = [("a/data.pkl", &good[..]), ("a/constants.pkl", b"\x80\x02)."), data];
    refused("TorchScript", &archive(&script), &["TorchScript"]);
    let compressed = archive_by(&[("a/data.pkl", &good[..]), data], 8);
    refused("compressed", &compressed, &["a/data.pkl", "compressed"]);
    let big = [("a/data.pkl", &good[..]), ("a/byteorder", b"big"), data];
    refused("big-endian", &archive(&big), &["big-endian"]);
    let mut tar = vec![0; 600];
    tar[257..262].copy_from_slice(b"ustar");
    refused("torch 0.1", &tar, &["since torch 0.2", "torch.load"]);
    let older = fs::read(pickled("before-1.6/pytorch_model.bin")).unwrap();
    let mut version = older.clone();
    let at = version.windows(3).position(|w| w == b"M\xe9\x03").unwrap();
    version[at + 1] = 0xea;
    refused("another version", &version, &["1001"]);
    let folder = tempfile::tempdir().unwrap();
    let error = format!("{:#}", Checkpoint::open(&[folder.path().join("pytorch_model.bin")]).err().unwrap());
    assert!(error.contains("pytorch_model.bin") && error.contains("No such file"), "{error}");
}

/// Safetensors first, whole before sharded, and an index that is followed only into its own folder.
#[test]
fn which_files_are_taken() {
    let desk = Desk::empty();
    let folder = desk.path("");
    let error = format!("{:#}", paths(&folder).unwrap_err());
    assert!(WEIGHTS.iter().all(|w| error.contains(w)), "{error}");
    let index = r#"{"weight_map": {"b": "x-2.bin", "a": "x-1.bin", "c": "x-2.bin"}}"#;
    for (name, want) in [
        ("pytorch_model.bin.index.json", &["x-1.bin", "x-2.bin"][..]),
        ("pytorch_model.bin", &["pytorch_model.bin"]),
        ("model.safetensors.index.json", &["x-1.bin", "x-2.bin"]),
        ("model.safetensors", &["model.safetensors"]),
    ] {
        desk.write(name, index);
        let want: Vec<PathBuf> = want.iter().map(|n| folder.join(n)).collect();
        assert_eq!(paths(&folder).unwrap(), want);
    }
    let desk = Desk::empty();
    let path = desk.write("pytorch_model.bin.index.json", r#"{"weight_map": {"a": "../x.bin"}}"#);
    let error = format!("{:#}", paths(&desk.path("")).unwrap_err());
    assert!(error.contains(&path.display().to_string()) && error.contains("same folder"), "{error}");
    // A shard that is one of another file's tensors.
    let shard = pickled("sharded-f16/pytorch_model-00001-of-00002.bin");
    let error = format!("{:#}", Checkpoint::open(&[shard.clone(), shard]).err().unwrap());
    assert!(error.contains("and again in"), "{error}");
}

#[test]
fn cut_anywhere() {
    for case in ["sharded-f16/pytorch_model-00001-of-00002.bin", "before-1.6/pytorch_model.bin"] {
        let good = fs::read(pickled(case)).unwrap();
        for length in (0..good.len()).step_by(61).chain(good.len() - 200..good.len()) {
            assert!(read(&good[..length]).is_err(), "{case} cut to {length} bytes");
        }
    }
}

/// A changed byte is found, or it is in a weight, or in something that nobody reads.
#[test]
fn damaged_anywhere() {
    for (seed, case) in [
        (1, "sharded-f16/pytorch_model-00001-of-00002.bin"),
        (2, "before-1.6/pytorch_model.bin"),
        (3, "hostile/obj.bin"),
    ] {
        let good = fs::read(pickled(case)).unwrap();
        let mut dice = Dice(seed);
        for _ in 0..500 {
            let reach = good.len().min(5000);
            let at = match dice.below(3) {
                0 => dice.below(reach),
                1 => good.len() - 1 - dice.below(reach),
                _ => dice.below(good.len()),
            };
            let mut bytes = good.clone();
            bytes[at] = match dice.below(3) {
                0 => bytes[at] ^ (1 << dice.below(8)),
                1 => [0, 1, 0x7f, 0x80, 0xff, b'(', b'R', b't', b'.', b'h', b'q', b'0', b'b', b'c']
                    [dice.below(14)],
                _ => dice.below(256) as u8,
            };
            // Read or refused; `read` holds an error to its form.
            drop(read(&bytes));
        }
    }
}
