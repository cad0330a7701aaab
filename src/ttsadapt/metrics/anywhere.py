"""By which metrics recordings from anywhere can be scored: what each of them asks for, against what is known."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from ttsadapt.config import paths
from ttsadapt.config.base import composed
from ttsadapt.data.utterance import Utterance
from ttsadapt.metrics import sidecar
from ttsadapt.metrics.base import UtteranceMetric

NEEDS_NOTHING = ("dnsmos", "wada_snr", "pauses", "energy_range", "f0_variation", "silence", "clipping")
"""what is scored when no metric is asked for: neither a text nor a reference nor a judge"""


def standard(compared: bool, read: bool, corpus: Path, cache: Path) -> DictConfig | dict[str, object]:
    """The nodes of what is scored when no metric is asked for: NEEDS_NOTHING; where recordings are `compared` also what compares, where
    every text can be `read` also what reads. Nothing that needs a model, a judge or how a model spoke."""
    if not compared and not read:
        return composed(f"metric=[{','.join(NEEDS_NOTHING)}]").metric
    names = sorted({path.stem for path in (paths.conf() / "metric").glob("*.yaml")} - set(NEEDS_NOTHING))
    nodes = composed(f"metric=[{','.join([*NEEDS_NOTHING, *names])}]").metric

    def fits(metric: UtteranceMetric) -> bool:
        asks = metric.spoken_only or metric.looks or type(metric).missing is not UtteranceMetric.missing or not metric.usual
        given = (metric.compares or metric.reads) and compared >= metric.compares and read >= metric.reads
        return given and not asks and not metric.needs(corpus, cache)

    return {str(name): node for name, node in nodes.items() if name in NEEDS_NOTHING or fits(instantiate(node))}


def usable(
    metrics: Mapping[str, UtteranceMetric],
    utterances: Sequence[Utterance],
    compared: bool,
    clips: Sequence[Path],
    learnt: Collection[str] = (),
) -> dict[str, UtteranceMetric]:
    """The metrics for which nothing is missing but, perhaps, their models; says once which the others are, and what to give.

    `compared`: there are references. `learnt`: those whose judge is trained on a corpus that the recordings are not said to be of.
    """
    silent = sum(not u.text for u in utterances)
    noted = all(clip.stem in sidecar.facts(clip.parent) for clip in clips)
    alone = [name for name, m in metrics.items() if m.compares and not compared]
    unread = [name for name, m in metrics.items() if m.reads and silent and name not in alone]
    unseen = [name for name, m in metrics.items() if m.spoken_only and not noted]
    foreign = [name for name in learnt if name not in {*alone, *unread}]
    if alone:
        what = "a folder of recordings of the same names" if len(utterances) > 1 else "a recording"
        print(f"left out: {_verb(alone, 'compare')} with recordings: give references=<{what}>")
    if unread:
        how = "write <name>.txt beside them" if len(utterances) > 1 else 'give text="..."'
        lack = "1 recording has none" if silent == 1 else f"{silent} recordings have none"
        print(f"left out: {_verb(unread, 'need')} the text: {lack}, {how}")
    if unseen:
        print(f"left out: {_verb(unseen, 'tell')} how a model spoke: only a run's own clips have a {sidecar.NAME} beside them")
    for line in _of_another_corpus({name: metrics[name] for name in foreign}):
        print(line)
    return {name: m for name, m in metrics.items() if name not in {*alone, *unread, *unseen, *foreign}}


def _verb(names: Sequence[str], verb: str) -> str:
    """ "mcd, f0, which compare"."""
    return f"{', '.join(names)}, which {verb}{'s' if len(names) == 1 else ''}"


def _of_another_corpus(metrics: Mapping[str, UtteranceMetric]) -> list[str]:
    """A line for all that lack the same."""
    lacking: dict[str, list[str]] = {}
    for name, metric in metrics.items():
        lacking.setdefault(metric.instead(), []).append(name)
    why = "trained on a corpus, and nothing says that these recordings are of it: give data=<the corpus that they are of>"
    return [
        f"left out: {', '.join(names)}: {line}; what would stand in is {why}"
        if line
        else f"left out: {', '.join(names)}: the judge is {why}"
        for line, names in lacking.items()
    ]
