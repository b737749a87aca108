//! The formats of `torch.save` before PyTorch 1.6: pickles one after the other, followed by the
//! storages; and in PyTorch's first year, a tar archive.

use super::archive::{contents, said, stored};
use super::pickle::{
    MOST_BYTES, PickleObject, PickleResult, Problem, StorageType, Unpickler, View, storage_class,
};
use super::stored::{ByteRange, Stored};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

/// Maximum size in bytes of the pickle for a storage or a tensor in a tar, which names a class and
/// little else.
const SMALL: usize = 4_096;

/// Maximum number of members in a tar. PyTorch writes four.
const MOST_MEMBERS: usize = 100;

/// Reads the format before PyTorch 1.6: a magic number, a version, properties of the machine, the
/// object, the names of the storages, the storages.
pub fn streamed(file: &File) -> PickleResult<Vec<(String, Stored)>> {
    const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
    const VERSION: i128 = 1001;
    let size = file.metadata().map_err(said)?.len();
    let mut bytes = vec![];
    let mut start = file;
    start.rewind().map_err(said)?;
    start.take(MOST_BYTES as u64).read_to_end(&mut bytes).map_err(said)?;
    let mut machine = Unpickler::new(&bytes);
    let is_ours = |object: &PickleObject, number| matches!(object, PickleObject::Int(found) if *found == number);
    let magic = machine.load().ok().filter(|&magic| is_ours(machine.object(magic), MAGIC));
    magic.ok_or("neither a zip archive nor a pickle of torch.save")?;
    let version = machine.load()?;
    if !is_ours(machine.object(version), VERSION) {
        return Err("an unknown version of torch.save's format".into());
    }
    let system = machine.load()?;
    if let Some(order) = machine.get(system, "little_endian")
        && matches!(machine.object(order), PickleObject::Bool(false))
    {
        return Err("the numbers are not little-endian".into());
    }
    let root = machine.load()?;
    let found = machine.tensors(root)?;
    let keys = machine.load()?;
    let mut at = machine.position() as u64;
    let mut storages = BTreeMap::new();
    for &key in machine.items(keys) {
        let PickleObject::Text(key) = machine.object(key) else {
            return Err("a storage's name is not a string".into());
        };
        let class = machine.storages.get(key.as_str()).filter(|class| class.width > 0);
        let class = class.ok_or("a storage of an unknown type")?;
        let mut count = [0; 8];
        file.read_exact_at(&mut count, at).map_err(|_| "the file is truncated")?;
        let length = u64::from_le_bytes(count).checked_mul(class.width);
        let start = at + 8;
        let end = length.and_then(|length| start.checked_add(length)).filter(|&end| end <= size);
        at = end.ok_or("the file is truncated")?;
        storages.insert(key.as_str(), ByteRange { start, length: at - start, checksum: None });
    }
    stored(found, |view| {
        storages.get(&*view.key).copied().ok_or_else(|| format!("no storage {}", view.key).into())
    })
}

/// Reads the tar archive: storages, tensors, and the pickle that refers to tensors by number.
pub fn tarred(file: &File) -> PickleResult<Vec<(String, Stored)>> {
    let members = members(file)?;
    let member =
        |name: &str| members.get(name).copied().ok_or_else(|| format!("the archive has no {name}"));
    let part = |name: &str| {
        let ByteRange { start, length, .. } = member(name)?;
        Ok::<_, Problem>(TarMember { file, at: start, end: start + length })
    };
    let storages = tarred_storages(part("storages")?)?;
    let bytes = contents(file, "pickle", Some(member("pickle")?))?;
    let mut machine = Unpickler::new(&bytes);
    machine.known = tarred_tensors(part("tensors")?, &storages)?;
    let root = machine.load()?;
    stored(machine.tensors(root)?, |view| {
        let (_, stretch) = storages.get(&*view.key).ok_or("a tensor of an unknown storage")?;
        Ok(*stretch)
    })
}

/// The storages of a tar, and the views of storages, by their keys.
fn tarred_storages(
    mut entries: TarMember<'_>,
) -> PickleResult<HashMap<String, (StorageType, ByteRange)>> {
    let mut storages: HashMap<String, (StorageType, ByteRange)> = HashMap::new();
    for _ in 0..entries.pickled(SMALL, |machine, root| machine.integer(root))? {
        let (key, class) = entries.pickled(SMALL, |machine, root| match machine.items(root) {
            [key, _, class] => match machine.object(*class) {
                PickleObject::Global(class) => Ok((machine.integer(*key)?, storage_class(class))),
                _ => Err("a storage without a class".into()),
            },
            _ => Err("a storage without a key".into()),
        })?;
        let count = entries.number()?;
        let length = u64::try_from(count).ok().and_then(|count| count.checked_mul(class.width));
        storages.insert(key.to_string(), (class, entries.stretch(length)?));
    }
    let views = entries.pickled(MOST_BYTES, |machine, root| {
        let view = |&view: &usize| machine.integers(view);
        machine.items(root).iter().map(view).collect::<PickleResult<Vec<_>>>()
    })?;
    for view in views {
        let &[key, root, offset, count] = view.as_slice() else {
            return Err("a view does not have four numbers".into());
        };
        let (class, whole) =
            storages.get(&root.to_string()).ok_or("a view of an unknown storage")?;
        let bytes = |number: i64| u64::try_from(number).ok()?.checked_mul(class.width);
        let inside = bytes(offset).zip(bytes(count)).filter(|(offset, length)| {
            offset.checked_add(*length).is_some_and(|end| end <= whole.length)
        });
        let (offset, length) = inside.ok_or("a view reaches beyond its storage")?;
        let stretch = ByteRange { start: whole.start + offset, length, checksum: None };
        storages.insert(key.to_string(), (*class, stretch));
    }
    Ok(storages)
}

/// The tensors of a tar, by the persistent ids that the pickle has for them.
fn tarred_tensors(
    mut entries: TarMember<'_>,
    storages: &HashMap<String, (StorageType, ByteRange)>,
) -> PickleResult<HashMap<String, PickleObject>> {
    let mut tensors = HashMap::new();
    for _ in 0..entries.pickled(SMALL, |machine, root| machine.integer(root))? {
        let ids = entries.pickled(SMALL, |machine, root| match machine.items(root) {
            [key, storage, _] => Ok((machine.integer(*key)?, machine.integer(*storage)?)),
            _ => Err("a tensor without a storage".into()),
        })?;
        let (key, storage) = (ids.0.to_string(), ids.1.to_string());
        let (class, _) = storages.get(&storage).ok_or("a tensor of an unknown storage")?;
        // The number of dimensions is four bytes, followed by four bytes of padding.
        let dimensions = entries.number()? & 0xff;
        let mut sizes =
            || (0..dimensions).map(|_| entries.number()).collect::<PickleResult<Vec<_>>>();
        let (shape, strides) = (sizes()?, sizes()?);
        let offset = entries.number()?;
        let view = View { class: *class, key: storage.into(), offset, shape, strides };
        tensors.insert(key, PickleObject::Tensor(Rc::new(view)));
    }
    Ok(tensors)
}

/// The regular files of a tar.
fn members(file: &File) -> PickleResult<BTreeMap<String, ByteRange>> {
    let size = file.metadata().map_err(said)?.len();
    let (mut at, mut members) = (0, BTreeMap::new());
    for _ in 0..MOST_MEMBERS {
        let mut header = [0; 512];
        file.read_exact_at(&mut header, at).map_err(|_| "the file is truncated")?;
        let text = |from: usize, to: usize| {
            let bytes = header.get(from..to).unwrap_or_default();
            let bytes = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(bytes).trim().to_owned()
        };
        let name = text(0, 100);
        if name.is_empty() {
            return Ok(members);
        }
        let length =
            u64::from_str_radix(&text(124, 136), 8).map_err(|_| "a size is not a number")?;
        let start = at + 512;
        let end =
            start.checked_add(length).filter(|&end| end <= size).ok_or("the file is truncated")?;
        if matches!(header.get(156), Some(0 | b'0')) {
            members.insert(name, ByteRange { start, length, checksum: None });
        }
        at = end.next_multiple_of(512);
    }
    Err(format!("the archive has more than {MOST_MEMBERS} members").into())
}

/// A member of a tar that is read from the beginning: pickles and numbers in turn.
struct TarMember<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl TarMember<'_> {
    /// Reads the next pickle, of at most `most` bytes, and returns what `take` makes of it.
    fn pickled<T>(
        &mut self,
        most: usize,
        take: impl FnOnce(&Unpickler<'_>, usize) -> PickleResult<T>,
    ) -> PickleResult<T> {
        let mut bytes = vec![0; most.min((self.end - self.at) as usize)];
        self.file.read_exact_at(&mut bytes, self.at).map_err(said)?;
        let mut machine = Unpickler::new(&bytes);
        let root = machine.load()?;
        self.at += machine.position() as u64;
        take(&machine, root)
    }

    fn number(&mut self) -> PickleResult<i64> {
        let mut bytes = [0; 8];
        let ByteRange { start, .. } = self.stretch(Some(8))?;
        self.file.read_exact_at(&mut bytes, start).map_err(said)?;
        Ok(i64::from_le_bytes(bytes))
    }

    /// Skips the next `length` bytes and returns where they are.
    fn stretch(&mut self, length: Option<u64>) -> PickleResult<ByteRange> {
        let start = self.at;
        let end =
            length.and_then(|length| start.checked_add(length)).filter(|&end| end <= self.end);
        self.at = end.ok_or("the file is truncated")?;
        Ok(ByteRange { start, length: self.at - start, checksum: None })
    }
}
