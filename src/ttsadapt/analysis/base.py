"""What `ttsadapt analyze` can carry out: one class, one yaml of conf/analysis."""

from abc import ABC, abstractmethod

from omegaconf import DictConfig


class Analysis(ABC):
    """Takes plain settings; what is analysed is the config of a run: its base, its data."""

    @abstractmethod
    def analyze(self, cfg: DictConfig) -> None:
        """Print what was found and leave it in the folder of the run that `ttsadapt train` makes of the same overrides."""
