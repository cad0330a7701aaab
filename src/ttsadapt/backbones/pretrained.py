"""Folders as transformers' `save_pretrained` writes them: config.json, weights in one file or in shards, and what stands beside."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from ttsadapt.backbones.official import OfficialFile, write
from ttsadapt.errors import CheckpointError
from ttsadapt.files import replacing_folder

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
BESIDE = ("generation_config.json", "*tokenizer*", "special_tokens_map.json", "*processor_config.json", "chat_template*")
"""files that go along unread"""


class OfficialFolder(OfficialFile):
    """The tensors of all shards as one file."""

    def __init__(self, path: Path | str) -> None:
        """CheckpointError when the folder has no weights, or one of its shards is missing or cut short."""
        self.path, self.inside, self.extras = Path(path).expanduser(), None, {}
        shards = [OfficialFile(shard) for shard in _shards(self.path)]
        self._of = {name: shard for shard in shards for name in shard.shapes}
        self.shapes = {name: shape for shard in shards for name, shape in shard.shapes.items()}
        self.dtypes = {name: dtype for shard in shards for name, dtype in shard.dtypes.items()}

    def _some(self, names: list[str]) -> Iterator[tuple[str, Tensor]]:
        for shard in dict.fromkeys(self._of[n] for n in names):
            yield from shard._some([n for n in names if self._of[n] is shard])


def _shards(folder: Path) -> list[Path]:
    named = read_config(folder).get("transformers_weights")
    for name in [named] if named else [WEIGHTS, INDEX]:
        file = folder / name
        if file.is_file() and name.endswith(".index.json"):
            return [folder / shard for shard in sorted(set(_json(file)["weight_map"].values()))]
        if file.is_file():
            return [file]
    raise CheckpointError(f"{folder} holds neither {WEIGHTS} nor {INDEX}: download all files of the model")


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model's folder. CheckpointError when there is none or it names no `model_type`."""
    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{folder} has no config.json: give a folder that holds a model in transformers' layout")
    config = _json(file)
    if "model_type" not in config:
        raise CheckpointError(f"{file} names no model_type: it is not a model's in transformers' layout")
    return config


def expect(folder: Path, kind: str) -> dict[str, Any]:
    """config.json of a folder that must hold a `kind`."""
    config = read_config(folder)
    if config["model_type"] != kind:
        raise CheckpointError(f"{folder}: this looks like a {config['model_type']}, not a {kind}: key model_type of its config.json")
    return config


def write_folder(state: Mapping[str, Tensor], config: PreTrainedConfig, path: Path, source: Path | None = None) -> None:
    """Weights in one file, config, and what stood beside them in the folder `source` that they came from; all or nothing."""
    with replacing_folder(Path(path)) as folder:
        write(state, folder / WEIGHTS)
        dtypes = {t.dtype for t in state.values() if t.is_floating_point()}
        config.dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
        config.save_pretrained(folder)
        for file in beside(source) if source else ():
            shutil.copyfile(file, folder / file.name)


def beside(folder: Path) -> Iterable[Path]:
    return (file for glob in BESIDE for file in folder.glob(glob) if file.is_file())


def _json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} is not valid JSON ({error}): download it again") from error
