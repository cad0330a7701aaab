"""The language-model backbone: what it is trained on, that its cache is exact, and that peft can adapt it."""

import copy
import pickle
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from peft import LoraConfig, PeftModel, get_peft_model

from ttsadapt.adapters import match
from ttsadapt.backbones.decoding import Sampling
from ttsadapt.backbones.qwen_tts import QwenTTS
from ttsadapt.backbones.qwen_tts_frontend import QwenTTSFrontend
from ttsadapt.backbones.qwen_tts_pacing import Pacing
from ttsadapt.backbones.qwen_tts_vocabulary import Vocabulary, speech_rows
from ttsadapt.backbones.speakers import SpeakerStatistics
from ttsadapt.codecs.kmeans import KMeansCodec
from ttsadapt.codecs.mel import MelSpectrogram
from ttsadapt.codecs.semantic import SemanticCodec
from ttsadapt.data.audio import save
from ttsadapt.data.utterance import Phone, Utterance
from ttsadapt.errors import CheckpointError, DataError, TooLong

CONFIG = Path(__file__).parents[3] / "conf/backbone/qwen_tts_tiny.yaml"
SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
}  # fmt: skip


def buzz(seconds: float, pitch: float) -> torch.Tensor:
    time = torch.arange(int(16000 * seconds)) / 16000
    glide = pitch * (1 + 0.2 * torch.sin(6 * time))
    phase = 2 * torch.pi * torch.cumsum(glide / 16000, 0)
    return 0.2 * sum(torch.sin(k * phase) / k for k in range(1, 9)) * (0.6 + 0.4 * torch.cos(9 * time))


@pytest.fixture(scope="module")
def utterances(tmp_path_factory) -> list[Utterance]:
    folder = tmp_path_factory.mktemp("audio")
    made = []
    for i, (symbols, seconds) in enumerate([("_haɪ_", 0.4), ("_bˈoː_", 0.7), ("_kætsɪt_", 1.0), ("_bæt_", 0.5)] * 2):
        phones = ["_", "b", "ˈoː", "_"] if "ˈ" in symbols else list(symbols)
        step = seconds / len(phones)
        aligned = tuple(Phone(p, k * step, (k + 1) * step) for k, p in enumerate(phones))
        speaker, emotion = ("anna", "bert")[i % 2], ("neutral", "happy")[i // 4]
        save(folder / f"{i}.wav", buzz(seconds + 0.01 * i, 110 + 90 * (i % 2) + 5 * i), 16000)
        made.append(Utterance(f"u{i}", folder / f"{i}.wav", symbols, speaker, emotion, duration=seconds, phones=aligned))
    return made


def frontend_of(utterances, **settings) -> QwenTTSFrontend:
    speakers = settings.pop("speakers", SpeakerStatistics(MelSpectrogram()))
    codec = settings.pop("codec", None) or KMeansCodec(bands=[[0, 25], [25, 80]], codewords=12, iterations=4)
    frontend = QwenTTSFrontend(codec, speakers, **settings)
    frontend.fit(utterances)
    return frontend


@pytest.fixture(scope="module", params=[False, True], ids=["positions from left to right", "paced positions"])
def frontend(request, utterances):
    return frontend_of(utterances, paced_positions=request.param)


@pytest.fixture(scope="module")
def model(frontend):
    torch.manual_seed(0)
    model = QwenTTS(frontend, **SIZES, tie_word_embeddings=False, sampling=Sampling(temperature=0.0)).eval()
    with torch.no_grad():  # far from uniform, so that a wrong position or mask shows
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


@pytest.fixture(scope="module")
def items(frontend, utterances):
    return [frontend(u) for u in utterances]


def test_supervised_are_speech_and_end_only(frontend, model, items):
    batch = frontend.collate(items)
    head = model(batch)["tokens"]
    vocabulary = frontend.vocabulary
    assert head.target.min() >= 0 and head.target.max() == frontend.codec.tokens
    rows = torch.where(head.target == frontend.codec.tokens, vocabulary.end, head.target + vocabulary.speech[0])
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
    rows = [*frontend.vocabulary.speech, frontend.vocabulary.end]
    assert torch.allclose(head.logits, full[positions][:, rows], atol=1e-5)


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
        logits = model(frontend.collate([item]))["tokens"].logits[-1]
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


def test_without_voice_and_emotion_the_prompt_is_neutts_s(utterances):
    plain = frontend_of(utterances, speakers=None, emotions=False)
    model = QwenTTS(plain, **SIZES)
    assert model.voice is None and model.offset == 0
    vocabulary, item = plain.vocabulary, plain(utterances[1])
    names = {row: symbol for symbol, row in vocabulary._rows.items()}
    layout = [names[row] for row in item["tokens"].tolist()]
    prompt = ["<|TEXT_PROMPT_START|>", "_", "b", "ˈoː", "_", "<|TEXT_PROMPT_END|>", "<|SPEECH_GENERATION_START|>"]
    assert layout[: int(item["prompt"])] == prompt
    assert layout[-1] == "<|SPEECH_GENERATION_END|>" and layout[len(prompt)].startswith("<|speech_")
    assert model(plain.collate([item, plain(utterances[2])]))["tokens"].loss().isfinite()
    assert len(model.generate([plain.request(utterances[0])])[0]) > 0


def test_paced_positions_put_speech_beside_its_phones(utterances):
    paced = frontend_of(utterances, paced_positions=True)
    item = paced(utterances[2])
    prompt, length = item["tokens"][: item["prompt"]], len(item["tokens"])
    positions = paced.positions(prompt, length).tolist()
    first, phones = 2, len(prompt) - 4  # emotion and start of text before, end of text and start of speech after
    assert len(positions) == length and positions[:3] == [0, 1, 2]
    assert positions[len(prompt) - 1 :] == list(range(first - 1, first - 1 + length - len(prompt) + 1))
    own, tempo = paced.pacing, paced.pacing.tempo["neutral"]
    step = [own.lasting[p.symbol] * tempo * paced.codec.rate for p in utterances[2].phones]
    wanted = [first + round(sum(step[:k])) for k in range(phones + 1)]
    assert positions[first : first + phones + 1] == pytest.approx(wanted, abs=1)
    assert paced.pace[0] <= paced.pace[1] <= paced.pace[2]


def test_pacing_finds_durations_and_tempi(utterances):
    symbols, seconds, tempi = ("a", "b", "_"), (0.1, 0.2, 0.05), {"calm": 1.5, "quick": 0.75}
    made = []
    for i, (emotion, tempo) in enumerate(list(tempi.items()) * 3):
        order = [(k + j) % 3 for k in range(3) for j in range(i % 2 + 1)]
        ends = [sum(seconds[k] * tempo for k in order[: n + 1]) for n in range(len(order))]
        phones = tuple(Phone(symbols[k], end - seconds[k] * tempo, end) for k, end in zip(order, ends))
        made.append(replace(utterances[0], id=f"p{i}", emotion=emotion, phones=phones))
    pacing = Pacing()
    pacing.fit(made, {u.id: [p.symbol for p in u.phones] for u in made})
    for emotion, tempo in tempi.items():
        starts = pacing.starts(["b", "a", "_"], emotion)
        assert starts.tolist() == pytest.approx([0.0, 0.2 * tempo, 0.3 * tempo, 0.35 * tempo], rel=1e-3)
    bare = [replace(utterances[0], phones=(), duration=0.6)]
    pacing.fit(bare, {bare[0].id: ("x", "y", "z")})
    assert pacing.starts(["x", None], None).tolist() == pytest.approx([0.0, 0.2, 0.4])


def test_foreign_phones_fall_back_on_near_ones(frontend):
    rows = frontend.vocabulary
    inner = rows.prompt(["æ", "ˈæ", "æː", "ˈæ̃ː", "ʘ"], "neutral")[2:-2]
    assert len(set(inner[:4])) == 1 and inner[0] == rows.phones.index("æ")
    assert inner[4] == rows._rows["<|unknown|>"]


def test_speech_rows_must_follow_each_other():
    vocabulary = Vocabulary(["a"], [], 5)
    assert vocabulary.speech == range(vocabulary.end + 1, vocabulary.end + 6) and len(vocabulary) == vocabulary.speech[-1] + 1
    shuffled = {"<|speech_0|>": 7, "<|speech_1|>": 9, "<|speech_2|>": 8}
    for table, tokens in ((shuffled, 3), ({"<|speech_0|>": 7}, 2), ({}, 1)):
        with pytest.raises(CheckpointError, match="consecutive"):
            speech_rows(table.get, tokens)


def test_frontend_survives_pickle_and_file(frontend, utterances, items, tmp_path):
    torch.save(frontend.state(), tmp_path / "frontend.pt")
    codec, paced = KMeansCodec(bands=[[0, 25], [25, 80]], codewords=12), frontend.pacing is not None
    restored = QwenTTSFrontend(codec, SpeakerStatistics(MelSpectrogram()), paced_positions=paced)
    restored.restore(torch.load(tmp_path / "frontend.pt", weights_only=True))
    for other in (restored, pickle.loads(pickle.dumps(frontend))):
        for name, value in other(utterances[2]).items():
            assert torch.equal(value, items[2][name])
        assert other.pace == frontend.pace


def test_enrolled_voices_join_and_known_ones_stay(frontend, utterances):
    own = copy.deepcopy(frontend)
    before = own.voices["anna"].clone()
    own.enroll([replace(u, speaker=f"new {u.speaker}") for u in utterances[:2]] + [replace(utterances[1], speaker="anna")])
    assert set(own.voices) == {"anna", "bert", "new anna", "new bert"} and torch.equal(own.voices["anna"], before)
    assert own.request(replace(utterances[0], speaker="new anna")).speaker.shape == (own.speaker_size,)


def test_the_shipped_config_builds(utterances):
    config = OmegaConf.load(CONFIG)
    config.frontend.codec = OmegaConf.merge(config.frontend.codec, {"codewords": 8, "steps": 4, "width": 16})
    frontend = instantiate(config.frontend)
    frontend.fit(utterances)
    model = instantiate(config, frontend=frontend)
    head = model(frontend.collate([frontend(u) for u in utterances[:2]]))["tokens"]
    assert head.loss().isfinite() and head.unit == "tokens"


@pytest.mark.parametrize(
    ("error", "words", "act"),
    [
        (DataError, "speaker 'cleo' is unknown", lambda f, u: f(replace(u, speaker="cleo"))),
        (DataError, "emotion 'bored'", lambda f, u: f.prompt(f.request(replace(u, emotion="bored")))),
        (DataError, "no phones", lambda f, u: f(replace(u, phones=(Phone("_", 0.0, 1.0),)))),
        (DataError, "no recording", lambda f, u: f(replace(u, audio=Path("missing.wav")))),
        (DataError, "no symbols yet", lambda f, u: QwenTTSFrontend(f.codec)(u)),
        (CheckpointError, "emotions, speakers", lambda f, u: QwenTTSFrontend(f.codec).restore(f.state())),
    ],
)
def test_refusals_are_one_line(frontend, utterances, error, words, act):
    with pytest.raises(error) as caught:
        act(frontend, utterances[0])
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_too_long_is_left_out_not_cut(frontend, utterances, items):
    short = copy.copy(frontend)
    short.max_tokens = len(items[0]["tokens"])
    assert torch.equal(short(utterances[0])["tokens"], items[0]["tokens"])
    with pytest.raises(TooLong, match="max_tokens"):
        short(utterances[2])
    short.max_tokens = 8
    with pytest.raises(DataError, match="split the text"):
        QwenTTS(short, **SIZES).generate([short.request(utterances[2])])


def test_aliased_emotions_share_a_token(frontend, utterances):
    own = copy.copy(frontend)
    own.emotion_aliases = {"calm": "neutral"}
    calm, plain = (own.prompt(own.request(replace(utterances[0], emotion=e))) for e in ("calm", "neutral"))
    assert torch.equal(calm, plain)
