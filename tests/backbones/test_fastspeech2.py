import pickle
from fnmatch import fnmatch
from pathlib import Path

import pytest
import soundfile
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from ttsadapt.backbones.base import Request
from ttsadapt.backbones.fastspeech2 import FastSpeech2
from ttsadapt.backbones.fastspeech2_frontend import FastSpeech2Frontend, frame_durations, interpolated
from ttsadapt.backbones.parts import PostNet, evaluating, regulate
from ttsadapt.backbones.speakers import SpeakerStatistics, log_f0, spread
from ttsadapt.data.utterance import Phone, Utterance
from ttsadapt.errors import DataError
from ttsadapt.heads import task_loss

PITCH = {"ann": 210.0, "bob": 110.0, "cid": 150.0}
FORMANT = {"_": 0.0, "ˈa": 700.0, "ɪ": 350.0, "l": 500.0, "s": 4000.0}
SIZES = {"width": 16, "encoder_blocks": 1, "decoder_blocks": 2, "hidden": 24, "kernel": 3, "dropout": 0.0}
PREDICTORS = {"predictor_hidden": 16, "predictor_dropout": 0.0}


def spoken(symbols: list[str], hertz: float, seed: int, rate: int = 16000) -> tuple[torch.Tensor, tuple[Phone, ...]]:
    """Harmonics under one formant a phone, 60 to 120 ms each; pauses are quiet noise."""
    noise = torch.Generator().manual_seed(seed)
    lengths = (60 + 60 * torch.rand(len(symbols), generator=noise)) / 1000
    ends = (lengths.cumsum(0) * rate).long().tolist()
    starts = [0, *ends[:-1]]
    t, frequencies = torch.arange(ends[-1]) / rate, hertz * torch.arange(1, 30)
    harmonics = torch.sin(2 * torch.pi * frequencies[:, None] * t)
    wave = 1e-3 * torch.randn(ends[-1], generator=noise)
    for symbol, start, end in zip(symbols, starts, ends):
        if FORMANT[symbol]:
            gains = torch.exp(-(((frequencies - FORMANT[symbol]) / 300) ** 2))
            wave[start:end] += 0.1 * (gains[:, None] * harmonics[:, start:end]).sum(0)
    return wave.clamp(-1, 1), tuple(Phone(s, a / rate, b / rate) for s, a, b in zip(symbols, starts, ends))


@pytest.fixture(scope="module")
def utterances(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    folder = tmp_path_factory.mktemp("corpus")
    texts = [["_", "ˈa", "l", "ɪ", "s", "_"], ["l", "ɪ", "ˈa"], ["_", "s", "ˈa", "s", "ɪ", "l", "ˈa", "l", "_"]]
    made = []
    for i, (speaker, hertz) in enumerate(PITCH.items()):
        for k, symbols in enumerate(texts):
            wave, phones = spoken(symbols, hertz * (1 + 0.1 * k), 10 * i + k)
            path = folder / f"{speaker}{k}.wav"
            soundfile.write(path, wave.numpy(), 16000, subtype="FLOAT")
            emotion = ("neutral", "happy")[k % 2]
            made.append(Utterance(path.stem, path, "text", speaker, emotion, duration=len(wave) / 16000, phones=phones))
    return made


@pytest.fixture(scope="module")
def frontend(utterances: list[Utterance]) -> FastSpeech2Frontend:
    fitted = FastSpeech2Frontend()
    fitted.fit([u for u in utterances if u.speaker != "cid"])
    fitted.enroll(utterances)
    return fitted


@pytest.fixture
def model(frontend: FastSpeech2Frontend) -> FastSpeech2:
    torch.manual_seed(0)
    return FastSpeech2(frontend, **SIZES, **PREDICTORS, postnet=PostNet(80, 8, layers=3, dropout=0.0))


@pytest.fixture
def features(frontend: FastSpeech2Frontend, utterances: list[Utterance]) -> list[dict[str, torch.Tensor]]:
    return [frontend(u) for u in utterances]


# Frontend ----------------------------------------------------------------------------------------------------------------


def test_features_are_consistent(frontend, utterances, features):
    for utterance, item in zip(utterances, features):
        assert item["durations"].sum() == len(item["mel"]) == 1 + soundfile.info(utterance.audio).frames // 256
        assert item["durations"].min() >= 1
        assert {len(item[name]) for name in ("phones", "stress", "durations", "pitch", "energy")} == {len(utterance.phones)}
        assert frontend.lengths(item) == {"frames": len(item["mel"]), "phones": len(utterance.phones)}
        assert all(torch.isfinite(value).all() for value in item.values())
    stress = dict(zip((p.symbol for p in utterances[0].phones), features[0]["stress"].tolist()))
    assert stress["ˈa"] == 1 and stress["l"] == 0


def test_durations_follow_the_phones(utterances):
    durations = frame_durations(utterances[0].phones, 40, 62.5)
    for phone, frames in list(zip(utterances[0].phones, durations.tolist()))[:-1]:
        assert abs(frames / 62.5 - (phone.end - phone.start)) <= 1 / 62.5 + 1e-6
    short = [Phone("a", 0, 0.001), Phone("b", 0.001, 0.002), Phone("c", 0.002, 0.1), Phone("d", 0.1, 0.1001)]
    assert frame_durations(short, 7, 62.5).tolist() == [1, 1, 4, 1]
    with pytest.raises(ValueError, match="4 phones do not fit into 3 frames"):
        frame_durations(short, 3, 62.5)


def test_pitch_is_measured_in_hertz(frontend, utterances, features):
    mean, std = frontend.scales["pitch"]
    for i in (0, 3, 6):  # neutral at the speaker's own pitch
        hertz = (features[i]["pitch"] * std + mean).exp()
        assert hertz.median().item() == pytest.approx(PITCH[utterances[i].speaker], rel=0.03)
    silence = log_f0(torch.zeros(8000), frontend.mel)
    assert silence.isnan().all() and len(silence) == frontend.mel.frames(8000)


def test_pitch_is_interpolated_through_the_unvoiced():
    nan = float("nan")
    assert interpolated(torch.tensor([nan, 1.0, nan, 3.0, nan])).tolist() == [1, 1, 2, 3, 3]


def test_state_round_trip(frontend, utterances, features, tmp_path):
    torch.save(frontend.state(), tmp_path / "state.pt")
    other = FastSpeech2Frontend()
    other.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    for one in (other, pickle.loads(pickle.dumps(frontend))):
        again = one(utterances[2])
        assert all(torch.equal(again[name], value) for name, value in features[2].items())
    more = Utterance("x", utterances[8].audio, "t", "dan", phones=utterances[8].phones)
    other.enroll([more])
    torch.testing.assert_close(other.voice("dan"), frontend.statistics.vectors([more])["dan"])


def test_a_request_does_not_look_at_the_recording(frontend, utterances):
    gone = Utterance("x", Path("nowhere.wav"), "t", "cid", "happy", phones=utterances[0].phones)
    request = frontend.request(gone)
    assert request.phones == tuple(p.symbol for p in utterances[0].phones)
    assert request.emotion == "happy" and torch.equal(request.speaker, frontend.voice("cid"))


def test_mistakes_are_told_in_one_line(frontend, utterances):
    first = utterances[0]
    cases = {
        "data/bring/align=learned learns it from the recordings": Utterance("u1", first.audio, "t", "ann"),
        "unknown speaker 'eve': known are ann, bob, cid": Utterance("u2", first.audio, "t", "eve", phones=first.phones),
        "unknown emotion 'excited': the model knows happy, neutral": Utterance(
            "u3", first.audio, "t", "ann", "excited", phones=first.phones
        ),
        "align the data again": Utterance("u4", first.audio, "t", "ann", phones=(Phone("ˈa", 0, 9.0),)),
    }
    for message, utterance in cases.items():
        with pytest.raises(DataError) as caught:
            frontend(utterance)
        assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("word", "meant"), [("Joyful", "happy"), ("smug", "<one of these>")])
def test_an_alias_is_suggested_by_meaning(frontend, word, meant):
    with pytest.raises(DataError, match=rf"emotion_aliases\.{word}={meant}$"):
        frontend.emotion(word)


def test_emotion_aliases(frontend, utterances):
    other = FastSpeech2Frontend(emotion_aliases={"excited": "happy"})
    other.restore(frontend.state())
    assert other.emotion("excited") == other.emotion("happy")


def test_unknown_phones_fall_back_aloud(frontend, caplog):
    other = FastSpeech2Frontend()
    other.restore(frontend.state())
    ids, stress = other.encode(["ɪː", "ˈaʊ", "œ", "ʃ", "ʃ"])
    names = [other.symbols[i - 1] for i in ids.tolist()]
    assert names[:2] == ["ɪ", "a"] and stress.tolist() == [0, 1, 0, 0, 0]
    assert names[2] in ("ɪ", "a") and names[3] in ("l", "s", "_")  # vowel for vowel
    assert other.replaced == {"ɪː": 1, "aʊ": 1, "œ": 1, "ʃ": 2}
    assert len(caplog.records) == 1


# Voices ------------------------------------------------------------------------------------------------------------------


def test_voice_vectors_tell_voices_apart(frontend, utterances):
    statistics = SpeakerStatistics(frontend.mel)
    fitted = statistics.fit(utterances)
    again = statistics.vectors(list(reversed(utterances)))
    assert set(again) == set(PITCH)
    for name, vector in fitted.items():
        assert vector.shape == (statistics.size,) and vector.abs().max() <= 4
        torch.testing.assert_close(again[name], vector)
    order = sorted(fitted, key=lambda name: float(fitted[name][-2]))  # mean log F0
    assert order == ["bob", "cid", "ann"]
    restored = SpeakerStatistics(frontend.mel)
    restored.restore(statistics.state())
    torch.testing.assert_close(restored.vectors(utterances[:3])["ann"], fitted["ann"])


def test_recordings_are_spread_over_emotions():
    many = [Utterance(f"{i:03}", Path("x"), "t", "ann", ("a", "b", "c")[i % 3]) for i in range(90)]
    chosen = spread(many, 9)
    assert [sum(u.emotion == e for u in chosen) for e in "abc"] == [3, 3, 3]
    assert spread(many[::-1], 9) == chosen and len(spread(many[:4], 9)) == 4


# Model -------------------------------------------------------------------------------------------------------------------


def test_regulation_equals_the_loop():
    x, durations = torch.randn(3, 5, 4), torch.tensor([[1, 3, 2, 0, 4], [2, 2, 0, 0, 0], [1, 1, 1, 1, 1]])
    out, share = regulate(x, durations, 10)
    for b in range(3):
        rows = [(x[b, p], (k + 0.5) / int(n)) for p, n in enumerate(durations[b]) for k in range(int(n))]
        torch.testing.assert_close(out[b, : len(rows)], torch.stack([row for row, _ in rows]))
        torch.testing.assert_close(share[b, : len(rows)], torch.tensor([s for _, s in rows]))


def test_heads_hold_supervised_positions_only(model, features):
    batch = model.frontend.collate(features)
    heads = model(batch)
    assert set(heads) == {"mel", "postnet", "duration", "pitch", "energy"}
    for head in heads.values():
        assert head.count == sum(model.frontend.lengths(item)[head.unit] for item in features)
        assert head.value.shape == head.target.shape
    torch.testing.assert_close(heads["mel"].target, torch.cat([item["mel"] for item in features]))
    for group, blocks in model.blocks.items():
        mask = model.block_mask(batch, group)
        assert mask.sum() == heads[{"encoder": "duration", "decoder": "mel"}[group]].count and blocks


def test_company_changes_nothing(model, features):
    model.eval()
    together = model(model.frontend.collate(features))
    for b, item in enumerate(features):
        alone = model(model.frontend.collate([item]))
        keep = torch.arange(len(features)) == b
        for name, head in together.items():
            torch.testing.assert_close(head.select(keep).value, alone[name].value, atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_parameter(model, features):
    sum(task_loss(model(model.frontend.collate(features))).values()).backward()
    # A key's bias moves all of a query's scores alike: softmax does not see it.
    dead = [n for n, p in model.named_parameters() if (p.grad is None or not p.grad.any()) and "attention.key.bias" not in n]
    assert dead == []


def test_weights_of_heads(frontend, features):
    model = FastSpeech2(frontend, **SIZES, **PREDICTORS, weights={"pitch": 0.25})
    heads = model(frontend.collate(features[:2]))
    assert "postnet" not in heads
    assert {name: head.weight for name, head in heads.items()} == {"mel": 1, "duration": 1, "pitch": 0.25, "energy": 1}


def test_names_match_what_they_promise(model):
    modules = dict(model.named_modules())
    adaptable = [m for name, m in modules.items() if any(fnmatch(name, glob) for glob in model.adaptable)]
    assert len(adaptable) == 3 * 6 + 3 * 2 and all(isinstance(m, nn.Linear | nn.Conv1d) for m in adaptable)
    for name, _ in model.named_parameters():
        assert sum(any(fnmatch(name, glob) for glob in globs) for globs in model.components.values()) == 1, name


def test_synthesis_is_independent_of_the_company(model, frontend, utterances):
    model.train()
    model.decoder.eval()
    requests = [frontend.request(u) for u in utterances]
    done: list[int] = []
    waves = model.synthesize(requests, done.append)
    assert model.training and model.encoder.training and not model.decoder.training
    assert sum(done) == len(requests)
    for i in (0, 4, 8):
        alone = model.synthesize([requests[i]])[0]
        assert alone.shape == waves[i].shape and alone.ndim == 1 and alone.abs().max() <= 1
        with evaluating(model):
            solo, group = model.predict_mel([requests[i]])[0], model.predict_mel(requests)[i]
        torch.testing.assert_close(solo, group, atol=1e-4, rtol=1e-5)
    assert model.synthesize([]) == []
    with pytest.raises(DataError, match="has no phones"):
        model.synthesize([Request("empty", (), requests[0].speaker)])


def test_resynthesis_keeps_the_mel(model, utterances):
    wave, _ = soundfile.read(utterances[2].audio, dtype="float32")
    audio = torch.from_numpy(wave)
    again = model.resynthesize(audio)
    assert again.shape == audio.shape
    mel = model.frontend.mel
    loud = mel(audio).mean(-1) > mel(audio).mean(-1).median()
    assert (mel(again) - mel(audio))[loud].abs().mean() < 0.3  # nats


def test_learning_makes_the_voice(frontend, features):
    """A few steps halve the loss."""
    torch.manual_seed(0)
    model = FastSpeech2(frontend, **SIZES | {"width": 32, "hidden": 48}, **PREDICTORS)
    batch = frontend.collate(features[:4])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(20):
        loss = sum(task_loss(model(batch)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_lora_on_linears_and_convolutions_learns(frontend, features):
    torch.manual_seed(0)
    model = FastSpeech2(frontend, **SIZES, **PREDICTORS)
    names = [n for n, _ in model.named_modules() if any(fnmatch(n, glob) for glob in model.adaptable)]
    batch = frontend.collate(features[:2])
    before = model(batch)["mel"].value.detach()
    inject_adapter_in_model(LoraConfig(r=2, target_modules=names), model)
    torch.testing.assert_close(model(batch)["mel"].value, before)  # B starts at 0
    trained = {n: p for n, p in model.named_parameters() if "lora_" in n}
    assert len(trained) == 2 * len(names)
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    for _ in range(2):  # A's gradient is 0 until B has moved
        optimizer.zero_grad()
        sum(task_loss(model(batch)).values()).backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.any() for p in trained.values())
    assert not torch.allclose(model(batch)["mel"].value, before)
