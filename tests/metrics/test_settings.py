"""How a metric was set is part of what its scores are: of their version, of the ceiling's key, of what may be compared."""

import copy
import pickle

import models
import pytest
import torch
from hydra.utils import instantiate
from sounds import said, voice
from test_every_metric import FILES
from torchmetrics import MetricCollection, MetricTracker

from ttsadapt.config.base import composed
from ttsadapt.data import hashes
from ttsadapt.errors import ConfigError, DataError
from ttsadapt.evaluation import References
from ttsadapt.metrics import weights
from ttsadapt.metrics.base import UtteranceMetric
from ttsadapt.metrics.capped import Capped
from ttsadapt.metrics.ecapa import EcapaSimilarity
from ttsadapt.metrics.mcd import MelCepstralDistortion
from ttsadapt.metrics.recognisers.closed import ClosedVocabulary
from ttsadapt.metrics.recognisers.released import Released
from ttsadapt.metrics.released_emotion import TransformersEmotion
from ttsadapt.metrics.signal import RATE
from ttsadapt.metrics.speaker import SpeakerSimilarity
from ttsadapt.metrics.terms import TermAccuracy
from ttsadapt.metrics.utmos import Utmos
from ttsadapt.metrics.wer import Failed, WordErrorRate

HERE = Released("./none"), ClosedVocabulary()
PAIRS = [
    (TransformersEmotion(says="accuracy"), TransformersEmotion(says="probability")),
    (SpeakerSimilarity("voice"), SpeakerSimilarity("recording")),
    (WordErrorRate(*HERE), WordErrorRate(*HERE, part="deletions")),
    (WordErrorRate(*HERE), WordErrorRate(HERE[0], ClosedVocabulary(close=80))),
    (Failed(*HERE), Failed(*HERE, above=30)),
    (TermAccuracy(*HERE, ["a", "b"], None), TermAccuracy(*HERE, ["a", "c"], None)),
    (EcapaSimilarity(), EcapaSimilarity(recordings=4)),
]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_what_is_set_otherwise_is_another_version_and_another_ceiling(one, other, tmp_path, monkeypatch):
    monkeypatch.setattr(ClosedVocabulary, "needs", lambda *a: ())
    monkeypatch.setattr(SpeakerSimilarity, "needs", lambda *a: ())
    utterances = [said(tmp_path, "u", voice(110.0))]

    def folder(metric):
        return References({"target": utterances}, {"m": metric}, tmp_path, tmp_path, lambda w: w, RATE, "codec").folder

    assert one.version != other.version and folder(one) != folder(other)
    assert folder(one) == folder(copy.deepcopy(one)) and copy.deepcopy(one).version == one.version


def test_where_a_model_lies_and_how_many_clips_are_scored_is_no_setting(tmp_path):
    assert EcapaSimilarity("./a").settings == EcapaSimilarity("./b").settings == {"reference": "voice", "recordings": "16"}
    assert Utmos(limit=3).settings == Utmos(limit=None).settings == {}
    (tmp_path / "terms").write_text("b\na\n")
    assert TermAccuracy(*HERE, None, str(tmp_path / "terms")).settings == TermAccuracy(*HERE, ["a", "b"], None).settings
    assert Failed(*HERE, above=50).version == Failed(*HERE, above=50.0).version


@pytest.mark.parametrize("name", FILES)
def test_every_metric_states_all_that_it_was_given(name):
    for node in composed(f"metric=[{name}]").metric.values():
        metric = instantiate(node)
        assert type(metric).version is UtteranceMetric.version
        given = {key for key in node if not key.startswith("_")} - {"path", "limit", "recogniser", "otherwise"}
        assert given <= metric.settings.keys()
        if metric.missing() is None:
            assert all(f"{key}={metric.settings[key]}" in metric.version for key in given)


def test_which_way_is_better_is_said_once():
    assert [kind.higher_is_better for kind in (MelCepstralDistortion, SpeakerSimilarity, Capped)] == [False, True, False]
    assert MetricTracker(MetricCollection({"mcd": MelCepstralDistortion()})).maximize == [False]
    assert pickle.loads(pickle.dumps(Failed(*HERE, above=30))).settings["above"] == "30"


def test_a_wrong_list_of_terms_is_found_before_anything_trains(tmp_path):
    with pytest.raises(DataError, match=r"metric\.terms\.path=.*none cannot be read"):
        TermAccuracy(*HERE, None, str(tmp_path / "none")).missing()
    (tmp_path / "empty").write_text("\n \n")
    with pytest.raises(ConfigError, match="holds no term"):
        TermAccuracy(*HERE, None, str(tmp_path / "empty")).missing()
    assert "give metric.terms.words" in TermAccuracy(*HERE, [], None).missing()


def test_the_line_about_a_missing_recogniser_names_a_key_that_exists():
    for kind, key in ((WordErrorRate, "metric.wer.recogniser.path"), (Failed, "metric.wer.recogniser.path")):
        assert key in kind(HERE[0], None).missing()
    assert "metric.terms.recogniser.path" in TermAccuracy(HERE[0], None, ["a"], None).missing()


def test_weights_are_read_once(tmp_path, monkeypatch):
    hub, read, real = models.speechmos(tmp_path / "hub"), [], hashes.content_hash
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(hub))
    monkeypatch.setattr(hashes, "content_hash", lambda path: read.append(path) or real(path))
    monkeypatch.setattr(hashes, "_YOUNG", -(10**12))
    monkeypatch.setenv("TTSADAPT_OUTPUTS", str(tmp_path / "outputs"))
    versions = {Utmos().version for _ in range(3)}
    weights.hashed.cache_clear()  # another process
    assert {Utmos().version} == versions and len(versions) == 1 and len(read) == 1
