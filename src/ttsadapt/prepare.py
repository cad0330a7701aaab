"""`ttsadapt prepare`: lays a corpus out on disk and says what is in it."""

from typing import Any

from omegaconf import DictConfig

from ttsadapt.config.app import command


def job(cfg: DictConfig) -> None:
    from pathlib import Path

    from hydra.utils import instantiate

    from ttsadapt.artifacts import ensure
    from ttsadapt.data.prepare import PreparedCorpus

    corpus = PreparedCorpus(instantiate(cfg.data), Path(cfg.paths.cache))
    ensure(corpus)
    print("\n".join([*table(corpus.card["sets"]), *names(corpus.card["sets"]), str(corpus.folder)]))


def table(sets: dict[str, dict[str, Any]]) -> list[str]:
    """A line a set and split: how much there is, and of how many kinds."""
    head = ["set", "utterances", "minutes", "sentences", "voices", "emotions", "languages"]
    rows = [head, *([name, *_counts(part)] for name, part in sets.items())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return ["  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:]))]) for row in rows]


def names(sets: dict[str, dict[str, Any]], most: int = 24) -> list[str]:
    """Who speaks and how, as it was read from the data: a wrong pattern shows here."""
    lines = []
    for kind in ("voices", "emotions"):
        found = sorted({name for part in sets.values() for name in part[kind]})
        lines.append(f"{kind}: {', '.join(found[:most])}{' ...' if len(found) > most else ''}")
    return lines


def _counts(part: dict[str, Any]) -> list[str]:
    kinds = [len(part[kind]) for kind in ("voices", "emotions", "languages")]
    return [str(part["utterances"]), f"{part['seconds'] / 60:.1f}", str(part["sentences"]), *map(str, kinds)]


main = command("prepare", job)

if __name__ == "__main__":
    main()
