"""experiments/ as a config group of ttsadapt's own commands, from any directory."""

# No `from __future__ import annotations` in modules that Hydra scans: it breaks their dataclasses.
from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from ttsadapt.config import paths


class Experiments(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Other Hydra programs of the environment load this too: their search path is left alone."""
        if any(entry.provider == "main" and entry.path == str(paths.conf()) for entry in search_path.get_path()):
            for folder in (paths.root(), *paths.own()):
                search_path.append("ttsadapt", f"file://{folder}")
