"""How the diagonal of Fisher information is kept: a number a weight, or row and column sums of every matrix.

Files are safetensors: "<weight>" for a whole diagonal, "<weight>/rows" and "<weight>/columns" for sums.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ttsadapt.errors import ConfigError, UserError
from ttsadapt.files import replacing


class Information(ABC):
    """The diagonal for one weight, seen as a matrix (out, rest): `rest` are all dimensions but the first, flattened."""

    @classmethod
    @abstractmethod
    def of(cls, weight: Tensor) -> "Information":
        """Zeros for a weight of this shape, float32, on its device."""

    @abstractmethod
    def add_square_(self, gradient: Tensor) -> None:
        """Add the squares of a gradient of the weight's shape."""

    @abstractmethod
    def chunk(self, start: int, stop: int) -> Tensor:
        """(stop - start, rest) rows of the diagonal."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What is saved, by the end of its name in a file."""

    @abstractmethod
    def mapped(self, change: Callable[[Tensor], Tensor]) -> Self:
        """With other tensors: moved, or multiplied by a number."""

    def plus(self, other: "Information") -> "Information":
        """ConfigError when the other is kept in another way."""
        ours, theirs = self.tensors(), other.tensors()
        if type(self) is not type(other):
            raise ConfigError("strategy.ewc.rank1 is not what the earlier stage was trained with: say the same in all stages")
        return self.from_tensors({end: ours[end] + theirs[end] for end in ours})

    @classmethod
    @abstractmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self: ...

    @property
    def empty(self) -> bool:
        return not any(bool(t.any()) for t in self.tensors().values())


@dataclass(eq=False)
class Whole(Information):
    """A number a weight."""

    values: Tensor
    """the weight's shape"""

    @classmethod
    def of(cls, weight: Tensor) -> "Whole":
        return cls(torch.zeros_like(weight, dtype=torch.float32))

    def add_square_(self, gradient: Tensor) -> None:
        self.values.addcmul_(gradient, gradient)

    def chunk(self, start: int, stop: int) -> Tensor:
        return self.values[start:stop].flatten(1) if self.values.dim() > 1 else self.values.view(-1, 1)[start:stop]

    def tensors(self) -> dict[str, Tensor]:
        return {"": self.values}

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Whole":
        return Whole(change(self.values))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Whole":
        return cls(tensors[""])


@dataclass(eq=False)
class Factored(Information):
    """rows x columns / sum, the best rank-1 fit in the generalised KL divergence (Shazeer & Stern 2018, section 3, of Adafactor)."""

    rows: Tensor
    """(out,)"""
    columns: Tensor
    """(rest,)"""

    @classmethod
    def of(cls, weight: Tensor) -> Information:
        """Vectors are kept whole: there is nothing to save."""
        if weight.dim() < 2:
            return Whole.of(weight)
        return cls(weight.new_zeros(len(weight), dtype=torch.float32), weight.new_zeros(weight[0].numel(), dtype=torch.float32))

    def add_square_(self, gradient: Tensor) -> None:
        squares = gradient.flatten(1).square()
        self.rows += squares.sum(1)
        self.columns += squares.sum(0)

    @property
    def scaled_rows(self) -> Tensor:
        """(out,) whose outer product with `columns` is the diagonal."""
        return self.rows / self.rows.sum().clamp_min(1e-38)

    def chunk(self, start: int, stop: int) -> Tensor:
        return torch.outer(self.scaled_rows[start:stop], self.columns)

    def tensors(self) -> dict[str, Tensor]:
        return {"/rows": self.rows, "/columns": self.columns}

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Factored":
        return Factored(change(self.rows), change(self.columns))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Factored":
        return cls(tensors["/rows"], tensors["/columns"])


Diagonal = dict[str, Information]
"""by the weights' original names"""


def write(path: Path, diagonal: Mapping[str, Information]) -> None:
    tensors = {f"{n}{end}": t.cpu().contiguous() for n, i in diagonal.items() for end, t in i.tensors().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary)


def store(path: Path, estimate: Callable[[], Mapping[str, Information]]) -> None:
    """Write the estimate to `path` unless it is there; of several processes one estimates, the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            write(path, estimate())


def read(path: Path, names: Sequence[str]) -> Diagonal:
    """Those of `names` that the file holds."""
    diagonal: Diagonal = {}
    try:
        with safe_open(path, framework="pt") as file:
            held = set(file.keys())
            for name in names:
                kind: type[Information] = Whole if name in held else Factored
                ends = ("",) if kind is Whole else ("/rows", "/columns")
                if all(f"{name}{end}" in held for end in ends):
                    diagonal[name] = kind.from_tensors({end: file.get_tensor(f"{name}{end}") for end in ends})
    except SafetensorError as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}): delete it and run the command again") from error
    return diagonal
