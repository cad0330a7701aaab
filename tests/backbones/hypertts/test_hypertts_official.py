"""Released files: read, written back bit for bit, refused in one line. The golden key list says what is in one."""

import ast
import re
import subprocess
import sys

import pytest
import torch
from hypertts_toys import GOLDEN, small
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import save_file

from ttsadapt.adapters import match
from ttsadapt.backbones import official
from ttsadapt.backbones.hypertts import HyperTTSBackbone
from ttsadapt.backbones.hypertts_frontend import HyperTTSFrontend
from ttsadapt.backbones.official import recognise
from ttsadapt.errors import CheckpointError
from ttsadapt.heads import task_loss
from ttsadapt.text.arpabet import ArpabetTable

TRAINABLE = 35_737_441
"""of the paper's 35.7 million"""


class Vectors:
    """Voices of the released size."""

    size = 256

    def fit(self, utterances):
        return self.vectors(utterances)

    def vectors(self, utterances):
        generator = torch.Generator().manual_seed(0)
        return {name: torch.rand(self.size, generator=generator) for name in sorted({u.speaker for u in utterances})}

    def state(self):
        return {}

    def restore(self, state): ...


@pytest.fixture(scope="module")
def released(aligned) -> HyperTTSFrontend:
    fitted = HyperTTSFrontend(statistics=Vectors(), table=ArpabetTable())
    fitted.fit(aligned)
    return fitted


def keys(name: str) -> dict[str, tuple[int, ...]]:
    path = GOLDEN / name
    if not GOLDEN.is_dir():
        pytest.skip(f"no golden files: there is no folder {GOLDEN} (TTSADAPT_GOLDEN)")
    return {key: ast.literal_eval(shape) for key, shape in (line.split("\t") for line in path.read_text().splitlines() if line)}


def tensors(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = {k: 0.05 * torch.randn(shape, generator=generator) for k, shape in shapes.items()}
    counters = {k: torch.tensor(7) for k in shapes if k.endswith("num_batches_tracked")}
    return drawn | counters | {k: t.abs() + 0.5 for k, t in drawn.items() if k.endswith("running_var")}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


@pytest.fixture
def little(frontend, tmp_path):
    """(frontend, a file in the authors' layout at a size of tests)."""
    plain = HyperTTSFrontend()
    plain.restore(frontend.state() | {"emotions": []})
    model = small(plain)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    path = tmp_path / "little.pth.tar"
    model.save_official(path)
    return plain, path, model


def read(path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]


def test_parameters_at_official_size(released):
    model = official.build(lambda: HyperTTSBackbone(released))
    assert all(p.is_meta for p in model.parameters())
    assert sum(p.numel() for p in model.parameters()) == TRAINABLE
    counts = {
        name: sum(p.numel() for p in getattr(model, name).parameters()) for name in ("encoder", "decoder", "aligner", "duration", "energy")
    }
    assert counts == {"encoder": 11_635_968 - 361 * 256, "decoder": 17_315_328, "aligner": 578_704, "duration": 395_009, "energy": 722_690}


@pytest.mark.golden
def test_every_official_key_has_its_place(released):
    model = official.build(lambda: HyperTTSBackbone(released))
    expected = {k: s for k, s in keys("backbone_keys.txt").items() if not k.endswith("_float_tensor")}
    from ttsadapt.backbones.hypertts_official import place

    got = {place(n).name: tuple(t.shape) for n, t in model.state_dict().items() if not n.startswith("schedule.")}
    assert got == expected


@pytest.mark.golden
def test_an_official_file_comes_back_bit_for_bit(released, tmp_path, capsys):
    wanted = tensors(keys("backbone_keys.txt"))
    torch.save({"model": wanted, "optimizer": {"state": {}}}, tmp_path / "600000.pth.tar")
    model = HyperTTSBackbone.load_official(released, str(tmp_path / "600000.pth.tar"))
    assert "optimizer" in capsys.readouterr().out
    assert model.schedule.hard and model.schedule.binarization == model.schedule.variances == 1
    model.save_official(tmp_path / "again.pth.tar")
    assert same(read(tmp_path / "again.pth.tar"), wanted)


@pytest.mark.golden
def test_hypernetworks_are_kept_and_said_not_to_act(released, tmp_path, capsys):
    wanted = tensors(keys("backbone_keys.txt") | keys("hyper_keys.txt"))
    torch.save({"model": wanted}, tmp_path / "adapted.pth.tar")
    model = HyperTTSBackbone.load_official(released, str(tmp_path / "adapted.pth.tar"))
    assert re.search(r"33 weights of hypernetworks are kept but do not act", capsys.readouterr().out)
    model.save_official(tmp_path / "again.pth.tar")
    assert same(read(tmp_path / "again.pth.tar"), wanted)


@pytest.mark.golden
def test_the_recognised_family_is_ours():
    assert recognise(keys("backbone_keys.txt"))[0] == "HyperTTS backbone"


def test_memory_while_loading(tmp_path, aligned):
    """Peak of a fresh process that loads, less that of one that only imports and opens the file: at most 1.3 of the weights."""
    plain = HyperTTSFrontend(statistics=Vectors(), table=ArpabetTable())
    plain.fit(aligned)
    HyperTTSBackbone(plain).save_official(tmp_path / "big.pth.tar")
    torch.save(plain.state(), tmp_path / "frontend.pt")
    code = f"""
import sys, resource, torch
sys.path[:0] = {sys.path!r}
from test_hypertts_official import HyperTTSBackbone, HyperTTSFrontend, ArpabetTable, Vectors
frontend = HyperTTSFrontend(statistics=Vectors(), table=ArpabetTable())
frontend.restore(torch.load({str(tmp_path / "frontend.pt")!r}, weights_only=True))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = HyperTTSBackbone.load_official(frontend, {str(tmp_path / "big.pth.tar")!r})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, sum(t.nbytes for t in model.state_dict().values()))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    grown, size = int(told[-2]) * (1 if sys.platform == "darwin" else 1024), int(told[-1])
    assert grown <= 1.3 * size, (grown / 2**20, size / 2**20)


def test_half_precision_and_safetensors_come_back_as_they_were(little, tmp_path, capsys):
    plain, path, _ = little
    halved = {k: t.half() if t.is_floating_point() else t for k, t in read(path).items()}
    torch.save({"model": halved, "epoch": 3}, tmp_path / "half.pth.tar")
    save_file(halved, tmp_path / "half.safetensors")
    for name in ("half.pth.tar", "half.safetensors"):
        model = HyperTTSBackbone.load_official(plain, str(tmp_path / name))
        assert "float16 weights are read as float32" in capsys.readouterr().out
        assert all(p.dtype == torch.float32 for p in model.parameters())
        model.save_official(tmp_path / f"again-{name}")
    assert same(read(tmp_path / "again-half.pth.tar"), halved)
    from safetensors.torch import load_file

    assert same(load_file(tmp_path / "again-half.safetensors"), halved)


def test_what_was_saved_speaks_the_same(little, aligned):
    plain, path, model = little
    batch = plain.collate([plain(u) for u in aligned])
    model.schedule.resume(99)
    again = HyperTTSBackbone.load_official(plain, str(path), dropout=0.0, predictor_dropout=0.0).eval()
    with torch.no_grad():
        for name, head in model.eval()(batch).items():
            torch.testing.assert_close(again(batch)[name].per_position(), head.per_position())


def test_a_merged_lora_has_the_same_keys_and_acts(little, aligned, tmp_path):
    plain, path, _ = little
    model = HyperTTSBackbone.load_official(plain, str(path), dropout=0.0, predictor_dropout=0.0).eval()
    batch = plain.collate([plain(u) for u in aligned])
    before = model(batch)["postnet"].value.detach()
    inject_adapter_in_model(LoraConfig(r=2, target_modules=match(model, model.adaptable)), model)
    optimizer = torch.optim.AdamW([p for n, p in model.named_parameters() if "lora_" in n], lr=3e-2)
    for _ in range(3):
        optimizer.zero_grad()
        sum(task_loss(model(batch)).values()).backward()
        optimizer.step()
    adapted = model(batch)["postnet"].value.detach()
    assert (adapted - before).abs().max() > 1e-3
    model.save_official(tmp_path / "merged.pth.tar")
    assert read(tmp_path / "merged.pth.tar").keys() == read(path).keys()
    again = HyperTTSBackbone.load_official(plain, str(tmp_path / "merged.pth.tar")).eval()
    torch.testing.assert_close(again(batch)["postnet"].value, adapted, atol=1e-4, rtol=1e-4)


def test_a_file_without_aligner_is_enough_where_durations_are_given(little, given, tmp_path):
    _, path, _ = little
    other = HyperTTSFrontend(learn_durations=False)
    other.restore(little[0].state())
    model = HyperTTSBackbone.load_official(other, str(path))
    assert model.aligner is None
    model.save_official(tmp_path / "again.pth.tar")
    assert same(read(tmp_path / "again.pth.tar"), read(path))
    bare = {k: t for k, t in read(path).items() if ".aligner." not in k}
    torch.save({"model": bare}, tmp_path / "bare.pth.tar")
    assert HyperTTSBackbone.load_official(other, str(tmp_path / "bare.pth.tar")).aligner is None


def test_bad_files_are_refused_in_one_line(little, released, frontend, tmp_path):
    plain, path, _ = little
    state = read(path)
    name = "variance_adaptor.duration_predictor.linear.bias"
    upstream = {k.replace(".conv1d.", ".conv.").replace("conv.0.weight", "conv.0.1.weight"): t for k, t in state.items()}
    cases = {
        "missing.pth.tar": (plain, {"model": {k: t for k, t in state.items() if k != name}}, f"1 keys are missing: {name}"),
        "extra.pth.tar": (plain, {"model": state | {"more": torch.ones(1)}}, "1 keys are too many: more"),
        "shape.pth.tar": (
            plain,
            {"model": state | {name: torch.ones(2)}},
            r"has the shape \[2\], a HyperTTS backbone of this size has \[1\]",
        ),
        "foreign.pth.tar": (plain, {"model": {"a.b": torch.ones(1)}}, "none of the keys of a HyperTTS backbone"),
        "upstream.pth.tar": (plain, {"model": upstream}, "this looks like a Comprehensive-Transformer-TTS, not a HyperTTS backbone"),
        "nothing.pth.tar": (plain, {"weights": state}, "no 'model' in it"),
        "table.pth.tar": (released, {"model": state}, "its phone table has .* rows"),
    }
    for file, (fitted, content, message) in cases.items():
        torch.save(content, tmp_path / file)
        with pytest.raises(CheckpointError, match=message) as caught:
            HyperTTSBackbone.load_official(fitted, str(tmp_path / file))
        assert "\n" not in str(caught.value)
    for model in (small(frontend), small(plain, phonewise=True)):
        with pytest.raises(CheckpointError, match="the authors' format has no place for"):
            model.save_official(tmp_path / "no.pth.tar")
