"""Speaking: what a second of it costs does not depend on how long it gets, and every setting is read. New backbones are found."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import nn

from test_every_pair import BACKBONES, learner_of
from ttsadapt.backbones.ending import watched
from ttsadapt.backbones.knobs import decoding, settings

FELT = {
    "top_k": {"top_k": 1},
    "top_p": {"top_p": 1e-6},
    "repetition_penalty": {"repetition_penalty": 30.0},
    "window": {"window": 10, "share": 0.0},
    "share": {"window": 10, "share": 0.0},
}
"""what nobody could fail to hear; settings that are not listed are raised by 5"""


@contextmanager
def multiplications(model):
    """Those of linear layers, summed up while the block lasts: all but attention's own, which may grow with the length."""
    total = [0]

    def count(layer, given, output):
        total[0] += output.numel() * layer.in_features

    handles = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Linear)]
    yield total
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_second_of_speech_costs_the_same_however_long_it_gets(mini, backbone):
    assembly, learner = learner_of(mini, backbone, ["lora"])
    request = learner.backbone.frontend.request(assembly.utterances("target.test")[0])
    found = []
    for times in (1, 4):
        with multiplications(learner.backbone) as total:
            (said,) = learner.backbone.synthesize([replace(request, phones=request.phones * times)])
        found.append((len(said), total[0] / len(said)))
    (short, cheap), (long, dear) = sorted(found)
    assert long >= 1.5 * short and 0 < dear <= 1.3 * cheap, found


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_setting_is_heard_and_given_back(mini, backbone):
    assembly, learner = learner_of(mini, backbone, ["lora"])
    model = learner.backbone
    request = model.frontend.request(assembly.utterances("target.test")[0])

    def said():
        with watched() as cut:
            (wave,) = model.synthesize([request])
        assert torch.isfinite(wave).all() and cut <= {request.id}
        return wave

    before, own = said(), settings(model)
    for name in model.knobs:
        with decoding(model, FELT.get(name, {name: own[name] + 5})):
            other = said()
        assert other.shape != before.shape or not torch.allclose(other, before), name
        assert settings(model) == own
    torch.testing.assert_close(said(), before)
