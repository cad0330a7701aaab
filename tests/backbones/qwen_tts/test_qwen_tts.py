"""The language-model backbone: what it is trained on, that its cache is exact, and that peft can adapt it."""

import copy
from dataclasses import replace
from fnmatch import fnmatchcase

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from backbones.qwen_tts.small_qwen import SIZES, buzz, frontend_of
from ttsadapt.adapters import match
from ttsadapt.backbones.decoding import Sampling
from ttsadapt.backbones.qwen_tts import QwenTTS
from ttsadapt.backbones.qwen_tts_frontend import QwenTTSFrontend
from ttsadapt.backbones.speakers import SpeakerStatistics
from ttsadapt.codecs.mel import MelSpectrogram
from ttsadapt.codecs.semantic import SemanticCodec


def test_supervised_are_speech_and_end_only(frontend, model, items):
    batch = frontend.collate(items)
    head = model(batch)["tokens"]
    vocabulary = frontend.vocabulary
    assert head.target.min() >= 0 and head.target.max() == frontend.codec.tokens
    rows = torch.tensor(model.classes)[head.target]
    for i, item in enumerate(items):
        expected = item["tokens"][item["prompt"] :]
        assert torch.equal(rows[head.row == i], expected)
        assert expected[-1] == frontend.vocabulary.end
        assert set(expected[:-1].tolist()) <= set(frontend.vocabulary.speech)
        assert not set(item["tokens"][: item["prompt"]].tolist()) & {*vocabulary.speech, vocabulary.end}
    assert head.count == sum(frontend.lengths(item)["tokens"] for item in items)
    assert head.logits.shape == (head.count, frontend.codec.tokens + 1)


def test_padding_changes_nothing(frontend, model, items):
    together = model(frontend.collate(items))["tokens"]
    for i, item in enumerate(items):
        alone = model(frontend.collate([item]))["tokens"]
        assert torch.allclose(alone.logits, together.logits[together.row == i], atol=1e-5)
    batch = frontend.collate(items)
    batch["tokens"] = batch["tokens"].masked_fill(~batch["mask"], frontend.vocabulary.speech[3])
    disturbed = model(batch)["tokens"]
    assert disturbed.count == together.count
    assert torch.allclose(disturbed.logits, together.logits, atol=1e-5)


def test_lazy_projection_is_the_model_s_own(frontend, model, items):
    """Logits of the wanted rows equal those of the whole language model at the same positions."""
    batch = frontend.collate(items[:1])
    head = model(batch)["tokens"]
    embedded = torch.cat([model.voice(batch["speaker"])[:, None], model.lm.get_input_embeddings()(batch["tokens"])], 1)
    numbered = torch.cat([torch.zeros(1, 1, dtype=torch.long), batch["positions"] + 1], 1)
    full = model.lm(inputs_embeds=embedded, position_ids=numbered, attention_mask=torch.ones_like(numbered)).logits[0]
    positions = torch.arange(int(batch["prompt"][0]), batch["tokens"].shape[1])
    assert sorted(model.classes) == sorted([*frontend.vocabulary.speech, frontend.vocabulary.end])
    assert torch.allclose(head.logits, full[positions][:, list(model.classes)], atol=1e-5)


def recomputed(model, request) -> list[int]:
    """Greedy decoding without a cache, from the batch that training would see."""
    frontend = model.frontend
    first, end = frontend.vocabulary.speech[0], frontend.vocabulary.end
    limit = model.generate([request])[0].numel()
    tokens = prompt = frontend.prompt(request)
    said: list[int] = []
    while len(said) < limit:
        probe = torch.cat([tokens, torch.tensor([end])])
        item = {"tokens": probe, "prompt": torch.tensor(len(prompt)), "speaker": request.speaker, "frames": torch.tensor(1)}
        logits = model(frontend.collate([item]))["tokens"].logits[-1][model.classes.index(first) :]
        allowed = frontend.codec.allowed(len(said))
        said.append(allowed.start + int(logits[allowed.start : allowed.stop].argmax()))
        tokens = torch.cat([tokens, torch.tensor([first + said[-1]])])
    return said


@torch.no_grad()
def test_cached_greedy_equals_full_recomputation(frontend, model, utterances):
    requests = [frontend.request(u) for u in utterances[:4]]
    cached = model.generate(requests)
    assert all(len(tokens) > 4 for tokens in cached)
    for request, tokens in zip(requests, cached):
        assert tokens.tolist() == recomputed(model, request)


def test_samples_do_not_depend_on_company(frontend, model, utterances):
    sampler = copy.copy(model)
    sampler.sampling = Sampling()
    requests = [frontend.request(u) for u in utterances]
    together = sampler.generate(requests)
    for request, tokens in list(zip(requests, together))[::3]:
        assert torch.equal(sampler.generate([request])[0], tokens)
    again = sampler.generate([replace(requests[2], seed=1)])[0]
    assert not torch.equal(again, together[2])


@pytest.mark.parametrize("wish", [-50.0, 50.0], ids=["never ends by itself", "wants to end at once"])
def test_length_is_bounded_by_the_pace_of_pretraining(frontend, model, utterances, wish):
    request, biased = frontend.request(utterances[2]), copy.deepcopy(model)
    end = frontend.codec.tokens
    biased.project = lambda hidden: wish * (torch.arange(end + 1) == end).float().expand(len(hidden), -1)
    tokens = biased.generate([request])[0]
    low, _, high = (bound * len(request.phones) for bound in frontend.pace)
    assert len(tokens) % frontend.codec.levels == 0
    assert low / 1.5 - 1 <= len(tokens) <= high * 1.5 + frontend.codec.levels
    assert (len(tokens) > high) == (wish < 0)


def test_synthesis_gives_waveforms_in_the_order_asked(frontend, model, utterances):
    requests = [frontend.request(u) for u in utterances[:3]]
    model.train()
    model.lm.model.layers[0].eval()  # as a frozen block is while others train
    seen: list[int] = []
    audio = model.synthesize(requests, seen.append)
    assert model.training and not model.lm.model.layers[0].training and sum(seen) == 3
    model.eval()
    for request, samples in zip(requests, audio):
        expected = frontend.codec.decode(model.generate([request])[0])
        assert samples.shape == expected.shape and torch.allclose(samples, expected, atol=1e-5)
        assert samples.abs().max() <= 1
    ceiling = model.resynthesize(buzz(0.5, 150))
    assert abs(len(ceiling) - 8000) < 600


def test_block_mask_covers_the_speech_positions_of_a_block(frontend, model, items):
    batch = frontend.collate(items)
    shapes: list[torch.Size] = []
    for block in model.blocks["backbone"].values():
        hook = block.register_forward_hook(lambda m, i, o: shapes.append((o[0] if isinstance(o, tuple) else o).shape))
        model(batch)
        hook.remove()
    mask = model.block_mask(batch, "backbone")
    assert len(shapes) == SIZES["num_hidden_layers"] and all(shape[:2] == mask.shape for shape in shapes)
    assert mask.sum() == sum(frontend.lengths(item)["tokens"] - 1 for item in items)


def test_every_parameter_is_in_one_component(model):
    for name, _ in model.named_parameters():
        assert sum(any(fnmatchcase(name, g) for g in globs) for globs in model.components.values()) == 1, name


def test_adapter_of_the_inner_model_loads_and_speaks(frontend, model, items, tmp_path):
    names = [n.removeprefix("lm.") for n in match(model, model.adaptable)]
    assert len(names) == 7 * SIZES["num_hidden_layers"]
    tuned, untouched = copy.deepcopy(model), copy.deepcopy(model)
    wrapped = get_peft_model(tuned.peft_root, LoraConfig(r=4, target_modules=names))
    batch = frontend.collate(items)
    before = model(batch)["tokens"].logits
    optimizer = torch.optim.Adam([p for p in wrapped.parameters() if p.requires_grad], 0.02)
    for _ in range(3):
        optimizer.zero_grad()
        tuned(batch)["tokens"].loss().backward()
        optimizer.step()
    wanted = tuned(batch)["tokens"].logits.detach()
    wrapped.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(untouched.peft_root, tmp_path)
    assert all(p.abs().sum() > 0 for n, p in loaded.named_parameters() if "lora_B" in n)
    got = untouched(batch)["tokens"].logits
    assert torch.allclose(got, wanted, atol=1e-5)
    assert not torch.allclose(got, before, atol=1e-2)


@pytest.mark.parametrize("tied", [False, True])
def test_codewords_that_sound_alike_start_alike(frontend, tied):
    torch.manual_seed(0)
    model = QwenTTS(frontend, **SIZES | {"hidden_size": 128}, tie_word_embeddings=tied, codec_embedding=True)
    speech = frontend.vocabulary.speech
    sound = torch.cdist(*[frontend.codec.embedding()[:12]] * 2)
    for table in (model.lm.get_input_embeddings().weight, model.lm.get_output_embeddings().weight):
        rows = table[speech.start : speech.start + 12].detach()
        pairs = torch.stack([torch.cdist(rows, rows).flatten(), sound.flatten()])
        assert torch.corrcoef(pairs)[0, 1] > 0.95
        assert rows.std() < 0.5


def test_it_learns(frontend, items):
    torch.manual_seed(0)
    model, batch = QwenTTS(frontend, **SIZES), frontend.collate(items)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        loss = model(batch)["tokens"].loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None for p in model.parameters())
    assert losses[-1] < 0.5 * losses[0]


def test_voice_and_emotion_are_heard(frontend, model, utterances):
    request = frontend.request(utterances[0])
    said = [frontend.prompt(r).tolist() for r in (request, replace(request, emotion="happy"))]
    assert said[0] != said[1] and said[0][1:] == said[1][1:]
    item = frontend(utterances[0])
    other = item | {"speaker": frontend.voices["bert"]}
    logits = [model(frontend.collate([i]))["tokens"].logits for i in (item, other)]
    assert not torch.allclose(*logits, atol=1e-3)


def test_a_codec_without_the_voice_in_its_tokens_is_told_it(utterances, tmp_path):
    small = {"codewords": 24, "latent": 8, "width": 16, "steps": 6}
    told = frontend_of(utterances, codec=SemanticCodec(**small))
    assert {s: sorted(own) for s, own in told.timbres.items()} == {s: ["happy", "neutral"] for s in ("anna", "bert")}
    request = told.request(utterances[0])
    assert request.speaker.tolist() == [*told.voices["anna"].tolist(), *told.timbres["anna"]["neutral"].tolist()]
    tokens = torch.arange(20) % 24
    said = told.decode(tokens, request)
    assert torch.equal(said, told.codec.decode(tokens, told.timbres["anna"]["neutral"]))
    assert not torch.equal(said, told.decode(tokens, told.request(replace(utterances[0], speaker="bert"))))
    model = QwenTTS(told, **SIZES)
    assert model(told.collate([told(utterances[0])]))["tokens"].loss().isfinite()
    (wave,) = model.synthesize([request])
    assert torch.equal(wave, told.decode(model.generate([request])[0], request))
    assert len(model.resynthesize(buzz(0.5, 150))) > 7000
    before = told.timbres["anna"]["neutral"].clone()
    told.enroll([replace(u, speaker="cleo") for u in utterances[4:6]] + [replace(utterances[1], speaker="anna")])
    assert torch.equal(told.timbres["anna"]["neutral"], before)
    assert torch.equal(told.timbre("cleo", "angry", "x"), told.timbres["cleo"]["happy"])
    torch.save(told.state(), tmp_path / "told.pt")
    again = QwenTTSFrontend(SemanticCodec(**small), SpeakerStatistics(MelSpectrogram()))
    again.restore(torch.load(tmp_path / "told.pt", weights_only=True))
    assert torch.equal(again.decode(tokens, again.request(utterances[0])), said)


def test_in_training_a_share_of_the_speech_is_not_heard(utterances):
    torch.manual_seed(0)
    deaf = frontend_of(utterances, dropped=0.4)
    model, items = QwenTTS(deaf, **SIZES), [deaf(u) for u in utterances]
    batch = deaf.collate(items)
    position = torch.arange(batch["tokens"].shape[1])
    speech = batch["mask"] & (position >= batch["prompt"][:, None])
    assert batch["heard"][~speech & batch["mask"]].all()
    assert 0.3 < (~batch["heard"][speech]).float().mean() < 0.5
    assert not torch.equal(deaf.collate(items)["heard"], batch["heard"])
    whole = {k: v for k, v in batch.items() if k != "heard"}
    said, clean = model(batch)["tokens"].logits, model(whole)["tokens"].logits
    assert not torch.allclose(said, clean, atol=1e-3)
    model.eval()
    assert torch.equal(model(batch)["tokens"].logits, model(whole)["tokens"].logits)
    with torch.no_grad():  # what is not heard has no effect at all
        other = batch["tokens"].where(batch["heard"] | ~speech, deaf.vocabulary.speech[2])
        model.train()
        assert torch.equal(model(batch)["tokens"].hidden, model(batch | {"tokens": other})["tokens"].hidden)
