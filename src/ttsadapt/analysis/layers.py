"""Which blocks carry emotion and speaker: weighted-sum probes on a frozen backbone (CSP-FT, arXiv 2501.14273, section 2.2).

For each label a softmax over blocks weighs their normalised outputs; the sum goes through three convolutions and attentive
statistics pooling to a classifier. The two weight vectors and the two heads learn together, nothing else does. How much
weight a block gets is how much it carries. Block outputs are averaged over a few frames before they are kept (emotion and
speaker vary slowly; averaging commutes with the weighted sum), once, since the backbone never changes: probes of many seeds
take the same.
"""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from ttsadapt.analysis.fisher import drawn
from ttsadapt.analysis.ranking import Ranking, Settings, stability
from ttsadapt.backbones.base import Backbone
from ttsadapt.data.features import FeatureSet
from ttsadapt.errors import ConfigError, DataError
from ttsadapt.files import digest, read_json, write_json

LABELS = ("emotion", "speaker")
SIGNIFICANCE = 0.05


def shared(backbone: Backbone, features: FeatureSet, settings: Settings, cache: Path, seed: int = 0) -> Ranking:
    """As `rank`, from `cache` (a folder for this base and data), or computed and put there for everybody who asks alike.

    Of several processes one computes, the others wait. `seed` is the run's: taken where the settings have none.
    """
    settings = replace(settings, group=settings.group or default_group(backbone), seed=seed if settings.seed is None else settings.seed)
    path = cache / f"layers-{digest(asdict(settings))}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            write_json(path, rank(backbone, features, settings).to_dict())
    return Ranking.from_dict(read_json(path))


def rank(backbone: Backbone, features: FeatureSet, settings: Settings) -> Ranking:
    """Weighs the blocks of one group. Its `refusal` says why, when neither label can be read off them better than by chance."""
    from ttsadapt.analysis.outputs import block_outputs
    from ttsadapt.analysis.probes import held_out, probed  # slow to import, and not needed for what is cached

    group = settings.group or default_group(backbone)
    if group not in backbone.blocks:
        raise ConfigError(f"group={group}: {type(backbone).__name__} has the groups {', '.join(backbone.blocks)}")
    seed = settings.seed or 0
    part = drawn(features, settings.utterances, torch.Generator().manual_seed(seed))
    labels = _labels(part)
    heard = block_outputs(backbone, part, group, settings)
    states = {i: heard[i] for i in part.ids if i in heard}  # in an order that does not depend on how they were batched
    held = held_out(len(states), settings)
    if held < 2 or len(states) - held < 2:
        raise DataError(f"layer analysis: {len(states)} source utterances with speech in {group} are too few to train and judge probes")
    device = next(backbone.parameters()).device
    found = [probed(states, labels, settings, seed + k, device) for k in range(settings.seeds)]
    weights = {n: np.array([f.weights[n] for f in found]) for n in labels}  # (seeds, L)
    accuracy, chance = ({n: float(np.mean([getattr(f, what)[n] for f in found])) for n in labels} for what in ("accuracy", "chance"))
    return _ranking(group, list(backbone.blocks[group]), weights, accuracy, chance, held, settings)


def default_group(backbone: Backbone) -> str:
    """The last that the backbone names: what predicts speech itself, where there is more than one."""
    return list(backbone.blocks)[-1]


def _labels(features: FeatureSet) -> dict[str, dict[str, int]]:
    """{label: {utterance: class}} for each label that takes at least two values."""
    labels: dict[str, dict[str, int]] = {}
    for label in LABELS:
        values = {i: getattr(features.utterances[i], label) for i in features.ids}
        classes = {c: k for k, c in enumerate(sorted(set(values.values())))}
        if len(classes) > 1:
            labels[label] = {i: classes[c] for i, c in values.items()}
    if not labels:
        raise DataError("layer analysis: the source data has one speaker and one emotion: give data with several of either")
    return labels


def _ranking(
    group: str, blocks: list[str], weights: dict[str, np.ndarray], accuracy: dict[str, float], chance: dict[str, float], held: int,
    settings: Settings,
) -> Ranking:  # fmt: skip
    used = [n for n in weights if _beats_chance(accuracy[n], chance[n], held)]
    tables = weights | ({"mean": np.mean([weights[n] for n in used], 0)} if used else {})
    mean = {n: table.mean(0).tolist() for n, table in tables.items()}
    probe = {f"{n}_{what}": values.get(n) for n in LABELS for what, values in (("accuracy", accuracy), ("chance", chance))}
    several = {n: table for n, table in tables.items() if settings.seeds > 1}
    return Ranking(
        group, blocks, mean.get("emotion", []), mean.get("speaker", []), mean.get("mean", []),
        probe=probe | {"held_out": held, "used": used},
        spread={n: table.std(0, ddof=1).tolist() for n, table in several.items()},
        stability={n: stability(table.tolist(), blocks) for n, table in several.items()},
        settings=asdict(settings),
    )  # fmt: skip


def _beats_chance(accuracy: float, chance: float, judged: int) -> bool:
    """Would guessing the most frequent class do as well, by luck, in fewer than 5 % of cases? A mean over seeds counts as one of them."""
    from scipy.stats import binom

    return bool(binom.sf(int(accuracy * judged + 1e-6) - 1, judged, chance) < SIGNIFICANCE)
