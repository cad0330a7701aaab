"""A CSM of a few thousand weights over a codec of random projections."""

import pytest
import torch

from frames_toys import Buckets, recorded
from ttsadapt.backbones.csm import Csm
from ttsadapt.backbones.csm_frontend import CsmFrontend
from ttsadapt.backbones.frames_text import PhoneText

SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "depth_hidden_size": 16, "depth_intermediate_size": 32, "depth_num_hidden_layers": 1, "depth_num_attention_heads": 2,
    "depth_num_key_value_heads": 1,
}  # fmt: skip


@pytest.fixture(scope="session")
def sizes():
    return SIZES


@pytest.fixture(scope="session")
def utterances(tmp_path_factory):
    return recorded(tmp_path_factory.mktemp("audio"))


@pytest.fixture(scope="session")
def make_frontend(utterances):
    def make(**settings):
        frontend = CsmFrontend(Buckets(), PhoneText(), **{"max_tokens": 200, "depth_share": 0.3} | settings)
        frontend.fit(utterances)
        return frontend

    return make


@pytest.fixture(scope="session", params=[False, True], ids=["as released", "paced, end reserved"])
def frontend(request, make_frontend):
    return make_frontend(paced_positions=request.param, reserve_end=request.param)


@pytest.fixture(scope="session")
def model(frontend):
    """Greedy, and far from uniform, so that a wrong position or mask shows."""
    torch.manual_seed(0)
    model = Csm(frontend, **SIZES, temperature=0.0, acoustic_temperature=0.0).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


@pytest.fixture(scope="session")
def items(frontend, utterances):
    return [frontend(u) for u in utterances]
