"""The frontend of models that are trained from scratch: symbols, positions, voices, what it refuses."""

import copy
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from backbones.qwen_tts.small_qwen import SIZES, frontend_of
from ttsadapt.backbones.pacing import Pacing
from ttsadapt.backbones.qwen_tts import QwenTTS
from ttsadapt.backbones.qwen_tts_frontend import QwenTTSFrontend
from ttsadapt.backbones.qwen_tts_vocabulary import Vocabulary, speech_rows
from ttsadapt.backbones.speakers import SpeakerStatistics
from ttsadapt.codecs.kmeans import KMeansCodec
from ttsadapt.codecs.mel import MelSpectrogram
from ttsadapt.data.utterance import Phone
from ttsadapt.errors import CheckpointError, DataError, TooLong

CONFIG = Path(__file__).parents[3] / "conf/backbone/qwen_tts_tiny.yaml"


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
    config = OmegaConf.load(CONFIG).backbone
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
