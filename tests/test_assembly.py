"""What a run is made of, where its data and those of its base are two corpora."""

import shutil

import pytest

from ttsadapt.artifacts import ensure
from ttsadapt.assembly import Assembly
from ttsadapt.config.base import composed
from ttsadapt.data import manifest
from ttsadapt.data.joined import Joined
from ttsadapt.errors import DataError
from ttsadapt.metrics.judges.clips import Clips


@pytest.fixture(scope="module")
def recordings(mini, tmp_path_factory):
    """The mini corpus, and a user's folder with recordings of one voice."""
    known, folder = Assembly(mini()), tmp_path_factory.mktemp("recordings") / "anna"
    ensure(*known.corpora)
    folder.mkdir()
    for number, utterance in enumerate(known.utterances("target.train")):
        shutil.copy(utterance.audio, folder / f"{number}.wav")
        (folder / f"{number}.txt").write_text(utterance.text)
    return known, folder.parent


def test_judges_learn_from_every_set_that_is_spoken(recordings):
    """One voice's few minutes would make no judge of the sentences that must not be forgotten."""
    known, folder = recordings
    assert known.judged == known.corpus.folder
    assembly = Assembly(composed("data=folder", f"data.path={folder}", "base=null"))
    assembly.before = known.corpus
    heard = assembly.judged
    assert manifest.read(heard, "target.train") == assembly.corpus.utterances("target.train")
    assert manifest.read(heard, "source.test") == known.utterances("source.test")
    assert set(manifest.names(heard)) == set(assembly.names()) and "stages.train" not in manifest.names(heard)
    learnt = {key.partition("/")[0] for key, _, _ in Clips(heard, assembly.cache)._plan()}
    assert learnt >= {"target.train", "source.train", "source.test"}
    assert {u.speaker for u in manifest.read(heard, "target.train")} == {"anna"}
    assert Assembly(composed("data=folder", f"data.path={folder}", "base=null")).judged == assembly.corpus.folder


def test_a_joined_folder_names_folders_beside_it_only(tmp_path):
    joined = Joined({"target.train": tmp_path / "corpora" / "a"}, tmp_path)
    ensure(joined)
    assert manifest.names(joined.folder) == ["target.train"]
    with pytest.raises(DataError, match=r"no manifest .*a/target\.train"):
        manifest.read(joined.folder, "target.train")
    (joined.folder / manifest.PARTS).write_text('{"target.train": "../../elsewhere"}')
    with pytest.raises(DataError, match="is no folder beside it"):
        manifest.names(joined.folder)
