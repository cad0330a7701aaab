"""Generative rehearsal on the smallest backbone: what may be said, what is kept, and that it is made once."""

import itertools
import json
from dataclasses import replace

import pytest
import torch

from ttsadapt.artifacts import ensure
from ttsadapt.assembly import Assembly
from ttsadapt.backbones.base import SOURCE
from ttsadapt.data import manifest
from ttsadapt.data.audio import save
from ttsadapt.data.espeak import PAUSE
from ttsadapt.data.placed import _tiled, placed
from ttsadapt.data.spoken import NAME, Spoken
from ttsadapt.errors import ConfigError, DataError
from ttsadapt.metrics.judges.recogniser import Recogniser
from ttsadapt.run import build_data, build_learner, look
from ttsadapt.strategies.generative_rehearsal import GenerativeRehearsal, _plain
from ttsadapt.text.phones import split_stress

ASKED = [
    "base=null", "strategy=[lora,generative_rehearsal]", "strategy.generative_rehearsal.utterances=8",
    "strategy.generative_rehearsal.per=1000", "strategy.generative_rehearsal.recogniser_steps=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def assembly(mini):
    one = Assembly(mini(*ASKED))
    ensure(one.corpus)
    ensure(*one.needs())
    return one


@pytest.fixture
def study(assembly, tmp_path):
    return replace(look(assembly, "generative_rehearsal"), cache=tmp_path)


def strategy(**settings):
    return GenerativeRehearsal(**({"utterances": 8, "per": 1000.0, "recogniser_steps": 1} | settings))


def test_no_text_of_an_evaluation_and_no_unseen_voice_gets_in(assembly, study):
    script = strategy(utterances=60).script(study)
    held_out = {_plain(u.text) for n in assembly.names() if not n.endswith(".train") for u in assembly.utterances(n)}
    unseen = {u.speaker for n in assembly.names() if n.startswith("unseen.") for u in assembly.utterances(n)}
    assert unseen and unseen <= set(study.backbone.frontend.known_speakers), "the frontend knows them: they must be left out"
    assert len(script) == len({u.id for u in script}) == 60
    assert not {_plain(u.text) for u in script} & held_out
    assert {u.speaker for u in script} == {"m1", "f1"}, "the voices of the base, not the target's"
    texts = {u.text for n in ("target.train",) for u in assembly.utterances(n)}
    assert {u.text for u in script} <= texts


def test_an_evaluation_text_in_the_users_own_file_is_left_out(assembly, study, tmp_path):
    test = assembly.utterances("target.test")[0].text
    file = tmp_path / "sentences.txt"
    file.write_text(f"{test.upper()}!\nA sentence of my own.\n")
    assert {u.text for u in strategy(sentences_path=str(file)).script(study)} == {"A sentence of my own."}
    file.write_text(test)
    with pytest.raises(ConfigError, match="sentences_path") as error:
        strategy(sentences_path=str(file)).script(study)
    assert "\n" not in str(error.value)


def test_voices_that_the_base_does_not_know_are_one_clear_line(study):
    assert {u.speaker for u in strategy(speakers=["f1"]).script(study)} == {"f1"}
    for nobody in ("nobody", "m5"):  # m5 is an unseen voice
        with pytest.raises(ConfigError, match="speakers") as error:
            strategy(speakers=[nobody]).script(study)
        assert "\n" not in str(error.value)


def test_what_the_base_spoke_is_what_is_rehearsed(assembly):
    learner, _ = build_learner(assembly)
    data = build_data(assembly, learner)
    mix = learner.strategies["generative_rehearsal"].mix(data.train, None, torch.Generator())
    assert mix.source is data.source and data.source.origin == SOURCE and set(mix.ids) == set(data.source.ids)
    batches = list(data.train_dataloader())
    rehearsed = [i for b in batches for i, o in zip(b["ids"], b["origin"].tolist()) if o == SOURCE]
    assert rehearsed and all(i.startswith("spoken-") for i in rehearsed)
    assert all(torch.isfinite(t) for t in learner.terms(batches[0]).values())


def spoken(study, folder, per=1000.0, script=None):
    judge = Recogniser(study.corpora[0], study.shared, 1)
    return Spoken(folder / "spoken", study.backbone, script or strategy().script(study), judge, per, 0)


def test_a_killed_run_goes_on_where_it_was_and_says_the_same(study, tmp_path, monkeypatch):
    monkeypatch.setattr("ttsadapt.data.spoken.TOGETHER", 3)
    whole, killed = spoken(study, tmp_path / "whole"), spoken(study, tmp_path / "killed")
    ensure(whole)
    speak, calls = study.backbone.synthesize, []

    def until(requests, progress=None):
        calls.append(len(requests))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return speak(requests, progress)

    monkeypatch.setattr(study.backbone, "synthesize", until)
    with pytest.raises(KeyboardInterrupt):
        ensure(killed)
    assert not killed.done
    ensure(killed)
    assert calls == [3, 3, 3, 2], "of eight, the first three are not said again"
    for utterance in whole.utterances:
        wav = f"wavs/{utterance.id}.wav"
        assert (killed.folder / wav).read_bytes() == (whole.folder / wav).read_bytes()
    assert manifest.read(killed.folder, NAME)[0].phones == whole.utterances[0].phones
    assert list(killed.folder.parent.glob(".*.part")) == []


class Told:
    """In the place of a recogniser: hears `said` in everything, each phone for 20 ms in the middle of its time."""

    version = "told"

    def __init__(self, utterance):
        self.said = [p for p in utterance.phones if p.symbol != PAUSE]
        self.card = {"phones": sorted({split_stress(p.symbol)[0] for p in self.said})}

    def transcribe(self, audio):
        return tuple(split_stress(p.symbol)[0] for p in self.said)

    def model(self, audio, samples):
        logits = torch.zeros(1, int(samples[0]) // 320 + 1, 1 + len(self.card["phones"]))
        logits[0, :, 0] = 5.0
        for phone, name in zip(self.said, self.transcribe(audio)):
            step = min(round((phone.start + phone.end) / 2 * 50), logits.shape[1] - 1)
            logits[0, step, self.card["phones"].index(name) + 1] = 10.0
        return logits


def noise(utterance):
    """(samples,) as long as the utterance, with nothing that could be trimmed."""
    return 0.1 * torch.randn(round(utterance.duration * 16000), generator=torch.Generator().manual_seed(0))


def test_what_is_not_understood_is_not_kept(assembly, study, tmp_path):
    right, wrong = assembly.utterances("source.train")[:2]
    one = Spoken(tmp_path / "spoken", study.backbone, [right, wrong, replace(right, id="silent")], Told(right), 10.0, 0)
    work = one.folder.with_name(f".{one.folder.name}.part")
    for utterance in one.script:  # as if they had been spoken before the process was killed
        save(one._in(work, utterance).audio, noise(right) * (utterance.id != "silent"), 16000)
    one.produce()
    (kept,) = one.utterances
    assert kept.id == right.id and kept.audio == one.folder / "wavs" / f"{right.id}.wav" and kept.audio.is_file()
    assert [p.symbol for p in kept.phones] == [p.symbol for p in right.phones]
    assert json.loads((one.folder / "card.json").read_text()) == {"spoken": 3, "kept": 1, "per": 10.0, "judge": "told"}
    none = Spoken(tmp_path / "none", study.backbone, [wrong], Told(right), 10.0, 0)
    save(none._in(none.folder.with_name(".none.part"), wrong).audio, noise(right), 16000)
    with pytest.raises(DataError, match="generative rehearsal: none of the 1 utterances") as error:
        none.produce()
    assert "\n" not in str(error.value) and not none.done


def test_phones_tile_the_audio_and_pauses_stand_in_the_gaps():
    phones = _tiled(["_", "a", "_", "b", "c"], [(0.3, 0.4), (1.0, 1.1), (1.3, 1.4)], 2.0)
    assert [p.symbol for p in phones] == ["_", "a", "_", "b", "c"]
    assert [round(p.start, 3) for p in phones] == [0.0, 0.3, 0.6, 0.8, 1.2] and phones[-1].end == 2.0
    assert all(a.end == b.start for a, b in itertools.pairwise(phones))
    ended = _tiled(["a", "_"], [(0.2, 0.5)], 1.0)
    assert ended[0].start == 0.0 and ended[0].end == pytest.approx(0.5 + 0.5 / 3) and ended[1].end == 1.0


def test_phones_lie_where_they_are_heard(assembly):
    utterance = max(assembly.utterances("source.train"), key=lambda u: len(u.phones))
    symbols = [p.symbol for p in utterance.phones]
    got = placed(Told(utterance), noise(utterance), symbols)
    assert got is not None and [p.symbol for p in got] == symbols
    for phone, known in zip(got, utterance.phones):
        if phone.symbol != PAUSE:
            assert phone.start - 0.02 <= (known.start + known.end) / 2 <= phone.end + 0.02
    assert got[0].start == 0 and got[-1].end == pytest.approx(utterance.duration, abs=1e-3)
    assert placed(Told(utterance), torch.zeros(16000), symbols) is None, "silence"
    assert placed(Told(utterance), noise(utterance), ["no such phone"]) is None
    assert placed(Told(utterance), noise(utterance)[:3200], symbols * 9) is None, "more phones than there is time for"
