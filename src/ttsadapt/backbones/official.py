"""Checkpoints as their authors released them: checked, read without a second copy in memory, and written back key for key.

A family says with a `Layout` where each of its parameters stands in the authors' file; sizes are read off the file's shapes
before the model is built (`OfficialFile.shapes`). Our attention layers are separate linears where the authors packed query,
key and value into one tensor: `Place.part` takes such tensors apart, and `save` puts them together again.
"""

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ttsadapt.adapters import merged
from ttsadapt.errors import CheckpointError
from ttsadapt.files import replacing

BOOKKEEPING = ("epoch", "step", "global_step", "optimizer", "scheduler", "best_*")
"""top-level keys that training scripts leave behind: not weights, ignored with a notice"""

Notice = Callable[[str], None]
Built = TypeVar("Built", bound=nn.Module)


@dataclass(frozen=True)
class Place:
    """Where a tensor of ours stands in the authors' file: rows `part` of `parts` equal slices along dimension 0."""

    name: str
    part: int = 0
    parts: int = 1


@dataclass(frozen=True)
class Layout:
    """How a family's names translate into the authors'."""

    family: str
    """as a message calls it: "VALL-E X" """
    place: Callable[[str], Place]
    """name in our state dict -> place in theirs"""
    tied: Mapping[str, str] = field(default_factory=dict)
    """names of theirs that repeat another name's values: both are read, must be equal, and both are written"""
    optional: Sequence[str] = ()
    """globs of their names that may be there or not and that the model has no use for: kept as they are and written back"""
    own: Sequence[str] = ()
    """globs of our names that have no place in their file, such as counters of training: neither read nor written"""


class OfficialFile:
    """The tensors of a .safetensors file, or of a torch file of plain containers, read when asked for."""

    def __init__(
        self, path: Path | str, inside: str | None = None, bookkeeping: Sequence[str] = BOOKKEEPING, notice: Notice = print
    ) -> None:
        """`inside`: the top-level key that holds the weights ("model", "weight"); None when the file is the weights.

        CheckpointError when there is no such file, when it is cut short or holds pickled code, or lacks `inside`.
        """
        self.path, self.inside = Path(path).expanduser(), inside
        if not self.path.is_file():
            raise CheckpointError(f"{self.path}: there is no such file; backbone.path is a checkpoint that the model's authors released")
        beside: dict[str, Any] = {}
        if self._safe:
            self.shapes, self.dtypes = self._header()
        else:
            tensors, beside = self._open()
            self.shapes = {name: tuple(t.shape) for name, t in tensors.items()}
            self.dtypes = {name: t.dtype for name, t in tensors.items()}
        ignored = sorted(k for k in beside if _any(str(k), bookkeeping))
        if ignored:
            notice(f"{self.path.name}: {', '.join(ignored)} beside the weights is left out")
        self.extras = {k: v for k, v in beside.items() if k not in ignored}
        """what stands beside the weights, such as a config; written back"""

    @property
    def _safe(self) -> bool:
        return self.path.suffix == ".safetensors"

    @property
    def numbers(self) -> int:
        """How many values the file holds, tied copies counted twice."""
        return sum(torch.Size(shape).numel() for shape in self.shapes.values())

    def tensors(self, names: Iterable[str], groups: int = 16) -> Iterator[tuple[str, Tensor]]:
        """Tensors one after the other. The file is mapped anew for every sixteenth of it, so that pages already read are let go."""
        names = list(names)
        size = sum(torch.Size(self.shapes[n]).numel() for n in names) // groups + 1
        start, taken = 0, 0
        for stop, name in enumerate(names, 1):
            taken += torch.Size(self.shapes[name]).numel()
            if taken >= size or stop == len(names):
                yield from self._some(names[start:stop])
                start, taken = stop, 0

    def equal(self, one: str, other: str, groups: int = 16) -> bool:
        """Whether two tensors hold the same values. What a file holds once under two names is not read at all, the rest in parts."""
        if self.shapes[one] != self.shapes[other]:
            return False
        step = (self.shapes[one] or (1,))[0] // groups + 1
        for start in range(0, step * groups, step):
            a, b = (tensor.view(-1) if tensor.dim() == 0 else tensor for _, tensor in self._some([one, other]))
            if a.data_ptr() == b.data_ptr():
                return True
            if not torch.equal(a[start : start + step], b[start : start + step]):
                return False
        return True

    def _some(self, names: list[str]) -> Iterator[tuple[str, Tensor]]:
        if self._safe:
            with safe_open(self.path, framework="pt") as file:
                for name in names:
                    yield name, file.get_tensor(name)
        else:
            tensors, _ = self._open()
            for name in names:
                yield name, tensors[name]

    def _header(self) -> tuple[dict[str, tuple[int, ...]], dict[str, torch.dtype]]:
        shapes, dtypes = {}, {}
        try:
            with safe_open(self.path, framework="pt") as file:
                for name in list(file.keys()):
                    part = file.get_slice(name)
                    shapes[name], dtypes[name] = tuple(part.get_shape()), _SAFE_DTYPES[part.get_dtype()]
        except Exception as error:
            raise CheckpointError(f"{self.path} is not a whole .safetensors file ({error}): download it again") from error
        return shapes, dtypes

    def _open(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The weights, mapped and not read, and what stands beside them."""
        try:
            whole = torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # written before torch 1.6, which cannot be mapped
            whole = self._read_at_once()
        except Exception as error:
            raise self._unreadable(error) from error
        inner = whole if self.inside is None else whole.get(self.inside) if isinstance(whole, dict) else None
        if not isinstance(inner, dict):
            there = ", ".join(map(str, list(whole)[:5])) if isinstance(whole, dict) else type(whole).__name__
            raise CheckpointError(f"{self.path}: no {self.inside!r} in it, it holds {there}: is it another family's file?")
        tensors = {k: v for k, v in inner.items() if isinstance(v, Tensor)}
        beside = {k: v for k, v in inner.items() if not isinstance(v, Tensor)}
        outer = {} if inner is whole else {k: v for k, v in whole.items() if k != self.inside}
        return tensors, beside | outer

    def _read_at_once(self) -> Any:
        try:
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> CheckpointError:
        told = str(error).strip().splitlines()
        return CheckpointError(
            f"{self.path} cannot be read as plain tensors ({told[0][:120] if told else type(error).__name__}): "
            "it is cut short, or it holds pickled code, which is not run; save its state_dict alone"
        )


_SAFE_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass
class Origin:
    """What `save` needs to write a model back as it came."""

    dtypes: dict[str, torch.dtype]
    kept: dict[str, Tensor]
    """tensors that the model has no use for"""
    extras: dict[str, Any]


def build(make: Callable[[], Built]) -> Built:
    """A module whose parameters take no memory and no time to draw; its buffers are real. To be filled by `load`."""
    with init_empty_weights(include_buffers=False):
        return make()


def load(module: nn.Module, file: OfficialFile, layout: Layout, dtype: torch.dtype = torch.float32, notice: Notice = print) -> Origin:
    """Fill `module` (from `build`, or real) from an official file, cast to `dtype`; give back what `save` will need.

    Peak memory is that of the module and a sixteenth of the file. CheckpointError in one line when the file is another
    family's, when keys are missing or too many (the first five are named), or when a shape differs.
    """
    places = {name: layout.place(name) for name in module.state_dict() if not _any(name, layout.own)}
    wanted: dict[str, list[tuple[str, Place]]] = {}
    for name, place in places.items():
        wanted.setdefault(place.name, []).append((name, place))
    kept_names = [n for n in file.shapes if n not in wanted and n not in layout.tied and _any(n, layout.optional)]
    check_keys(file, {*wanted, *layout.tied}, set(kept_names), layout.family)
    own = dict(module.state_dict())
    for theirs, ours in wanted.items():
        for name, place in ours:
            _check_shape(file, theirs, place, tuple(own[name].shape), layout.family)
    other = {d for n in wanted if (d := file.dtypes[n]).is_floating_point and d != dtype}
    if other:
        notice(f"{file.path.name}: {', '.join(sorted(str(d).removeprefix('torch.') for d in other))} weights are read as {str(dtype)[6:]}")
    made: dict[int, nn.Parameter] = {}
    for theirs, tensor in file.tensors(wanted):
        for name, place in wanted[theirs]:
            _fill(module, name, tensor.chunk(place.parts)[place.part] if place.parts > 1 else tensor, dtype, made)
    _check_tied(file, layout)
    kept = {n: t.clone() for n, t in file.tensors(kept_names)}
    return Origin(dict(file.dtypes), kept, file.extras)


def save(module: nn.Module, layout: Layout, origin: Origin | None = None) -> dict[str, Tensor]:
    """`module`'s weights, adapters merged in, under the authors' names and in the dtypes they came in (float32 otherwise)."""
    parts: dict[str, dict[int, Tensor]] = {}
    for name, tensor in merged(module).items():
        if _any(name, layout.own):
            continue
        place = layout.place(name)
        parts.setdefault(place.name, {})[place.part] = tensor.detach().cpu()
    state = {name: torch.cat([p[i] for i in sorted(p)]) if len(p) > 1 else p[0] for name, p in parts.items()}
    state |= {copy: state[original] for copy, original in layout.tied.items()}
    state |= origin.kept if origin else {}
    dtypes = origin.dtypes if origin else {}
    return {name: tensor.to(dtypes.get(name, tensor.dtype)).contiguous() for name, tensor in state.items()}


def check_theirs(ours: Mapping[str, bool]) -> None:
    """CheckpointError when any setting of ours is in use: the authors' code would run the weights in another way.

    `ours`: by the overrides that switch a setting off, whether it is on.
    """
    used = [overrides for overrides, on in ours.items() if on]
    if used:
        raise CheckpointError(f"this model computes what its authors' code does not: train it with {' '.join(used)} to export it")


def write(state: Mapping[str, Any], path: Path) -> None:
    """A dict as the authors' loader reads it: .safetensors by the name, else a torch file; atomically."""
    with replacing(Path(path)) as temporary:
        if Path(path).suffix == ".safetensors":
            save_file({n: t.clone() for n, t in state.items()}, temporary, metadata={"format": "pt"})
        else:
            torch.save(dict(state), temporary)


def check_keys(file: OfficialFile, wanted: set[str], allowed: set[str], family: str) -> None:
    """CheckpointError naming the family a file belongs to, or the first keys that are missing or too many."""
    missing, extra = sorted(wanted - set(file.shapes)), sorted(set(file.shapes) - wanted - allowed)
    if not missing and not extra:
        return
    seen = recognise(file.shapes)
    if seen is not None and seen[0] != family:
        raise CheckpointError(f"{file.path}: this looks like a {seen[0]}, not a {family}: key {seen[1]}")
    if len(missing) == len(wanted):
        raise CheckpointError(f"{file.path}: none of the keys of a {family} are in it, it has {_some(sorted(file.shapes))}")
    told = [f"{len(keys)} keys {what}: {_some(keys)}" for what, keys in (("are missing", missing), ("are too many", extra)) if keys]
    raise CheckpointError(f"{file.path} is not a whole {family}: {'; '.join(told)}")


def lacking(file: OfficialFile, key: str, family: str) -> CheckpointError:
    """What is wrong with a file whose sizes cannot be read off because `key` is not there."""
    own = (recognise(file.shapes) or ("",))[0] == family
    try:
        check_keys(file, {key, *file.shapes} if own else {key}, set(), family)
    except CheckpointError as error:
        return error
    raise ValueError(f"{key} is in {file.path}")


def recognise(names: Iterable[str]) -> tuple[str, str] | None:
    """(family, the key that gives it away) by the SIGNATURES of the modules beside this one; None when nobody knows it.

    SIGNATURES = {"family": (globs that must each match a key, ...)}: globs that begin with "!" must match none.
    """
    names = list(names)
    for module in pkgutil.walk_packages(importlib.import_module("ttsadapt.backbones").__path__, "ttsadapt.backbones."):
        for family, globs in getattr(importlib.import_module(module.name), "SIGNATURES", {}).items():
            keys = [next((n for n in names if fnmatchcase(n, glob)), None) for glob in globs if not glob.startswith("!")]
            if all(keys) and not any(fnmatchcase(n, glob[1:]) for glob in globs if glob.startswith("!") for n in names):
                return family, keys[0] or ""
    return None


def count_blocks(shapes: Iterable[str], pattern: str) -> int:
    """How many blocks a file has: `pattern` has one group, the index: r"model\\.h\\.layers\\.(\\d+)\\."."""
    found = {int(m[1]) for name in shapes if (m := re.match(pattern, name))}
    return max(found, default=-1) + 1


def _fill(module: nn.Module, name: str, tensor: Tensor, dtype: torch.dtype, made: dict[int, nn.Parameter]) -> None:
    """`made`: parameters by the id of the empty one they replace, so that what was tied stays tied."""
    owner_name, _, leaf = name.rpartition(".")
    owner = module.get_submodule(owner_name)
    kind = dtype if tensor.is_floating_point() else tensor.dtype
    current = getattr(owner, leaf)
    if isinstance(current, nn.Parameter) and (current.is_meta or current.dtype != kind):
        if id(current) not in made:
            made[id(current)] = nn.Parameter(torch.empty(tensor.shape, dtype=kind), requires_grad=current.requires_grad)
            made[id(made[id(current)])] = current  # keeps the empty one alive: its id must not be given to another
        setattr(owner, leaf, made[id(current)])
    elif current.dtype != kind:
        owner._buffers[leaf] = torch.empty(tensor.shape, dtype=kind)
    with torch.no_grad():
        getattr(owner, leaf).copy_(tensor)


def _check_shape(file: OfficialFile, theirs: str, place: Place, ours: tuple[int, ...], family: str) -> None:
    shape = file.shapes[theirs]
    expected = (ours[0] * place.parts, *ours[1:]) if ours else ours
    if shape != expected:
        raise CheckpointError(f"{file.path}: {theirs} has the shape {list(shape)}, a {family} of this size has {list(expected)}")


def _check_tied(file: OfficialFile, layout: Layout) -> None:
    for copy, original in layout.tied.items():
        if not file.equal(copy, original):
            raise CheckpointError(
                f"{file.path}: {copy} and {original} are one weight in a {layout.family}, but differ here: one of them was edited"
            )


def _any(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _some(names: list[str], n: int = 5) -> str:
    return ", ".join(names[:n]) + (" ..." if len(names) > n else "")
