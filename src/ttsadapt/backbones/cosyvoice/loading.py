"""A released model directory: `llm.pt`, `flow.pt` and `hift.pt`, read into the modules of the version that a layout says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ttsadapt.backbones import official
from ttsadapt.backbones.cosyvoice.flow import Flow
from ttsadapt.backbones.cosyvoice.flows import CosyVoice1Flow, CosyVoice2Flow, CosyVoice3Flow
from ttsadapt.backbones.cosyvoice.hift import HiFT, layout_of
from ttsadapt.backbones.cosyvoice.layout import Layout, Layout1, Layout2, Layout3
from ttsadapt.backbones.cosyvoice.llm import QwenLM, released_settings
from ttsadapt.backbones.cosyvoice.llm1 import TransformerLM
from ttsadapt.backbones.cosyvoice.speech_lm import SpeechLM
from ttsadapt.backbones.official import Layout as Places
from ttsadapt.backbones.official import OfficialFile, Origin
from ttsadapt.errors import CheckpointError

FILES = {"llm": "llm.pt", "flow": "flow.pt", "vocoder": "hift.pt"}
Came = tuple[Places, Origin]
"""how a part stood in its file"""
FLOWS: dict[type[Layout], type[Flow]] = {Layout1: CosyVoice1Flow, Layout2: CosyVoice2Flow, Layout3: CosyVoice3Flow}


@dataclass
class Release:
    """The parts that a directory holds."""

    path: Path
    llm: SpeechLM | None = None
    flow: Flow | None = None
    vocoder: HiFT | None = None
    origins: dict[str, Came] = field(default_factory=dict)

    def check(self, tokens: int, text_rows: int, voice: int, n_mels: int) -> None:
        """CheckpointError when the frontend's codec, text, speaker encoder or mel are not those of the weights."""
        wanted: list[tuple[str, str, int, int]] = []
        if self.llm is not None:
            wanted.append(("llm", "codec.tokens", tokens, self.llm.layout.tokens))
            wanted.append(("llm", "text.rows", text_rows, self.llm.text_rows))
        if self.flow is not None:
            wanted.append(("flow", "codec.tokens", tokens, self.flow.input_embedding.num_embeddings))
            wanted.append(("flow", "speakers.size", voice, self.flow.spk_embed_affine_layer.in_features))
            wanted.append(("flow", "mel.n_mels", n_mels, self.flow.n_mels))
        for part, key, ours, theirs in wanted:
            if ours != theirs:
                raise CheckpointError(f"{self.path / FILES[part]} was made for backbone.frontend.{key}={theirs}, not {ours}")


def read(path: Path, layout: type[Layout], llm_head_size: int, flow_head_size: int, smoothing: float) -> Release:
    """What is in the directory. CheckpointError when it holds none of the files, or another version's."""
    if not path.is_dir():
        raise CheckpointError(
            f"backbone.path={path}: there is no such directory; it is that of a release, with {', '.join(FILES.values())}"
        )
    files = {part: OfficialFile(path / name) for part, name in FILES.items() if (path / name).is_file()}
    if not files:
        raise CheckpointError(f"backbone.path={path} holds none of {', '.join(FILES.values())}: give the model directory of a release")
    release = Release(path)
    if "llm" in files:
        release.llm, release.origins["llm"] = _llm(files["llm"], layout, llm_head_size, smoothing)
    if "flow" in files:
        release.flow, release.origins["flow"] = _flow(files["flow"], layout, flow_head_size)
    if "vocoder" in files:
        release.vocoder, places, origin = HiFT.from_file(files["vocoder"])
        release.origins["vocoder"] = places, origin
    return release


def _llm(file: OfficialFile, layout: type[Layout], head_size: int, smoothing: float) -> tuple[SpeechLM, Came]:
    _right_version(file, layout.family)
    if layout.encoded:
        llm: SpeechLM = TransformerLM.of_file(file, layout, {"smoothing": smoothing})
    else:
        llm = QwenLM.of_file(file, layout, released_settings(file.path.parent, head_size) | {"smoothing": smoothing})
    places = llm.places[layout.family]
    return llm, (places, official.load(llm, file, places))


def _flow(file: OfficialFile, layout: type[Layout], head_size: int) -> tuple[Flow, Came]:
    kind = FLOWS[layout]
    _right_version(file, kind.family)
    settings: dict[str, Any] = {} if kind is CosyVoice3Flow else {"unet_head": head_size}
    flow, origin = kind.from_file(file, **settings)
    return flow, (kind.layout(), origin)


def _right_version(file: OfficialFile, family: str) -> None:
    seen = official.recognise(file.shapes)
    if seen is not None and seen[0] != family:
        raise CheckpointError(f"{file.path}: this looks like a {seen[0]}, not a {family}: key {seen[1]}")


def write(path: Path, llm: SpeechLM | None, flow: Flow | None, vocoder: HiFT | None, origins: Mapping[str, Came]) -> None:
    """The files of the parts that there are."""
    parts: dict[str, tuple[nn.Module, Places]] = {}
    if llm is not None:
        parts["llm"] = llm, llm.places[llm.layout.family]
    if flow is not None:
        parts["flow"] = flow, flow.layout()
    if vocoder is not None:
        parts["vocoder"] = vocoder, layout_of()
    for part, (module, places) in parts.items():
        places, origin = origins.get(part, (places, None))
        official.write(official.save(module, places, origin), path / FILES[part])


def vocoder(path: str) -> HiFT:
    """The vocoder in a released hift.pt, for a model that is trained from scratch."""
    return HiFT.from_file(OfficialFile(path))[0]
