#!/usr/bin/env python3
"""Makes tests/golden/weights/ with PyTorch and transformers: one small BERT in every weight format.

    python3 -m venv venv
    venv/bin/pip install torch==2.13.0 transformers==4.57.6 safetensors numpy
    venv/bin/python scripts/make_golden_weights.py

model.safetensors       the encoder, with config.json and vocab.txt; the other files hold the same
                        numbers.
protocol-N.bin          the encoder's state dict by torch.save: an OrderedDict, with pickle's
                        protocols 1, 2, 4 and 5.
legacy.bin              the same in the format before PyTorch 1.6; legacy-N.bin with another
                        protocol, legacy-views.bin with storages that are views of one storage.
tar.bin                 the still older format, a tar, assembled here: torch.load reads it, but
                        torch.save no longer writes it.
masked-lm.bin           a masked language model, legacy: its decoder shares the embeddings' memory.
negated.bin             a tensor stored with the opposite sign and marked by a negation bit; bitfit
                        refuses it.
views.bin               non-contiguous tensors that share one storage, with an offset.
mixed.bin               parameters beside plain values, NumPy scalars, and a sparse, a quantized and
                        an integer tensor.
lightning.bin           a training checkpoint: the state dict below "state_dict", its names below
                        "model.".
two-models.bin          two state dicts, teacher and student, so that the model is ambiguous.
module.bin              the pickled module itself.
unchecked.bin           written without checksums.
deflated.bin            compressed, which PyTorch never does.
float64.safetensors     the numbers in float64, as in float64.bin. rounded.safetensors has numbers
                        that float32 cannot hold; rounded-float32.safetensors has them as PyTorch
                        rounds them.
scripted.ot             a scripted module tree without methods, as scripts/convert_weights.py writes
                        it.
traced.ot               the model itself, traced.
named.ot                a scripted module with attributes of all types beside its tensors.
hostile.ot              scripted.ot with a module whose __setstate__ writes a file when
                        torch.jit.load loads it.
sharded-*/              several files with an index, by save_pretrained.

Also makes seeds for the fuzzer, from the minimal BERT of fuzz/src/lib.rs: in fuzz/corpus/archive,
without checksums, and in fuzz/corpus/pickle.
"""

import collections, io, json, os, pathlib, pickle, shutil, struct, sys, tarfile, tempfile, types
import warnings, zipfile
from typing import Dict, List, Optional, Tuple

import numpy, torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForMaskedLM, BertModel, logging

warnings.filterwarnings("ignore")
logging.set_verbosity_error()
golden = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "weights"
WRITTEN = "written-by-a-hostile-archive"


def bert(**sizes):
    torch.manual_seed(5)
    config = BertConfig(num_hidden_layers=1, initializer_range=0.3, **sizes)
    model = BertModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name or "LayerNorm" in name:
                parameter.normal_(0.5, 0.3)
    return model


def rezipped(path, to, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w", method) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))


def without_checksums(path):
    """Sets the checksum in both of each member's headers to zero, which means none."""
    bytes_ = bytearray(path.read_bytes())
    for magic, at in ((b"PK\3\4", 14), (b"PK\1\2", 16)):
        start = bytes_.find(magic)
        while start >= 0:
            bytes_[start + at : start + at + 4] = bytes(4)
            start = bytes_.find(magic, start + 1)
    path.write_bytes(bytes_)


def plain(value):
    """A copy of the dict that always pickles to the same bytes."""
    return collections.OrderedDict(
        (name, tensor.detach().clone()) for name, tensor in value.items()
    )


def state_dicts(model, state):
    for protocol in (1, 2, 4, 5):
        torch.save(plain(state), golden / f"protocol-{protocol}.bin", pickle_protocol=protocol)
    negated = plain(state)
    name = "encoder.layer.0.attention.self.query.weight"
    negated[name] = torch._neg_view(-negated[name])
    torch.save(negated, golden / "negated.bin")
    torch.save(plain(state), golden / "legacy.bin", _use_new_zipfile_serialization=False)
    torch.save(
        plain(state),
        golden / "legacy-4.bin",
        _use_new_zipfile_serialization=False,
        pickle_protocol=4,
    )

    masked = BertForMaskedLM(model.config)
    masked.bert.load_state_dict(state, strict=False)
    masked.tie_weights()
    assert (
        masked.cls.predictions.decoder.weight.data_ptr()
        == masked.bert.embeddings.word_embeddings.weight.data_ptr()
    )
    # This masked language model has no pooler, so the base's pooler is added.
    whole = masked.state_dict() | {
        f"bert.{name}": tensor for name, tensor in state.items() if name.startswith("pooler")
    }
    torch.save(whole, golden / "masked-lm.bin", _use_new_zipfile_serialization=False)

    # All tensors in one storage, each matrix transposed.
    flat = torch.cat(
        [torch.full((3,), 9.0)]
        + [t.t().reshape(-1) if t.ndim == 2 else t.reshape(-1) for t in state.values()]
    )
    views, at = {}, 3
    for name, tensor in state.items():
        view = flat[at : at + tensor.numel()]
        views[name] = view.view(tensor.t().shape).t() if tensor.ndim == 2 else view
        at += tensor.numel()
        assert torch.equal(views[name], tensor)
    torch.save(views, golden / "views.bin")

    # Before PyTorch 0.4, a storage could be a view of another. Its persistent id then ends in
    # (key, offset, size).
    legacy_views(views, flat, golden / "legacy-views.bin")

    mixed = {name: torch.nn.Parameter(tensor.clone()) for name, tensor in state.items()}
    mixed["pooler.dense.bias"].note = "an attribute"
    mixed |= {
        "epoch": 3,
        "loss": numpy.float64(0.5),
        "rates": numpy.arange(3),
        "name": "mixed",
        "none": None,
        7: "seven",
        "done": True,
    }
    mixed |= {
        "args": types.SimpleNamespace(lr=0.1),
        "set": {1, 2},
        "bytes": b"\0\1",
        "long": 1 << 90,
        "dtype": torch.float16,
    }
    mixed |= {
        "sparse": torch.eye(3).to_sparse(),
        "count": torch.tensor(3),
        "complex": torch.ones(2, dtype=torch.complex64),
    }
    mixed |= {
        "quantized": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        "eighth": torch.ones(3).to(torch.float8_e4m3fn),
    }
    torch.save(mixed, golden / "mixed.bin")

    prefixed = collections.OrderedDict(
        (f"model.bert.{name}", tensor.clone()) for name, tensor in state.items()
    )
    moments = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    checkpoint = {
        "epoch": 3,
        "state_dict": prefixed,
        "optimizer_states": [moments],
        "optimizer": moments,
        "hyper_parameters": {"a": 1},
    }
    torch.save(checkpoint, golden / "lightning.bin")
    torch.save({"teacher": plain(state), "student": plain(state)}, golden / "two-models.bin")
    torch.save(model, golden / "module.bin")

    torch.serialization.set_crc32_options(False)
    torch.save(plain(state), golden / "unchecked.bin")
    torch.serialization.set_crc32_options(True)
    rezipped(golden / "protocol-2.bin", golden / "deflated.bin", zipfile.ZIP_DEFLATED)

    double = {name: tensor.double() for name, tensor in state.items()}
    save_file(double, golden / "float64.safetensors")
    torch.save(double, golden / "float64.bin")
    digits = {
        name: tensor.double() + 1e-9 * torch.arange(tensor.numel()).view(tensor.shape)
        for name, tensor in state.items()
    }
    save_file(digits, golden / "rounded.safetensors")
    save_file(
        {name: tensor.float() for name, tensor in digits.items()},
        golden / "rounded-float32.safetensors",
    )


class Ids(pickle.Pickler):
    """A pickler that gets persistent ids from `name`."""

    def __init__(self, file, name):
        super().__init__(file, 2)
        self.persistent_id = name


class Rebuilt:
    """A tensor that pickles as a call of torch._utils._rebuild_tensor with a storage's id."""

    def __init__(self, storage, offset, size, stride):
        self.arguments = (storage, offset, size, stride)

    def __reduce__(self):
        return torch._utils._rebuild_tensor, self.arguments


class Id:
    """A value that the pickler writes as a persistent id."""

    def __init__(self, value):
        self.value = value


def id_of(thing):
    return thing.value if isinstance(thing, Id) else None


def legacy_views(views, flat, path):
    """Writes each tensor as a whole storage, which is a view of the one written storage."""
    with open(path, "wb") as file:
        for thing in (
            torch.serialization.MAGIC_NUMBER,
            torch.serialization.PROTOCOL_VERSION,
            {"little_endian": True},
        ):
            pickle.dump(thing, file, 2)
        state = collections.OrderedDict()
        for number, (name, view) in enumerate(views.items()):
            of = (f"view-{number}", view.storage_offset(), view.numel())
            storage = Id(("storage", torch.FloatStorage, "whole", "cpu", flat.numel(), of))
            state[name] = Rebuilt(storage, 0, tuple(view.shape), view.stride())
        Ids(file, id_of).dump(state)
        pickle.dump(["whole"], file, 2)
        file.write(struct.pack("<q", flat.numel()) + flat.numpy().tobytes())
    for name, tensor in torch.load(path).items():
        assert torch.equal(tensor, views[name]), name


def tar(state, path):
    """Writes the format of PyTorch 0.1: a tar of sys_info, storages, tensors and a pickle, which
    names tensors by numbers."""
    storages, tensors = io.BytesIO(), io.BytesIO()
    pickle.dump(1, storages, 2)
    pickle.dump((100, "cpu", torch.FloatStorage), storages, 2)
    flat = torch.cat([tensor.reshape(-1) for tensor in state.values()])
    storages.write(struct.pack("<q", flat.numel()) + flat.numpy().tobytes())
    # The second storage is a view of the first.
    pickle.dump([(101, 100, 5, flat.numel() - 5)], storages, 2)
    pickle.dump(len(state), tensors, 2)
    named, at = collections.OrderedDict(), 0
    for number, (name, tensor) in enumerate(state.items()):
        pickle.dump((number, 101 if at >= 5 else 100, torch.FloatTensor), tensors, 2)
        tensors.write(struct.pack("<ii", tensor.ndim, 0))
        tensors.write(
            struct.pack(f"<{tensor.ndim}q", *tensor.shape)
            + struct.pack(f"<{tensor.ndim}q", *tensor.contiguous().stride())
        )
        tensors.write(struct.pack("<q", at - 5 if at >= 5 else at))
        named[name] = Id(str(number))
        at += tensor.numel()
    pickled = io.BytesIO()
    Ids(pickled, id_of).dump(named)
    info = pickle.dumps({"protocol_version": 1000, "little_endian": True}, 2)
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as archive:
        parts = {
            "sys_info": info,
            "pickle": pickled.getvalue(),
            "tensors": tensors.getvalue(),
            "storages": storages.getvalue(),
        }
        for name, part in parts.items():
            member = tarfile.TarInfo(name)
            member.size = len(part)
            archive.addfile(member, io.BytesIO(part))
    for name, tensor in torch.load(path, weights_only=False).items():
        assert torch.equal(tensor, state[name]), name


def tree(state, prefix):
    """Modules that only hold the tensors, as scripts/convert_weights.py makes them."""
    root = torch.nn.Module()
    for name, tensor in state.items():
        *path, leaf = (prefix + name).split(".")
        module = root
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, torch.nn.Module())
            module = getattr(module, part)
        module.register_parameter(
            leaf, torch.nn.Parameter(tensor.detach().clone(), requires_grad=False)
        )
    return root


class Named(torch.nn.Module):
    """A module with attributes of all types, and the tree below `bert`."""

    numbers: List[int]
    table: Dict[str, torch.Tensor]
    maybe: Optional[int]
    pair: Tuple[int, str]

    def __init__(self, root):
        super().__init__()
        self.bert = root
        self.numbers, self.table, self.maybe, self.pair = (
            [1, 2],
            {"a": torch.ones(2)},
            None,
            (1, "x"),
        )
        self.rate, self.text = 0.5, "text"
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.LayerNorm(2)])
        self.register_buffer("steps", torch.arange(4))
        self.register_buffer("halves", torch.ones(3, dtype=torch.float16))

    def forward(self, x: torch.Tensor):
        for block in self.blocks:
            x = block(x)
        return x * self.rate + torch.tensor([1.0, 2.0])


class Hostile(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.kept = torch.zeros(1)

    @torch.jit.export
    def __getstate__(self):
        return torch.zeros(1), self.training

    @torch.jit.export
    def __setstate__(self, state: Tuple[torch.Tensor, bool]):
        # TorchScript has no globals, so WRITTEN is repeated here.
        self.kept = torch.from_file("written-by-a-hostile-archive", True, 8).fill_(1.0)
        self.training = state[1]

    def forward(self, x: torch.Tensor):
        return x


def archives(model, state):
    torch.jit.script(tree(state, "bert.")).save(str(golden / "scripted.ot"))
    ids = torch.tensor([[1, 2, 3]])
    traced = torch.jit.trace(model, (ids, torch.ones_like(ids)), strict=False)
    traced.save(str(golden / "traced.ot"))
    torch.jit.script(Named(tree(state, ""))).save(str(golden / "named.ot"))

    root = tree(state, "bert.")
    root.add_module("hostile", Hostile())
    torch.jit.script(root).save(str(golden / "hostile.ot"))
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        torch.jit.load(str(golden / "hostile.ot"))
        written = os.path.exists(WRITTEN)
        os.chdir(before)
    assert written, "hostile.ot does not write its file"


def shards(model):
    for name, safe in (("sharded-safetensors", True), ("sharded-bin", False)):
        model.save_pretrained(golden / name, max_shard_size=2500, safe_serialization=safe)
        for beside in ("config.json", "generation_config.json"):
            (golden / name / beside).unlink(missing_ok=True)


def seeds():
    model = bert(
        vocab_size=5,
        hidden_size=2,
        num_attention_heads=1,
        intermediate_size=3,
        max_position_embeddings=4,
    )
    state = model.state_dict()
    corpus = golden.parents[2] / "fuzz" / "corpus"
    (corpus / "archive").mkdir(parents=True, exist_ok=True)
    for name, save in {
        "scripted": lambda path: torch.jit.script(tree(state, "bert.")).save(str(path)),
        "named": lambda path: torch.jit.script(Named(tree(state, ""))).save(str(path)),
        "saved": lambda path: torch.save(plain(state), path),
        "legacy": lambda path: torch.save(plain(state), path, _use_new_zipfile_serialization=False),
        "tar": lambda path: tar(state, path),
    }.items():
        save(corpus / "archive" / name)
        if zipfile.is_zipfile(corpus / "archive" / name):
            without_checksums(corpus / "archive" / name)
    # All tensors in one storage, as in the fuzz target.
    flat, at, views = torch.zeros(128), 0, {}
    for name, tensor in state.items():
        views[name] = flat[at : at + tensor.numel()].view(tensor.shape)
        at += tensor.numel()
    for protocol in (2, 4):
        file = io.BytesIO()
        torch.save({"state_dict": views, "epoch": 3}, file, pickle_protocol=protocol)
        with zipfile.ZipFile(file) as archive:
            (corpus / "pickle" / f"model-{protocol}").write_bytes(archive.read("archive/data.pkl"))


shutil.rmtree(golden, ignore_errors=True)
golden.mkdir(parents=True)
model = bert(
    vocab_size=20,
    hidden_size=8,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=12,
)
model.save_pretrained(golden)
words = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] a good bad film plot was very it the is of and not to in"
).split()
(golden / "vocab.txt").write_text("\n".join(words) + "\n")
(golden / "tokenizer_config.json").write_text(
    json.dumps({"do_lower_case": True, "tokenizer_class": "BertTokenizer"}) + "\n"
)
state = model.state_dict()
state_dicts(model, state)
tar(state, golden / "tar.bin")
archives(model, state)
shards(model)
seeds()
