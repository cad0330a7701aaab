"""Numbers that the authors' own code wrote, at a tiny size with random weights."""

import json
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from gpt_sovits_helpers import Whistle
from safetensors.torch import load_file

from ttsadapt.backbones import official
from ttsadapt.backbones.decoding import Sampling, uniforms
from ttsadapt.backbones.gpt_sovits.backbone import GptSovits
from ttsadapt.backbones.gpt_sovits.decoding import Row, decode
from ttsadapt.backbones.gpt_sovits.file import LAYOUT
from ttsadapt.backbones.gpt_sovits.frontend import LEAST, GptSovitsFrontend, Prompt
from ttsadapt.backbones.gpt_sovits.table import PhoneTable

FOLDER = Path(os.environ.get("TTSADAPT_GOLDEN", Path(__file__).parents[3] / "../shared/golden")) / "gpt_sovits"
pytestmark = [pytest.mark.golden, pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no golden files in {FOLDER} (TTSADAPT_GOLDEN)")]


def frontend_for(phones: int, tokens: int) -> GptSovitsFrontend:
    frontend = GptSovitsFrontend(Whistle(tokens))
    frontend._table = PhoneTable([f"p{i}" for i in range(phones)])
    return frontend


@pytest.fixture(scope="module")
def meta():
    return json.loads((FOLDER / "meta.json").read_text())


@pytest.fixture(scope="module")
def io():
    return load_file(FOLDER / "io.safetensors")


@pytest.fixture(scope="module")
def model(meta):
    config = meta["config"]["model"]
    frontend = frontend_for(config["phoneme_vocab_size"], config["EOS"])
    return GptSovits.load_official(frontend, str(FOLDER / "s1_tiny.ckpt")).eval()


def batch_of(io, rows: list[int], given: int, tokens="in.y", lengths="in.y_lens"):
    text, audio = io["in.x_lens"][rows].long(), io[lengths][rows].long()
    p, s = int(text.max()), int(audio.max())
    return {
        "phones": io["in.x"][rows, :p],
        "phone_lengths": text,
        "bert": io["in.bert"][rows, :, :p].mT,
        "tokens": io[tokens][rows, :s],
        "token_lengths": audio,
        "given": torch.full((len(rows),), given),
    }


@pytest.mark.parametrize("objective", ["legacy", "head"])
@pytest.mark.parametrize(("case", "row"), [("b1", 0), ("b1short", 1)])
def test_an_item_alone(model, io, objective, case, row):
    head = model(batch_of(io, [row], given=int(objective == "legacy")))["tokens"]
    name = f"{objective}.{case}"
    assert (head.logits - io[f"{name}.logits"][0]).abs().max() < 1e-4
    assert head.per_position().sum().item() == pytest.approx(io[f"{name}.loss_sum"].item(), rel=1e-5)
    if f"{name}.targets" in io:
        assert torch.equal(head.target, io[f"{name}.targets"].flatten().long())


@pytest.mark.parametrize("objective", ["legacy", "head"])
def test_a_batch_equals_its_items(model, io, objective):
    """Right-padded or not: the item-alone cases are the reference (upstream's own batch is wrong under its current objective)."""
    head = model(batch_of(io, [0, 1], given=int(objective == "legacy")))["tokens"]
    for row, case in enumerate(("b1", "b1short")):
        assert (head.logits[head.row == row] - io[f"{objective}.{case}.logits"][0]).abs().max() < 1e-4


@pytest.mark.parametrize("objective", ["legacy", "head"])
def test_every_layer(model, io, objective):
    batch = batch_of(io, [0], given=0)
    text, audio = model.embed_text(batch["phones"], batch["bert"]), model.embed_audio(batch["tokens"])
    assert (torch.cat([text, audio], 1) - io[f"{objective}.b1.xy_pos"]).abs().max() < 1e-4
    seen: list[torch.Tensor] = []
    hooks = [layer.register_forward_hook(lambda m, i, o: seen.append(o)) for layer in model.blocks["decoder"].values()]
    model(batch)
    for hook in hooks:
        hook.remove()
    assert (torch.stack(seen) - io[f"{objective}.b1.layers"]).abs().max() < 1e-4


def test_gradients(model, io, meta):
    model.zero_grad()
    model(batch_of(io, [0], given=0))["tokens"].per_position().sum().backward()
    parts: dict[str, dict[int, torch.Tensor]] = {}
    for name, parameter in model.named_parameters():
        place = LAYOUT.place(name)
        parts.setdefault(place.name.removeprefix("model."), {})[place.part] = parameter.grad
    for name, norm in meta["grad_norms.head.b1"].items():
        own = torch.cat([g.flatten() for g in parts[name].values()]).norm().item()
        if norm > 1e-5:
            assert own == pytest.approx(norm, rel=1e-3), name
    model.zero_grad()


def test_preference_loss_of_the_authors(model, io):
    """CE + -log sigmoid(0.2 (log p(said) - log p(rejected))), sums over the targets."""
    chosen = model(batch_of(io, [0], given=0))["tokens"]
    rejected = model(batch_of(io, [0], 0, "head.dpo_b1.reject_y", "head.dpo_b1.reject_y_lens"))["tokens"]
    margin = chosen.log_likelihood_per_position().sum() - rejected.log_likelihood_per_position().sum()
    part = -F.logsigmoid(0.2 * margin)
    assert part.item() == pytest.approx(io["head.dpo_b1.dpo_part"].item(), abs=1e-4)
    assert (chosen.per_position().sum() + part).item() == pytest.approx(io["head.dpo_b1.loss"].item(), rel=1e-5)


def test_greedy_decoding(model, io, meta):
    for case, name in ((k, k.removeprefix("infer.")) for k in meta if k.startswith("infer.")):
        expected, said = io[f"{case}.y"][0].long(), meta[case]
        prompt = io["in.y"][0, : int(said["prompt"].rpartition(":")[2].rstrip("]"))]
        sampling = Sampling(temperature=0.0, repetition_penalty=float(name.removeprefix("rp")))
        text, most = int(io["in.x_lens"][0]), said["early_stop_num"] + 1
        whole = Prompt(io["in.x"][0, :text], torch.arange(text), prompt, io["in.bert"][0, :, :text].T)
        row = Row(whole, sampling, uniforms(0), LEAST, most)
        assert torch.equal(torch.cat([prompt, decode(model, [row])[0]]), expected), case


def test_the_file_comes_back(model, tmp_path):
    model.save_official(tmp_path / "again.ckpt")
    one, two = (torch.load(p, weights_only=True) for p in (FOLDER / "s1_tiny.ckpt", tmp_path / "again.ckpt"))
    assert {k: v for k, v in one.items() if k != "weight"} == {k: v for k, v in two.items() if k != "weight"}
    assert sorted(one["weight"]) == sorted(two["weight"])
    for key, tensor in one["weight"].items():
        assert tensor.dtype == two["weight"][key].dtype and torch.equal(tensor, two["weight"][key]), key


def test_official_sizes(meta):
    layouts = json.loads((FOLDER / "layout_official_size.json").read_text())
    for name, layout in layouts.items():
        shapes = {p.rpartition(" [")[0]: [int(n) for n in p.rpartition("[")[2].rstrip("]").split(",")] for p in layout["patterns"]}
        rows = shapes["model.ar_text_embedding.word_embeddings.weight"][0]
        frontend = frontend_for(rows, shapes["model.ar_predict_layer.weight"][0] - 1)
        empty = official.build(lambda f=frontend: GptSovits(f))
        assert sum(p.numel() for p in empty.parameters()) == layout["parameters"], name
        assert len({LAYOUT.place(n).name for n in empty.state_dict()}) == layout["n_keys"]
