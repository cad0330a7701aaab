"""A Hugging Face dataset on disk: what `save_to_disk` writes, or a folder of parquet files. Read by pyarrow alone."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ttsadapt.config.paths import outputs
from ttsadapt.data.found import Found, Rejected
from ttsadapt.data.layouts.base import Layout, missing
from ttsadapt.data.layouts.files import below, holds, split_in
from ttsadapt.errors import DataError, UserError
from ttsadapt.files import digest, inside, replacing

_SPEAKER = ("speaker", "speaker_id", "source")
_EMOTION = ("emotion",)
_ROWS = 64
"""read at once: recordings are in them"""
_BEGINNINGS = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg"}

Row = dict[str, Any]


class HuggingFace(Layout):
    def __init__(
        self,
        audio: str = "audio",
        text: str = "text",
        speaker: str | None = None,
        emotion: str | None = None,
        id: str | None = None,
        official: bool = False,
        **common: Any,
    ) -> None:
        """Columns; `audio` holds encoded bytes or a path below the dataset. None: speaker, speaker_id or source; emotion; where they are.

        Recordings that lie in the tables are written below the cache, once. `official`: splits are those of the dataset.
        """
        super().__init__(**common)
        self.official = official
        self.columns = {"audio": audio, "text": text, "speaker": speaker, "emotion": emotion, "id": id}

    def recordings(self) -> Iterator[Found | Rejected]:
        _arrow()
        root = self.root
        files = [f for f in below(root, (".parquet", ".arrow")) if not f.name.startswith("cache-")]
        if not files:
            raise DataError(
                f"{root} has no .parquet and no .arrow file, {holds(root)}: give a folder that datasets' save_to_disk has written"
            )
        facts = [(str(f.relative_to(root)), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
        place = (self.cache or outputs() / "cache") / "unpacked" / digest([str(root.resolve()), facts])
        counts: dict[str, int] = {}
        for file in files:
            split = split_in(file.stem, *reversed(file.relative_to(root).parts[:-1]))
            try:
                for row in self._rows(file):
                    number = counts[split] = counts.get(split, -1) + 1
                    yield self._one(row, f"{split or 'row'}-{number:06d}", split, root, place, f"{file}, row {number}")
            except (OSError, ValueError) as error:  # pyarrow's, for a file that is cut short
                yield Rejected(str(file), "unreadable", f"{' '.join(str(error).split())}: download it again")

    def _rows(self, file: Path) -> Iterator[Row]:
        """With the keys of `columns`; classes by their names."""
        schema, batches = _opened(file)
        names = self._named(schema.names, file)
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        classes = {key: (features.get(name) or {}).get("names") for key, name in names.items() if key != "audio"}
        for batch in batches(list(dict.fromkeys(names.values()))):
            for row in batch.to_pylist():
                yield {key: _plain(row[name], classes.get(key)) for key, name in names.items()}

    def _named(self, there: list[str], file: Path) -> dict[str, str]:
        guesses = {"speaker": _SPEAKER, "emotion": _EMOTION}
        named = {key: given or next((n for n in guesses.get(key, ()) if n in there), None) for key, given in self.columns.items()}
        for key, name in named.items():
            if name and name not in there:
                raise DataError(f"{file} has no column {name!r}, it has {', '.join(there)}: give {key}=<one of them>")
        return {key: name for key, name in named.items() if name}

    def _one(self, row: Row, number: str, split: str, root: Path, place: Path, where: str) -> Found | Rejected:
        audio = row["audio"]
        content, path = (audio.get("bytes"), audio.get("path")) if isinstance(audio, Mapping) else (None, audio)
        file = _written(content, place / number) if content else _located(path, root)
        if file is None:
            return missing(where, f"its audio is neither bytes nor a file below {root} ({path!r}): put the file there, or remove the row")
        speaker, text = str(row.get("speaker") or root.resolve().name), row["text"] or ""
        split = split if self.official else ""
        return self.one(file, text, speaker, row.get("emotion") or "", id=row.get("id") or number, split=split, where=where)


def _arrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise UserError("a Hugging Face dataset is read by pyarrow, which is not installed: pip install pyarrow") from error
    return pyarrow


def _opened(file: Path) -> tuple[Any, Any]:
    """(schema, columns -> batches) of one file."""
    pyarrow = _arrow()
    if file.suffix == ".parquet":
        from pyarrow.parquet import ParquetFile

        table = ParquetFile(file)
        return table.schema_arrow, lambda columns: table.iter_batches(_ROWS, columns=columns)
    stream = pyarrow.ipc.open_stream(pyarrow.memory_map(str(file)))
    return stream.schema, lambda columns: (piece for batch in stream for piece in _pieces(batch.select(columns)))


def _pieces(batch: Any) -> Iterator[Any]:
    return (batch.slice(start, _ROWS) for start in range(0, batch.num_rows, _ROWS))


def _plain(value: Any, names: list[str] | None) -> Any:
    """Numbers of classes by their names, other numbers as text."""
    if isinstance(value, int):
        return names[value] if names and 0 <= value < len(names) else str(value)
    return value


def _written(content: bytes, stem: Path) -> Path:
    file = stem.with_suffix(_BEGINNINGS.get(content[:4], ".mp3"))
    if not file.is_file() or file.stat().st_size != len(content):
        with replacing(file) as temporary:
            temporary.write_bytes(content)
    return file


def _located(path: Any, root: Path) -> Path | None:
    try:
        file = inside(root, path) if isinstance(path, str) else None
    except UserError:
        return None
    return file if file and file.is_file() else None
