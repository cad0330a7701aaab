"""Does it know when to stop: the share of clips that were cut at the longest that the model may say."""

from typing import ClassVar

from ttsadapt.metrics.sidecar import Facts
from ttsadapt.metrics.timing import SpokenMetric


class Capped(SpokenMetric):
    """100 when the model did not end by itself, else 0, as it was noted while it spoke. Models that say how long a text will be
    before they speak always end."""

    name: ClassVar[str] = "capped"
    unit: ClassVar[str] = "% of clips"
    share = True
    column: ClassVar[str] = "capped"
    bounds: ClassVar[tuple[float, float]] = (0, 100)

    @property
    def model(self) -> str:
        return "the model's own limit"

    def read(self, noted: Facts) -> float:
        return 100.0 * (noted["capped"] == "1")
