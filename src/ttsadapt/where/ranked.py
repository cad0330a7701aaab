"""Blocks by what they carry of emotion and speaker (CSP-FT, arXiv 2501.14273, sections 2.2, 2.3 and 4.6)."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from ttsadapt.analysis.layers import shared
from ttsadapt.analysis.ranking import Ranking, Settings
from ttsadapt.backbones.base import Backbone
from ttsadapt.errors import ConfigError
from ttsadapt.files import read_json, write_json
from ttsadapt.where.base import Block, Positive, Where, enough, names

if TYPE_CHECKING:
    from ttsadapt.strategies.base import Study

By = Literal["mean", "emotion", "speaker"]


class Ranked(Where):
    """Chooses among the blocks of one group by their rank: 0 carries most, -1 least."""

    def __init__(self, by: By = "mean", analysis: Settings | None = None) -> None:
        """`by` which characteristic: "mean" is the plain mean of both weights (equation 3)."""
        self.by, self.analysis = by, analysis or Settings()
        self.ranking: Ranking | None = None

    @abstractmethod
    def ranks(self, group: str, available: Sequence[str]) -> list[int]:
        """Of the blocks wanted, 0 to len(available) - 1, each once; ConfigError when there are too few. Known before the analysis."""

    def study(self, study: "Study") -> None:
        wanted = self.ranks(*names(study.backbone, self.analysis.group))
        ranking = shared(study.backbone, study.source, self.analysis, study.cache, study.seed)
        order = ranking.order(self.by)
        ranking.chosen = [order[rank] for rank in wanted]
        self.ranking = ranking

    def blocks(self, backbone: Backbone) -> list[Block]:
        assert self.ranking is not None, "study comes first"
        return [(self.ranking.group, name) for name in self.ranking.chosen]

    def save(self, folder: Path) -> None:
        """`layers.json`: the weights of all blocks, how good the probes were, which blocks were chosen."""
        assert self.ranking is not None, "study comes first"
        leave(folder / "layers.json", self.ranking)


class Ranks(Ranked):
    """Any places: "highest" or 0, 1 the second highest ... "lowest" or -1, -2 the second lowest (the paper's Table 6)."""

    def __init__(self, ranks: Sequence[str | int], by: By = "mean", analysis: Settings | None = None) -> None:
        super().__init__(by, analysis)
        self.places = list(ranks)

    def ranks(self, group: str, available: Sequence[str]) -> list[int]:
        enough(len(self.places), group, available, "blocks asked for")
        return list(dict.fromkeys(self._rank(place, group, len(available)) for place in self.places))

    def _rank(self, place: str | int, group: str, available: int) -> int:
        rank = {"highest": 0, "lowest": -1}.get(place) if isinstance(place, str) else place
        if rank is None or not -available <= rank < available:
            wanted = f"highest, lowest or a rank from 0 (the highest) to {available - 1}, or from -1 (the lowest) down to {-available}"
            raise ConfigError(f"where: rank {place!r}: give {wanted}, for the {available} blocks of {group}")
        return rank % available


class Top(Ranked):
    """The `n` that carry most."""

    def __init__(self, n: Positive = 2, by: By = "mean", analysis: Settings | None = None) -> None:
        super().__init__(by, analysis)
        self.n = n

    def ranks(self, group: str, available: Sequence[str]) -> list[int]:
        return list(range(enough(self.n, group, available)))


class Bottom(Top):
    """The `n` that carry least."""

    def ranks(self, group: str, available: Sequence[str]) -> list[int]:
        return list(range(len(available)))[-enough(self.n, group, available) :]


class HighestLowest(Ranked):
    """CSP-FT's two blocks, and `middle` more from the middle of the ranking outwards: its Table 5 goes from two blocks to all."""

    def __init__(self, middle: Annotated[float, ">= 0"] = 0, by: By = "mean", analysis: Settings | None = None) -> None:
        """`middle`: a number of blocks, or below 1 a share of the group's (1/6 of 24 are 4)."""
        super().__init__(by, analysis)
        self.middle = middle

    def ranks(self, group: str, available: Sequence[str]) -> list[int]:
        count = len(available)
        more = round(self.middle * count) if self.middle < 1 else int(self.middle)
        if self.middle < 0 or (self.middle >= 1 and self.middle != more):
            raise ConfigError(f"where: middle={self.middle}: give a whole number of blocks, or a share below 1")
        enough(2 + more, group, available, "2 + middle")
        start = (count - more) // 2
        return [0, count - 1, *range(start, start + more)]


def leave(path: Path, ranking: Ranking) -> None:
    """Write `layers.json`, or add to it what another strategy of the same run has chosen: a list when it holds several analyses."""
    held = read_json(path) if path.is_file() else []
    entries = [Ranking.from_dict(e) for e in (held if isinstance(held, list) else [held])]
    same = [e for e in entries if e.settings == ranking.settings]
    chosen = list(dict.fromkeys(name for e in [ranking, *same] for name in e.chosen))
    kept = [e.to_dict() for e in entries if e.settings != ranking.settings]
    mine = ranking.to_dict() | {"chosen": chosen}
    write_json(path, [*kept, mine] if kept else mine)
