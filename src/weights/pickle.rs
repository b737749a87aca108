//! `pytorch_model.bin`: what `torch.save` writes of a state dict, a zip with a pickle and the tensors' storages.
//!
//! libtorch's own reader takes only a plain dict and fails on the `OrderedDict` that `state_dict()` is. This one knows the
//! pickle opcodes (protocol 2, CPython's `Lib/pickletools.py`) and the few globals that tensors need, and runs nothing.

use crate::error::{Error, Result};
use std::io::Read;
use std::path::Path;
use std::rc::Rc;
use tch::{Kind, Tensor};
use zip::ZipArchive;

/// A pickled object; others are named by their place in the list of all.
#[derive(Debug, Clone)]
enum Object {
    /// What is of no consequence here: None, floats, instances.
    Other,
    Mark,
    Int(i64),
    Text(String),
    Sequence(Vec<usize>),
    Dict(Vec<(usize, usize)>),
    /// `module name`.
    Global(String),
    Storage {
        kind: Kind,
        key: Rc<str>,
    },
    Tensor(Rc<View>),
}

/// A tensor as a view of a storage.
#[derive(Debug, Clone)]
struct View {
    kind: Kind,
    key: Rc<str>,
    offset: i64,
    shape: Vec<i64>,
    strides: Vec<i64>,
}

/// Reads the tensors of a state dict and hands them over one at a time.
pub fn read(path: &Path, take: &mut dyn FnMut(String, Tensor) -> Result<()>) -> Result<()> {
    let way_out = "in Python: safetensors.torch.save_file({k: v.contiguous() for k, v in torch.load(FILE).items()}, \"model.safetensors\")";
    let broken = |problem: &str| {
        Error::file(
            path,
            format!(
                "not a state dict that torch.save of PyTorch 1.6 or later wrote: {problem}; {way_out}"
            ),
        )
    };
    let file = std::fs::File::open(path).map_err(Error::io("read", path))?;
    let size = file.metadata().map_err(Error::io("read", path))?.len();
    let mut archive = ZipArchive::new(std::io::BufReader::new(file))
        .map_err(|e| broken(&format!("not a zip archive ({e})")))?;
    let mut names =
        archive.file_names().filter(|name| name.ends_with("/data.pkl")).map(str::to_owned);
    let (name, more) = (names.next().ok_or_else(|| broken("no data.pkl in it"))?, names.next());
    if more.is_some() {
        return Err(broken("more than one data.pkl in it"));
    }
    drop(names);
    let folder = name.trim_end_matches("data.pkl").to_owned();
    let mut entry = |name: &str| -> Result<Vec<u8>> {
        let mut entry = archive.by_name(name).map_err(|e| broken(&format!("{name}: {e}")))?;
        // torch.save does not compress, and what does not may not grow.
        if entry.compression() != zip::CompressionMethod::Stored {
            return Err(broken(&format!("{name} is compressed")));
        }
        let mut bytes = vec![];
        entry.read_to_end(&mut bytes).map_err(|e| broken(&format!("{name}: {e}")))?;
        Ok(bytes)
    };
    let tensors = unpickle(&entry(&name)?).map_err(|problem| broken(&problem))?;
    if entry(&format!("{folder}byteorder")).is_ok_and(|order| order != b"little") {
        return Err(broken("its numbers are not little-endian"));
    }
    // A storage may be shared, as word embeddings are; not by a file's every tensor.
    let mut left = 4 * size;
    for (name, view) in tensors {
        let bytes = entry(&format!("{folder}data/{}", view.key))?;
        let tensor = view.tensor(&bytes)?;
        let tensor =
            tensor.ok_or_else(|| broken(&format!("tensor {name} reaches out of its storage")))?;
        let rest = left.checked_sub(bytes.len() as u64);
        left = rest.ok_or_else(|| broken("its tensors are far larger than the file"))?;
        take(name, tensor)?;
    }
    Ok(())
}

impl View {
    /// The tensor, of its storage's bytes; `None` where it is not inside.
    fn tensor(&self, bytes: &[u8]) -> Result<Option<Tensor>> {
        let count = bytes.len() / self.kind.elt_size_in_bytes();
        let mut last = i128::from(self.offset);
        for (&size, &stride) in self.shape.iter().zip(&self.strides) {
            if size < 0 || stride < 0 {
                return Ok(None);
            }
            last = (i128::from(size.max(1) - 1) * i128::from(stride)).saturating_add(last);
        }
        let sizes = self.shape.iter().map(|&size| i128::from(size));
        let numel = sizes.fold(1, i128::saturating_mul);
        let fits = numel == 0 || last < count as i128;
        // A tensor that repeats its storage's numbers is not larger than a model: a hostile one could be.
        let inside = self.offset >= 0
            && self.shape.len() == self.strides.len()
            && fits
            && numel <= count as i128;
        let numbers = bytes.get(..count * self.kind.elt_size_in_bytes()).filter(|_| inside);
        let Some(numbers) = numbers else { return Ok(None) };
        let whole = Tensor::f_from_data_size(numbers, &[count as i64], self.kind)?;
        Ok(Some(
            whole.f_as_strided(&self.shape[..], &self.strides[..], self.offset)?.f_contiguous()?,
        ))
    }
}

/// Far above any model's: BERT-large's is 60 kB. An object takes some 50 bytes of memory for one in the file.
const MOST_BYTES: usize = 4_000_000;

/// Dimensions of a tensor.
const MOST_DIMENSIONS: usize = 8;

/// The named tensors of a pickled dict.
fn unpickle(bytes: &[u8]) -> Step<Vec<(String, Rc<View>)>> {
    if bytes.len() > MOST_BYTES {
        return Err(format!("its pickle has {} bytes, more than {MOST_BYTES}", bytes.len()));
    }
    let mut machine =
        Machine { bytes, at: 0, objects: vec![], stack: vec![], memo: Default::default() };
    let top = machine.run()?;
    let Object::Dict(items) = machine.object(top) else { return Err("not a dict".into()) };
    let mut tensors = vec![];
    let mut keys = std::collections::HashSet::new();
    for &(key, value) in items {
        if !keys.insert(key) {
            return Err("a key that is there twice".into());
        }
        match (machine.object(key), machine.object(value)) {
            (Object::Text(name), Object::Tensor(view)) => {
                tensors.push((name.clone(), view.clone()))
            }
            (Object::Text(name), Object::Dict(_)) => {
                return Err(format!("{name} is a dict, not a tensor; save that one"));
            }
            (Object::Text(name), _) => return Err(format!("{name} is not a dense tensor")),
            _ => return Err("a key that is no text".into()),
        }
    }
    Ok(tensors)
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    objects: Vec<Object>,
    stack: Vec<usize>,
    memo: std::collections::HashMap<u32, usize>,
}

type Step<T> = std::result::Result<T, String>;

impl Machine<'_> {
    fn run(&mut self) -> Step<usize> {
        loop {
            let [opcode] = self.take()?;
            match opcode {
                b'.' => return self.pop(),
                0x80 => drop(self.take::<1>()?),
                b'(' => self.push(Object::Mark),
                b'N' | 0x88 | 0x89 => self.push(Object::Other),
                b'G' => {
                    self.take::<8>()?;
                    self.push(Object::Other);
                }
                b'K' => self.number::<1>()?,
                b'M' => self.number::<2>()?,
                b'J' => {
                    let number = i32::from_le_bytes(self.take()?);
                    self.push(Object::Int(number.into()));
                }
                0x8a => {
                    let [length] = self.take()?;
                    let digits = self.slice(length.into())?;
                    if digits.len() > 8 {
                        return Err("an integer of more than 8 bytes".into());
                    }
                    let sign = if digits.last().is_some_and(|b| *b > 127) { -1 } else { 0 };
                    let number = digits.iter().rev().fold(sign, |sum, &b| sum << 8 | i64::from(b));
                    self.push(Object::Int(number));
                }
                b'X' => {
                    let length = u32::from_le_bytes(self.take()?) as usize;
                    let text = std::str::from_utf8(self.slice(length)?)
                        .map_err(|e| e.to_string())?
                        .to_owned();
                    self.push(Object::Text(text));
                }
                b'c' => {
                    let global = format!("{} {}", self.line()?, self.line()?);
                    self.push(Object::Global(global));
                }
                b')' | b']' => self.push(Object::Sequence(vec![])),
                b'}' => self.push(Object::Dict(vec![])),
                b't' => {
                    let items = self.since_mark()?;
                    self.push(Object::Sequence(items));
                }
                0x85..=0x87 => {
                    let mut items: Vec<usize> =
                        (0x85..=opcode).map(|_| self.pop()).collect::<Step<_>>()?;
                    items.reverse();
                    self.push(Object::Sequence(items));
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(&[item])?;
                }
                b'e' => {
                    let items = self.since_mark()?;
                    self.append(&items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set(&[key, value])?;
                }
                b'u' => {
                    let items = self.since_mark()?;
                    self.set(&items)?;
                }
                b'q' => {
                    let [place] = self.take()?;
                    self.remember(place.into())?;
                }
                b'r' => {
                    let place = u32::from_le_bytes(self.take()?);
                    self.remember(place)?;
                }
                b'h' => {
                    let [place] = self.take()?;
                    self.recall(place.into())?;
                }
                b'j' => {
                    let place = u32::from_le_bytes(self.take()?);
                    self.recall(place)?;
                }
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.storage(id)?;
                    self.push(storage);
                }
                b'R' => {
                    let (arguments, function) = (self.pop()?, self.pop()?);
                    let made = self.call(function, arguments)?;
                    self.push(made);
                }
                // BUILD gives an object its attributes, such as `_metadata`.
                b'b' => drop(self.pop()?),
                _ => return Err(format!("opcode 0x{opcode:02x} at byte {}", self.at - 1)),
            }
        }
    }

    fn slice(&mut self, length: usize) -> Step<&[u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let slice = rest.get(..length).ok_or("it ends in the middle")?;
        self.at += length;
        Ok(slice)
    }

    fn take<const N: usize>(&mut self) -> Step<[u8; N]> {
        self.slice(N)?.try_into().map_err(|_| "it ends in the middle".into())
    }

    fn line(&mut self) -> Step<String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&b| b == b'\n').ok_or("it ends in the middle")?;
        let line = String::from_utf8_lossy(self.slice(length)?).into_owned();
        self.slice(1)?;
        Ok(line)
    }

    fn number<const N: usize>(&mut self) -> Step<()> {
        let number = self.take::<N>()?.iter().rev().fold(0, |sum, &b| sum << 8 | i64::from(b));
        self.push(Object::Int(number));
        Ok(())
    }

    fn push(&mut self, object: Object) {
        self.stack.push(self.objects.len());
        self.objects.push(object);
    }

    fn pop(&mut self) -> Step<usize> {
        self.stack.pop().ok_or_else(|| "nothing on its stack".into())
    }

    fn since_mark(&mut self) -> Step<Vec<usize>> {
        let mark = self
            .stack
            .iter()
            .rposition(|&i| matches!(self.object(i), Object::Mark))
            .ok_or("no mark on its stack")?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    /// What was pushed as `place`; no other place is on the stack.
    fn object(&self, place: usize) -> &Object {
        self.objects.get(place).unwrap_or(&Object::Other)
    }

    fn top(&mut self) -> Step<&mut Object> {
        let top = self.stack.last().and_then(|&top| self.objects.get_mut(top));
        top.ok_or_else(|| "nothing on its stack".into())
    }

    fn append(&mut self, items: &[usize]) -> Step<()> {
        if let Object::Sequence(list) = self.top()? {
            list.extend(items);
        }
        Ok(())
    }

    fn set(&mut self, items: &[usize]) -> Step<()> {
        if let Object::Dict(dict) = self.top()? {
            dict.extend(items.as_chunks().0.iter().map(|&[key, value]| (key, value)));
        }
        Ok(())
    }

    fn remember(&mut self, place: u32) -> Step<()> {
        let &top = self.stack.last().ok_or("nothing on its stack")?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn recall(&mut self, place: u32) -> Step<()> {
        let &object = self.memo.get(&place).ok_or("a reference to nothing")?;
        self.stack.push(object);
        Ok(())
    }

    fn items(&self, object: usize) -> &[usize] {
        match self.object(object) {
            Object::Sequence(items) => items,
            _ => &[],
        }
    }

    fn integers(&self, object: usize) -> Step<Vec<i64>> {
        if self.items(object).len() > MOST_DIMENSIONS {
            return Err(format!("a tensor of more than {MOST_DIMENSIONS} dimensions"));
        }
        let integer = |&i: &usize| match self.object(i) {
            Object::Int(number) => Ok(*number),
            _ => Err("a size that is no integer".into()),
        };
        self.items(object).iter().map(integer).collect()
    }

    /// `("storage", torch.FloatStorage, key, device, numel)`.
    fn storage(&self, id: usize) -> Step<Object> {
        let [_, class, key, ..] = self.items(id) else {
            return Err("a storage without a key".into());
        };
        let (Object::Global(class), Object::Text(key)) = (self.object(*class), self.object(*key))
        else {
            return Err("a storage without class and key".into());
        };
        let kind = match class.as_str() {
            "torch FloatStorage" => Kind::Float,
            "torch HalfStorage" => Kind::Half,
            "torch BFloat16Storage" => Kind::BFloat16,
            "torch DoubleStorage" => Kind::Double,
            "torch LongStorage" => Kind::Int64,
            "torch IntStorage" => Kind::Int,
            "torch ByteStorage" => Kind::Uint8,
            "torch BoolStorage" => Kind::Bool,
            _ => return Err(format!("a storage of class {class}")),
        };
        Ok(Object::Storage { kind, key: key.as_str().into() })
    }

    fn call(&self, function: usize, arguments: usize) -> Step<Object> {
        let Object::Global(function) = self.object(function) else { return Ok(Object::Other) };
        match (function.as_str(), self.items(arguments)) {
            ("collections OrderedDict", _) => Ok(Object::Dict(vec![])),
            ("torch._utils _rebuild_tensor_v2", [storage, offset, shape, strides, ..]) => {
                let (Object::Storage { kind, key }, Object::Int(offset)) =
                    (self.object(*storage), self.object(*offset))
                else {
                    return Err("a tensor without a storage".into());
                };
                let (shape, strides) = (self.integers(*shape)?, self.integers(*strides)?);
                let (kind, key, offset) = (*kind, key.clone(), *offset);
                Ok(Object::Tensor(Rc::new(View { kind, key, offset, shape, strides })))
            }
            ("torch._utils _rebuild_parameter", [tensor, ..]) => match self.object(*tensor) {
                Object::Tensor(view) => Ok(Object::Tensor(view.clone())),
                _ => Ok(Object::Other),
            },
            _ => Ok(Object::Other),
        }
    }
}
