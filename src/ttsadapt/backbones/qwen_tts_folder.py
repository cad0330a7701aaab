"""Released NeuTTS folders: what must be in them, and writing one."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ttsadapt.backbones.official import OfficialFile, recognise, write
from ttsadapt.backbones.pretrained import WEIGHTS, OfficialFolder, beside, read_config
from ttsadapt.errors import CheckpointError
from ttsadapt.files import replacing_folder

BESIDE = ("config.json", "vocab.json", "merges.txt", "added_tokens.json", "*.jinja")
"""beside what every family's folders have"""


def open_folder(path: Path, family: str) -> tuple[PreTrainedConfig, OfficialFolder]:
    """Config and tensors. CheckpointError in one line when it is no folder of a language model's weights and config."""
    if path.is_file():
        seen = recognise(OfficialFile(path).shapes)
        what = f"this looks like a {seen[0]}, not a {family}: key {seen[1]}" if seen and seen[0] != family else "it is a single file"
        raise CheckpointError(f"{path}: {what}; give the released folder, with config.json, tokenizer and .safetensors")
    if not path.is_dir():
        raise CheckpointError(f"{path}: there is no such folder; backbone.path is the released folder, as huggingface-cli downloads it")
    kind = read_config(path)["model_type"]
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise CheckpointError(f"{path}: this looks like a {kind}, not a {family}: key model_type of its config.json")
    try:
        return AutoConfig.from_pretrained(path), OfficialFolder(path)
    except (OSError, ValueError, KeyError) as error:
        told = str(error).strip().splitlines()
        raise CheckpointError(f"{path}/config.json: transformers cannot read this {kind} ({told[0][:120] if told else error})") from error


def save_folder(
    state: Mapping[str, Tensor], config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, path: Path, source: Path | None = None
) -> None:
    """Weights in one file; the other files are those of `source`, byte for byte, or written anew. All or nothing."""
    with replacing_folder(path) as folder:
        write(state, folder / WEIGHTS)
        if source is None:
            config.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            return
        for file in {*beside(source), *(f for glob in BESIDE for f in source.glob(glob))}:
            shutil.copyfile(file, folder / file.name)
