"""A part of the target, chosen from a corpus that is prepared once."""

import numpy as np
import pytest
import soundfile

from ttsadapt.artifacts import ensure
from ttsadapt.data.corpora.folder import Folder
from ttsadapt.data.prepare import PreparedCorpus
from ttsadapt.errors import DataError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two speakers in two emotions, ten sentences each."""
    place = tmp_path_factory.mktemp("recordings")
    for speaker in ("ann", "ben"):
        (place / speaker).mkdir()
        for i in range(10):
            emotion = ("sad", "happy")[i % 2]
            tone = 0.1 * np.sin(0.01 * (10 + i + 20 * (speaker == "ben")) * np.arange(1600))
            soundfile.write(place / speaker / f"{emotion}_{i}.wav", tone, 16000)
            (place / speaker / f"{emotion}_{i}.txt").write_text(f"Sentence number {'abcdefghij'[i]}.")
    corpus = PreparedCorpus(Folder(str(place), pattern="(?P<emotion>[^_]+)_"), tmp_path_factory.mktemp("cache"))
    ensure(corpus)
    return corpus


def test_a_part_is_of_the_same_prepared_corpus(whole):
    ann, sad = whole.part({"speaker": ["ann"], "emotion": None}), whole.part({"speaker": ["ben"], "emotion": ["sad"]})
    assert ann.folder == sad.folder == whole.folder and ann.done
    assert {u.speaker for n in ann.names() for u in ann.utterances(n)} == {"ann"}
    assert {(u.speaker, u.emotion) for u in sad.utterances("target.train")} == {("ben", "sad")}
    assert {u.speaker for u in whole.utterances("target.train")} == {"ann", "ben"}
    both = ann.utterances("target.train") + whole.part({"speaker": ["ben"]}).utterances("target.train")
    assert sorted(u.id for u in both) == sorted(u.id for u in whole.utterances("target.train"))


def test_a_part_without_utterances_is_not_there(whole):
    (emotion,) = {u.emotion for u in whole.utterances("target.valid")}  # a single sentence, which both say
    other = {"sad": "happy", "happy": "sad"}[emotion]
    assert "target.valid" in whole.part({"emotion": [emotion]}).names()
    assert "target.valid" not in whole.part({"emotion": [other]}).names()


def test_what_nobody_says_is_an_error_of_one_line(whole):
    with pytest.raises(DataError, match=r"only\.speaker=\['eve'\]: the target's training recordings have ann, ben") as error:
        whole.part({"speaker": ["eve"]}).utterances("target.train")
    assert "\n" not in str(error.value)
