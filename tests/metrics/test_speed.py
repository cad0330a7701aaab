"""What it costs to score a set."""

import time

import pytest
from hydra.utils import instantiate
from sounds import phones_at, said, voice
from test_judges import write_corpus

from ttsadapt.artifacts import ensure
from ttsadapt.config import paths
from ttsadapt.config.base import composed
from ttsadapt.evaluation import score_set

BUDGET = 180.0
"""CPU seconds for a hundred utterances"""
PHONES = "aiuaiuaiuaiu"


@pytest.mark.slow
def test_a_hundred_utterances_by_every_embedded_metric(tmp_path):
    write_corpus(tmp_path / "corpus")
    names = sorted(p.stem for p in (paths.conf() / "metric").glob("*.yaml"))
    nodes = composed(f"metric=[{','.join(n for n in names if n not in ('wer', 'cer', 'terms'))}]").metric
    for node in nodes.values():
        if "steps" in node:
            node.steps = 20
    metrics = {name: instantiate(node) for name, node in nodes.items()}
    metrics = {name: m for name, m in metrics.items() if m.missing() is None and not m.spoken_only}
    ensure(*(need for m in metrics.values() for need in m.needs(tmp_path / "corpus", tmp_path / "cache")))
    about = {"text": "how low", "speaker": "low", "phones": phones_at(PHONES)}
    utterances = [said(tmp_path / "rec", f"u{i}", voice(95 + i, PHONES), **about) for i in range(100)]
    audio = {u.id: said(tmp_path / "syn", u.id, voice(100 + i, PHONES)).audio for i, u in enumerate(utterances)}
    before = time.process_time()
    rows = score_set(metrics, "target", audio, utterances, tmp_path / "corpus", tmp_path / "cache", progress=False)
    spent = time.process_time() - before
    print(f"{len(metrics)} metrics, 100 utterances of 3 s: {spent:.0f} CPU seconds")
    assert len(metrics) > 20 and len(rows) > 90 * 20
    assert spent <= BUDGET
