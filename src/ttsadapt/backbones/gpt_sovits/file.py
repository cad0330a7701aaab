"""The file of GPT-SoVITS's first stage: {"weight": {"model.*"}, "config": the training's yaml, "info": "GPT-eN"}."""

from dataclasses import dataclass
from typing import Any

from ttsadapt.backbones.official import Layout, OfficialFile, Place, check_keys, count_blocks
from ttsadapt.backbones.prefix_lm import packed
from ttsadapt.errors import CheckpointError

FAMILY = "GPT-SoVITS s1"
SIGNATURES = {FAMILY: ("model.ar_text_embedding.word_embeddings.weight", "model.ar_predict_layer.weight")}
TEXT, AUDIO, BERT = (
    "model.ar_text_embedding.word_embeddings.weight",
    "model.ar_audio_embedding.word_embeddings.weight",
    "model.bert_proj.weight",
)
HEADS = 16
"""of every released file; a file's own config says it again"""


def place(name: str) -> Place:
    inner = packed(name)
    return Place(f"model.{inner.name}", inner.part, inner.parts)


LAYOUT = Layout(FAMILY, place)


@dataclass(frozen=True)
class Sizes:
    width: int
    layers: int
    heads: int
    phones: int
    """rows of the phone table: 512 in the first version, 732 since"""
    tokens: int
    """semantic tokens, the end not counted"""
    bert: int


def opened(path: str) -> OfficialFile:
    """CheckpointError in one line when the file is not of this family or is no file at all."""
    try:
        file = OfficialFile(path, "weight")
    except CheckpointError as error:
        _tell_family(path, error)
        raise
    if TEXT not in file.shapes or AUDIO not in file.shapes or BERT not in file.shapes:
        check_keys(file, {TEXT, AUDIO, BERT}, set(), FAMILY)
    return file


def _tell_family(path: str, error: CheckpointError) -> None:
    """A readable file without "weight" may be one of another family: then that is what the message says."""
    try:
        bare = OfficialFile(path, notice=lambda _: None)
    except CheckpointError:
        raise error from None
    if bare.shapes:
        check_keys(bare, {TEXT, AUDIO, BERT}, set(), FAMILY)


def sizes_of(file: OfficialFile) -> Sizes:
    """Sizes from the tensors' shapes; only the number of heads, which no shape shows, from the file's own config."""
    rows, width = file.shapes[AUDIO]
    said = file.extras.get("config")
    model = said.get("model", {}) if isinstance(said, dict) else {}
    heads = int(model.get("head", HEADS))
    if width % heads:
        raise CheckpointError(f"{file.path}: config.model.head={heads} does not divide the width {width}: the file's config is not its own")
    layers = count_blocks(file.shapes, r"model\.h\.layers\.(\d+)\.")
    return Sizes(width, layers, heads, phones=file.shapes[TEXT][0], tokens=rows - 1, bert=file.shapes[BERT][1])


def config_of(sizes: Sizes) -> dict[str, Any]:
    """What the authors' loader reads to build a model of these sizes."""
    model = {
        "vocab_size": sizes.tokens + 1,
        "phoneme_vocab_size": sizes.phones,
        "embedding_dim": sizes.width,
        "hidden_dim": sizes.width,
        "head": sizes.heads,
        "linear_units": 4 * sizes.width,
        "n_layer": sizes.layers,
        "dropout": 0,
        "EOS": sizes.tokens,
        "random_bert": 0,
    }
    return {"data": {"max_sec": 54}, "model": model}
