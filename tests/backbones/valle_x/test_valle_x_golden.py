"""The authors' own numbers: teacher forcing of both decoders, losses of all prefix modes, gradients, greedy inference."""

import copy
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from backbones.valle_x.fakes import plain_frontend
from ttsadapt.backbones.decoding import Sampling
from ttsadapt.backbones.prefix_lm import packed
from ttsadapt.backbones.valle_x import VALLEX, place
from ttsadapt.backbones.valle_x_generate import Prompt, generate
from ttsadapt.backbones.valle_x_prompts import Excerpt, Given, Prefix

FOLDER = Path(os.environ.get("TTSADAPT_GOLDEN", Path(__file__).parents[3] / "../shared/golden")) / "valle_x"
pytestmark = [pytest.mark.golden, pytest.mark.skipif(not FOLDER.is_dir(), reason=f"there are no golden files in {FOLDER}")]


@pytest.fixture(scope="module")
def golden():
    meta = json.loads((FOLDER / "meta.json").read_text())
    tensors = load_file(FOLDER / "io.safetensors")
    frontend = plain_frontend(meta["config"]["num_quantizers"], meta["config"]["eos"])
    model = VALLEX.load_official(frontend, str(FOLDER / "checkpoint.pt"), heads=meta["config"]["nhead"]).eval()
    return SimpleNamespace(meta=meta, io=tensors, model=model)


def batch_of(golden, languages, prompting=None, stage=1, rows=slice(None)) -> dict:
    """A batch as `collate` makes it, of the golden inputs."""
    io = golden.io
    codes, frames, lengths = io["in.codes"][rows].clamp_min(0), io["in.y_lens"][rows].long(), io["in.x_lens"][rows].long()
    shown = prompting(codes, frames) if prompting else Given()(codes, frames, torch.zeros_like(frames), 75.0)
    return {
        "phones": io["in.x"][rows], "languages": languages,
        "positions": torch.arange(io["in.x"].shape[1]).expand_as(languages), "spoken": torch.arange(io["in.x"].shape[1]) < lengths[:, None],
        "codes": codes, "frames": frames, "prompt": torch.zeros_like(frames), "stage": stage,
        "shown": shown.codes, "heard": shown.heard, "known": shown.known, "wanted": shown.wanted, "scale": shown.scale,
    }  # fmt: skip


def ar_states(golden, batch, mask=None, layers=None):
    """States of the first decoder at audio positions, its inputs, and the outputs of its blocks."""
    ar = golden.model.ar
    text = ar.text(batch["phones"], batch["languages"], batch["positions"])
    said = F.pad(batch["codes"][..., 0], (1, 0), value=ar.begin)
    position = torch.arange(said.shape[1])
    heard = position <= batch["frames"][:, None]
    audio = ar.audio(torch.where(heard, said, ar.end))
    if mask is not None:  # as the authors' code: padding is not seen, not even by itself
        x = torch.cat([text, audio], 1)
        t, n = text.shape[1], x.shape[1]
        index = torch.arange(n)
        allowed = (index[None] < t) | ((index[:, None] >= t) & (index[None] <= index[:, None]))
        states = ar.decoder(x, (allowed & torch.cat([batch["spoken"], heard], 1)[:, None])[:, None])
    else:
        states = ar(text, batch["spoken"], audio, heard)
    return states[:, text.shape[1] :], torch.cat([text, audio], 1)


@torch.no_grad()
def test_first_level_logits_inputs_layers_and_losses(golden):
    io, ar = golden.io, golden.model.ar
    batch = batch_of(golden, io["in.lang_tok"])
    outputs: list[torch.Tensor] = []
    hooks = [layer.register_forward_hook(lambda m, i, o: outputs.append(o)) for layer in ar.decoder.layers]
    states, inputs = ar_states(golden, batch)
    for hook in hooks:
        hook.remove()
    real = torch.cat([batch["spoken"], torch.arange(states.shape[1]) <= batch["frames"][:, None]], 1)
    assert torch.allclose(inputs[real], io["ar_b2.xy_pos"][real], atol=1e-5)
    assert torch.allclose(torch.stack(outputs)[:, real], io["ar_b2.layers"][:, real], atol=1e-4)
    logits = ar.predict_layer(states)
    audible = real[:, -states.shape[1] :]
    assert torch.allclose(logits[audible], io["ar_b2.logits"][audible], atol=1e-4)

    head = golden.model(batch)["ar"]
    assert head.count == int(io["ar_b2.n_valid"])
    assert torch.equal(head.target, io["ar_b2.targets"][audible])
    assert head.per_position().sum() == pytest.approx(io["ar_b2.ce_valid_sum"].item(), rel=1e-5)

    padded = ar.predict_layer(ar_states(golden, batch, mask="authors")[0])  # their loss counts padding as end of speech
    assert torch.allclose(padded, io["ar_b2.logits"], atol=1e-4)
    loss = F.cross_entropy(padded.flatten(0, 1), io["ar_b2.targets"].flatten(), reduction="sum")
    assert loss.item() == pytest.approx(io["ar_b2.loss_sum"].item(), rel=1e-5)


@torch.no_grad()
def test_language_may_change_within_a_text(golden):
    io = golden.io
    batch = batch_of(golden, io["ar_b1.lang_tok"], rows=slice(0, 1))
    head = golden.model(batch)["ar"]
    assert torch.allclose(head.logits, io["ar_b1.logits"][0], atol=1e-4)
    assert head.per_position().sum() == pytest.approx(io["ar_b1.loss_sum"].item(), rel=1e-5)


@torch.no_grad()
def test_every_stage_and_prefix(golden):
    io = golden.io
    cases = sorted({key.rpartition(".")[0] for key in io if key.startswith("nar_b2.")})
    assert cases
    for case in cases:
        _, prefix, stage = (int(part[1:]) if part[1:].isdigit() else part for part in case.split("."))
        cut = lambda codes, frames, length=prefix: Prefix().cut(codes, frames, length)  # noqa: E731
        batch = batch_of(golden, io["in.lang_tok"], cut, stage)
        head = golden.model(batch)["nar"]
        wanted = io[f"{case}.logits"]
        real = batch["wanted"][:, prefix:]
        got = head.logits[:, :: head.logits.shape[1] // wanted.shape[-1]]
        assert torch.allclose(got, wanted[real], atol=1e-4), case
        assert head.per_position().sum() == pytest.approx(io[f"{case}.ce_sum"].item(), rel=1e-5), case
        assert 2 * head.weight * head.per_position().sum() == pytest.approx(io[f"{case}.loss_sum"].item(), rel=1e-5), case


@torch.no_grad()
def test_losses_of_the_training_code_in_every_prefix_mode(golden):
    """That code has no language embedding: one language a batch, folded into its text tables."""
    runs = golden.meta["lifeiteng_forward_runs"]
    assert runs
    for run in runs:
        languages = torch.full_like(golden.io["in.x"], run["lang_id"])
        stage = run.get("nar_stage", 1)
        batch = batch_of(golden, languages, prompting_of(golden, run), stage)
        states, _ = ar_states(golden, batch, mask="authors")
        logits = golden.model.ar.predict_layer(states)
        ar = F.cross_entropy(logits.flatten(0, 1), golden.io["ar_b2.targets"].flatten(), reduction="sum").item()
        head = golden.model(batch)["nar"]
        nar = float(2 * head.weight * head.per_position().sum())
        loss = {0: (ar + nar) / 2, 1: ar, 2: nar}[run["train_stage"]]
        assert loss == pytest.approx(run["loss_sum"], rel=1e-5), run


def prompting_of(golden, run):
    frames = golden.io["in.y_lens"]
    if run["prefix_mode"] == 2 and "prompt_starts" in run:
        length = min(225, int(0.25 * int(frames.min())))
        return lambda codes, n: Excerpt().cut(codes, n, torch.tensor(run["prompt_starts"]), length)
    if run["prefix_mode"] == 4:
        prompts = golden.io["in.mode4_prompts"]
        size = prompts.shape[1]
        return lambda codes, n: Given()(torch.cat([prompts, codes], 1), n + size, torch.full_like(n, size), 75.0)
    return lambda codes, n: Prefix().cut(codes, n, run.get("prefix_len", 0))


def test_gradients(golden):
    """(AR + NAR stage 3 with a prefix of 5) / 2, sums, padding counted as the authors do; packed weights taken together."""
    io, model = golden.io, golden.model
    batch = batch_of(golden, io["in.lang_tok"], lambda codes, n: Prefix().cut(codes, n, 5), 3)
    logits = model.ar.predict_layer(ar_states(golden, batch, mask="authors")[0])
    head = model(batch)["nar"]
    ar = F.cross_entropy(logits.flatten(0, 1), io["ar_b2.targets"].flatten(), reduction="sum")
    total = ar / 2 + head.weight * head.per_position().sum()
    assert total.item() == pytest.approx(io["grad.total_loss"].item(), rel=1e-5)
    model.zero_grad()
    total.backward()
    squares: dict[str, float] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.grad is not None:
            theirs = place(name).name
            squares[theirs] = squares.get(theirs, 0.0) + parameter.grad.double().square().sum().item()
    for name, norm in golden.meta["grad_norms"].items():
        assert squares.get(name, 0.0) ** 0.5 == pytest.approx(norm or 0.0, rel=1e-4, abs=1e-6), name
    model.zero_grad()


@pytest.mark.parametrize("case", ["infer.str", "infer.list"])
def test_greedy_inference(golden, case):
    meta, io = golden.meta[case], golden.io
    ids, enrolled = golden.meta["config"]["language_ids"], meta["enroll_x_lens"]
    phones = io["in.x"][0]
    said = meta["text_language"] if isinstance(meta["text_language"], list) else [meta["text_language"]] * (len(phones) - enrolled)
    languages = torch.tensor([ids[meta["prompt_language"]]] * enrolled + [ids[name] for name in said])
    reference = io["in.codes"][0, : int(re.search(r":(\d+)\]", meta["prompt"])[1])]
    model = copy.copy(golden.model)
    model.sampling = Sampling(temperature=0.0)
    prompt = Prompt(phones, languages, torch.arange(len(phones)), reference, 0, 16 * len(phones))
    (codes,) = generate(model, [prompt])
    assert len(codes) == meta["frames"]
    assert torch.equal(codes, io[f"{case}.codes"][0])


def test_layout_and_counts_at_the_released_size():
    wanted = json.loads((FOLDER / "layout_official_size.json").read_text())
    with torch.device("meta"):
        model = VALLEX(plain_frontend())
    shapes: dict[str, list[int]] = {}
    for name, tensor in model.state_dict().items():
        where = place(name)
        shapes[where.name] = [tensor.shape[0] * where.parts, *tensor.shape[1:]]
    assert shapes == wanted["keys"]
    for part in ("ar", "nar"):
        assert sum(p.numel() for p in getattr(model, part).parameters()) == wanted[part]
        assert sum(p.numel() for p in getattr(model, part).decoder.parameters()) == wanted[f"{part}_decoder"]
    assert sum(p.numel() for p in model.parameters()) == wanted["unique_parameters"]
    named = dict(model.named_parameters(remove_duplicate=False))
    ours = {place(n).name: n for n in named}
    for copied, original in wanted["tied"].items():
        assert named[ours[copied]] is named[ours[original]]
    assert packed("ar_decoder.layers.0.self_attn.key.weight").part == 1


def test_the_golden_checkpoint_round_trips(golden, tmp_path):
    before = torch.load(FOLDER / "checkpoint.pt", weights_only=True)
    golden.model.save_official(tmp_path / "again.pt")
    after = torch.load(tmp_path / "again.pt", weights_only=True)
    assert after.keys() == before.keys()
    assert list(after["model"].keys() ^ before["model"].keys()) == []
    for name, tensor in before["model"].items():
        assert after["model"][name].dtype == tensor.dtype and torch.equal(after["model"][name], tensor), name
