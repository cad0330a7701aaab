"""The two decoders: what they are trained on, that the cache is exact, that company changes nothing, that adapters act."""

import copy
from dataclasses import replace
from fnmatch import fnmatchcase

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from backbones.valle_x.fakes import SIZES, model_of, plain_frontend
from ttsadapt.adapters import match
from ttsadapt.backbones.decoding import Sampling
from ttsadapt.backbones.valle_x import VALLEX
from ttsadapt.backbones.valle_x_generate import generate
from ttsadapt.errors import ConfigError


def batches(frontend, items, stage: int = 2) -> tuple[dict, list[dict]]:
    """Utterances together, and each alone with the same draws."""
    torch.manual_seed(5)
    together = frontend.collate(items) | {"stage": stage}
    alone = []
    for i in range(len(items)):
        text, frames, heard = (int(together[n][i].sum()) for n in ("spoken", "frames", "heard"))
        cut = {n: together[n][i : i + 1, :text] for n in ("phones", "languages", "positions", "spoken")}
        cut |= {n: together[n][i : i + 1, :heard] for n in ("shown", "heard", "wanted")}
        cut |= {n: together[n][i : i + 1] for n in ("frames", "prompt", "speaker")} | {"codes": together["codes"][i : i + 1, :frames]}
        known = together["known"] if together["known"] is None else together["known"][i : i + 1, :heard]
        alone.append(together | cut | {"known": known})
    return together, alone


def test_supervised_are_the_utterance_s_own_codes_and_the_end(frontend, model, items):
    torch.manual_seed(0)
    batch = frontend.collate(items)
    heads = model(batch)
    assert set(heads) == {"ar", "nar"}
    for i, item in enumerate(items):
        ar, nar = (h.target[h.row == i] for h in heads.values())
        assert torch.equal(ar, torch.cat([item["codes"][:, 0], torch.tensor([model.ar.end])]))
        assert torch.equal(nar, item["codes"][-len(nar) :, batch["stage"]])
        given = int(batch["known"][i].sum()) - int(batch["prompt"][i])
        assert len(nar) == len(item["codes"]) - given
        assert (given == 0) if frontend.continuation else given > 0
        assert frontend.lengths(item) == {"frames": len(item["codes"]), "steps": len(item["codes"]) + 1}
    assert heads["ar"].logits.shape[1] == SIZES["codewords"] + 1 and heads["nar"].logits.shape[1] == SIZES["codewords"]
    assert [h.unit for h in heads.values()] == ["steps", "frames"]
    own = sum(frontend.lengths(item)["frames"] for item in items)
    expected = 1.0 if frontend.continuation else own / heads["nar"].count
    assert 2 * heads["nar"].weight == pytest.approx(expected)


@torch.no_grad()
def test_padding_and_company_change_nothing(frontend, model, items):
    for stage in range(1, SIZES["levels"]):
        together, alone = batches(frontend, items, stage)
        heads = model(together)
        for i, single in enumerate(alone):
            for name, head in model(single).items():
                assert torch.allclose(head.logits, heads[name].logits[heads[name].row == i], atol=1e-5), (name, stage)
        disturbed = dict(together)
        padding = torch.arange(together["codes"].shape[1]) >= together["frames"][:, None]
        disturbed["codes"] = together["codes"].masked_fill(padding[..., None], 3)
        disturbed["shown"] = together["shown"].masked_fill(~together["heard"][..., None], 3)
        disturbed["phones"] = together["phones"].masked_fill(~together["spoken"], 3)
        for name, head in model(disturbed).items():
            assert torch.allclose(head.logits, heads[name].logits, atol=1e-5)


@torch.no_grad()
def test_later_stages_are_not_shown_what_they_predict(frontend, model, items):
    """Codes of the stage's own level and above matter in known frames only."""
    batch, _ = batches(frontend, items, 2)
    before = model(batch)["nar"].logits
    changed = dict(batch)
    levels = torch.arange(SIZES["levels"]) >= 2
    changed["shown"] = torch.where(batch["wanted"][..., None] & levels, (batch["shown"] + 1) % SIZES["codewords"], batch["shown"])
    assert torch.allclose(model(changed)["nar"].logits, before, atol=1e-6)
    changed["shown"] = torch.where(batch["known"][..., None] & levels, (batch["shown"] + 1) % SIZES["codewords"], batch["shown"])
    assert not torch.allclose(model(changed)["nar"].logits, before, atol=1e-3)


def recomputed(model, prompt) -> torch.Tensor:
    """Greedy decoding of the first level without a cache."""
    ar, said = model.ar, prompt.codes[:, 0].tolist()
    text = ar.text(prompt.phones[None], prompt.languages[None], prompt.positions[None])
    spoken = torch.ones(1, len(prompt.phones), dtype=torch.bool)
    while len(said) - len(prompt.codes) < prompt.most:
        audio = torch.tensor([[ar.begin, *said]])
        logits = ar.predict_layer(ar(text, spoken, ar.audio(audio), torch.ones_like(audio, dtype=torch.bool))[0, -1])
        if len(said) - len(prompt.codes) < prompt.least:
            logits = logits[: ar.end]
        if int(logits.argmax()) == ar.end:
            break
        said.append(int(logits.argmax()))
    return torch.tensor(said[len(prompt.codes) :])


@torch.no_grad()
def test_cached_greedy_equals_full_recomputation(frontend, model, utterances):
    greedy = copy.copy(model)
    greedy.sampling = Sampling(temperature=0.0)
    prompts = [frontend.prompt(frontend.request(u)) for u in utterances]
    for prompt, codes in zip(prompts, generate(greedy, prompts)):
        assert len(codes) >= prompt.least and torch.equal(codes[:, 0], recomputed(greedy, prompt))
        stage = SIZES["levels"] - 1
        whole = torch.cat([prompt.codes, codes])[None]
        known = (torch.arange(whole.shape[1]) < len(prompt.codes))[None]
        text = greedy.nar.text(prompt.phones[None], prompt.languages[None], prompt.positions[None])
        ones = torch.ones_like(prompt.phones[None], dtype=torch.bool), torch.ones_like(known)
        states = greedy.nar(text, ones[0], greedy.nar.audio(whole, stage, known), ones[1], stage)[0, -len(codes) :]
        assert torch.equal(greedy.nar.predict_layers[stage - 1](states).argmax(-1), codes[:, stage])


def test_samples_do_not_depend_on_company(frontend, model, utterances):
    prompts = [frontend.prompt(frontend.request(u)) for u in utterances]
    together = generate(model, prompts)
    for prompt, codes in list(zip(prompts, together))[::3]:
        assert torch.equal(generate(model, [prompt])[0], codes)
    assert not torch.equal(generate(model, [replace(prompts[2], seed=1)])[0], together[2])


@pytest.mark.parametrize("wish", [-50.0, 50.0], ids=["never ends by itself", "wants to end at once"])
def test_length_is_bounded(frontend, model, utterances, wish):
    prompt, biased = frontend.prompt(frontend.request(utterances[2])), copy.deepcopy(model)
    biased.ar.predict_layer.register_forward_hook(lambda m, i, o: o + wish * (torch.arange(o.shape[-1]) == biased.ar.end))
    (codes,) = generate(biased, [prompt])
    assert len(codes) == (prompt.most if wish < 0 else prompt.least)
    assert len(codes) > 0


def test_synthesis_gives_waveforms_in_the_order_asked(frontend, model, utterances):
    requests = [frontend.request(u) for u in utterances[:3]]
    model.train()
    model.ar.decoder.layers[0].eval()  # as a frozen block is while others train
    seen: list[int] = []
    audio = model.synthesize(requests, seen.append)
    assert model.training and not model.ar.decoder.layers[0].training and sum(seen) == 3
    model.eval()
    for request, samples in zip(requests, audio):
        expected = frontend.codec.decode_codes(generate(model, [frontend.prompt(request)])[0])
        assert torch.equal(samples, expected.clamp(-1, 1))
    assert model.resynthesize(torch.randn(3200)).dim() == 1


def test_the_repetition_guard_is_on(frontend, model, utterances):
    stuck = copy.deepcopy(model)
    stuck.ar.predict_layer.register_forward_hook(lambda m, i, o: o + 50.0 * (torch.arange(o.shape[-1]) == 7))
    prompt = frontend.prompt(frontend.request(utterances[2]))
    (codes,) = generate(stuck, [prompt])
    assert stuck.sampling.window and (codes[:, 0] == 7).float().mean() < 0.6
    stuck.sampling = Sampling()
    assert (generate(stuck, [prompt])[0][:, 0] == 7).all()


def test_block_mask_covers_the_utterance_in_a_block_s_output(frontend, model, items):
    torch.manual_seed(0)
    batch = frontend.collate(items)
    for group, blocks in model.blocks.items():
        shapes: list[torch.Size] = []
        hooks = [b.register_forward_hook(lambda m, i, o, shapes=shapes: shapes.append(o.shape)) for b in blocks.values()]
        model(batch)
        for hook in hooks:
            hook.remove()
        mask = model.block_mask(batch, group)
        assert len(shapes) == SIZES["layers"] and all(shape[:2] == mask.shape for shape in shapes)
        own = sum(len(item["codes"]) for item in items) if group == "ar" else model(batch)["nar"].count
        assert mask.sum() == own


def test_every_parameter_is_in_one_component(model):
    for name, _ in model.named_parameters():
        assert sum(any(fnmatchcase(name, g) for g in globs) for globs in model.components.values()) == 1, name


def test_parts_choose_what_is_trained(frontend, items):
    torch.manual_seed(0)
    batch = frontend.collate(items)
    for part, other in (("ar", "nar"), ("nar", "ar")):
        model = model_of(frontend, parts=[part])
        heads = model(batch)
        assert list(heads) == list(model.blocks) == [part]
        scale = 1.0 if part == "ar" else batch["scale"]
        assert heads[part].weight == pytest.approx(scale)
        assert all(n.startswith(f"{part}.") for n in match(model, model.adaptable))
        heads[part].loss().backward()
        assert all(p.grad is None for p in getattr(model, other).parameters())
    assert len(match(model_of(frontend), model_of(frontend).adaptable)) == 2 * 6 * SIZES["layers"]


def test_it_learns_and_frozen_alphas_stay(frontend, items):
    model = model_of(frontend, dropout=0.0)
    torch.manual_seed(0)
    batch = frontend.collate(items)
    before = [model.nar.text_position.alpha.clone(), model.ar.text_position.alpha.clone()]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        loss = sum(head.weight * head.loss() for head in model(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert torch.equal(model.nar.text_position.alpha, before[0]) and not torch.equal(model.ar.text_position.alpha, before[1])


def test_an_adapter_acts_after_loading(frontend, model, items, tmp_path):
    tuned, untouched = copy.deepcopy(model), copy.deepcopy(model)
    wrapped = get_peft_model(tuned.peft_root, LoraConfig(r=4, target_modules=match(model, model.adaptable)))
    batch, _ = batches(frontend, items)
    before = {n: h.logits.detach() for n, h in model(batch).items()}
    optimizer = torch.optim.Adam([p for p in wrapped.parameters() if p.requires_grad], 0.02)
    for _ in range(3):
        optimizer.zero_grad()
        sum(h.loss() for h in tuned(batch).values()).backward()
        optimizer.step()
    wanted = {n: h.logits.detach() for n, h in tuned(batch).items()}
    wrapped.save_pretrained(tmp_path)
    PeftModel.from_pretrained(untouched.peft_root, tmp_path)
    untouched.eval()
    for name, head in untouched(batch).items():
        assert torch.allclose(head.logits, wanted[name], atol=1e-5)
        assert not torch.allclose(head.logits, before[name], atol=1e-2)


def test_the_reference_s_voice_is_heard(frontend, model, utterances):
    request = frontend.request(utterances[0])
    other = replace(request, reference=frontend.request(utterances[1]).reference)
    without = replace(request, reference=None)
    said = [generate(model, [frontend.prompt(r)])[0] for r in (request, other, without)]
    assert all(len(s) for s in said) and not torch.equal(said[0], said[1])


def test_codewords_that_sound_alike_start_alike(frontend):
    model = VALLEX(frontend, **SIZES | {"width": 64}, initial=0.2, codec_embedding=True)
    sound = torch.cdist(*[frontend.codec.embedding().unflatten(0, (SIZES["levels"], -1))] * 2)
    tables = [model.ar.audio_embedding, *model.nar.audio_embeddings]
    for table, level in zip(tables, [0, *range(SIZES["levels"])]):
        rows = table.weight[: SIZES["codewords"]].detach()
        assert torch.corrcoef(torch.stack([torch.cdist(rows, rows).flatten(), sound[level].flatten()]))[0, 1] > 0.95
        assert rows.std() == pytest.approx(0.2, rel=0.1)
    assert model.nar.predict_layers[0].weight is model.nar.audio_embeddings[2].weight


def test_a_new_model_can_begin_by_attending_to_what_is_near(frontend):
    torch.manual_seed(0)
    model = VALLEX(frontend, **SIZES | {"width": 64}, alike=2.0, initial=0.1).eval()
    nothing = torch.zeros(1, 30, dtype=torch.long)
    text = model.ar.text(nothing, nothing, torch.arange(30)[None] * 5 // 2)
    block = model.ar.decoder.layers[0]
    asked, offered = block.norm1(model.ar.audio(torch.zeros(1, 76, dtype=torch.long))), block.norm1(text)
    scores = block.self_attn.query(asked)[0] @ block.self_attn.key(offered)[0].T  # (76, 30)
    nearest = torch.arange(76)[:, None] / 2.5
    assert ((scores.argmax(1, keepdim=True) - nearest).abs()[:70] < 3).float().mean() > 0.9


def test_dropped_codes_are_not_seen_in_training_only(frontend, items):
    dropping = copy.copy(frontend)
    dropping.dropped = 0.5
    torch.manual_seed(0)
    batch, model = dropping.collate(items), model_of(frontend, dropout=0.0)
    plain = {n: t for n, t in batch.items() if n != "seen"}
    own = torch.arange(batch["seen"].shape[1]) > batch["prompt"][:, None]
    assert batch["seen"][~own].all() and 0.3 < batch["seen"][own].float().mean() < 0.7
    assert torch.equal(model(batch)["ar"].logits, model(plain)["ar"].logits)
    model.train()
    assert torch.equal(model(batch)["nar"].logits, model(plain)["nar"].logits)
    assert not torch.allclose(model(batch)["ar"].logits, model(plain)["ar"].logits, atol=1e-3)
    changed = batch["codes"].clone()
    changed[..., 0] = torch.where(batch["seen"][:, 1:], changed[..., 0], (changed[..., 0] + 1) % SIZES["codewords"])
    assert torch.allclose(model(batch | {"codes": changed})["ar"].logits, model(batch)["ar"].logits, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("give ar, nar or both", {"parts": []}),
        ("give ar, nar or both", {"parts": ["s2"]}),
        ("do not fit the codec", {"levels": 3}),
        ("do not fit the codec", {"codewords": 13}),
        ("give at least as many rows", {"phones": 3}),
    ],
)
def test_settings_that_do_not_fit_are_refused(frontend, words, settings):
    with pytest.raises(ConfigError, match=words) as caught:
        VALLEX(frontend, **SIZES | settings)
    assert "\n" not in str(caught.value)


def test_official_size():
    with torch.device("meta"):
        model = VALLEX(plain_frontend())
    counts = [sum(p.numel() for p in part.parameters()) for part in (model, model.ar, model.nar)]
    assert counts == [370_539_524, 155_357_186, 215_182_338]
