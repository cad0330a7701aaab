"""The language model's prediction: rows that predict more positions than are counted."""

from dataclasses import dataclass

from ttsadapt.heads import Categorical


@dataclass(eq=False)
class Spoken(Categorical):
    """What is said next. An utterance counts speech and end, whether or not text and speech alternate and some positions predict
    that text is to follow (`worth`): that is drawn after positions are counted."""

    @property
    def count(self) -> int:
        return len(self.target) if self.worth is None else round(float(self.worth.sum()))
