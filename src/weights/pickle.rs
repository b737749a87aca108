//! A reader of what PyTorch pickles: a state dict, a module, or a TorchScript module. Pickles are
//! read as data, and nothing in them is executed.
//!
//! The reader knows the opcodes of CPython's `Lib/pickletools.py` (protocols 1 to 5, and those of
//! protocol 0 that torch.save used) and the few globals that tensors need. Any other class or
//! function becomes an object without meaning.

use crate::escape;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use tch::Kind;

/// Maximum size of a pickle in bytes. BERT-large's has 60 kB. A byte of a pickle can become an
/// object of about 70 bytes.
pub const MOST_BYTES: usize = 4_000_000;

/// Maximum number of dimensions of a tensor.
const MOST_DIMENSIONS: usize = 8;

/// Maximum depth of nested modules.
const MOST_NESTED: usize = 64;

/// Maximum length of the name of a class or a storage.
const LONGEST_NAME: usize = 100;

/// Maximum number of tensors in a file.
const MOST_TENSORS: usize = 100_000;

/// Maximum cost of the names that are read: their bytes, and a constant for each. A dict or a
/// module may be in many others, so a small file can have very many names.
const MOST_NAMES: usize = 64_000_000;

/// The dtype of a storage.
#[derive(Debug, Clone, Copy)]
pub struct StorageType {
    /// PyTorch's name of the dtype.
    pub dtype: &'static str,
    /// The same dtype as a [`Kind`]; `None` if it is not supported.
    pub kind: Option<Kind>,
    /// Bytes of an element; 0 if unknown.
    pub width: u64,
}

/// A tensor as a view of a storage.
#[derive(Debug, Clone)]
pub struct View {
    pub class: StorageType,
    /// The storage's name.
    pub key: Rc<str>,
    pub offset: i64,
    pub shape: Vec<i64>,
    pub strides: Vec<i64>,
}

/// A named tensor of a pickle.
#[derive(Debug, Clone)]
pub enum PickledTensor {
    Tensor(Rc<View>),
    /// A tensor that is not a view of a storage: the function that makes it.
    Strange(Rc<str>),
}

/// A pickled object. Other objects are given as indices into the list of all objects.
#[derive(Debug, Clone)]
pub enum PickleObject {
    /// An object that tensors do not need, such as None, a float or bytes.
    Other,
    Mark,
    Bool(bool),
    Int(i128),
    Text(String),
    Sequence(Vec<usize>),
    Dict(Vec<(usize, usize)>),
    /// A class or a function, as `module name`.
    Global(Rc<str>),
    /// An instance of a class, and its state once it is set.
    Instance {
        is_script: bool,
        state: Option<usize>,
    },
    Storage {
        class: StorageType,
        key: Rc<str>,
        offset: i64,
    },
    Tensor(Rc<View>),
    Strange(Rc<str>),
}

/// The indices of [`PickleObject::Other`] and [`PickleObject::Mark`]. One object stands for all of
/// its kind.
const OTHER: usize = 0;
const MARK: usize = 1;

/// A pickle machine, which reads pickles that follow one another.
pub struct Unpickler<'a> {
    bytes: &'a [u8],
    at: usize,
    objects: Vec<PickleObject>,
    stack: Vec<usize>,
    memo: HashMap<u32, usize>,
    /// Objects that are in no pickle, by the persistent ids by which pickles refer to them.
    pub known: HashMap<String, PickleObject>,
    /// The dtype of each storage that a pickle referred to.
    pub storages: BTreeMap<Rc<str>, StorageType>,
    /// Number of items that may still be copied. A small file can refer to the same list many
    /// times.
    left: usize,
}

/// The reason why a file cannot be read.
#[derive(Debug)]
pub enum Problem {
    /// The file is in no format that PyTorch writes, or is damaged.
    Form(String),
    /// The format is PyTorch's, but the file does not hold the tensors of one model.
    Content(String),
}

impl From<String> for Problem {
    fn from(problem: String) -> Self {
        Self::Form(problem)
    }
}

impl From<&str> for Problem {
    fn from(problem: &str) -> Self {
        Self::Form(problem.into())
    }
}

pub type PickleResult<T> = std::result::Result<T, Problem>;

impl<'a> Unpickler<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            objects: vec![PickleObject::Other, PickleObject::Mark],
            stack: vec![],
            memo: HashMap::new(),
            known: HashMap::new(),
            storages: BTreeMap::new(),
            left: MOST_BYTES,
        }
    }

    /// Number of bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Reads the next pickle and returns its object.
    pub fn load(&mut self) -> PickleResult<usize> {
        self.stack.clear();
        self.memo.clear();
        loop {
            let [opcode] = self.take()?;
            match opcode {
                b'.' => return self.pop(),
                0x80 => drop(self.take::<1>()?),
                0x95 => drop(self.take::<8>()?),
                b'(' => self.stack.push(MARK),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.since_mark()?),
                b'2' => {
                    let &top = self.stack.last().ok_or("the stack is empty")?;
                    self.stack.push(top);
                }
                _ if self.plain(opcode)? || self.collection(opcode)? || self.named(opcode)? => {}
                _ => {
                    return Err(
                        format!("unknown opcode 0x{opcode:02x} at byte {}", self.at - 1).into()
                    );
                }
            }
        }
    }

    /// Executes the opcodes of numbers, texts and bytes. Returns whether `opcode` is one of them.
    fn plain(&mut self, opcode: u8) -> PickleResult<bool> {
        match opcode {
            b'N' => self.stack.push(OTHER),
            0x88 | 0x89 => self.push(PickleObject::Bool(opcode == 0x88)),
            b'G' => {
                self.take::<8>()?;
                self.stack.push(OTHER);
            }
            b'F' => {
                self.line()?;
                self.stack.push(OTHER);
            }
            b'K' => self.number::<1>()?,
            b'M' => self.number::<2>()?,
            b'J' => {
                let number = i32::from_le_bytes(self.take()?);
                self.push(PickleObject::Int(number.into()));
            }
            b'I' | b'L' => {
                let line = self.line()?;
                let number = match (opcode, line.as_str()) {
                    (b'I', "00" | "01") => PickleObject::Bool(line == "01"),
                    _ => line
                        .trim_end_matches('L')
                        .parse()
                        .map_or(PickleObject::Other, PickleObject::Int),
                };
                self.push(number);
            }
            0x8a | 0x8b => {
                let length = if opcode == 0x8a { self.length::<1>()? } else { self.length::<4>()? };
                let digits = self.slice(length)?;
                let sign = if digits.last().is_some_and(|b| *b > 127) { -1 } else { 0 };
                let number =
                    digits.iter().rev().fold(sign, |sum: i128, &b| sum << 8 | i128::from(b));
                self.push(if length <= 16 {
                    PickleObject::Int(number)
                } else {
                    PickleObject::Other
                });
            }
            b'X' => self.text::<4>()?,
            0x8c | b'U' => self.text::<1>()?,
            b'T' => self.text::<4>()?,
            0x8d => self.text::<8>()?,
            b'V' => {
                let line = self.line()?;
                self.push(PickleObject::Text(line));
            }
            b'C' | b'B' | 0x8e | 0x96 => {
                let length = match opcode {
                    b'C' => self.length::<1>()?,
                    b'B' => self.length::<4>()?,
                    _ => self.length::<8>()?,
                };
                self.slice(length)?;
                self.stack.push(OTHER);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Executes the opcodes of tuples, lists, sets and dicts. Returns whether `opcode` is one of
    /// them.
    fn collection(&mut self, opcode: u8) -> PickleResult<bool> {
        match opcode {
            b')' | b']' | 0x8f => self.push(PickleObject::Sequence(vec![])),
            b'}' => self.push(PickleObject::Dict(vec![])),
            b't' | b'l' | 0x91 => {
                let items = self.since_mark()?;
                self.push(PickleObject::Sequence(items));
            }
            b'd' => {
                let items = self.since_mark()?;
                self.push(PickleObject::Dict(vec![]));
                self.set(&items);
            }
            0x85..=0x87 => {
                let mut items: Vec<usize> =
                    (0x85..=opcode).map(|_| self.pop()).collect::<PickleResult<_>>()?;
                items.reverse();
                self.push(PickleObject::Sequence(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item]);
            }
            b'e' | 0x90 => {
                let items = self.since_mark()?;
                self.append(&items);
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value]);
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set(&items);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Executes the opcodes of the memo, classes, persistent ids, calls and instances. Returns
    /// whether `opcode` is one of them.
    fn named(&mut self, opcode: u8) -> PickleResult<bool> {
        match opcode {
            b'q' => self.remember::<1>()?,
            b'r' => self.remember::<4>()?,
            0x94 => {
                let place = self.memo.len() as u32;
                self.remember_as(place)?;
            }
            b'h' => self.recall::<1>()?,
            b'j' => self.recall::<4>()?,
            b'p' | b'g' => {
                let place = self.line()?.parse().map_err(|_| "a memo index is not a number")?;
                if opcode == b'p' { self.remember_as(place)? } else { self.recall_from(place)? }
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(global(&module, &name));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (PickleObject::Text(module), PickleObject::Text(name)) =
                    (self.object(module), self.object(name))
                else {
                    return Err("a class without a name".into());
                };
                let made = global(module, name);
                self.push(made);
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.persistent(id)?;
                self.push(storage);
            }
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let made = self.call(function, arguments)?;
                self.push(made);
            }
            0x81 => {
                let (_, class) = (self.pop()?, self.pop()?);
                self.push_instance(class);
            }
            0x92 => {
                let (_, _, class) = (self.pop()?, self.pop()?, self.pop()?);
                self.push_instance(class);
            }
            b'b' => {
                let built = self.pop()?;
                if let Some(PickleObject::Instance { state, .. }) = self.top() {
                    *state = Some(built);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn slice(&mut self, length: usize) -> PickleResult<&'a [u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let slice = rest.get(..length).ok_or("the file is truncated")?;
        self.at += length;
        Ok(slice)
    }

    fn take<const N: usize>(&mut self) -> PickleResult<[u8; N]> {
        self.slice(N)?.try_into().map_err(|_| "the file is truncated".into())
    }

    fn length<const N: usize>(&mut self) -> PickleResult<usize> {
        let length = self.take::<N>()?.iter().rev().fold(0, |sum: u64, &b| sum << 8 | u64::from(b));
        usize::try_from(length).map_err(|_| "the file is truncated".into())
    }

    fn line(&mut self) -> PickleResult<String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&b| b == b'\n').ok_or("the file is truncated")?;
        let line = String::from_utf8_lossy(self.slice(length)?).into_owned();
        self.slice(1)?;
        Ok(line)
    }

    fn number<const N: usize>(&mut self) -> PickleResult<()> {
        let number = self.length::<N>()?;
        self.push(PickleObject::Int(number as i128));
        Ok(())
    }

    /// Reads a text. Python 2 wrote bytes, which may not be UTF-8.
    fn text<const N: usize>(&mut self) -> PickleResult<()> {
        let length = self.length::<N>()?;
        let text = String::from_utf8_lossy(self.slice(length)?).into_owned();
        self.push(PickleObject::Text(text));
        Ok(())
    }

    fn push(&mut self, object: PickleObject) {
        self.stack.push(self.objects.len());
        self.objects.push(object);
    }

    fn push_instance(&mut self, class: usize) {
        let made = match self.object(class) {
            PickleObject::Global(class) => instance(class),
            _ => PickleObject::Other,
        };
        self.push(made);
    }

    fn pop(&mut self) -> PickleResult<usize> {
        self.stack.pop().ok_or_else(|| "the stack is empty".into())
    }

    fn since_mark(&mut self) -> PickleResult<Vec<usize>> {
        let mark = self.stack.iter().rposition(|&i| i == MARK).ok_or("the stack has no mark")?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    /// The object at the index `place`.
    pub fn object(&self, place: usize) -> &PickleObject {
        self.objects.get(place).unwrap_or(&PickleObject::Other)
    }

    fn top(&mut self) -> Option<&mut PickleObject> {
        // One object stands for all of its kind, so it must not change.
        let &top = self.stack.last().filter(|&&top| top > MARK)?;
        self.objects.get_mut(top)
    }

    fn append(&mut self, items: &[usize]) {
        if let Some(PickleObject::Sequence(list)) = self.top() {
            list.extend(items);
        }
    }

    fn set(&mut self, items: &[usize]) {
        if let Some(PickleObject::Dict(dict)) = self.top() {
            dict.extend(items.as_chunks().0.iter().map(|&[key, value]| (key, value)));
        }
    }

    fn remember<const N: usize>(&mut self) -> PickleResult<()> {
        let place = self.length::<N>()?;
        self.remember_as(place as u32)
    }

    fn remember_as(&mut self, place: u32) -> PickleResult<()> {
        let &top = self.stack.last().ok_or("the stack is empty")?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn recall<const N: usize>(&mut self) -> PickleResult<()> {
        let place = self.length::<N>()?;
        self.recall_from(place as u32)
    }

    fn recall_from(&mut self, place: u32) -> PickleResult<()> {
        let &object = self.memo.get(&place).ok_or("a memo index without an object")?;
        self.stack.push(object);
        Ok(())
    }

    /// The items of a tuple or a list; empty for any other object.
    pub fn items(&self, object: usize) -> &[usize] {
        match self.object(object) {
            PickleObject::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The pairs of a dict; empty for any other object.
    pub fn pairs(&self, object: usize) -> &[(usize, usize)] {
        match self.object(object) {
            PickleObject::Dict(pairs) => pairs,
            _ => &[],
        }
    }

    /// The value of a dict's text key `name`. If the key repeats, its last value, as in Python.
    pub fn get(&self, dict: usize, name: &str) -> Option<usize> {
        let is_it = |&&(key, _): &&(usize, usize)| matches!(self.object(key), PickleObject::Text(text) if text == name);
        self.pairs(dict).iter().rev().find(is_it).map(|&(_, value)| value)
    }

    /// The value of an integer. Returns an error for any other object.
    pub fn integer(&self, object: usize) -> PickleResult<i64> {
        match self.object(object) {
            PickleObject::Int(number) => i64::try_from(*number).map_err(|e| e.to_string().into()),
            _ => Err("a size is not an integer".into()),
        }
    }

    /// The values of a list of at most `MOST_DIMENSIONS` integers, such as a tensor's sizes.
    pub fn integers(&self, object: usize) -> PickleResult<Vec<i64>> {
        if self.items(object).len() > MOST_DIMENSIONS {
            return Err(format!("a tensor of more than {MOST_DIMENSIONS} dimensions").into());
        }
        self.items(object).iter().map(|&item| self.integer(item)).collect()
    }

    /// Resolves a persistent id: `("storage", torch.FloatStorage, key, device, numel)`, before
    /// PyTorch 1.6 followed by a view of another storage, or `("module", class, file, source)`.
    fn persistent(&mut self, id: usize) -> PickleResult<PickleObject> {
        let known = match self.object(id) {
            PickleObject::Text(id) => self.known.get(id),
            PickleObject::Int(id) => self.known.get(&id.to_string()),
            _ => None,
        };
        if let Some(object) = known {
            return Ok(object.clone());
        }
        let [tag, class, rest @ ..] = self.items(id) else {
            return Err("a storage without a key".into());
        };
        if matches!(self.object(*tag), PickleObject::Text(tag) if tag == "module") {
            // Only a class is copied, because a copy of another object could be of any size.
            return Ok(match self.object(*class) {
                class @ PickleObject::Global(_) => class.clone(),
                _ => PickleObject::Other,
            });
        }
        let (PickleObject::Global(class), Some(PickleObject::Text(key))) =
            (self.object(*class), rest.first().map(|&key| self.object(key)))
        else {
            return Err("a storage without class and key".into());
        };
        let class = storage_class(class);
        if key.len() > LONGEST_NAME {
            return Err("a storage's name is too long".into());
        }
        let key: Rc<str> = key.as_str().into();
        let offset = match rest.get(3).map(|&view| self.items(view)) {
            Some([_, offset, _]) => self.integer(*offset)?,
            _ => 0,
        };
        self.storages.insert(key.clone(), class);
        Ok(PickleObject::Storage { class, key, offset })
    }

    fn call(&mut self, function: usize, arguments: usize) -> PickleResult<PickleObject> {
        let PickleObject::Global(function) = self.object(function) else {
            return Ok(PickleObject::Other);
        };
        let function = function.clone();
        let arguments = self.items(arguments);
        let (module, name) = function.split_once(' ').unwrap_or_default();
        Ok(match (module, name, arguments) {
            ("collections", "OrderedDict", [items]) => self.dict_of(*items)?,
            ("collections", "OrderedDict" | "defaultdict", _)
            | ("builtins" | "__builtin__", "dict", []) => PickleObject::Dict(vec![]),
            ("copyreg" | "copy_reg", "_reconstructor" | "__newobj__", [class, ..]) => {
                match self.object(*class) {
                    PickleObject::Global(class) => instance(class),
                    _ => PickleObject::Other,
                }
            }
            // The argument marks a negated or conjugated view. Tensors saved from a model are
            // neither.
            ("torch._utils", "_rebuild_tensor_v2", [_, _, _, _, _, _, said, ..])
            | ("torch._utils", "_rebuild_tensor_v3", [_, _, _, _, _, _, _, said, ..])
                if !self.pairs(*said).is_empty() =>
            {
                PickleObject::Strange("torch._utils _rebuild_tensor_v2 of a negated or conjugated view".into())
            }
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2", [storage, offset, shape, strides, ..]) => {
                self.view(*storage, *offset, *shape, *strides, None)?
            }
            ("torch._utils", "_rebuild_tensor_v3", [storage, offset, shape, strides, _, _, dtype, ..]) => {
                let PickleObject::Global(dtype) = self.object(*dtype) else {
                    return Err("a tensor without a dtype".into());
                };
                let class = class_of(dtype.rsplit(' ').next().unwrap_or_default());
                self.view(*storage, *offset, *shape, *strides, Some(class))?
            }
            (
                "torch._utils",
                "_rebuild_parameter" | "_rebuild_parameter_with_state" | "_rebuild_device_tensor_from_cpu_tensor",
                [tensor, ..],
            )
            | ("torch.nn.parameter", "Parameter" | "Buffer", [tensor, ..])
            | ("torch.autograd.variable", "Variable", [tensor, ..])
            // The arguments are a value with its type, or a list.
            | ("torch.jit._pickle", _, [tensor, ..]) => self.object_of(*tensor),
            ("torch._tensor", "_rebuild_from_type" | "_rebuild_from_type_v2", [function, _, arguments, ..]) => {
                let is_again = matches!(self.object(*function), PickleObject::Global(f) if f.starts_with("torch._tensor "));
                if is_again {
                    return Err("a tensor type wraps another".into());
                }
                self.call(*function, *arguments)?
            }
            ("torch._utils", name, _) if name.starts_with("_rebuild_") => PickleObject::Strange(function.clone()),
            _ => PickleObject::Other,
        })
    }

    /// The dict of a list of pairs, which Python 2 passes to `OrderedDict`.
    fn dict_of(&mut self, list: usize) -> PickleResult<PickleObject> {
        let pair = |&item: &usize| match self.items(item) {
            [key, value] => Some((*key, *value)),
            _ => None,
        };
        let items = self.items(list);
        let left = self.left.checked_sub(items.len()).ok_or("one list occurs too often")?;
        let dict = items.iter().filter_map(pair).collect();
        self.left = left;
        Ok(PickleObject::Dict(dict))
    }

    /// A copy of the object if it is a tensor, an instance or an integer, because these are small.
    fn object_of(&self, object: usize) -> PickleObject {
        match self.object(object) {
            found @ (PickleObject::Tensor(_)
            | PickleObject::Strange(_)
            | PickleObject::Instance { .. }
            | PickleObject::Int(_)) => found.clone(),
            _ => PickleObject::Other,
        }
    }

    fn view(
        &self,
        storage: usize,
        offset: usize,
        shape: usize,
        strides: usize,
        dtype: Option<StorageType>,
    ) -> PickleResult<PickleObject> {
        let PickleObject::Storage { class, key, offset: start } = self.object(storage) else {
            return Err("a tensor without a storage".into());
        };
        let offset =
            self.integer(offset)?.checked_add(*start).ok_or("a tensor's offset is too large")?;
        let (shape, strides) = (self.integers(shape)?, self.integers(strides)?);
        let (class, key) = (dtype.unwrap_or(*class), key.clone());
        Ok(PickleObject::Tensor(Rc::new(View { class, key, offset, shape, strides })))
    }

    /// The tensors of a pickled object, by name. The object is a state dict, a module, or a dict
    /// that holds exactly one of these.
    pub fn tensors(&self, root: usize) -> PickleResult<Vec<(String, PickledTensor)>> {
        let mut left = MOST_NAMES;
        let found = self.below(root, &mut left)?;
        // A checkpoint may have a tensor beside its state dict, such as the best score so far.
        if found.len() > 1 {
            return Ok(found);
        }
        let lone = found;
        let mut model: Option<(&str, Vec<(String, PickledTensor)>)> = None;
        for &(key, value) in self.pairs(root) {
            let PickleObject::Text(name) = self.object(key) else { continue };
            let found = self.below(value, &mut left)?;
            if found.is_empty() {
                continue;
            }
            if let Some((other, _)) = &model {
                let (one, two) = (escape::short(other, 40), escape::short(name, 40));
                return Err(Problem::Content(format!(
                    "several models in one file, {one} and {two}"
                )));
            }
            model = Some((name, found));
        }
        match (model, self.object(root)) {
            (Some((_, found)), _) => Ok(found),
            (None, _) if !lone.is_empty() => Ok(lone),
            (None, PickleObject::Dict(_) | PickleObject::Instance { .. }) => {
                Err(Problem::Content("no tensors where a model has tensors".into()))
            }
            (None, _) => Err(Problem::Content("neither a dict of tensors nor a module".into())),
        }
    }

    /// The tensors of a state dict or a module; empty for any other object. `left` is the remaining
    /// cost of names, up to `MOST_NAMES`.
    fn below(&self, root: usize, left: &mut usize) -> PickleResult<Vec<(String, PickledTensor)>> {
        let mut found = vec![];
        // Modules still to read: the prefix of their tensors' names, the object, the depth.
        let mut ahead = vec![(String::new(), root, 0)];
        while let Some((prefix, object, depth)) = ahead.pop() {
            if depth > MOST_NESTED {
                return Err(format!("modules are nested more than {MOST_NESTED} deep").into());
            }
            let is_script =
                matches!(self.object(object), PickleObject::Instance { is_script: true, .. });
            if let PickleObject::Instance { state: Some(state), .. } = self.object(object) {
                let looked_at = 3 * self.pairs(*state).len();
                *left = left.checked_sub(looked_at).ok_or("more names than any model has")?;
            }
            for &(key, value) in self.parts(object).iter().flat_map(|&dict| self.pairs(dict)) {
                let name = match self.object(key) {
                    PickleObject::Text(name) => Some(name),
                    _ => None,
                };
                let cost = 64 + prefix.len() + name.map_or(0, String::len);
                *left = left.checked_sub(cost).ok_or("more names than any model has")?;
                let Some(name) = name else { continue };
                // tch writes a dotted name as one attribute, with `|` for each dot.
                let name = || {
                    prefix.clone() + &if is_script { name.replace('|', ".") } else { name.clone() }
                };
                match self.object(value) {
                    PickleObject::Tensor(view) => {
                        found.push((name(), PickledTensor::Tensor(view.clone())))
                    }
                    PickleObject::Strange(what) => {
                        found.push((name(), PickledTensor::Strange(what.clone())))
                    }
                    PickleObject::Instance { state: Some(_), .. }
                        if self.pairs(object).is_empty() =>
                    {
                        ahead.push((name() + ".", value, depth + 1));
                    }
                    _ => {}
                }
                if found.len() > MOST_TENSORS {
                    return Err(format!("more than {MOST_TENSORS} tensors").into());
                }
            }
        }
        Ok(found)
    }

    /// The dicts that hold the tensors and modules of a dict or a module; empty for any other
    /// object.
    fn parts(&self, object: usize) -> Vec<usize> {
        match self.object(object) {
            PickleObject::Dict(_) => vec![object],
            PickleObject::Instance { is_script: true, state: Some(state) } => vec![*state],
            PickleObject::Instance { state: Some(state), .. } => {
                let named = ["_parameters", "_buffers", "_modules"];
                named.iter().filter_map(|name| self.get(*state, name)).collect()
            }
            _ => vec![],
        }
    }
}

fn global(module: &str, name: &str) -> PickleObject {
    let short = |text: &str| text.chars().take(LONGEST_NAME).collect::<String>();
    PickleObject::Global(format!("{} {}", short(module), short(name)).into())
}

fn instance(class: &str) -> PickleObject {
    match class {
        "collections OrderedDict" | "collections defaultdict" => PickleObject::Dict(vec![]),
        _ => PickleObject::Instance { is_script: class.starts_with("__torch__"), state: None },
    }
}

/// The dtype of a storage's class, such as `torch.FloatStorage`.
pub fn storage_class(class: &str) -> StorageType {
    let name = class.rsplit(' ').next().unwrap_or_default();
    class_of(match name.strip_suffix("Storage").unwrap_or_default() {
        "Float" => "float32",
        "Half" => "float16",
        "BFloat16" => "bfloat16",
        "Double" => "float64",
        "Long" => "int64",
        "Int" => "int32",
        "Short" => "int16",
        "Char" => "int8",
        "Byte" => "uint8",
        "Bool" => "bool",
        "ComplexFloat" => "complex64",
        "ComplexDouble" => "complex128",
        "QInt8" => "qint8",
        "QUInt8" => "quint8",
        "QInt32" => "qint32",
        "QUInt4x2" => "quint4x2",
        "QUInt2x4" => "quint2x4",
        "Untyped" | "_Untyped" => "bytes",
        _ => "",
    })
}

/// The dtype with PyTorch's name `dtype`. An unknown one has width 0.
fn class_of(dtype: &str) -> StorageType {
    let (dtype, kind, width) = match dtype {
        "float32" => ("float32", Some(Kind::Float), 4),
        "float16" => ("float16", Some(Kind::Half), 2),
        "bfloat16" => ("bfloat16", Some(Kind::BFloat16), 2),
        "float64" => ("float64", Some(Kind::Double), 8),
        "uint8" => ("uint8", Some(Kind::Uint8), 1),
        "int64" => ("int64", None, 8),
        "int32" => ("int32", None, 4),
        "int16" => ("int16", None, 2),
        "int8" => ("int8", None, 1),
        "bool" => ("bool", None, 1),
        "complex64" => ("complex64", None, 8),
        "complex128" => ("complex128", None, 16),
        "qint8" => ("qint8", None, 1),
        "quint8" => ("quint8", None, 1),
        "qint32" => ("qint32", None, 4),
        "quint4x2" => ("quint4x2", None, 1),
        "quint2x4" => ("quint2x4", None, 1),
        "bytes" => ("bytes", None, 1),
        _ => ("another type", None, 0),
    };
    StorageType { dtype, kind, width }
}
