"""What a second of speech costs does not depend on how long it gets: decoding keeps what it has computed. New backbones are found."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
from torch import nn

from test_every_pair import BACKBONES, learner_of


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
