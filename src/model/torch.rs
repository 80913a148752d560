//! `pytorch_model.bin`: where `torch.save` puts a state dict and its numbers.
//!
//! Two layouts: a zip archive with `data.pkl` and one uncompressed entry a storage; and, before torch 1.6, pickles
//! followed by the storages. Both are read where they are mapped: headers now, numbers when a tensor is asked for.
//! Written after `torch/serialization.py`.
use super::pickle::{Machine, Storage, Stored, Value, shown, size};
use crate::{mistake, mistake::Blame};
use anyhow::{Context, Result};
use std::{
    collections::{BTreeMap, HashMap},
    io::Cursor,
    ops::Range,
};
use zip::{CompressionMethod, ZipArchive};

/// The number that a file of the older layout begins with, as a pickle's `LONG1`.
const MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// Every tensor of a file by its name, its place checked to be inside the file. Reads headers only. Errors say what the
/// file is instead, or what in it is wrong; they do not name the file.
pub fn tensors(bytes: &[u8]) -> Result<BTreeMap<String, Stored>> {
    if bytes.starts_with(b"PK") {
        return zipped(bytes);
    }
    let head = &bytes[..bytes.len().min(32)];
    if head.first() == Some(&0x80) && head.windows(MAGIC.len()).any(|w| w == MAGIC) {
        return older(bytes);
    }
    let tar = bytes.get(257..262) == Some(b"ustar");
    mistake!(
        "is not what `torch.save` writes{}; where torch can read it, `torch.save(torch.load(PATH), PATH)` converts it",
        if tar { " since torch 0.2" } else { "" }
    )
}

/// torch 1.6 and later.
fn zipped(bytes: &[u8]) -> Result<BTreeMap<String, Stored>> {
    let whole = "is not a whole zip archive, as `torch.save` writes it";
    let mut archive = ZipArchive::new(Cursor::new(bytes)).blame(whole)?;
    let mut entries = BTreeMap::new();
    for i in 0..archive.len() {
        let entry = archive.by_index_raw(i).blame(whole)?;
        let name = entry.name().blame(whole)?.into_owned();
        let start = entry.data_start().and_then(|s| usize::try_from(s).ok());
        let size = usize::try_from(entry.compressed_size()).ok();
        let range = start.zip(size).and_then(|(s, n)| Some(s..s.checked_add(n)?));
        let Some(range) = range.filter(|r| r.end <= bytes.len()) else {
            mistake!("{whole}: entry `{}` reaches beyond the file", shown(&name));
        };
        let plain = entry.compression() == CompressionMethod::Stored && !entry.encrypted();
        entries.insert(name, (range, plain));
    }
    let get = |name: &str| -> Result<Option<Range<usize>>> {
        match entries.get(name) {
            Some((_, false)) => {
                mistake!("entry `{}` is compressed, which `torch.save` never does", shown(name))
            }
            Some((range, true)) => Ok(Some(range.clone())),
            None => Ok(None),
        }
    };
    let roots: Vec<&str> = entries
        .keys()
        .filter_map(|n| n.strip_suffix("data.pkl"))
        .filter(|p| p.is_empty() || p.ends_with('/') && p.matches('/').count() == 1)
        .collect();
    let [root] = roots[..] else {
        mistake!("is a zip archive with {} `data.pkl`, so `torch.save` did not write it", roots.len());
    };
    if entries.contains_key(&format!("{root}constants.pkl")) {
        mistake!(
            "is a TorchScript archive, which is a program; bitsweep reads what `torch.save` makes of a state dict"
        );
    }
    if let Some(order) = get(&format!("{root}byteorder"))?
        && bytes[order].starts_with(b"big")
    {
        mistake!("was written on a big-endian machine; bitsweep reads little-endian files");
    }
    let pickle = get(&format!("{root}data.pkl"))?.context("`data.pkl` is gone")?;
    let mut machine = Machine::new(&bytes[pickle]);
    let state = machine.run()?;
    machine.state_dict(state, |storage| match get(&format!("{root}data/{}", storage.key))? {
        Some(range) => Ok(range),
        None => mistake!("has no entry `{root}data/{}`", shown(storage.key)),
    })
}

/// Before torch 1.6: magic number, protocol, platform, state dict, storages' names, storages.
fn older(bytes: &[u8]) -> Result<BTreeMap<String, Stored>> {
    let mut machine = Machine::new(bytes);
    machine.run()?;
    let version = machine.run()?;
    if !matches!(machine.value(version), Value::Int(1001)) {
        mistake!("is of a version of torch's older layout that is not 1001");
    }
    let platform = machine.run()?;
    if let Some(Value::Int(0)) = machine.item(platform, "little_endian").map(|id| machine.value(id)) {
        mistake!("was written on a big-endian machine; bitsweep reads little-endian files");
    }
    let state = machine.run()?;
    let keys = machine.run()?;
    let Value::List(keys) = machine.value(keys) else { mistake!("has no list of storages") };
    let known: HashMap<&str, &Storage> = machine.storages.iter().map(|s| (s.key, s)).collect();
    let mut places = HashMap::new();
    let mut at = machine.at;
    for &key in keys {
        let storage = match machine.value(key) {
            Value::Text(key) => known.get(key),
            _ => None,
        };
        let Some(storage) = storage else { mistake!("lists a storage that no tensor uses") };
        let place = || {
            let start = at.checked_add(8)?;
            let count = u64::from_le_bytes(bytes.get(at..start)?.try_into().ok()?);
            let size = storage.elements.checked_mul(size(storage.dtype))?;
            let end = start.checked_add(size)?;
            (count == storage.elements as u64 && end <= bytes.len()).then_some(start..end)
        };
        let Some(place) = place() else {
            mistake!("is cut short, or lies about the size of storage `{}`", shown(storage.key))
        };
        at = place.end;
        places.insert(storage.key, place);
    }
    machine.state_dict(state, |storage| match places.get(storage.key) {
        Some(place) => Ok(place.clone()),
        None => mistake!("has no storage `{}`", shown(storage.key)),
    })
}
