"""Static and generated bottlenecks: counts and names of HyperTTS, the forward pass by its definition, voices, teachers, checkpoints."""

import ast
import copy
import os
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from ttsadapt.adapters import base_parameters, changed_names, effective_weights, followers, merged
from ttsadapt.backbones import official
from ttsadapt.backbones.base import Request, Slot, distinct
from ttsadapt.backbones.hypertts import HyperTTSBackbone
from ttsadapt.backbones.parts import FFTBlock, VariancePredictor
from ttsadapt.backbones.speakers import SpeakerStatistics
from ttsadapt.codecs.mel import MelSpectrogram
from ttsadapt.data.audio import save
from ttsadapt.data.features import FeatureSet
from ttsadapt.data.utterance import Utterance
from ttsadapt.errors import CheckpointError, ConfigError, DataError
from ttsadapt.heads import task_loss
from ttsadapt.learner import Learner, adapt
from ttsadapt.strategies.adapter import BottleneckAdapter
from ttsadapt.strategies.base import Study, generator
from ttsadapt.strategies.bottleneck import Bottleneck, GeneratedBottleneck, Weights, bottleneck
from ttsadapt.strategies.ewc import EWC
from ttsadapt.strategies.full import Full
from ttsadapt.strategies.hyper import Hyper
from ttsadapt.strategies.hypernetwork import ConditionalNorm, Hypernetwork, PlainNorm, authors_name
from ttsadapt.strategies.kd import KD, untuned
from ttsadapt.strategies.speaker_lora import SpeakerLoRA
from ttsadapt.strategies.voice_embedding import Added, Joined
from ttsadapt.where.ends import Last

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))
from toys import WIDTH, ToyFrontend, ToyLM, dataset

GOLDEN = Path(os.environ.get("TTSADAPT_GOLDEN", Path(__file__).parents[2] / "../shared/golden")) / "hypertts"
VOICES = 5


def voice(name: str) -> torch.Tensor:
    return torch.randn(VOICES, generator=torch.Generator().manual_seed(int(name[1:])))


@pytest.mark.parametrize("residual", [False, True])
def test_gradients_of_many_bottlenecks_at_once(residual):
    torch.manual_seed(0)
    x, *weights = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((3, 4, 5), (3, 2, 5), (3, 2), (3, 5, 2), (3, 5)))

    def each(x, *weights):
        made = [bottleneck(row[None], Weights(*(w[i : i + 1] for w in weights)), residual) for i, row in enumerate(x)]
        return torch.cat(made)

    def together(x, *weights):
        return bottleneck(x, Weights(*weights), residual)

    torch.testing.assert_close(together(x, *weights), each(x, *weights))
    assert torch.autograd.gradcheck(together, (x, *weights))
    x, *weights = (t.detach().float().requires_grad_() for t in (x, *weights))
    with torch.autocast("cpu", torch.bfloat16):
        half = together(x, *weights)
    half.float().sum().backward()
    assert half.dtype == (torch.float32 if residual else torch.bfloat16) and all(w.grad.dtype == torch.float32 for w in weights)


class VoicedFrontend(ToyFrontend):
    def __call__(self, utterance):
        return super().__call__(utterance) | {"voice": voice(utterance.speaker)}

    def collate(self, items):
        return super().collate(items) | {"speaker": torch.stack([item["voice"] for item in items])}


class Voiced(ToyLM):
    """The toy with a voice vector, and slots behind its linears; it speaks what its layers make of the request's length."""

    def __init__(self):
        super().__init__()
        self.frontend = VoicedFrontend()

    @property
    def slots(self):
        return {"first": Slot(WIDTH, ("layers.0.linear",)), "second": Slot(WIDTH, ("layers.1.linear",))}

    @torch.no_grad()
    def synthesize(self, requests, progress=None):
        self.announce(requests)
        x = self.embed(torch.zeros(len(requests), 4, dtype=torch.long))
        for layer in self.layers:
            (x,) = layer(x)
        return list(x.flatten(1))


class Rebuilt(FeatureSet):
    """Features with voices, whatever the file holds."""

    def __getitem__(self, key):
        utterance = self.utterances[self.ids[key] if isinstance(key, int) else key]
        return VoicedFrontend()(utterance)


def learner_of(folder, strategies, backbone=None, voices=()):
    """As a run builds it, on a toy and its data."""
    backbone = backbone or Voiced().eval()
    made = dataset(folder)
    features = Rebuilt(made.folder, VoicedFrontend(), list(made.utterances.values()), made.origin)

    def look(name):
        return Study(backbone, features, features, folder, 0, generator(0, name), voices)

    claims = adapt(backbone, strategies, look)
    return Learner(backbone, strategies, claims, partial(torch.optim.AdamW, lr=1e-2)), features


def train(learner, batch, steps=20):
    learner.train()
    optimizer = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.stack(list(learner.terms(batch).values())).sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    learner.eval()
    return losses


# Sizes and names -------------------------------------------------------------------------------------------------------------


def hypertts() -> HyperTTSBackbone:
    """At official size, without weights."""
    scales = {"mel": torch.zeros(2, 80), "energy_range": torch.tensor([-1.0, 1.0])}
    frontend = SimpleNamespace(
        sample_rate=16000, mel=MelSpectrogram(), statistics=SimpleNamespace(size=256), table=SimpleNamespace(size=361), emotions=[],
        learn_durations=True, scales=scales,
    )  # fmt: skip
    return official.build(lambda: HyperTTSBackbone(frontend))


def attached(strategy):
    backbone = hypertts()
    strategy.voice_size = 256
    strategy.attach(backbone)
    return strategy, backbone


def count(module) -> int:
    return sum(p.numel() for p in module.parameters())


E, V, D = ["encoder"], ["duration"], ["decoder"]


def test_counts_of_the_paper_for_static_adapters():
    def size(**settings):
        return count(attached(BottleneckAdapter(**settings))[0])

    assert [size(places=p) for p in (E, V, D, None)] == [66_688, 33_344, 100_032, 200_064]
    assert size(places=E, bottleneck=128) == 263_680


def test_counts_of_the_paper_for_hypernetworks():
    def size(places, **settings):
        return count(attached(Hyper(places=places, **settings))[0])

    assert [size(p) for p in (E, V, D, E + D, E + V + D)] == [151_104, 150_976, 151_232, 302_336, 453_312]
    assert [size(None, source=n) for n in (2, 8, 32, 128)] == [150_912, 453_312, 1_662_912, 6_501_312]
    assert [round(size(D, source=n) / 1000, 1) for n in (2, 32)] == [50.4, 554.4]


@pytest.mark.golden
@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"there are no golden files in {GOLDEN}")
def test_every_key_of_the_authors_has_its_place():
    lines = (GOLDEN / "hyper_keys.txt").read_text().splitlines()
    wanted = {key: ast.literal_eval(shape) for key, shape in (line.split("\t") for line in lines if line)}
    strategy, _ = attached(Hyper())
    got = {authors_name(g, n): tuple(p.shape) for g, network in strategy.networks.items() for n, p in network.named_parameters()}
    assert got == wanted and len(got) == 33


def test_where_the_authors_put_them():
    _, backbone = attached(BottleneckAdapter())
    hung = [
        n for n, m in backbone.named_modules() if any(isinstance(getattr(h, "__self__", 0), Bottleneck) for h in m._forward_hooks.values())
    ]
    assert hung == [
        *(f"encoder.blocks.{i}.ffn_dropout" for i in range(4)),
        *(f"decoder.blocks.{i}.ffn_dropout" for i in range(6)),
        *(f"duration.activations.{i}" for i in range(2)),
    ]


# What is computed ------------------------------------------------------------------------------------------------------------


def reference(network: Hypernetwork, g: torch.Tensor, layer: int, x: torch.Tensor) -> torch.Tensor:
    """(E,), (T, C) -> (T, C): one utterance, by the formulas of the paper and the authors' shapes."""
    s = network.speaker.weight @ g + network.speaker.bias
    z = (network.source[0].weight @ torch.cat([s, network.layers[layer]])).relu()
    size, width = network.down.rows, network.up.rows
    down, up = (network.down.weight @ z).view(size, width), (network.up.weight @ z).view(width, size)
    return x + (x @ down.T + network.down.bias @ z).relu() @ up.T + network.up.bias @ z


def loud(module):
    """Weights large enough to see."""
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return module


def told(network, voices, index=None):
    made = []
    for i, weights in enumerate(network(voices, index)):
        follower = GeneratedBottleneck(str(i))
        follower.told(*weights)
        made.append(follower)
    return made


@pytest.mark.parametrize("index", [None, [0, 2, 2, 1, 0]], ids=["all different", "some alike"])
def test_a_batch_is_what_each_utterance_is_alone(index):
    torch.manual_seed(0)
    network = loud(Hypernetwork(width=6, layers=3, voice=4, bottleneck=3, source=2, speaker_width=5, layer_width=7))
    voices, rows = torch.randn(3 if index else 5, 4), index or list(range(5))
    x = torch.randn(5, 8, 6, requires_grad=True)
    learnt = [x, *network.parameters()]
    for layer, follower in enumerate(told(network, voices, index and torch.tensor(index))):
        wanted = torch.stack([reference(network, voices[s], layer, x[b]) for b, s in enumerate(rows)])
        torch.testing.assert_close(follower.after(x, x), wanted)
        got = torch.autograd.grad(follower.after(x, x).square().sum(), learnt, allow_unused=True, retain_graph=True)
        expected = torch.autograd.grad(wanted.square().sum(), learnt, allow_unused=True)
        assert sum(g is not None for g in expected) == 9, "its own layer's embedding, and no other"
        for a, b in zip(got, expected):
            assert (a is None or not a.any()) if b is None else torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def test_one_voice_serves_any_number_of_rows():
    network = loud(Hypernetwork(width=6, layers=1, voice=4, bottleneck=3, source=2))
    (follower,) = told(network, torch.ones(1, 4))
    x = torch.randn(5, 8, 6)
    torch.testing.assert_close(follower.after(x, x)[3], reference(network, torch.ones(4), 0, x[3]))


def test_it_stands_between_the_feed_forward_and_the_residual():
    block, adapter = FFTBlock(8, 2, 16, 3, 0.0).eval(), loud(Bottleneck(8, 3))
    adapter.hang(block.ffn_dropout)
    x, mask = torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    h = block.attention_norm(x + block.attention(x, mask))
    y = block.ffn(h)
    wanted = block.ffn_norm(h + y + adapter.up(adapter.down(y).relu()))
    torch.testing.assert_close(block(x, mask), wanted)


def test_it_stands_between_relu_and_norm_in_the_duration_predictor():
    predictor, adapters = VariancePredictor(8, 6, 3, 0.0).eval(), [loud(Bottleneck(6, 2)) for _ in range(2)]
    for adapter, activation in zip(adapters, predictor.activations):
        adapter.hang(activation)
    x = torch.randn(2, 5, 8)
    y = x
    for adapter, conv, norm in zip(adapters, predictor.convs, predictor.norms):
        y = norm(adapter.after(conv(y.mT).relu().mT, y))
    torch.testing.assert_close(predictor(x, torch.ones(2, 5, dtype=torch.bool)), predictor.out(y)[..., 0])


@pytest.mark.parametrize("norm", [PlainNorm, ConditionalNorm])
def test_norms_before_and_after(norm):
    network = loud(Hypernetwork(width=6, layers=2, voice=4, bottleneck=3, source=2, norm_before=norm, norm_after=norm))
    voices, x = torch.randn(2, 4), torch.randn(2, 5, 6)
    plain = F.layer_norm(x, (6,))
    for layer, follower in enumerate(told(network, voices)):
        z = network.sources(voices)[layer]

        def normed(x, part, row, z=z):
            if norm is PlainNorm:
                return part.norm(x)
            return F.layer_norm(x, (6,)) * (part.weight.weight @ z[row]) + part.bias.weight @ z[row]

        for row in range(2):
            (down, d), (up, u) = network.down(z), network.up(z)
            inner = (normed(x[row], network.norm_before, row) @ down[row].T + d[row]).relu() @ up[row].T + u[row]
            wanted = x[row] + normed(inner, network.norm_after, row)
            torch.testing.assert_close(follower.after(x, x)[row], wanted)
    assert not torch.allclose(plain, x)


def test_a_new_adapter_is_nearly_nothing():
    torch.manual_seed(0)
    (follower,) = told(Hypernetwork(256, 1, 256), F.normalize(torch.randn(4, 256), dim=1))
    x = torch.randn(4, 9, 256)
    assert 0 < (follower.after(x, x) - x).square().mean() ** 0.5 < 0.02
    assert 0 < (Bottleneck(256, 32).after(x, x) - x).square().mean() ** 0.5 < 0.02


@pytest.mark.parametrize(("settings", "same_voice", "same_layer"), [
    ({"layer_width": None}, False, False), ({"speaker_width": None}, True, False), ({}, False, False), ({"depth": 2}, False, False),
])  # fmt: skip
def test_what_it_is_conditioned_on(tmp_path, settings, same_voice, same_layer):
    hyper = Hyper(bottleneck=3, **settings)
    learner, features = learner_of(tmp_path, {"hyper": hyper})
    loud(hyper)
    batch = features.collate(features.ids)
    x = torch.randn(1, 4, WIDTH).expand(len(features.ids), -1, -1)
    hyper.condition(batch)
    first, second = (f.after(x, x) for f in followers(learner.backbone))
    rows = batch["voice_index"]
    alike = torch.allclose(first[rows == 0][0], first[rows == 1][0])
    assert alike == same_voice and torch.equal(first[rows == 0][0], first[rows == 0][1])
    assert torch.allclose(first, second) == same_layer


def test_conditioned_on_nothing_is_refused():
    with pytest.raises(ConfigError, match="speaker_width and layer_width"):
        Hyper(speaker_width=None, layer_width=None)


# In a run --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: BottleneckAdapter(bottleneck=4), lambda: Hyper(bottleneck=4)], ids=["adapter", "hyper"])
def test_it_learns_and_comes_back_from_its_checkpoint(tmp_path, make):
    learner, features = learner_of(tmp_path, {"how": make()})
    batch = features.collate(features.ids[:6])
    before = learner.heads(batch)["codebook0"].loss().item()
    losses = train(learner, batch)
    assert losses[-1] < losses[0] - 0.01
    state = learner.changed_state()
    assert state and all(name.startswith("strategies.how.") for name in state)
    again, _ = learner_of(tmp_path, {"how": make()})
    assert again.heads(batch)["codebook0"].loss().item() == pytest.approx(before, abs=1e-6)
    again.load_state_dict(again.completed({"state_dict": state, "base": ""}))
    assert torch.equal(again.eval().heads(batch)["codebook0"].loss(), learner.heads(batch)["codebook0"].loss())
    assert learner.heads(batch)["codebook0"].loss().item() < before - 0.01


def test_names_of_weights_stay_and_nothing_can_be_merged(tmp_path):
    hyper = Hyper(bottleneck=4)
    learner, _ = learner_of(tmp_path, {"hyper": hyper})
    bare = dict(Voiced().named_parameters())
    assert base_parameters(learner.backbone).keys() == effective_weights(learner.backbone).keys() == bare.keys()
    assert changed_names(learner.backbone, {id(p) for p in hyper.parameters()}) == []
    with pytest.raises(CheckpointError, match=r"2 adapters .GeneratedBottleneck. have no merged weights") as error:
        merged(learner.backbone)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("others", [{}, {"full": Full}], ids=["adapters off", "a copy"])
def test_the_teacher_is_the_untuned_model(tmp_path, others):
    kd = KD()
    strategies = {"adapter": BottleneckAdapter(bottleneck=4), "hyper": Hyper(bottleneck=4), "kd": kd}
    strategies |= {name: kind() for name, kind in others.items()}
    learner, features = learner_of(
        tmp_path, {"adapter": BottleneckAdapter(bottleneck=4), "hyper": Hyper(bottleneck=4), "kd": kd} | strategies
    )
    batch = features.collate(features.ids[:6])
    train(learner, batch, 5)
    student, teacher, bare = learner.heads(batch), kd._teach(batch), Voiced().eval()(batch)
    for name, head in bare.items():
        torch.testing.assert_close(teacher[name].loss(), head.loss())
        assert (student[name].loss() - head.loss()).abs() > 1e-3
    assert all(not follower.off for follower in followers(learner.backbone))


def test_ewc_names_what_to_use_instead(tmp_path):
    with pytest.raises(ConfigError, match="use kd") as error:
        learner_of(tmp_path, {"hyper": Hyper(), "ewc": EWC(frames=80)})
    assert "\n" not in str(error.value)


def test_a_copy_takes_its_adapters_along(tmp_path):
    learner, features = learner_of(tmp_path, {"hyper": Hyper(bottleneck=4), "adapter": BottleneckAdapter(bottleneck=4)})
    train(learner, features.collate(features.ids[:6]), 3)
    twin = copy.deepcopy(learner.backbone)
    batch = features.collate(features.ids[:4])
    torch.testing.assert_close(task_loss(twin(batch))["codebook0"], task_loss(learner.backbone(batch))["codebook0"])
    with untuned(twin), torch.no_grad():
        assert not any(f.off for f in followers(learner.backbone)) and all(f.off for f in followers(twin))


def requests_of(features, speakers):
    return [Request(f"r{i}", ("a",), voice(name), voice=name) for i, name in enumerate(speakers)]


def test_voices_differ_and_company_does_not_matter(tmp_path):
    hyper = Hyper(bottleneck=4)
    learner, features = learner_of(tmp_path, {"hyper": hyper})
    loud(hyper)
    asked = requests_of(features, ["s0", "s1", "s0", "s9"])
    together = learner.backbone.synthesize(asked)
    for request, wave in zip(asked, together):
        torch.testing.assert_close(learner.backbone.synthesize([request])[0], wave)
    assert torch.equal(together[0], together[2])
    assert (together[0] - together[1]).abs().max() > 1e-2 and (together[0] - together[3]).abs().max() > 1e-2


@pytest.mark.parametrize("kind", [Added, Joined, SpeakerLoRA])
def test_other_conditionings_start_as_nothing_learn_and_tell_voices_apart(kind, tmp_path):
    backbone = Voiced().eval()
    untouched = copy.deepcopy(backbone)
    learner, features = learner_of(tmp_path, {"how": kind()}, backbone)
    asked = requests_of(features, ["s0", "s1", "s0"])
    for wave, wanted in zip(backbone.synthesize(asked), untouched.synthesize(asked)):
        torch.testing.assert_close(wave, wanted)
    losses = train(learner, features.collate(features.ids[:8]))
    assert losses[-1] < losses[0]
    together = backbone.eval().synthesize(asked)
    for request, wave in zip(asked, together):
        torch.testing.assert_close(backbone.synthesize([request])[0], wave)
    torch.testing.assert_close(together[0], together[2])
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_speakers_without_a_pair_are_spoken_by_the_untuned_model(tmp_path):
    backbone = Voiced().eval()
    untouched = copy.deepcopy(backbone)
    learner, features = learner_of(tmp_path, {"how": SpeakerLoRA()}, backbone)
    train(learner, features.collate(features.ids[:8]))
    asked = requests_of(features, ["s9", "s0"])
    (stranger, known), (base, other) = backbone.eval().synthesize(asked), untouched.synthesize(asked)
    torch.testing.assert_close(stranger, base)
    torch.testing.assert_close(backbone.synthesize(asked[:1])[0], base)
    assert (known - other).abs().max() > 1e-3


@pytest.mark.parametrize("kind", [BottleneckAdapter, Hyper, Added, Joined, SpeakerLoRA])
def test_where_keeps_to_blocks(kind, tmp_path):
    learner, _ = learner_of(tmp_path, {"how": kind(where=Last(1))})
    blocks = list(next(iter(learner.backbone.blocks.values())).values())
    assert [bool(followers(block)) for block in blocks] == [False] * (len(blocks) - 1) + [True]


def test_places_and_layers_choose(tmp_path):
    learner, _ = learner_of(tmp_path, {"adapter": BottleneckAdapter(places=["second"])})
    assert len(followers(learner.backbone)) == 1 and followers(learner.backbone.layers[1])
    with pytest.raises(ConfigError, match=r"places=\['third'\]: Voiced has first, second"):
        learner_of(tmp_path, {"adapter": BottleneckAdapter(places=["third"])})
    with pytest.raises(ConfigError, match=r"matches strategy.hyper.layers=\['none'\]"):
        learner_of(tmp_path, {"hyper": Hyper(layers=["none"])})
    with pytest.raises(ConfigError, match="ToyLM has no slots"):
        learner_of(tmp_path, {"adapter": BottleneckAdapter()}, ToyLM())


def test_which_rows_are_in_one_voice():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    found = distinct(vectors, ["a", "b", "a", "c"])
    assert found["voice_first"] == [0, 1, 3] and found["voice_index"].tolist() == [0, 1, 0, 2]


class Mute(Voiced):
    """A backbone that is told nothing about the voice."""

    def voice_vector(self, speaker):
        return speaker[:, :0]


def recordings(folder, speakers) -> list[Utterance]:
    """Half a second of each: harmonics of a pitch of its own."""
    made, t = [], torch.arange(8000) / 16000
    for name in speakers:
        k = int(name[1:])
        wave = sum(torch.sin(2 * torch.pi * (110 + 45 * k) * n * t) / n ** (1 + 0.2 * k) for n in range(1, 12))
        save(folder / f"{name}.wav", 0.1 * wave, 16000)
        made.append(Utterance(f"{name}-1", folder / f"{name}.wav", "a text", name, "neutral"))
    return made


def test_a_backbone_without_voice_vectors_gets_them_from_recordings(tmp_path):
    known, (stranger,) = recordings(tmp_path, ["s0", "s1", "s2", "s3"]), recordings(tmp_path, ["s7"])
    hyper = Hyper(bottleneck=4)
    learner, features = learner_of(tmp_path, {"hyper": hyper}, Mute().eval(), known)
    batch = features.collate(features.ids[:6])
    losses = train(learner, batch)
    assert losses[-1] < losses[0] - 0.01
    loud(hyper)
    asked = requests_of(features, ["s0", "s1", "s7"])
    with pytest.raises(DataError, match="'s7' is unknown, there are s0, s1, s2, s3: enroll"):
        learner.backbone.synthesize(asked)
    before = copy.deepcopy(learner.changed_state())
    hyper.enroll([stranger])
    waves = learner.backbone.synthesize(asked)
    torch.testing.assert_close(waves[2], learner.backbone.synthesize(asked[2:])[0])
    assert all((waves[i] - waves[j]).abs().max() > 1e-3 for i, j in ((0, 1), (0, 2), (1, 2)))
    assert all(torch.equal(before[n], v) for n, v in learner.changed_state().items()), "nothing trained, nothing more to save"


def test_vectors_of_voices_are_measured_once(tmp_path, monkeypatch):
    known = recordings(tmp_path, ["s0", "s1", "s2", "s3"])
    first, second = Hyper(), Hyper()
    learner_of(tmp_path, {"hyper": first}, Mute(), known)
    monkeypatch.setattr(SpeakerStatistics, "measure", lambda *_: pytest.fail("measured again"))
    learner_of(tmp_path, {"hyper": second}, Mute(), known)
    assert first._table.keys() == second._table.keys() == {"s0", "s1", "s2", "s3"}
    assert all(torch.equal(first._table[n], second._table[n]) for n in first._table)


def test_nobody_knows_a_voice_without_recordings(tmp_path):
    with pytest.raises(DataError, match="no training recordings") as error:
        learner_of(tmp_path, {"hyper": Hyper()}, Mute())
    assert "\n" not in str(error.value)
