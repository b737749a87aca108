//! NVRTC, NVIDIA's compiler for kernels, loaded at run time: neither a build nor a machine without
//! a GPU needs it.

use super::cuda::{CUDA_LIBRARY, folder_of};
use libloading::os::unix::{Library, Symbol};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

/// The source of the kernels, and the headers that it includes, by the names that it uses.
const SOURCE: &str = include_str!("gpu/kernels.cu");
const HEADERS: [(&str, &str); 6] = [
    ("args.h", include_str!("gpu/args.h")),
    ("rows/activation.h", include_str!("rows/activation.h")),
    ("rows/mask.h", include_str!("rows/mask.h")),
    ("math.h", include_str!("rows/math.h")),
    ("inline.h", include_str!("rows/inline.h")),
    ("cstdint", CSTDINT),
];

/// NVRTC has no standard headers.
const CSTDINT: &str = "#pragma once
typedef short int16_t;
typedef int int32_t;
typedef long long int64_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
typedef uint64_t uintptr_t;
";

/// Lambdas have no place for `__device__`, so it is the default.
const OPTIONS: [&str; 2] = ["--std=c++20", "--device-as-default-execution-space"];

/// The names of the library, of the newest major version first. libtorch's own stub is first of
/// all: it knows where its NVRTC lies, and loads it.
const NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];
const STUB: &str = "libcaffe2_nvrtc.so";

/// A kernel image: what the driver loads.
pub type Image = Vec<u8>;

type Program = *mut c_void;
type Get = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
type GetSize = unsafe extern "C" fn(Program, *mut usize) -> c_int;

/// A loaded NVRTC.
pub struct Nvrtc {
    library: Library,
    _builtins: Vec<Library>,
}

impl Nvrtc {
    /// Loads the library at `path`, or else the first that the dynamic linker finds. Returns the
    /// reason if there is none.
    pub fn load(path: Option<&Path>) -> Result<Self, String> {
        let names: Vec<PathBuf> = match path {
            Some(path) => vec![path.into()],
            None => NAMES.map(PathBuf::from).into(),
        };
        let mut reason = String::new();
        // SAFETY: these are NVIDIA's libraries, whose initializers have no conditions.
        unsafe {
            // The stub lies beside libtorch_cuda.so, which may be another libtorch's than ours.
            let stub = folder_of(CUDA_LIBRARY).map_or(STUB.into(), |folder| folder.join(STUB));
            let _stub = path.is_none().then(|| Library::new(stub).map(std::mem::forget));
            for name in names {
                match Library::new(&name) {
                    Err(error) => {
                        let source = std::error::Error::source(&error).map(ToString::to_string);
                        reason = source.unwrap_or(error.to_string());
                    }
                    Ok(library) => {
                        let builtins = builtins(&library);
                        return Ok(Self { library, _builtins: builtins });
                    }
                }
            }
        }
        Err(format!("NVRTC cannot be loaded: {reason}"))
    }

    /// The version, such as 13.0.
    pub fn version(&self) -> Result<String, String> {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: the function has this signature.
        unsafe {
            let version: Symbol<unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int> =
                self.symbol("nvrtcVersion")?;
            self.check(version(&mut major, &mut minor))?;
        }
        Ok(format!("{major}.{minor}"))
    }

    /// The compute capabilities that this version compiles for, such as 80, in order.
    pub fn capabilities(&self) -> Result<Vec<i64>, String> {
        // SAFETY: the functions have these signatures, and write as many numbers as they say.
        unsafe {
            let count: Symbol<unsafe extern "C" fn(*mut c_int) -> c_int> =
                self.symbol("nvrtcGetNumSupportedArchs")?;
            let get: Symbol<unsafe extern "C" fn(*mut c_int) -> c_int> =
                self.symbol("nvrtcGetSupportedArchs")?;
            let mut found = 0;
            self.check(count(&mut found))?;
            let mut all = vec![0; usize::try_from(found).unwrap_or(0)];
            self.check(get(all.as_mut_ptr()))?;
            let mut all: Vec<i64> = all.into_iter().map(i64::from).collect();
            all.sort_unstable();
            Ok(all)
        }
    }

    /// Compiles the kernels for a device of `capability`, such as 90. A device that is newer than
    /// this version of NVRTC gets PTX, which its driver compiles.
    pub fn compile(&self, capability: i64) -> Result<Image, String> {
        let known = self.capabilities()?;
        let exact = known.contains(&capability);
        let Some(target) = known.iter().copied().rfind(|known| *known <= capability) else {
            let (version, least) = (self.version()?, known.first().copied().unwrap_or(0));
            return Err(format!(
                "NVRTC {version} compiles for compute capability {} and newer, not for {}",
                dotted(least),
                dotted(capability)
            ));
        };
        let architecture = match exact {
            true => format!("--gpu-architecture=sm_{target}"),
            false => format!("--gpu-architecture=compute_{target}"),
        };
        let mut options: Vec<CString> = vec![];
        for option in OPTIONS.into_iter().chain([&*architecture]) {
            options.push(CString::new(option).map_err(|error| error.to_string())?);
        }
        let program = self.program()?;
        // SAFETY: the functions have these signatures; the program lives until it is destroyed.
        unsafe {
            let compile: Symbol<
                unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
            > = self.symbol("nvrtcCompileProgram")?;
            let pointers: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
            let code = compile(program, pointers.len() as c_int, pointers.as_ptr());
            let made = match code {
                0 if exact => self.get(program, "nvrtcGetCUBINSize", "nvrtcGetCUBIN"),
                0 => self.get(program, "nvrtcGetPTXSize", "nvrtcGetPTX"),
                _ => {
                    let log = self.get(program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog")?;
                    let log = String::from_utf8_lossy(&log).trim_matches(['\0', '\n']).to_owned();
                    Err(format!("NVRTC does not compile the kernels: {log}"))
                }
            };
            let destroy: Symbol<unsafe extern "C" fn(*mut Program) -> c_int> =
                self.symbol("nvrtcDestroyProgram")?;
            let mut program = program;
            destroy(&mut program);
            made
        }
    }

    /// What an image depends on, beside the capability: source, options and version.
    pub fn inputs(&self) -> Result<String, String> {
        let headers: String =
            HEADERS.iter().map(|(name, text)| format!("{name}\n{text}")).collect();
        Ok([&*self.version()?, &OPTIONS.concat(), SOURCE, &headers].join("\n"))
    }

    fn program(&self) -> Result<Program, String> {
        let text = |text: &str| CString::new(text).map_err(|error| error.to_string());
        let (source, name) = (text(SOURCE)?, text("kernels.cu")?);
        let mut headers = vec![];
        for (name, content) in HEADERS {
            headers.push((text(name)?, text(content)?));
        }
        let names: Vec<_> = headers.iter().map(|(name, _)| name.as_ptr()).collect();
        let contents: Vec<_> = headers.iter().map(|(_, content)| content.as_ptr()).collect();
        let mut program = std::ptr::null_mut();
        // SAFETY: the function has this signature, and copies the texts.
        unsafe {
            let create: Symbol<
                unsafe extern "C" fn(
                    *mut Program,
                    *const c_char,
                    *const c_char,
                    c_int,
                    *const *const c_char,
                    *const *const c_char,
                ) -> c_int,
            > = self.symbol("nvrtcCreateProgram")?;
            let count = headers.len() as c_int;
            let (source, name) = (source.as_ptr(), name.as_ptr());
            let code = create(&mut program, source, name, count, contents.as_ptr(), names.as_ptr());
            self.check(code)?;
        }
        Ok(program)
    }

    /// # Safety
    ///
    /// `program` must be live, and the functions of NVRTC must write its size and as many bytes.
    unsafe fn get(&self, program: Program, size: &str, get: &str) -> Result<Vec<u8>, String> {
        // SAFETY: the caller vouches for the arguments.
        unsafe {
            let mut count = 0;
            self.check(self.symbol::<GetSize>(size)?(program, &mut count))?;
            let mut bytes = vec![0_u8; count];
            self.check(self.symbol::<Get>(get)?(program, bytes.as_mut_ptr().cast()))?;
            Ok(bytes)
        }
    }

    /// # Safety
    ///
    /// `T` must be the signature of the function `name`.
    unsafe fn symbol<T>(&self, name: &str) -> Result<Symbol<T>, String> {
        // SAFETY: the caller vouches for the type.
        unsafe { self.library.get(name.as_bytes()) }.map_err(|error| error.to_string())
    }

    fn check(&self, code: c_int) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the function has this signature, and returns a constant.
        unsafe {
            let text: Symbol<unsafe extern "C" fn(c_int) -> *const c_char> =
                self.symbol("nvrtcGetErrorString")?;
            Err(CStr::from_ptr(text(code)).to_string_lossy().into_owned())
        }
    }
}

/// A compute capability as it is written: 9.0 for 90.
pub fn dotted(capability: i64) -> String {
    format!("{}.{}", capability / 10, capability % 10)
}

/// Loads the libraries that NVRTC loads by name, from the folder of NVRTC. They are beside it, and
/// in PyTorch's packages nothing tells the dynamic linker so.
///
/// # Safety
///
/// `library` must be NVRTC.
unsafe fn builtins(library: &Library) -> Vec<Library> {
    let path = || {
        // SAFETY: dladdr writes to `info` alone, and its name lives as long as the library.
        unsafe {
            let symbol: Symbol<*const c_void> = library.get(b"nvrtcVersion").ok()?;
            let mut info: libc::Dl_info = std::mem::zeroed();
            (libc::dladdr(symbol.into_raw().cast_const(), &mut info) != 0).then_some(())?;
            let name = CStr::from_ptr(info.dli_fname).to_str().ok()?;
            Some(Path::new(name).canonicalize().ok()?.parent()?.to_owned())
        }
    };
    let Some(folder) = path() else { return vec![] };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("libnvrtc-builtins.so") || name.starts_with("libnvrtc-builtins.alt.so")
    });
    // SAFETY: these are NVIDIA's libraries, whose initializers have no conditions.
    names.filter_map(|path| unsafe { Library::new(path) }.ok()).collect()
}
