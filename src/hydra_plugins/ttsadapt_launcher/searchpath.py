"""experiments/ as a config group of ttsadapt's own commands, from any directory."""

# No `from __future__ import annotations` in modules that Hydra scans: it breaks their dataclasses.
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from ttsadapt.config import paths


class ExperimentsSource(FileConfigSource):
    """Of a folder, experiments/ alone: completion walks every group there is, and a checkout holds much else."""

    @staticmethod
    def scheme() -> str:
        return "experiments"

    def is_group(self, config_path: str) -> bool:
        return _inside(config_path, or_above=True) and super().is_group(config_path)

    def is_config(self, config_path: str) -> bool:
        return _inside(config_path) and super().is_config(config_path)


def _inside(config_path: str, or_above: bool = False) -> bool:
    first = config_path.strip("/").split("/")[0]
    return first == "experiments" or (or_above and first == "")


class Experiments(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Other Hydra programs of the environment load this too: their search path is left alone."""
        if any(entry.provider == "main" and entry.path == str(paths.conf()) for entry in search_path.get_path()):
            search_path.append("ttsadapt", f"{ExperimentsSource.scheme()}://{paths.root()}")
            for folder in paths.own():
                search_path.append("ttsadapt", f"file://{folder}")
