//! Tensors of a checkpoint as they lie on disk: safetensors or PyTorch's pickles, single or sharded, mapped and read
//! once.
//!
//! A file is not trusted. Its header is checked whole before anything is read, every tensor's shape is held against the
//! spec, and a number that is not finite names its tensor. A pickle is read as data ([`super::pickle`]): nothing in it
//! is ever called.
use super::{
    families::Family,
    pickle::Stored,
    spec::{DecoderSpec, Param, Source},
    torch,
};
use crate::{
    mistake,
    mistake::{Blame, nearest},
};
use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors, tensor::TensorInfo};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::File,
    ops::Range,
    path::{Path, PathBuf},
};

/// One or more files of tensors.
pub struct Checkpoint {
    files: Vec<Shard>,
    /// Tensor to file.
    index: BTreeMap<String, usize>,
}

struct Shard {
    label: String,
    bytes: Bytes,
    tensors: BTreeMap<String, Stored>,
}

enum Bytes {
    Static(&'static [u8]),
    Map(memmap2::Mmap),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Static(b) => b,
            Bytes::Map(m) => m,
        }
    }
}

impl Bytes {
    /// Gives the pages of a part that was read back to the system, which can read them again: a model larger than memory
    /// must not fill it by being read.
    fn forget(&self, part: Range<usize>) {
        #[cfg(unix)]
        if let Bytes::Map(map) = self {
            // SAFETY: the map is of a file and only read, so whatever is dropped comes back as it was.
            #[allow(unsafe_code)]
            let dropped = unsafe {
                map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, part.start, part.len())
            };
            // Advice: where the system does not take it, nothing is lost but memory.
            dropped.ok();
        }
        #[cfg(not(unix))]
        drop(part);
    }
}

/// What a checkpoint's file, or its index of them, is called; the first that exists counts.
pub const WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// The files that a checkpoint consists of, wherever they are: `find` looks for one that may be missing, and `get` for
/// one that an index names. Fails with the four names of [`WEIGHTS`] where none exists, and where an index is wrong.
pub fn weight_files(
    mut find: impl FnMut(&str) -> Result<Option<PathBuf>>,
    get: impl FnMut(&str) -> Result<PathBuf>,
) -> Result<Vec<PathBuf>> {
    for name in WEIGHTS {
        let Some(path) = find(name)? else { continue };
        if !name.ends_with(".json") {
            return Ok(vec![path]);
        }
        let what = || format!("`{}`", path.display());
        let text = std::fs::read_to_string(&path).blame(what())?;
        return shard_names(&text).blame(what())?.iter().map(String::as_str).map(get).collect();
    }
    mistake!("no weights: there is none of {}", WEIGHTS.join(", "))
}

/// Which files a folder's checkpoint consists of, from what its index says.
pub fn shard_names(index_json: &str) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_str(index_json)?;
    let mut names: Vec<String> = index.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        mistake!("`weight_map` is empty");
    }
    // A file of this folder, nothing else: an index is downloaded, and must not point anywhere it likes.
    if let Some(bad) = names.iter().find(|n| Path::new(n).components().count() != 1 || n.contains("..")) {
        mistake!("`weight_map` names `{bad}`, which is not a file of the same folder");
    }
    Ok(names)
}

/// Bytes that are hashed before they are given back.
const PART: usize = 8 << 20;

impl Checkpoint {
    /// Maps files. None is read but for its header.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let mut all = Self { files: Vec::new(), index: BTreeMap::new() };
        for path in paths {
            let label = path.display().to_string();
            let file = File::open(path).blame(format!("`{label}`"))?;
            // SAFETY: the map is only read. Another process that cuts the file while it is mapped can end this one,
            // as with every program that maps a checkpoint.
            #[allow(unsafe_code)]
            let map = unsafe { memmap2::Mmap::map(&file) }.blame(format!("`{label}`"))?;
            all.add(label, Bytes::Map(map))?;
        }
        Ok(all)
    }

    /// A file that is part of the program.
    pub fn embedded(label: &str, bytes: &'static [u8]) -> Result<Self> {
        let mut all = Self { files: Vec::new(), index: BTreeMap::new() };
        all.add(label.into(), Bytes::Static(bytes))?;
        Ok(all)
    }

    fn add(&mut self, label: String, bytes: Bytes) -> Result<()> {
        let tensors = tensors(&label, &bytes)?;
        for name in tensors.keys() {
            if let Some(other) = self.index.insert(name.clone(), self.files.len()) {
                mistake!("tensor `{name}` is in `{}` and again in `{label}`", self.files[other].label);
            }
        }
        self.files.push(Shard { label, bytes, tensors });
        Ok(())
    }

    /// sha256 over the files' bytes, in the order of their names.
    pub fn hash(&self) -> String {
        let mut parts: Vec<(&str, [u8; 32])> = self
            .files
            .par_iter()
            .map(|f| {
                let name = f.label.rsplit(['/', '\\']).next().unwrap_or(&f.label);
                let mut digest = Sha256::new();
                for (i, part) in f.bytes.chunks(PART).enumerate() {
                    digest.update(part);
                    f.bytes.forget(i * PART..i * PART + part.len());
                }
                (name, digest.finalize().into())
            })
            .collect();
        parts.sort();
        let mut all = Sha256::new();
        for (name, digest) in parts {
            all.update(name.as_bytes());
            all.update(digest);
        }
        format!("{:x}", all.finalize())
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes.len() as u64).sum()
    }

    /// Every tensor's name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.index.keys().map(String::as_str)
    }

    /// How most numbers are stored: `f32`, `f16`, `bf16`.
    pub fn stored(&self) -> &'static str {
        let mut count = BTreeMap::new();
        for info in self.files.iter().flat_map(|f| f.tensors.values()) {
            let name = match info.dtype {
                Dtype::F16 => "f16",
                Dtype::BF16 => "bf16",
                // Masks and the like are no weights.
                Dtype::BOOL | Dtype::U8 | Dtype::I64 => continue,
                _ => "f32",
            };
            *count.entry(name).or_insert(0) += info.shape.iter().product::<usize>();
        }
        count.into_iter().max_by_key(|(_, n)| *n).map_or("f32", |(name, _)| name)
    }

    /// The tensor that holds a parameter, under whichever prefix this checkpoint uses.
    fn find(&self, family: &dyn Family, source: &Source) -> Option<(String, usize)> {
        // A head stands outside the base model, and so carries no prefix at all.
        let names = std::iter::once(&source.name).chain(&source.alias);
        names
            .flat_map(|name| {
                family.prefixes().iter().map(move |p| format!("{p}{name}")).chain([name.clone()])
            })
            .find_map(|name| self.index.get(&name).map(|&file| (name, file)))
    }

    /// Whether the checkpoint holds a parameter.
    pub fn has(&self, family: &dyn Family, spec: &DecoderSpec, param: Param) -> bool {
        family.source(spec, param).is_some_and(|s| self.find(family, &s).is_some())
    }

    /// Holds the header against the spec, without reading a tensor: every parameter there, each of its shape.
    pub fn check(&self, family: &dyn Family, spec: &DecoderSpec) -> Result<()> {
        for (param, shape) in spec.params() {
            self.locate(family, spec, param, &shape)?;
        }
        Ok(())
    }

    fn locate(
        &self,
        family: &dyn Family,
        spec: &DecoderSpec,
        param: Param,
        shape: &[usize],
    ) -> Result<(Source, String, usize)> {
        let source = family
            .source(spec, param)
            .with_context(|| format!("family `{}` has no {param:?}", family.name()))?;
        let Some((name, file)) = self.find(family, &source) else {
            let wanted = format!("{}{}", family.prefixes().first().unwrap_or(&""), source.name);
            mistake!(
                "{}: tensor `{wanted}` is missing{}",
                self.files.iter().map(|f| format!("`{}`", f.label)).collect::<Vec<_>>().join(", "),
                nearest(&wanted, self.names())
            );
        };
        let shard = &self.files[file];
        let info = shard.tensor(&name)?;
        let whole = whole_shape(&source, shape);
        if info.shape != whole {
            mistake!(
                "`{}`: tensor `{name}` has shape {:?}; config.json makes it {whole:?}",
                shard.label,
                info.shape
            );
        }
        Ok((source, name, file))
    }

    /// A whole tensor by its name, as f32 on the CPU.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let file = self.index.get(name).with_context(|| format!("no tensor is called `{name}`"))?;
        self.files[*file].read(name)
    }

    /// A parameter as an f32 tensor of `shape`, read from the map in one go.
    pub fn load(
        &self,
        family: &dyn Family,
        spec: &DecoderSpec,
        param: Param,
        shape: &[usize],
        device: &Device,
    ) -> Result<Tensor> {
        let (source, name, file) = self.locate(family, spec, param, shape)?;
        let mut tensor = self.files[file].read(&name)?;
        if source.take.transpose {
            tensor = tensor.t()?;
        }
        if let Some(split) = &source.take.split {
            let rest: usize = tensor.dims()[1..].iter().product();
            tensor = tensor.contiguous()?.reshape((split.groups, split.of, rest))?.narrow(
                1,
                split.rows.start,
                split.rows.len(),
            )?;
        }
        Ok(tensor.contiguous()?.reshape(shape)?.to_device(device)?)
    }
}

/// The stored tensor's shape, given the shape of the part that is taken from it.
pub(super) fn whole_shape(source: &Source, part: &[usize]) -> Vec<usize> {
    let mut shape = part.to_vec();
    if let Some(split) = &source.take.split {
        shape[0] = split.groups * split.of;
    }
    if source.take.transpose {
        shape.reverse();
    }
    shape
}

/// A file's tensors by name, every one's place checked to be inside the file.
fn tensors(label: &str, bytes: &[u8]) -> Result<BTreeMap<String, Stored>> {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(256)]).trim_start().to_ascii_lowercase();
    if bytes.is_empty() {
        mistake!("`{label}` is empty");
    }
    if head.starts_with("version https://git-lfs") {
        mistake!(
            "`{label}` is a Git LFS pointer, not the file that it points to: `git lfs pull` fetches that"
        );
    }
    if ["<!doctype", "<html", "<?xml"].iter().any(|t| head.starts_with(t)) {
        mistake!(
            "`{label}` is a web page, such as an error or a login, and no checkpoint: download it again"
        );
    }
    if !label.ends_with(".safetensors") {
        return torch::tensors(bytes).blame(format!("`{label}`"));
    }
    let (header, metadata) =
        SafeTensors::read_metadata(bytes).blame(format!("`{label}` is not a whole safetensors file"))?;
    let start = header + 8;
    // `read_metadata` has checked that tensors lie end to end and fill the file; say so again, because what follows
    // cuts slices by these numbers.
    let tensors: BTreeMap<String, &TensorInfo> = metadata.tensors().into_iter().collect();
    let mut all = BTreeMap::new();
    for (name, info) in tensors {
        let (a, b) = info.data_offsets;
        let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |n, &d| n.checked_mul(d));
        if a > b || bits != (b - a).checked_mul(8) || start.checked_add(b).is_none_or(|end| end > bytes.len())
        {
            mistake!("`{label}`: the header lies about tensor `{name}`");
        }
        let (dtype, shape) = (info.dtype, info.shape.clone());
        all.insert(name, Stored { dtype, shape, strides: None, bytes: start + a..start + b });
    }
    Ok(all)
}

impl Shard {
    /// A tensor of numbers that bitsweep reads, each of them in the file.
    fn tensor(&self, name: &str) -> Result<&Stored> {
        let label = &self.label;
        let info = self.tensors.get(name).context("a tensor of the index is in no file")?;
        if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            mistake!(
                "`{label}`: tensor `{name}` is stored as {:?}; bitsweep reads F32, F16 and BF16",
                info.dtype
            );
        }
        // A stride of nothing makes any shape of a few bytes, and no model's weights; and a length of nothing must not
        // hide lengths that no tensor has.
        let bits = |least: usize| {
            info.shape.iter().try_fold(info.dtype.bitsize(), |n, &d| n.checked_mul(d.max(least)))
        };
        if bits(1).is_none() || bits(0).is_none_or(|n| n / 8 > info.bytes.len()) {
            mistake!("`{label}`: tensor `{name}` of shape {:?} repeats what is stored once", info.shape);
        }
        Ok(info)
    }

    /// A tensor as f32, row by row; one that holds a number that is not finite is an error.
    fn read(&self, name: &str) -> Result<Tensor> {
        let info = self.tensor(name)?;
        let raw = &self.bytes[info.bytes.clone()];
        let values =
            match info.dtype {
                Dtype::F32 => info.gather(raw, 4, |b| f32::from_le_bytes(b.try_into().unwrap_or_default())),
                Dtype::F16 => info
                    .gather(raw, 2, |b| half::f16::from_le_bytes(b.try_into().unwrap_or_default()).to_f32()),
                _ => info
                    .gather(raw, 2, |b| half::bf16::from_le_bytes(b.try_into().unwrap_or_default()).to_f32()),
            };
        self.bytes.forget(info.bytes.clone());
        if let Some(i) = values.par_iter().position_any(|v| !v.is_finite()) {
            mistake!("`{}`: tensor `{name}` holds {} at element {i}", self.label, values[i]);
        }
        Ok(Tensor::from_vec(values, info.shape.as_slice(), &Device::Cpu)?)
    }
}

impl Stored {
    /// Every number, in the order of rows.
    fn gather(&self, raw: &[u8], size: usize, number: impl Fn(&[u8]) -> f32 + Send + Sync) -> Vec<f32> {
        let Some(strides) = &self.strides else {
            return raw.par_chunks_exact(size).map(number).collect();
        };
        let count = self.shape.iter().product::<usize>();
        let at = |mut i: usize| {
            let mut at = 0;
            for (d, stride) in self.shape.iter().zip(strides).rev() {
                at += i % d * stride;
                i /= d;
            }
            number(&raw[at * size..][..size])
        };
        (0..count).into_par_iter().map(at).collect()
    }
}
