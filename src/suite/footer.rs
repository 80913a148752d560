//! A look at a Parquet file's footer before its reader sees it.
//!
//! The `parquet` crate builds the schema by recursion, to whatever depth and with whatever room the file asks for; a
//! stack that is full, or memory that is not there, ends the program, and no guard helps. So the schema's shape is
//! counted here first, over the few rules of Thrift's compact protocol that it takes.
use anyhow::{Context, Result, bail, ensure};

/// Groups in groups: ten times what datasets have.
const DEEPEST: usize = 64;
/// Structs in structs, of the footer itself: it needs six.
const NESTED: usize = 16;

/// An error where the footer, or the schema in it, is not to be handed on.
pub fn check(file: &[u8]) -> Result<()> {
    let end = file
        .len()
        .checked_sub(8)
        .filter(|_| file.starts_with(b"PAR1"))
        .context("it does not begin with PAR1")?;
    match &file[end + 4..] {
        b"PAR1" => {}
        b"PARE" => bail!("its footer is encrypted"),
        _ => bail!("it does not end with PAR1: part of it is missing"),
    }
    let size = file[end..end + 4].iter().rev().fold(0, |n, &b| n << 8 | usize::from(b));
    let start = end.checked_sub(size).context("its footer is longer than the file")?;
    let mut footer = Thrift(&file[start..end]);
    footer.fields(|footer, id, kind| match (id, kind) {
        (2, LIST) => footer.schema(),
        _ => footer.skip(kind, 0),
    })
}

const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// What is left to read.
struct Thrift<'a>(&'a [u8]);

impl Thrift<'_> {
    /// Elements come before what they hold: a count of children each, and the tree is that.
    fn schema(&mut self) -> Result<()> {
        let (count, kind) = self.list()?;
        ensure!(kind == STRUCT, "its schema is no list of elements");
        // Children that are still to come, group by group.
        let mut open: Vec<u64> = Vec::new();
        for i in 0..count {
            let mut children = 0;
            self.fields(|element, id, kind| match (id, kind) {
                (5, 5) => {
                    let number = element.varint()?;
                    ensure!(number & 1 == 0, "a group of its schema has less than no fields");
                    children = number >> 1;
                    Ok(())
                }
                _ => element.skip(kind, 0),
            })?;
            ensure!(children < count - i, "a group of its schema has more fields than there are");
            if let Some(left) = open.last_mut() {
                *left -= 1;
            }
            open.push(children);
            ensure!(open.len() <= DEEPEST, "its schema is more than {DEEPEST} groups deep");
            while open.last() == Some(&0) {
                open.pop();
            }
        }
        Ok(())
    }

    /// A struct's fields, by id and kind.
    fn fields(&mut self, mut each: impl FnMut(&mut Self, u64, u8) -> Result<()>) -> Result<()> {
        let mut id = 0;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            id = match head >> 4 {
                0 => self.varint()? >> 1,
                more => id + u64::from(more),
            };
            each(self, id, head & 15)?;
        }
    }

    /// How many, and of which kind.
    fn list(&mut self) -> Result<(u64, u8)> {
        let head = self.byte()?;
        let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
        Ok((count, head & 15))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Result<()> {
        ensure!(depth < NESTED, "its footer is nested without end");
        match kind {
            // Booleans are their kind.
            1 | 2 => {}
            3 => drop(self.byte()?),
            4..=6 => drop(self.varint()?),
            7 => self.over(8)?,
            8 => {
                let size = self.varint()?;
                self.over(size)?;
            }
            LIST | 10 => {
                let (count, kind) = self.list()?;
                for _ in 0..count {
                    // In a list a boolean is a byte.
                    self.skip(if kind <= 2 { 3 } else { kind }, depth + 1)?;
                }
            }
            STRUCT => self.fields(|inner, _, kind| inner.skip(kind, depth + 1))?,
            _ => bail!("its footer is none"),
        }
        Ok(())
    }

    fn over(&mut self, size: u64) -> Result<()> {
        let size = usize::try_from(size).ok();
        self.0 = size.and_then(|size| self.0.get(size..)).context("its footer ends in the middle")?;
        Ok(())
    }

    fn byte(&mut self) -> Result<u8> {
        let (&first, rest) = self.0.split_first().context("its footer ends in the middle")?;
        self.0 = rest;
        Ok(first)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(number);
            }
        }
        bail!("its footer holds a number without end")
    }
}
