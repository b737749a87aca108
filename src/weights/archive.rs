//! Archives that PyTorch writes from Python (`torch.save`, `torch.jit.save`), C++ or tch: a zip
//! archive with a pickle and the tensors' storages.
//!
//! A TorchScript archive also has code in `code/`, which is not read.

use super::pickle::{MOST_BYTES, PickleResult, PickledTensor, Unpickler, View};
use super::stored::{ByteRange, Stored, short};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::FileExt;
use zip::unstable::read::ZipIterable;

/// Maximum number of members in an archive. A model has about a thousand.
const MOST_MEMBERS: usize = 100_000;

pub fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The members of an archive that are needed to read tensors, by name. `None` stands for a
/// compressed or encrypted member.
fn members(file: &mut File) -> PickleResult<BTreeMap<String, Option<ByteRange>>> {
    let size = file.metadata().map_err(said)?.len();
    let directory = file.try_clone().map_err(said)?;
    let config = zip::read::Config { archive_offset: zip::read::ArchiveOffset::Known(0) };
    let mut archive = ZipIterable::try_new(BufReader::new(directory), config).map_err(said)?;
    if archive.len() > MOST_MEMBERS {
        return Err(format!("the archive has more than {MOST_MEMBERS} members").into());
    }
    let mut members = BTreeMap::new();
    for entry in archive.files().map_err(said)? {
        let entry = entry.map_err(said)?;
        let name = entry.name().map_err(said)?.into_owned();
        let is_wanted =
            name.ends_with("/data.pkl") || name.ends_with("/byteorder") || name.contains("/data/");
        if !is_wanted {
            continue;
        }
        // torch.save and torch.jit.save do not compress these members, and an uncompressed member
        // cannot grow when read.
        let is_stored = entry.compression() == zip::CompressionMethod::Stored && !entry.encrypted();
        let (length, checksum) = (entry.size(), entry.crc32());
        let stretch = if is_stored {
            let opened = entry.with_reader(file, Default::default()).map_err(said)?;
            let start = opened.data_start().ok_or("a member without a start")?;
            if start.checked_add(length).is_none_or(|end| end > size) {
                return Err(format!("{} ends after the end of the file", short(&name)).into());
            }
            // `torch.serialization.set_crc32_options(False)` leaves the checksum out.
            Some(ByteRange { start, length, checksum: Some(checksum).filter(|&sum| sum != 0) })
        } else {
            None
        };
        if members.insert(name, stretch).is_some() {
            return Err("the archive has a member twice".into());
        }
    }
    Ok(members)
}

/// The bytes of a member of at most `MOST_BYTES`, compared with the member's checksum.
pub fn contents(file: &File, name: &str, member: Option<ByteRange>) -> PickleResult<Vec<u8>> {
    let name = short(name);
    let stretch = member.ok_or_else(|| format!("{name} is compressed"))?;
    if stretch.length > MOST_BYTES as u64 {
        return Err(
            format!("{name} has {} bytes, expected at most {MOST_BYTES}", stretch.length).into()
        );
    }
    let mut bytes = vec![0; stretch.length as usize];
    file.read_exact_at(&mut bytes, stretch.start).map_err(said)?;
    match stretch.checksum {
        Some(checksum) if crc32fast::hash(&bytes) != checksum => {
            Err(format!("{name} is damaged: its checksum does not match its contents").into())
        }
        _ => Ok(bytes),
    }
}

/// Reads the zip archives of PyTorch 1.6 and later, and of TorchScript.
pub fn zipped(file: &mut File) -> PickleResult<Vec<(String, Stored)>> {
    let members = members(file)?;
    let mut pickles = members.iter().filter(|(name, _)| name.ends_with("/data.pkl"));
    let (name, pickle) = pickles.next().ok_or("the archive has no data.pkl")?;
    if pickles.next().is_some() {
        return Err("the archive has more than one data.pkl".into());
    }
    let folder = name.strip_suffix("data.pkl").unwrap_or_default();
    let order = format!("{folder}byteorder");
    if let Some(member) = members.get(&order)
        && contents(file, &order, *member)? != b"little"
    {
        return Err("the numbers are not little-endian".into());
    }
    let bytes = contents(file, name, *pickle)?;
    let mut machine = Unpickler::new(&bytes);
    let root = machine.load()?;
    stored(machine.tensors(root)?, |view| {
        let name = format!("{folder}data/{}", view.key);
        match members.get(&name) {
            Some(Some(stretch)) => Ok(*stretch),
            Some(None) => Err(format!("{} is compressed", short(&name)).into()),
            None => Err(format!("the archive has no {}", short(&name)).into()),
        }
    })
}

/// Converts the tensors found in a pickle to [`Stored`]. `storage` returns the bytes of the file
/// that hold a view's storage.
pub fn stored(
    found: Vec<(String, PickledTensor)>,
    storage: impl Fn(&View) -> PickleResult<ByteRange>,
) -> PickleResult<Vec<(String, Stored)>> {
    let stored = |(name, found): (String, PickledTensor)| {
        let stored = match found {
            PickledTensor::Tensor(view) => Stored {
                dtype: view.class.dtype.into(),
                kind: view.class.kind,
                shape: view.shape.clone(),
                strides: view.strides.clone(),
                offset: view.offset,
                storage: storage(&view)?,
            },
            PickledTensor::Strange(made) => Stored::dense(
                format!("a result of {}", made.replace(' ', ".")).into(),
                None,
                vec![],
                ByteRange::default(),
            ),
        };
        Ok((name, stored))
    };
    found.into_iter().map(stored).collect()
}
