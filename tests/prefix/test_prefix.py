"""What is kept of frozen first blocks is what they would have computed, or is not kept."""

import copy
import subprocess
import sys

import lightning
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from prefix.prefix_toys import WIDTH, PadFrontend, PadLM, between, data_of, learner_of, left, right
from ttsadapt.callbacks.checkpoint import Checkpoints, SafeCheckpointIO
from ttsadapt.callbacks.state import RandomState
from ttsadapt.errors import ConfigError, UserError
from ttsadapt.prefix import Disk, Memory, PrefixCache
from ttsadapt.prefix.layout import SIZE, Rows, place
from ttsadapt.strategies.base import Strategy
from ttsadapt.strategies.full import Full
from ttsadapt.strategies.kd import KD
from ttsadapt.strategies.lora import LoRA
from ttsadapt.strategies.partial import Partial
from ttsadapt.where.explicit import Explicit

FROZEN = 2
"""blocks below the trained ones"""


def partial() -> Partial:
    return Partial(Explicit(["backbone.2", "backbone.3"]))


class Losses(lightning.Callback):
    """Every step's terms and every validation's."""

    def __init__(self) -> None:
        self.train: list[dict[str, float]] = []
        self.valid: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer, module, outputs, *_):
        self.train.append({n: float(t) for n, t in outputs["terms"].items()})

    def on_validation_end(self, trainer, module):
        self.valid.append({n: float(t) for n, t in trainer.callback_metrics.items() if n.startswith("valid")})


class Stop(lightning.Callback):
    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.at:
            raise RuntimeError("stopped")


def fit(folder, learner, data, *callbacks, steps=30, resume=None):
    torch.manual_seed(1)
    losses = Losses()
    trainer = lightning.Trainer(
        max_steps=steps, accelerator="cpu", logger=CSVLogger(folder), enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, val_check_interval=5, check_val_every_n_epoch=None, log_every_n_steps=3, plugins=[SafeCheckpointIO()],
        callbacks=[losses, *callbacks, RandomState(), Checkpoints(folder, 4, "valid/target/loss")],
    )  # fmt: skip
    trainer.fit(learner, data, ckpt_path=resume, weights_only=True)
    return losses


def counted(backbone: PadLM) -> list[int]:
    """How often each block has computed something."""
    counts = [0] * len(backbone.layers)
    for i, layer in enumerate(backbone.layers):

        def count(*_, i=i):
            counts[i] += 1

        layer.mix.register_forward_hook(count)
    return counts


def close(a: list[dict[str, float]], b: list[dict[str, float]], within: float = 1e-5) -> bool:
    return len(a) == len(b) and all(x.keys() == y.keys() and all(abs(x[n] - y[n]) <= within for n in x) for x, y in zip(a, b))


@pytest.mark.parametrize("wrapped", [False, True], ids=["tensors", "tuples"])
@pytest.mark.parametrize("real", [right, left, between])
def test_a_run_that_reads_has_the_losses_of_one_that_computes(tmp_path, real, wrapped):
    """Over epochs with other batches each, rehearsed utterances and validations among them; the trained blocks have dropout."""
    runs, counts = [], []
    for cache in ([], [PrefixCache(Memory())]):
        frontend = PadFrontend(real)
        data, backbone = data_of(tmp_path, frontend, rehearsal=True), PadLM(frontend, wrapped)
        learner = learner_of(backbone, data, tmp_path, partial=partial())
        counts.append(counted(backbone))
        runs.append(fit(tmp_path / str(len(runs)), learner, data, *cache))
    plain, kept = runs
    assert close(plain.train, kept.train) and close(plain.valid, kept.valid) and plain.valid
    assert plain.train[0] != plain.train[-1]
    steps = counts[0][0]  # each block runs once a training or validation step
    assert counts[0] == [steps] * 4 and steps > 40
    filled = counts[1][0]
    assert counts[1] == [filled, filled, *[counts[1][2]] * 2] and counts[1][2] >= steps, "what trains goes on computing"
    assert filled < 35 + 15, "the frozen blocks ran for more than filling and checking"  # 35 utterances


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path):
    def run(folder, *callbacks, resume=None):
        frontend = PadFrontend(between)
        data, backbone = data_of(tmp_path, frontend, rehearsal=True), PadLM(frontend)
        learner = learner_of(backbone, data, tmp_path, partial=partial())
        return fit(folder, learner, data, PrefixCache(Memory()), *callbacks, steps=20, resume=resume), learner

    _, whole = run(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="stopped"):
        run(tmp_path / "cut", Stop(10))
    _, resumed = run(tmp_path / "cut", resume=str(tmp_path / "cut" / "last.ckpt"))
    ours, theirs = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)


def test_a_teacher_reads_too(tmp_path):
    """The adapters switched off, or a copy of the model: neither runs the frozen blocks."""
    for name, strategy in (("partial", partial()), ("lora", LoRA(rank=2, layers=["layers.3.*"], alpha=4.0))):
        runs, counts = [], []
        for cache in ([], [PrefixCache(Memory())]):
            frontend = PadFrontend()
            data, backbone = data_of(tmp_path, frontend), PadLM(frontend)
            learner = learner_of(backbone, data, tmp_path, **{name: copy.deepcopy(strategy)}, kd=KD(weight=0.5))
            own = [counted(backbone), *(counted(t) for t in learner.strategies["kd"]._teacher)]
            runs.append(fit(tmp_path / f"{name}{len(runs)}", learner, data, *cache))
            counts.append([sum(c) for c in zip(*own)])
        assert close(runs[0].train, runs[1].train) and runs[0].train[-1]["kd"] > 1e-4
        assert counts[1][0] < 60 < counts[0][0]


@pytest.mark.parametrize(
    ("settings", "frontend", "why"),
    [
        ({"noise": 0.2}, {}, "input is not the same"),
        ({}, {"dropped": 0.2}, "input is not the same"),
        ({"skip": True}, {}, "also read elsewhere"),
    ],
    ids=["dropout below", "tokens drawn", "skip connection"],
)
def test_what_cannot_be_kept_is_refused_or_left_alone(tmp_path, capsys, settings, frontend, why):
    frontend = PadFrontend(**frontend)
    data = data_of(tmp_path, frontend)

    def learner():
        return learner_of(PadLM(frontend, **settings), data, tmp_path, partial=partial())

    with pytest.raises(ConfigError, match=why) as caught:
        PrefixCache(Memory()).start(learner(), [(data.train, data.train.ids)])
    assert "\n" not in str(caught.value) and "prefix=null" in str(caught.value)
    plain = fit(tmp_path / "plain", learner(), data, steps=8)
    capsys.readouterr()
    auto = fit(tmp_path / "auto", learner(), data, PrefixCache(Memory(), required=False), steps=12)
    assert auto.train[:8] == plain.train, "the attempt left traces"
    assert capsys.readouterr().out.count("prefix cache: off") == 1


@pytest.mark.parametrize("strategy", [{"full": Full()}, {"lora": LoRA(rank=2, layers=["layers.0.linear"])}], ids=["full", "lora below"])
def test_nothing_is_kept_above_what_trains(tmp_path, strategy):
    frontend = PadFrontend()
    data = data_of(tmp_path, frontend)
    learner = learner_of(PadLM(frontend), data, tmp_path, **strategy)
    with pytest.raises(ConfigError, match="something trains in its first block or below"):
        PrefixCache(Memory()).start(learner, [(data.train, data.train.ids)])


class Conditioned(Strategy):
    """A hypernetwork at its smallest: what it makes of a batch changes the first block."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.made = nn.Parameter(torch.ones(())), None

    def attach(self, backbone):
        backbone.layers[0].register_forward_hook(lambda _m, _a, x: x if self.made is None else x * self.made)

    def condition(self, batch):
        self.made = self.scale * batch["lengths"].float().mean()


def test_what_a_strategy_makes_of_a_batch_is_not_kept(tmp_path):
    frontend = PadFrontend()
    data = data_of(tmp_path, frontend)
    learner = learner_of(PadLM(frontend), data, tmp_path, partial=partial(), hyper=Conditioned())
    with pytest.raises(ConfigError, match="something trains in its first block or below"):
        PrefixCache(Memory()).start(learner, [(data.train, data.train.ids)])


def test_few_passes_are_not_worth_it(tmp_path, capsys):
    frontend = PadFrontend()
    data = data_of(tmp_path, frontend)
    fit(tmp_path, learner_of(PadLM(frontend), data, tmp_path, partial=partial()), data, PrefixCache(Memory(), required=False), steps=2)
    assert "too few to gain" in capsys.readouterr().out


def test_a_change_below_is_noticed_while_training(tmp_path):
    class Change(lightning.Callback):
        def on_train_batch_start(self, trainer, module, *_):
            if trainer.global_step == 3:
                module.backbone.embed.weight.data[0] += 1

    frontend = PadFrontend()
    data = data_of(tmp_path, frontend)
    learner = learner_of(PadLM(frontend), data, tmp_path, partial=partial())
    with pytest.raises(UserError, match="given something else"):
        fit(tmp_path, learner, data, PrefixCache(Memory()), Change())


def test_a_batch_of_others_is_computed(tmp_path):
    frontend = PadFrontend()
    data = data_of(tmp_path, frontend)
    learner = learner_of(PadLM(frontend), data, tmp_path, partial=partial()).eval()
    known, other = data.train.collate(data.train.ids[:3]), data.valid["target"].collate(["u60", "u61"])
    before = {name: learner.heads(batch)["tokens"].logits for name, batch in (("known", known), ("other", other))}
    cache = PrefixCache(Memory())
    cache.start(learner, [(data.train, data.train.ids)])
    counts = counted(learner.backbone)
    assert torch.equal(learner.heads(other)["tokens"].logits, before["other"]) and counts == [1, 1, 1, 1]
    assert torch.allclose(learner.heads(known)["tokens"].logits, before["known"], atol=1e-5) and counts == [1, 1, 2, 2]
    cache.stop()
    assert torch.equal(learner.heads(known)["tokens"].logits, before["known"]) and counts == [2, 2, 3, 3]


def test_the_limit_is_a_line(tmp_path, capsys):
    frontend = PadFrontend()
    data = data_of(tmp_path, frontend)
    learner = learner_of(PadLM(frontend), data, tmp_path, partial=partial())
    with pytest.raises(ConfigError, match=r"20 utterances, about .* GiB in memory, more than prefix.limit=1e-06: raise it") as caught:
        PrefixCache(Memory(), limit=1e-6).start(learner, [(data.train, data.train.ids)])
    assert "\n" not in str(caught.value)
    PrefixCache(Memory(), limit=1e-6, required=False).start(learner, [(data.train, data.train.ids)])
    cache = PrefixCache(Memory())
    cache.start(learner, [(data.train, data.train.ids)])
    kept = sum(t.numel() * t.element_size() for i in data.train.ids for t in cache.store[data.train.key(i)].values())
    frames = sum(data.train.lengths[i]["frames"] for i in data.train.ids)
    assert kept == frames * (WIDTH + SIZE) * 4
    told = float(capsys.readouterr().out.rpartition("about ")[2].split()[0]) * 2**30
    assert told == pytest.approx(kept, rel=0.06)  # two digits


def test_half_is_smaller_and_near(tmp_path):
    frontend = PadFrontend()
    data = data_of(tmp_path, frontend)
    learner = learner_of(PadLM(frontend), data, tmp_path, partial=partial()).eval()
    batch = data.train.collate(data.train.ids[:4])
    exact = learner.heads(batch)["tokens"].logits
    cache = PrefixCache(Memory(), half=True)
    cache.start(learner, [(data.train, data.train.ids)])
    assert cache.store[data.train.key("u0")]["backbone/states"].dtype == torch.float16
    read = learner.heads(batch)["tokens"].logits
    assert read.dtype == exact.dtype and 1e-6 < (read - exact).abs().max() < 1e-2


class TestDisk:
    def start(self, tmp_path, seed=None, blocks=("backbone.2", "backbone.3"), picked=None):
        frontend = PadFrontend()
        data, backbone = data_of(tmp_path, frontend), PadLM(frontend)
        if seed is not None:
            nn.init.normal_(backbone.embed.weight, generator=torch.Generator().manual_seed(seed))
        learner = learner_of(backbone, data, tmp_path, partial=Partial(Explicit(list(blocks))))
        counts = counted(backbone)
        cache = PrefixCache(Disk(str(tmp_path / "kept"), utterances=6))
        cache.start(learner, [(data.train, picked or data.train.ids)])
        return cache, data, learner, counts

    def folders(self, tmp_path):
        return sorted(p.name for p in (tmp_path / "kept").iterdir())

    def test_runs_share_what_is_the_same(self, tmp_path):
        _, _, _, first = self.start(tmp_path)
        cache, data, learner, second = self.start(tmp_path, blocks=["backbone.2"])
        assert first[0] - second[0] == len(data.train), "the second run computed again what the first one had kept"
        assert len(self.folders(tmp_path)) == 1
        learner.eval()
        batch = data.train.collate(data.train.ids[5:9])
        read = learner.heads(batch)["tokens"].logits
        cache.stop()
        assert torch.allclose(read, learner.heads(batch)["tokens"].logits, atol=1e-5)

    def test_other_weights_blocks_and_utterances_are_others(self, tmp_path):
        self.start(tmp_path)
        self.start(tmp_path, seed=3)
        assert len(self.folders(tmp_path)) == 2
        self.start(tmp_path, blocks=["backbone.1"])
        assert len(self.folders(tmp_path)) == 3
        self.start(tmp_path, picked=["u1", "u2", "u3"])
        assert len(self.folders(tmp_path)) == 4

    def test_an_interrupted_filling_goes_on(self, tmp_path):
        self.start(tmp_path)
        (folder,) = (tmp_path / "kept").iterdir()
        files = sorted(folder.glob("*.safetensors"))
        assert len(files) == 4 and not list(folder.glob(".*.tmp"))  # 20 utterances in sixes
        whole = files[1].read_bytes()
        files[1].unlink()
        _, _, _, counts = self.start(tmp_path)
        (again,) = (self.start(tmp_path)[3],)
        assert counts[0] - again[0] == 6 and files[1].read_bytes() == whole

    def test_a_cut_file_is_a_line(self, tmp_path):
        self.start(tmp_path)
        (file, *_) = sorted(tmp_path.glob("kept/*/*.safetensors"))
        file.write_bytes(file.read_bytes()[:100])
        with pytest.raises(UserError, match="no whole file of a prefix cache: delete it"):
            self.start(tmp_path)


@pytest.mark.parametrize("real", [right, left, between])
def test_places_are_found_wherever_the_padding_is(real):
    torch.manual_seed(0)
    lengths = [7, 3, 9, 9]
    mask = real(torch.tensor(lengths))
    wanted, found = torch.randn(sum(lengths), SIZE), torch.randn(*mask.shape, SIZE)
    found[mask] = wanted + 1e-6 * torch.randn_like(wanted)
    rows = Rows.of(lengths, torch.device("cpu"))
    places, all_found = place(found, wanted, rows, 1e-4)
    assert all_found and torch.equal(torch.stack([rows.row, places], 1), mask.nonzero())
    found[mask] = torch.cat([wanted[:12], wanted[12:13] + 0.1, wanted[13:]])
    assert not place(found, wanted, rows, 1e-4)[1]


def test_nothing_heavy_comes_with_the_config():
    code = "import sys, ttsadapt.cli; assert 'ttsadapt.prefix' not in sys.modules and 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
