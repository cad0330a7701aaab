"""GPT-SoVITS's first stage: what is predicted, that its cache is exact, that adapters act, that references are kept."""

import copy
import pickle
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import torch
from gpt_sovits_helpers import SIZES, Whistle, buzz, frontend_of
from peft import LoraConfig, PeftModel, get_peft_model

from ttsadapt.adapters import match
from ttsadapt.backbones.gpt_sovits.backbone import GptSovits
from ttsadapt.backbones.gpt_sovits.frontend import GptSovitsFrontend
from ttsadapt.data.audio import load
from ttsadapt.data.utterance import Phone
from ttsadapt.errors import ConfigError, DataError, TooLong


@pytest.fixture(scope="module")
def model(frontend):
    torch.manual_seed(0)
    model = GptSovits(frontend, **SIZES, temperature=0.0, repetition_penalty=1.35).eval()
    with torch.no_grad():  # far from uniform, so that a wrong position or mask shows
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


@pytest.fixture(scope="module")
def items(frontend, utterances):
    return [frontend(u) for u in utterances[:8]]


def frontend_audio(utterance):
    return load(utterance.audio, 16000)


@pytest.mark.parametrize(("objective", "pairs"), [("legacy", True), ("current", True), ("legacy", False), ("current", False)])
def test_supervised_are_the_utterance_s_tokens_and_the_end(utterances, objective, pairs):
    frontend = frontend_of(utterances, objective=objective, pairs=pairs)
    model = GptSovits(frontend, **SIZES).eval()
    items = [frontend(u) for u in utterances[:6]]
    batch = frontend.collate(items)
    head = model(batch)["tokens"]
    for i, item in enumerate(items):
        own = frontend.codec.encode(frontend_audio(utterances[i]))
        first = 0 if pairs or objective == "current" else 1
        assert head.target[head.row == i].tolist() == [*own.tolist()[first:], frontend.codec.tokens]
        assert item["tokens"].tolist()[-len(own) :] == own.tolist()
    assert head.count == sum(frontend.lengths(item)["tokens"] for item in items)
    assert head.logits.shape == (head.count, frontend.codec.tokens + 1)


def test_nobody_is_its_own_reference(frontend, utterances):
    codes = {u.id: frontend.codec.encode(frontend_audio(u)).tolist() for u in utterances}
    mates = {u.id: [v.id for v in utterances if (v.speaker, v.emotion) == (u.speaker, u.emotion) and v.id != u.id] for u in utterances}
    for utterance in utterances:
        item = frontend(utterance)
        prompt = item["tokens"][: item["given"]].tolist()
        assert prompt in [codes[i] for i in mates[utterance.id]]
        assert torch.equal(frontend(utterance)["tokens"], item["tokens"])


def test_the_reference_is_of_the_voice_and_emotion_asked_for(frontend, utterances):
    for utterance in utterances:
        found = frontend.references.of(utterance.speaker, utterance.emotion, "here")
        near = {
            i: abs(u.duration - 0.8) for u in utterances for i in [u.id] if (u.speaker, u.emotion) == (utterance.speaker, utterance.emotion)
        }
        assert set(found.ids) == set(sorted(near, key=lambda i: (near[i], i))[:3])
        request = frontend.request(utterance)
        assert request.reference is found.references[0] and torch.equal(request.speaker, found.voice)
    sad = frontend.request(replace(utterances[0], emotion="sad"))
    assert sad.reference is frontend.references.of("anna", "neutral", "here").references[0]


def test_padding_changes_nothing(frontend, model, items):
    batch = frontend.collate(items)
    together = model(batch)["tokens"]
    for i, item in enumerate(items):
        alone = model(frontend.collate([item]))["tokens"]
        assert torch.allclose(alone.logits, together.logits[together.row == i], atol=1e-5)
    for name in ("phones", "tokens"):
        padding = torch.arange(batch[name].shape[1]) >= batch[f"{name[:-1]}_lengths"][:, None]
        assert padding.any()
        batch[name] = batch[name].masked_fill(padding, 3)
    assert torch.allclose(model(batch)["tokens"].logits, together.logits, atol=1e-5)


def test_what_an_item_leaves_out_is_what_a_single_recording_has(utterances, model):
    """With the first token given, the objectives differ in that token's prediction alone."""
    said = {}
    for objective in ("legacy", "current"):
        frontend = frontend_of(utterances, objective=objective, pairs=False)
        said[objective] = model(frontend.collate([frontend(utterances[2])]))["tokens"].logits
    assert torch.allclose(said["legacy"], said["current"][1:], atol=1e-5)


def recomputed(model, request) -> list[int]:
    """Greedy decoding without a cache, from the batch that training would see."""
    frontend, end = model.frontend, model.frontend.codec.tokens
    prompt = frontend.prompt(request)
    least, most = frontend.bounds(len(request.phones))
    said: list[int] = []
    while len(said) < most:
        tokens = torch.cat([prompt.given, torch.tensor(said, dtype=torch.long)])
        item = {
            "phones": prompt.phones,
            "positions": prompt.positions,
            "tokens": tokens,
            "given": torch.tensor(len(tokens)),
            "speaker": request.speaker,
            "frames": torch.tensor(1),
        }
        logits = model(frontend.collate([item | {"frames": torch.tensor(1)}]))["tokens"].logits[-1].detach()
        seen = tokens.unique()
        logits[seen] = torch.where(logits[seen] < 0, logits[seen] * 1.35, logits[seen] / 1.35)
        best = int((logits[:end] if len(said) < least else logits).argmax())
        if best == end:
            break
        said.append(best)
    return said


@torch.no_grad()
def test_cached_greedy_equals_full_recomputation(frontend, model, utterances):
    requests = [frontend.request(u) for u in utterances[:6]]
    for request, tokens in zip(requests, model.generate(requests)):
        assert len(tokens) > 8 and tokens.tolist() == recomputed(model, request)


@torch.no_grad()
def test_a_current_model_speaks_without_reference(utterances, model):
    frontend = frontend_of(utterances, objective="current")
    own = copy.copy(model)
    own.frontend = frontend
    bare = [replace(frontend.request(u), reference=None) for u in utterances[:3]]
    mixed = own.generate([*bare, frontend.request(utterances[3])])
    assert [t.tolist() for t in mixed[:3]] == [recomputed(own, r) for r in bare]


def test_samples_do_not_depend_on_company(frontend, model, utterances):
    sampler = copy.copy(model)
    sampler.sampling = replace(model.sampling, temperature=1.0, top_k=0)
    requests = [frontend.request(u) for u in utterances]
    together = sampler.generate(requests)
    for request, tokens in list(zip(requests, together))[::3]:
        assert torch.equal(sampler.generate([request])[0], tokens)
    assert not torch.equal(sampler.generate([replace(requests[2], seed=1)])[0], together[2])


@pytest.mark.parametrize("wish", [-50.0, 50.0], ids=["never ends by itself", "wants to end at once"])
def test_length_is_bounded(frontend, model, utterances, wish):
    biased, request = copy.deepcopy(model), frontend.request(utterances[2])
    end = frontend.codec.tokens
    biased.ar_predict_layer.forward = lambda x: wish * (torch.arange(end + 1) == end).float().expand(len(x), -1)
    least, most = frontend.bounds(len(request.phones))
    assert len(biased.generate([request])[0]) == (most if wish < 0 else least)
    assert 11 <= least < most <= frontend.max_tokens


def test_synthesis_gives_waveforms_in_the_order_asked(frontend, model, utterances):
    requests = [frontend.request(u) for u in utterances[:3]]
    model.train()
    model.h.layers[0].eval()  # as a frozen block is while others train
    seen: list[int] = []
    audio = model.synthesize(requests, seen.append)
    assert model.training and not model.h.layers[0].training and sum(seen) == 3
    model.eval()
    for request, samples in zip(requests, audio):
        tokens = model.generate([request])[0]
        assert torch.equal(samples, frontend.codec.decode(tokens, request.speaker)) and samples.abs().max() <= 1
    assert len(model.resynthesize(buzz(0.5, 150))) == 12 * 640


def test_block_mask_covers_the_speech_positions_of_a_block(frontend, model, items):
    batch = frontend.collate(items)
    shapes: list[torch.Size] = []
    for block in model.blocks["decoder"].values():
        hook = block.register_forward_hook(lambda m, i, o: shapes.append(o.shape))
        model(batch)
        hook.remove()
    mask = model.block_mask(batch, "decoder")
    assert len(shapes) == SIZES["layers"] and all(shape[:2] == mask.shape for shape in shapes)
    assert mask.sum() == sum(frontend.lengths(item)["tokens"] - 1 for item in items)
    phones = batch["phones"].shape[1]
    assert not mask[:, :phones].any() and mask[0, phones + int(batch["given"][0])]


def test_every_parameter_is_in_one_component(model):
    for name, _ in model.named_parameters():
        assert sum(any(fnmatchcase(name, g) for g in globs) for globs in model.components.values()) == 1, name


def test_adapter_loads_and_speaks(frontend, model, items, utterances, tmp_path):
    names = match(model, model.adaptable)
    assert len(names) == 6 * SIZES["layers"]
    tuned, untouched = copy.deepcopy(model), copy.deepcopy(model)
    wrapped = get_peft_model(tuned.peft_root, LoraConfig(r=4, target_modules=names))
    batch, request = frontend.collate(items), frontend.request(utterances[2])
    before, said = model(batch)["tokens"].logits, model.generate([request])[0]
    optimizer = torch.optim.Adam([p for p in wrapped.parameters() if p.requires_grad], 0.05)
    for _ in range(4):
        optimizer.zero_grad()
        tuned(batch)["tokens"].loss().backward()
        assert all(p.grad is not None for n, p in wrapped.named_parameters() if "lora_" in n)
        optimizer.step()
    wanted = tuned(batch)["tokens"].logits.detach()
    wrapped.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(untouched.peft_root, tmp_path)
    assert all(p.abs().sum() > 0 for n, p in loaded.named_parameters() if "lora_B" in n)
    got = untouched(batch)["tokens"].logits
    assert torch.allclose(got, wanted, atol=1e-5) and not torch.allclose(got, before, atol=1e-2)
    assert not torch.equal(untouched.generate([request])[0], said)  # decoding sees the adapter, too


@pytest.mark.parametrize("codec_embedding", [False, True])
def test_it_learns(frontend, items, codec_embedding):
    torch.manual_seed(0)
    model, batch = GptSovits(frontend, **SIZES, dropout=0.0, codec_embedding=codec_embedding), frontend.collate(items)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        loss = model(batch)["tokens"].loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None for n, p in model.named_parameters() if n != "bert_proj.weight")
    assert losses[-1] < 0.6 * losses[0]


def test_paced_positions_put_tokens_beside_their_phones(utterances):
    frontend = frontend_of(utterances, paced_positions=True)
    request = frontend.request(utterances[2])
    prompt, before = frontend.prompt(request), len(request.reference.phones)
    tokens, own = len(prompt.given), frontend.pacing.starts(request.phones, request.emotion) * frontend.codec.rate
    heard = frontend.pacing.starts(request.reference.phones, None)
    assert prompt.positions[:before].tolist() == (heard[:-1] / heard[-1] * tokens).round().long().tolist()
    assert prompt.positions[before:].tolist() == (tokens + own[:-1]).round().long().tolist()
    item = frontend(utterances[2])
    assert len(item["positions"]) == len(item["phones"]) and int(item["given"]) in item["positions"].tolist()
    torch.manual_seed(0)
    model = GptSovits(frontend, **SIZES, temperature=0.0, repetition_penalty=1.35).eval()
    said = model.generate([request, frontend.request(utterances[0])])[0].tolist()
    assert said == recomputed(model, request)


def test_tokens_are_hidden_in_training_only(frontend, items):
    torch.manual_seed(0)
    model = GptSovits(frontend, **SIZES, dropout=0.0, token_dropout=0.5)
    tokens = items[0]["tokens"][None]
    heard = model.unheard(model.ar_audio_embedding(tokens))
    assert 0 < (heard == 0).all(-1).sum() < tokens.numel()  # whole tokens, not some of their values
    batch = frontend.collate(items)
    model.eval()
    assert torch.equal(model(batch)["tokens"].logits, model(batch)["tokens"].logits)
    assert torch.equal(model.unheard(model.ar_audio_embedding(tokens)), model.ar_audio_embedding(tokens))


def test_text_features_are_heard(frontend, model, items):
    batch = frontend.collate(items[:2])
    plain = model(batch)["tokens"].logits
    shape = (*batch["phones"].shape, SIZES["bert_size"])
    zeros = model(batch | {"bert": torch.zeros(shape)})["tokens"].logits
    assert torch.allclose(plain, zeros, atol=1e-6)
    assert not torch.allclose(plain, model(batch | {"bert": torch.randn(shape)})["tokens"].logits, atol=1e-2)


def test_frontend_survives_pickle_and_file(frontend, utterances, items, tmp_path):
    torch.save(frontend.state(), tmp_path / "frontend.pt")
    restored = GptSovitsFrontend(Whistle(), reference_seconds=0.8, references=3)
    restored.restore(torch.load(tmp_path / "frontend.pt", weights_only=True))
    for other in (restored, pickle.loads(pickle.dumps(frontend))):
        for name, value in other(utterances[2]).items():
            assert torch.equal(value, items[2][name])
        assert other.pace == frontend.pace
        assert other.request(utterances[1]).reference.phones == frontend.request(utterances[1]).reference.phones


def test_enrolled_voices_join_and_known_ones_stay(frontend, utterances):
    own = copy.deepcopy(frontend)
    before = own.request(utterances[0])
    own.enroll([replace(u, speaker="new") for u in utterances[8:12]] + [replace(u, id=f"{u.id} again") for u in utterances])
    after = own.request(utterances[0])
    assert torch.equal(before.speaker, after.speaker) and torch.equal(before.reference.codes, after.reference.codes)
    assert own.request(replace(utterances[0], speaker="new", emotion="neutral")).reference is not None  # from the happy ones


def test_foreign_phones_fall_back_on_near_ones(frontend):
    rows = frontend.table.rows(["æ", "ˈæ", "æː", "ˈæ̃ː", "ʘ"], "here").tolist()
    assert len(set(rows[:4])) == 1 and rows[0] == frontend.table.symbols.index("æ")
    assert rows[4] == frontend.table.symbols.index("<unknown>")


@pytest.mark.parametrize(
    ("error", "words", "act"),
    [
        (DataError, "speaker 'cleo' is unknown", lambda f, u: f(replace(u, speaker="cleo"))),
        (DataError, "no phones", lambda f, u: f(replace(u, phones=(Phone("_", 0.0, 1.0),)))),
        (DataError, "no recording", lambda f, u: f(replace(u, audio=Path("missing.wav")))),
        (DataError, "no phones yet", lambda f, u: GptSovitsFrontend(f.codec).state()),
        (DataError, "lasts 0.5 .. 10 s", lambda f, u: copy.deepcopy(f).enroll([replace(u, speaker="brief", duration=0.2)])),
        (DataError, "give a reference recording", lambda f, u: f.prompt(replace(f.request(u), reference=None))),
        (DataError, "split the text", lambda f, u: f.prompt(replace(f.request(u), phones=("a",) * 600))),
        (TooLong, "max_seconds", lambda f, u: shortened(f)(u)),
        (ConfigError, "objective=modern", lambda f, u: GptSovitsFrontend(f.codec, objective="modern")),
        (ConfigError, "not a multiple", lambda f, u: GptSovits(f, width=50, heads=4)),
        (ConfigError, "symbols", lambda f, u: GptSovits(f, **SIZES, text_rows=3)),
    ],
)
def test_refusals_are_one_line(frontend, utterances, error, words, act):
    with pytest.raises(error) as caught:
        act(frontend, utterances[0])
    assert words in str(caught.value) and "\n" not in str(caught.value)


def shortened(frontend):
    short = copy.copy(frontend)
    short.max_seconds = 1.0
    return short
