"""ECAPA-TDNN (Desplanques et al. 2020), speechbrain's network with its released weights (spkrec-ecapa-voxceleb)."""

import re
from functools import lru_cache
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ttsadapt.errors import CheckpointError
from ttsadapt.metrics.pretrained import lacking, located
from ttsadapt.metrics.voices import ReleasedVoices

_FILE = "embedding_model.ckpt"


class EcapaSimilarity(ReleasedVoices):
    """The folder's weights are read, its hyperparams.yaml is not: that may run code. Sizes are those of the weights."""

    name: ClassVar[str] = "ecapa"

    def __init__(
        self, path: str = "speechbrain/spkrec-ecapa-voxceleb", reference: Literal["voice", "recording"] = "voice", recordings: int = 16
    ) -> None:
        super().__init__(path, reference, recordings)

    def missing(self) -> str | None:
        return lacking(self.path, "metric.ecapa.path", (_FILE,))

    def embed(self, audio: Tensor) -> Tensor:
        return opened(self.path)(audio[None])[0]


class Encoder(nn.Module):
    """(1, samples) at 16 kHz -> (1, size): 80 log-mel bands less their means, as the released recipe has it."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        from speechbrain.lobes.features import Fbank
        from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

        super().__init__()
        sizes = sizes_of(weights)
        self.bands = Fbank(n_mels=sizes["input_size"])
        self.network = ECAPA_TDNN(**sizes)
        self.network.load_state_dict(weights)

    def forward(self, audio: Tensor) -> Tensor:
        bands = self.bands(audio)
        return self.network(bands - bands.mean(1, keepdim=True))[:, 0]


def sizes_of(weights: dict[str, Tensor]) -> dict[str, Any]:
    """Arguments of speechbrain's ECAPA_TDNN from the shapes of its weights; dilations, which leave no trace, are the recipe's."""
    shape = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    blocks = 1 + max(int(m[1]) for name in shape if (m := re.match(r"blocks\.(\d+)\.", name)))
    first = [shape["blocks.0.conv.conv.weight"]] + [shape[f"blocks.{i}.tdnn1.conv.conv.weight"] for i in range(1, blocks)]
    inner = [shape[f"blocks.{i}.res2net_block.blocks.0.conv.conv.weight"] for i in range(1, blocks)]
    last = shape["mfa.conv.conv.weight"]
    return {
        "input_size": first[0][1],
        "channels": [*(s[0] for s in first), last[0]],
        "kernel_sizes": [first[0][2], *(s[2] for s in inner), last[2]],
        "dilations": [*range(1, blocks + 1), 1],
        "res2net_scale": 1 + sum(bool(re.fullmatch(r"blocks\.1\.res2net_block\.blocks\.\d+\.conv\.conv\.weight", n)) for n in shape),
        "se_channels": shape["blocks.1.se_block.conv1.conv.weight"][0],
        "attention_channels": shape["asp.tdnn.conv.conv.weight"][0],
        "global_context": shape["asp.tdnn.conv.conv.weight"][1] == 3 * last[0],
        "lin_neurons": shape["fc.conv.weight"][0],
    }


@lru_cache(maxsize=2)
def opened(path: str) -> Encoder:
    folder = located(path)
    assert folder is not None, "missing comes first"
    file = folder / _FILE
    try:
        return Encoder(torch.load(file, map_location="cpu", weights_only=True)).eval()
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, KeyError ... for foreign bytes
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{file} holds no ECAPA-TDNN of speechbrain ({line}): download {path} again") from error
