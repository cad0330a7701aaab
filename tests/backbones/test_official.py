"""Released files: read checked and frugally, refused in one line, written back bit for bit."""

import pickle
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ttsadapt.backbones import official
from ttsadapt.backbones.official import Layout, OfficialFile, build, load, recognise, save, write
from ttsadapt.backbones.prefix_lm import Block, packed
from ttsadapt.errors import CheckpointError

LAYOUT = Layout("Toy", packed, tied={"head.weight": "table.weight"}, optional=("unused.*",))


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 8)
        self.blocks = nn.ModuleList(Block(8, 2, 16) for _ in range(2))
        self.register_buffer("rates", torch.arange(4.0), persistent=False)


def theirs(dtype=torch.float32) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state = {"table.weight": torch.randn(7, 8), "unused.freq": torch.randn(3)}
    for i in range(2):
        for name, shape in {
            "self_attn.in_proj_weight": (24, 8), "self_attn.in_proj_bias": (24,), "self_attn.out_proj.weight": (8, 8),
            "self_attn.out_proj.bias": (8,), "linear1.weight": (16, 8), "linear1.bias": (16,), "linear2.weight": (8, 16),
            "linear2.bias": (8,), "norm1.weight": (8,), "norm1.bias": (8,), "norm2.weight": (8,), "norm2.bias": (8,),
        }.items():  # fmt: skip
            state[f"blocks.{i}.{name}"] = torch.randn(shape)
    state = {n: t.to(dtype) for n, t in state.items()}
    return state | {"head.weight": state["table.weight"].clone()}


def put(state, path, inside=None, **beside):
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(({inside: state} if inside else state) | beside, path)
    return path


def loaded(path, inside=None):
    said: list[str] = []
    file = OfficialFile(path, inside, notice=said.append)
    toy = build(Toy)
    return toy, load(toy, file, LAYOUT, notice=said.append), said


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["toy.pt", "toy.safetensors"])
def test_what_was_read_is_written_back_bit_for_bit(tmp_path, name, dtype):
    state = theirs(dtype)
    toy, origin, said = loaded(put(state, tmp_path / name))
    assert all(p.dtype == torch.float32 and not p.is_meta for p in toy.parameters())
    assert torch.equal(toy.rates, torch.arange(4.0))  # what no file holds is there all the same
    assert bool(said) == (dtype != torch.float32)
    write(save(toy, LAYOUT, origin), tmp_path / f"again-{name}")
    again = OfficialFile(tmp_path / f"again-{name}")
    assert again.shapes == OfficialFile(tmp_path / name).shapes
    for key, tensor in again.tensors(again.shapes):
        assert tensor.dtype == dtype and torch.equal(tensor, state[key]), key


def test_packed_projections_are_taken_apart_in_their_order(tmp_path):
    state = theirs()
    toy, _, _ = loaded(put(state, tmp_path / "toy.pt"))
    whole = state["blocks.1.self_attn.in_proj_weight"]
    attention = toy.blocks[1].self_attn
    for i, part in enumerate((attention.query, attention.key, attention.value)):
        assert torch.equal(part.weight, whole[8 * i : 8 * i + 8])


def test_bookkeeping_is_left_out_with_a_notice_and_a_config_is_kept(tmp_path):
    _toy, origin, said = loaded(put(theirs(), tmp_path / "toy.pt", "model", epoch=3, config={"a": 1}), "model")
    assert origin.extras == {"config": {"a": 1}}
    assert "epoch" in said[0]
    _, _, said = loaded(put(theirs() | {"step": 7}, tmp_path / "flat.pt"))
    assert "step" in said[0]


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def broken(tmp_path):
    state, path = theirs(), tmp_path / "x.pt"
    yield "there is no such file", lambda: loaded(tmp_path / "nowhere.pt")
    yield "no 'model' in it", lambda: loaded(put(state, path), "model")
    lacking = {n: t for n, t in state.items() if not n.startswith("blocks.1.self_attn")}
    yield "4 keys are missing: blocks.1.self_attn.in_proj_bias, ", lambda: loaded(put(lacking, path))
    yield "1 keys are too many: other.weight", lambda: loaded(put(state | {"other.weight": torch.ones(1)}, path))
    yield "none of the keys of a Toy", lambda: loaded(put({"a": torch.ones(1)}, path))
    yield "table.weight has the shape [9, 8]", lambda: loaded(put(state | {"table.weight": torch.ones(9, 8)}, path))
    yield "head.weight and table.weight are one weight", lambda: loaded(put(state | {"head.weight": torch.ones(7, 8)}, path))
    yield "cut short", lambda: (put(state, path), path.write_bytes(path.read_bytes()[:900]), loaded(path))
    yield "pickled code", lambda: (path.write_bytes(pickle.dumps({"a": Evil()})), loaded(path))
    yield "not a whole .safetensors", lambda: ((tmp_path / "y.safetensors").write_bytes(b"no"), loaded(tmp_path / "y.safetensors"))
    valle = {"ar_audio_embedding.word_embeddings.weight": torch.ones(2), "nar_stage_embeddings.0.word_embeddings.weight": torch.ones(2)}
    if recognise(valle):
        yield "this looks like a VALL-E X, not a Toy: key ", lambda: loaded(put(valle, path))


def test_every_bad_file_is_one_line(tmp_path, capsys):
    for words, attempt in broken(tmp_path):
        with pytest.raises(CheckpointError) as error:
            attempt()
        assert words in str(error.value) and "\n" not in str(error.value), words
    assert "executed" not in capsys.readouterr().out


MEASURE = """
import resource, sys, torch
from torch import nn
from ttsadapt.backbones.official import *
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
class Big(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(1024, 1024) for _ in range(48))
layout = Layout("Big", Place)
small = sys.argv[1] + ".small"
torch.save({n: t for n, t in nn.Linear(2, 2).state_dict().items()}, small)
OfficialFile(small)  # whatever reading a file imports is imported
model, before = build(Big), peak()
load(model, OfficialFile(sys.argv[1]), layout)
print((peak() - before) / sum(p.numel() * 4 for p in model.parameters()))
"""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", ["big.pt", "big.safetensors"])
def test_loading_takes_little_more_than_the_model(tmp_path, name, dtype):
    """192 MiB of weights, resident memory at its peak, mapped pages of the file included."""
    state = {f"layers.{i}.{n}": torch.zeros(s, dtype=dtype) for i in range(48) for n, s in (("weight", (1024, 1024)), ("bias", (1024,)))}
    put(state, tmp_path / name)
    out = subprocess.run([sys.executable, "-c", MEASURE, str(tmp_path / name)], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr[-800:]
    assert float(out.stdout.split()[-1]) <= 1.3


def test_what_the_authors_code_cannot_run_is_not_written():
    official.check_theirs({"backbone.flow.spread=0": False})
    with pytest.raises(CheckpointError, match=r"train it with backbone\.flow\.spread=0 to export it"):
        official.check_theirs({"backbone.frontend.paced_positions=false": False, "backbone.flow.spread=0": True})
