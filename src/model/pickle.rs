//! Pickles of PyTorch's checkpoints, read as data and never run.
//!
//! A pickle is a program for a stack machine, and Python's machine calls whatever the program names. This one calls
//! nothing: it knows the few names that a file of tensors needs (`Known`), does itself what they would do, and refuses
//! every other name. Values lie in one list and refer to each other by number, so nothing is copied and nothing
//! recurses; each step adds at most one value, and their number is limited.
//!
//! Written after `torch/_utils.py` and Python's `pickletools.py`. candle's `pickle` is not used: its memo copies whatever
//! it names, so that a kilobyte can ask for all memory; short arguments make it panic; and it skips what it cannot read.
use crate::{mistake, mistake::Blame};
use anyhow::Result;
use safetensors::Dtype;
use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

/// A tensor as it lies in a file, of whatever format.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// How a number is stored.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Elements from one to the next along each dimension; `None`: row by row, without gaps.
    pub strides: Option<Vec<usize>>,
    /// Bytes of the file, from the first element to the last.
    pub bytes: Range<usize>,
}

/// Steps and values of one file, at most. A checkpoint has about 30 a tensor.
const MOST: usize = 10_000_000;
/// Dimensions of a tensor, and arguments of a call, at most.
const WIDE: usize = 16;
/// Under which keys training programs keep the weights.
const WRAPPERS: [&str; 4] = ["state_dict", "model_state_dict", "model", "module"];

/// Every name that a file may use. What it stands for is done here; nothing is looked up, imported or called.
#[derive(Clone, Copy)]
pub(super) enum Known {
    /// `collections.OrderedDict`.
    Dict,
    /// `torch.Size`.
    Size,
    /// `torch._utils._rebuild_tensor` and `_v2`: storage, offset, size, stride, ...
    Tensor,
    /// `_v3`: a dtype besides, as the seventh.
    TensorOf,
    /// `torch._utils._rebuild_parameter`: tensor, ...
    Parameter,
    /// `torch._tensor._rebuild_from_type_v2`: one of the above, a type, its arguments, a state.
    FromType,
    /// A type that is only mentioned.
    Type,
    /// `torch.FloatStorage`, `torch.float32`.
    Dtype(Dtype),
}

/// Names of storages and dtypes; a storage's name is followed by `Storage`.
const DTYPES: [(&str, &str, Dtype); 16] = [
    ("Float", "float32", Dtype::F32),
    ("Half", "float16", Dtype::F16),
    ("BFloat16", "bfloat16", Dtype::BF16),
    ("Double", "float64", Dtype::F64),
    ("Long", "int64", Dtype::I64),
    ("Int", "int32", Dtype::I32),
    ("Short", "int16", Dtype::I16),
    ("Char", "int8", Dtype::I8),
    ("Byte", "uint8", Dtype::U8),
    ("Bool", "bool", Dtype::BOOL),
    ("ComplexFloat", "complex64", Dtype::C64),
    ("", "uint16", Dtype::U16),
    ("", "uint32", Dtype::U32),
    ("", "uint64", Dtype::U64),
    ("", "float8_e4m3fn", Dtype::F8_E4M3),
    ("", "float8_e5m2", Dtype::F8_E5M2),
];

impl Known {
    fn new(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::Dict,
            ("torch", "Size") => Self::Size,
            ("torch", "Tensor") | ("torch.nn.parameter", "Parameter") => Self::Type,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Self::Tensor,
            ("torch._utils", "_rebuild_tensor_v3") => Self::TensorOf,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Self::Parameter,
            ("torch._tensor", "_rebuild_from_type_v2") => Self::FromType,
            ("torch.storage", "UntypedStorage") => Self::Dtype(Dtype::U8),
            ("torch" | "torch.cuda", name) => {
                let storage = name.strip_suffix("Storage").filter(|n| !n.is_empty());
                let is = |s: &str, d: &str| storage == Some(s) || module == "torch" && name == d;
                Self::Dtype(DTYPES.iter().find(|(s, d, _)| is(s, d))?.2)
            }
            _ => return None,
        })
    }
}

/// A value, by its place in the machine's list.
pub(super) type Id = u32;

pub(super) enum Value<'a> {
    None,
    /// Booleans too.
    Int(i64),
    Text(&'a str),
    Known(Known),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// By its place in the machine's list of them.
    Storage(usize),
    Tensor(Box<View>),
    /// Floats, bytes, integers of more than 64 bits: nothing here looks at them.
    Other,
}

pub(super) struct Storage<'a> {
    pub key: &'a str,
    pub dtype: Dtype,
    pub elements: usize,
}

/// A tensor over a storage.
pub(super) struct View {
    storage: usize,
    dtype: Dtype,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    /// How far it has been read.
    pub at: usize,
    steps: usize,
    values: Vec<Value<'a>>,
    pub storages: Vec<Storage<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            steps: 0,
            values: Vec::new(),
            storages: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        }
    }

    /// Reads one pickle; its value.
    pub fn run(&mut self) -> Result<Id> {
        self.stack.clear();
        self.marks.clear();
        self.memo.clear();
        loop {
            self.work(1)?;
            match self.take(1)?[0] {
                // PROTO, FRAME, STOP
                0x80 => match self.take(1)?[0] {
                    0..=5 => {}
                    n => mistake!("its pickle is of protocol {n}; known are those up to 5"),
                },
                0x95 => drop(self.take(8)?),
                b'.' => return self.pop(),
                // Plain values
                b'N' => self.push(Value::None),
                0x88 => self.push(Value::Int(1)),
                0x89 => self.push(Value::Int(0)),
                b'K' => self.int(1)?,
                b'M' => self.int(2)?,
                b'J' => {
                    let value = self.number(4)? as u32 as i32;
                    self.push(Value::Int(value.into()));
                }
                b'I' | b'L' => {
                    let number = self.line()?.trim_end_matches('L').parse();
                    self.push(number.map_or(Value::Other, Value::Int));
                }
                0x8a => self.long(1)?,
                0x8b => self.long(4)?,
                b'G' => self.other(8)?,
                b'X' | b'T' => self.text(4)?,
                0x8c | b'U' => self.text(1)?,
                0x8d => self.text(8)?,
                b'B' => self.blob(4)?,
                b'C' => self.blob(1)?,
                0x8e => self.blob(8)?,
                // Names
                b'c' | b'i' => {
                    let op = self.bytes[self.at - 1];
                    let (module, name) = (self.line()?, self.line()?);
                    self.name(module, name)?;
                    if op == b'i' {
                        mistake!("its pickle has the step INST, which torch does not write");
                    }
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    match (self.value(module), self.value(name)) {
                        (&Value::Text(module), &Value::Text(name)) => self.name(module, name)?,
                        _ => mistake!("its pickle asks for something whose name is no text; refused"),
                    }
                }
                b'R' | 0x81 => {
                    let (args, callee) = (self.pop()?, self.pop()?);
                    self.call(callee, args)?;
                }
                // A state dict's `_metadata`, a tensor's attributes: read, and not kept.
                b'b' => {
                    self.pop()?;
                    let last = self.last()?;
                    if !matches!(self.value(last), Value::Dict(_) | Value::Tensor(_)) {
                        mistake!("its pickle sets the state of what is neither a dict nor a tensor; refused");
                    }
                }
                b'Q' => {
                    let id = self.pop()?;
                    self.storage(id)?;
                }
                // The memo
                b'q' => self.put(1)?,
                b'r' => self.put(4)?,
                0x94 => {
                    let (key, id) = (self.memo.len() as u32, self.last()?);
                    self.memo.insert(key, id);
                }
                b'h' => self.get(1)?,
                b'j' => self.get(4)?,
                // The stack
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.since_mark()?),
                b'2' => {
                    let last = self.last()?;
                    self.stack.push(last);
                }
                // Tuples, lists, dicts
                b')' => self.push(Value::Tuple(Vec::new())),
                0x85..=0x87 => {
                    let n = usize::from(self.bytes[self.at - 1] - 0x84);
                    let mut items = (0..n).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
                    items.reverse();
                    self.push(Value::Tuple(items));
                }
                b't' => {
                    let items = self.since_mark()?;
                    self.push(Value::Tuple(items));
                }
                b']' => self.push(Value::List(Vec::new())),
                b'l' => {
                    let items = self.since_mark()?;
                    self.push(Value::List(items));
                }
                b'a' => {
                    let item = self.pop()?;
                    self.extend(&[item])?;
                }
                b'e' => {
                    let items = self.since_mark()?;
                    self.extend(&items)?;
                }
                b'}' => self.push(Value::Dict(Vec::new())),
                b'd' => {
                    let items = self.since_mark()?;
                    self.push(Value::Dict(Vec::new()));
                    self.set(&items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set(&[key, value])?;
                }
                b'u' => {
                    let items = self.since_mark()?;
                    self.set(&items)?;
                }
                op => mistake!("its pickle has the step {op:#04x}, which torch does not write"),
            }
        }
    }

    fn work(&mut self, steps: usize) -> Result<()> {
        self.steps += steps;
        if self.steps > MOST {
            mistake!("its pickle takes more than {MOST} steps, and so is no checkpoint's");
        }
        Ok(())
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(n).filter(|&e| e <= self.bytes.len());
        let Some(end) = end else { mistake!("is cut short: its pickle has no end") };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// A little-endian number of `n` bytes, at most 8.
    fn number(&mut self, n: usize) -> Result<u64> {
        Ok(self.take(n)?.iter().rev().fold(0, |all, &b| all << 8 | u64::from(b)))
    }

    /// So many bytes, their number first.
    fn counted(&mut self, n: usize) -> Result<&'a [u8]> {
        let length = self.number(n)?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.bytes[self.at..];
        // No name is longer; a file without line ends is not searched through for each.
        let end = rest.iter().take(1000).position(|&b| b == b'\n');
        let line = self.take(end.map_or(usize::MAX, |e| e + 1))?;
        std::str::from_utf8(&line[..line.len() - 1]).blame("its pickle has a name that is no text")
    }

    fn push(&mut self, value: Value<'a>) {
        self.stack.push(self.values.len() as Id);
        self.values.push(value);
    }

    fn other(&mut self, bytes: usize) -> Result<()> {
        self.take(bytes)?;
        self.push(Value::Other);
        Ok(())
    }

    fn int(&mut self, bytes: usize) -> Result<()> {
        let value = self.number(bytes)? as i64;
        self.push(Value::Int(value));
        Ok(())
    }

    /// Two's complement, as short as can be.
    fn long(&mut self, bytes: usize) -> Result<()> {
        let digits = self.counted(bytes)?;
        let sign = if digits.last().is_some_and(|b| b & 0x80 != 0) { -1 } else { 0 };
        let value = digits.iter().rev().fold(sign, |all: i64, &b| all << 8 | i64::from(b));
        self.push(if digits.len() > 8 { Value::Other } else { Value::Int(value) });
        Ok(())
    }

    /// Python 2's strings too.
    fn text(&mut self, bytes: usize) -> Result<()> {
        let text = std::str::from_utf8(self.counted(bytes)?);
        self.push(text.map_or(Value::Other, Value::Text));
        Ok(())
    }

    fn blob(&mut self, bytes: usize) -> Result<()> {
        self.counted(bytes)?;
        self.push(Value::Other);
        Ok(())
    }

    pub fn value(&self, id: Id) -> &Value<'a> {
        &self.values[id as usize]
    }

    /// The stack's top, above the last mark.
    fn last(&self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&id) if self.stack.len() > floor => Ok(id),
            _ => mistake!("its pickle is damaged: it takes what it did not make"),
        }
    }

    fn pop(&mut self) -> Result<Id> {
        let last = self.last()?;
        self.stack.pop();
        Ok(last)
    }

    fn since_mark(&mut self) -> Result<Vec<Id>> {
        match self.marks.pop() {
            Some(floor) => Ok(self.stack.split_off(floor)),
            None => mistake!("its pickle is damaged: it takes what it did not mark"),
        }
    }

    fn put(&mut self, bytes: usize) -> Result<()> {
        let (key, last) = (self.number(bytes)? as u32, self.last()?);
        self.memo.insert(key, last);
        Ok(())
    }

    fn get(&mut self, bytes: usize) -> Result<()> {
        let key = self.number(bytes)? as u32;
        let Some(&id) = self.memo.get(&key) else {
            mistake!("its pickle is damaged: it recalls number {key}, which it did not keep")
        };
        self.stack.push(id);
        Ok(())
    }

    fn extend(&mut self, items: &[Id]) -> Result<()> {
        let last = self.last()?;
        match &mut self.values[last as usize] {
            Value::List(list) => list.extend(items),
            _ => mistake!("its pickle is damaged: it appends to what is no list"),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Id]) -> Result<()> {
        let last = self.last()?;
        match &mut self.values[last as usize] {
            Value::Dict(dict) if items.len().is_multiple_of(2) => {
                dict.extend(items.chunks_exact(2).map(|c| (c[0], c[1])));
            }
            _ => mistake!("its pickle is damaged: it sets items of what is no dict"),
        }
        Ok(())
    }

    fn name(&mut self, module: &str, name: &str) -> Result<()> {
        let Some(known) = Known::new(module, name) else {
            mistake!(
                "asks to call `{}.{}`: a checkpoint holds tensors only; refused",
                shown(module),
                shown(name)
            );
        };
        self.push(Value::Known(known));
        Ok(())
    }

    fn tuple(&self, id: Id, what: &str) -> Result<&[Id]> {
        match self.value(id) {
            Value::Tuple(items) if items.len() <= WIDE => Ok(items),
            _ => mistake!("its pickle is damaged: {what} is no tuple of at most {WIDE}"),
        }
    }

    /// What a known callee would give; the callee itself does not exist.
    fn call(&mut self, callee: Id, args: Id) -> Result<()> {
        let mut callee = match self.value(callee) {
            Value::Known(known) => *known,
            _ => mistake!("its pickle calls what is no function; refused"),
        };
        let mut args = self.tuple(args, "a call's arguments")?.to_vec();
        if let Known::FromType = callee {
            match (args[..].get(..3), args.first().map(|&f| self.value(f))) {
                (Some(all), Some(Value::Known(inner))) if !matches!(inner, Known::FromType) => {
                    callee = *inner;
                    args = self.tuple(all[2], "a call's arguments")?.to_vec();
                }
                _ => mistake!("its pickle is damaged: `_rebuild_from_type_v2` of nothing"),
            }
        }
        match (callee, &args[..]) {
            (Known::Dict, []) => self.push(Value::Dict(Vec::new())),
            // Python 2's: a list of pairs.
            (Known::Dict, &[pairs]) => {
                let Value::List(pairs) = self.value(pairs) else {
                    mistake!("its pickle is damaged: a dict of no list")
                };
                let mut items = Vec::new();
                if pairs.len() > MOST / 10 {
                    mistake!("its pickle is damaged: a dict of {} pairs", pairs.len());
                }
                for &pair in pairs {
                    match self.value(pair) {
                        Value::List(p) | Value::Tuple(p) if p.len() == 2 => items.push((p[0], p[1])),
                        _ => mistake!("its pickle is damaged: a dict of no pairs"),
                    }
                }
                self.work(items.len())?;
                self.push(Value::Dict(items));
            }
            (Known::Size | Known::Parameter, &[inner, ..]) => self.stack.push(inner),
            (Known::Tensor, &[storage, offset, shape, strides, ..]) => {
                self.tensor(storage, offset, shape, strides, None)?;
            }
            (Known::TensorOf, &[storage, offset, shape, strides, _, _, dtype, ..]) => {
                self.tensor(storage, offset, shape, strides, Some(dtype))?;
            }
            _ => mistake!("its pickle is damaged: a call with the wrong arguments"),
        }
        Ok(())
    }

    /// The persistent id of a storage: `("storage", type, key, location, elements)`, and `None` in the older layout.
    fn storage(&mut self, id: Id) -> Result<()> {
        let parts = self.tuple(id, "a storage's name")?;
        let (Some(&[what, kind, key, _, count]), view) = (parts.first_chunk(), parts.get(5)) else {
            mistake!("its pickle is damaged: a storage of {} parts", parts.len())
        };
        if view.is_some_and(|&v| !matches!(self.value(v), Value::None)) {
            mistake!(
                "has a storage inside another, as torch before 0.4 wrote it; load and save it in a newer torch"
            );
        }
        let parts = (self.value(what), self.value(kind), self.value(key), self.value(count));
        let (Value::Text("storage"), Value::Known(Known::Dtype(dtype)), &Value::Text(key), Value::Int(count)) =
            parts
        else {
            mistake!("its pickle is damaged: a storage without type, name or size")
        };
        let (dtype, Ok(elements)) = (*dtype, usize::try_from(*count)) else {
            mistake!("storage `{}` has {count} elements", shown(key))
        };
        self.push(Value::Storage(self.storages.len()));
        self.storages.push(Storage { key, dtype, elements });
        Ok(())
    }

    fn tensor(&mut self, storage: Id, offset: Id, shape: Id, strides: Id, dtype: Option<Id>) -> Result<()> {
        let &Value::Storage(storage) = self.value(storage) else {
            mistake!("its pickle is damaged: a tensor without storage")
        };
        let dtype = match dtype.map(|d| self.value(d)) {
            None => self.storages[storage].dtype,
            Some(Value::Known(Known::Dtype(dtype))) => *dtype,
            Some(_) => mistake!("its pickle is damaged: a tensor's dtype is none"),
        };
        let count = |id: Id| match self.value(id) {
            Value::Int(n) => usize::try_from(*n).blame(format!("a tensor's shape, stride or offset is {n}")),
            _ => mistake!("its pickle is damaged: a tensor's shape, stride or offset is no number"),
        };
        let counts =
            |id: Id, what: &str| self.tuple(id, what)?.iter().map(|&n| count(n)).collect::<Result<Vec<_>>>();
        let (offset, shape, strides) =
            (count(offset)?, counts(shape, "a tensor's shape")?, counts(strides, "a tensor's strides")?);
        if shape.len() != strides.len() {
            mistake!("its pickle is damaged: a tensor of shape {shape:?} has strides {strides:?}");
        }
        self.push(Value::Tensor(Box::new(View { storage, dtype, offset, shape, strides })));
        Ok(())
    }

    /// A dict's item; of several with one key the last, as in Python.
    pub fn item(&self, dict: Id, key: &str) -> Option<Id> {
        let Value::Dict(items) = self.value(dict) else { return None };
        let found = items.iter().rev().find(|(k, _)| matches!(self.value(*k), Value::Text(k) if *k == key));
        found.map(|(_, value)| *value)
    }

    /// The tensors of a state dict, or of the one that a training program wrapped; `place` knows where storages are.
    pub fn state_dict(
        &self,
        mut dict: Id,
        place: impl Fn(&Storage<'a>) -> Result<Range<usize>>,
    ) -> Result<BTreeMap<String, Stored>> {
        for _ in 0..=WRAPPERS.len() {
            let Value::Dict(items) = self.value(dict) else { break };
            let mut found = BTreeMap::new();
            for (key, value) in items {
                if let (Value::Text(name), Value::Tensor(view)) = (self.value(*key), self.value(*value)) {
                    let storage = &self.storages[view.storage];
                    let stored = view.stored(storage, place(storage)?);
                    found.insert(name.to_string(), stored.blame(format!("tensor `{}`", shown(name)))?);
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
            match WRAPPERS.iter().find_map(|w| self.item(dict, w)) {
                Some(inner) => dict = inner,
                None => break,
            }
        }
        mistake!("holds no tensors: neither by name, nor in a dict under {}", WRAPPERS.join(", "))
    }
}

/// Bytes of a number.
pub(super) fn size(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}

impl View {
    /// Holds shape, strides and offset against the storage, and the storage against its place in the file.
    fn stored(&self, storage: &Storage, place: Range<usize>) -> Result<Stored> {
        let (whole, one) = (storage.elements.checked_mul(size(storage.dtype)), size(self.dtype));
        if whole.is_none_or(|w| w > place.len()) {
            mistake!(
                "its storage has {} elements of {:?}; the file holds {} bytes of it",
                storage.elements,
                storage.dtype,
                place.len()
            );
        }
        // A length of nothing must not hide lengths that no tensor has.
        let count = |least: usize| self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(least)));
        let Some(count) = count(1).and(count(0)) else { mistake!("its shape is {:?}", self.shape) };
        // One beyond the last element, in elements of the storage.
        let end = || {
            let mut end = self.offset.checked_add(usize::from(count > 0))?;
            if count > 0 {
                for (&d, &s) in self.shape.iter().zip(&self.strides) {
                    end = end.checked_add((d - 1).checked_mul(s)?)?;
                }
            }
            end.checked_mul(one).filter(|&e| e <= whole.unwrap_or(0))
        };
        let Some(end) = end() else {
            mistake!(
                "shape {:?}, strides {:?} and offset {} reach beyond its storage of {} elements",
                self.shape,
                self.strides,
                self.offset,
                storage.elements
            )
        };
        let mut next = 1;
        let plain = count == 0
            || self.shape.iter().zip(&self.strides).rev().all(|(&d, &s)| {
                let fits = d == 1 || s == next;
                next *= d;
                fits
            });
        Ok(Stored {
            dtype: self.dtype,
            shape: self.shape.clone(),
            strides: (!plain).then(|| self.strides.clone()),
            bytes: place.start + self.offset * one..place.start + end,
        })
    }
}

/// A name from a file, fit for a message.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(100).flat_map(char::escape_debug).collect()
}
