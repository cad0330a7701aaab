"""Released files: written, read back and written again; and those that are something else."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from transformers import EncodecConfig, EncodecModel

from backbones.valle_x.fakes import SIZES, model_of, plain_frontend
from ttsadapt.adapters import match
from ttsadapt.artifacts import ensure
from ttsadapt.assembly import Assembly
from ttsadapt.backbones.valle_x import VALLEX
from ttsadapt.errors import CheckpointError
from ttsadapt.run import build_learner


@pytest.fixture(scope="module")
def frontend():
    return plain_frontend(SIZES["levels"], SIZES["codewords"])


@pytest.fixture(scope="module")
def released(frontend, tmp_path_factory):
    """A checkpoint as a training script leaves it."""
    path = tmp_path_factory.mktemp("released") / "vallex.pt"
    model_of(frontend).save_official(path)
    torch.save(torch.load(path, weights_only=True) | {"epoch": 3, "info": "a note"}, path)
    return path


def weights(path) -> dict[str, torch.Tensor]:
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)["model"]


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_round_trip_is_bit_equal(frontend, released, tmp_path, dtype, suffix, capsys):
    state = {n: t.to(dtype) for n, t in weights(released).items()}
    path, again = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    if suffix == ".pt":
        torch.save({"model": state, "epoch": 3, "info": "a note"}, path)
    else:
        save_file({n: t.clone() for n, t in state.items()}, path)
    model = VALLEX.load_official(frontend, str(path), heads=2)
    said = capsys.readouterr().out
    assert ("epoch" in said) == (suffix == ".pt") and (str(dtype)[6:] in said) == (dtype != torch.float32)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert not any(p.is_meta for p in model.parameters())
    model.save_official(again)
    assert equal(weights(again), state)
    if suffix == ".pt":
        assert torch.load(again, weights_only=True)["info"] == "a note"


def test_tied_layers_are_one_weight_after_loading(frontend, released):
    model = VALLEX.load_official(frontend, str(released), heads=2)
    predict, embeddings = model.nar.predict_layers, model.nar.audio_embeddings
    assert all(predict[j].weight is embeddings[j + 2].weight for j in range(SIZES["levels"] - 2))
    assert predict[-1].weight is not embeddings[-1].weight


def test_a_merged_adapter_leaves_the_same_keys(frontend, released, tmp_path):
    model = VALLEX.load_official(frontend, str(released), heads=2)
    names = match(model, model.adaptable)
    inject_adapter_in_model(LoraConfig(r=2, target_modules=names, init_lora_weights=False), model)
    model.save_official(tmp_path / "tuned.pt")
    tuned, bare = weights(tmp_path / "tuned.pt"), weights(released)
    assert tuned.keys() == bare.keys()
    changed = {n for n in bare if not torch.equal(bare[n], tuned[n])}
    assert "ar_decoder.layers.0.self_attn.in_proj_weight" in changed and "nar_decoder.layers.1.linear2.weight" in changed
    assert not any("embedding" in n for n in changed)
    again = VALLEX.load_official(frontend, str(tmp_path / "tuned.pt"), heads=2).eval()
    model.eval()
    for theirs, ours in zip(again.ar.decoder.layers, model.ar.decoder.layers):
        x = torch.randn(1, 5, SIZES["width"])
        assert torch.allclose(theirs(x, None), ours(x, None), atol=1e-4)


def refused(frontend, path, state) -> str:
    torch.save(state, path)
    with pytest.raises(CheckpointError) as caught:
        VALLEX.load_official(frontend, str(path), heads=2)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_are_something_else(frontend, released, tmp_path):
    state, path = weights(released), tmp_path / "other.pt"
    edited = copy.deepcopy(state)
    edited["nar_predict_layers.0.weight"] = edited["nar_predict_layers.0.weight"] + 1
    assert "are one weight in a VALL-E X, but differ here" in refused(frontend, path, {"model": edited})
    less = {n: t for n, t in state.items() if n != "nar_decoder.norm.norm.bias"}
    assert "1 keys are missing: nar_decoder.norm.norm.bias" in refused(frontend, path, {"model": less})
    assert "1 keys are too many: surplus" in refused(frontend, path, {"model": state | {"surplus": torch.zeros(2)}})
    assert "no 'model' in it" in refused(frontend, path, {"weights": state})
    assert "none of the keys of a VALL-E X" in refused(frontend, path, {"model": {"a.weight": torch.zeros(2)}})
    wrong = state | {"ar_decoder.norm.bias": torch.zeros(SIZES["width"] + 1)}
    assert "ar_decoder.norm.bias has the shape" in refused(frontend, path, {"model": wrong})
    path.write_bytes(released.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="cannot be read as plain tensors"):
        VALLEX.load_official(frontend, str(path), heads=2)
    with pytest.raises(CheckpointError, match="there is no such file"):
        VALLEX.load_official(frontend, str(tmp_path / "missing.pt"))


def test_the_released_config_trains_and_speaks(mini, tmp_path):
    """From a checkpoint and an EnCodec on disk, both small, without a run that pretrains."""
    torch.manual_seed(0)
    codec = EncodecModel(EncodecConfig(num_filters=2, hidden_size=8, num_lstm_layers=1, codebook_dim=8))
    codec.save_pretrained(tmp_path / "encodec")
    released = VALLEX(plain_frontend(), width=32, layers=2, heads=2, hidden=48)
    released.save_official(tmp_path / "vallex.pt")
    text = "backbone.frontend.text._target_=ttsadapt.text.vallex.PhonemeText"
    path, codec_path = f"backbone.path={tmp_path}/vallex.pt", f"backbone.frontend.codec.path={tmp_path}/encodec"
    cfg = mini("backbone=valle_x_released", path, codec_path, "backbone.heads=2", text, "base=null", "strategy=[lora]", small=False)
    assembly = Assembly(cfg)
    ensure(assembly.corpus)
    ensure(*assembly.needs())
    learner, _ = build_learner(assembly)
    (features,) = assembly.features("target.train")
    batch = features.collate(features.ids[:3])
    terms = learner.terms(batch)
    assert set(terms) == {"ar", "nar"} and all(t.isfinite() for t in terms.values())
    sum(terms.values()).backward()
    adapted = [n for n, p in learner.backbone.named_parameters() if "lora_B" in n and p.grad.abs().sum() > 0]
    assert any(".ar." in f".{n}" for n in adapted) and any(".nar." in f".{n}" for n in adapted)
    frontend = learner.backbone.frontend
    frontend.frames_per_phone = 0.2
    (samples,) = learner.backbone.synthesize([frontend.request(assembly.utterances("target.test")[0])])
    assert samples.dim() == 1 and samples.isfinite().all() and learner.base_hash


MEASURE = """
import re, sys
from pathlib import Path
def peak():
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
from backbones.valle_x.fakes import plain_frontend
from ttsadapt.backbones.valle_x import VALLEX
before = peak()
model = VALLEX.load_official(plain_frontend(), sys.argv[1], heads=8)
print((peak() - before) / sum(p.numel() * p.element_size() for p in model.parameters()))
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak of memory is read from /proc")
def test_loading_takes_little_more_than_the_weights(tmp_path):
    with torch.device("meta"):
        model = VALLEX(plain_frontend(), width=512, layers=6, heads=8, hidden=2048)
    model = model.to_empty(device="cpu")
    model.nar.tie()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.save_official(tmp_path / "large.pt")
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "large.pt")]
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": path}).stdout
    assert 0.9 < float(said.splitlines()[-1]) < 1.3
