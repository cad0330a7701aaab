"""Weights & Biases: one W&B run per job, on line where that works, never asking."""

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from torch import Tensor

from ttsadapt.errors import ConfigError
from ttsadapt.files import content_hash, write_json
from ttsadapt.loggers.base import RunLogger, Used, mel_figure

if TYPE_CHECKING:
    from wandb import Artifact
    from wandb.sdk.wandb_run import Run

Mode = Literal["online", "offline", "disabled"]
SECRETS = ("api_key", "apikey", "access_key", "token", "password", "passwd", "secret", "credential", "credentials")
STEP = "trainer/global_step"


class WandbLogger(RunLogger, Logger):
    """The W&B run's id is the run id, so a killed run goes on in the same one (off line: a second folder of that id).

    It is opened at the first thing logged and closed by `finish` alone: the final table comes after training.
    """

    hears: ClassVar[bool] = True

    def __init__(
        self,
        folder: Path | str,
        run_id: str,
        study: str,
        config: Mapping[str, Any],
        project: str = "ttsadapt",
        entity: str | None = None,
        mode: Literal["auto", "online", "offline", "disabled"] = "auto",
        upload_checkpoints: bool = False,
        job_type: str = "train",
    ) -> None:
        """`mode`: auto is WANDB_MODE where that is set. On line needs a configured API key and a network that answers."""
        super().__init__()
        if mode not in ("auto", "online", "offline", "disabled"):
            raise ConfigError(f"logger.wandb.mode={mode!r}: choose auto, online, offline or disabled")
        self.folder, self.run_id, self.study, self.job_type = Path(folder), run_id, study, job_type
        self.project, self.entity, self.mode, self.upload_checkpoints = project, entity, mode, upload_checkpoints
        self.config = public(config)
        self._run: Run | None = None
        self._made: set[str] = set()

    @property
    def name(self) -> str:
        return self.project

    @property
    def version(self) -> str:
        return self.run_id

    @property
    def save_dir(self) -> str:
        return str(self.folder)

    @property
    @rank_zero_experiment
    def experiment(self) -> "Run":
        if self._run is None:
            mode = choose_mode(self.mode)
            try:
                self._run = self._open(mode)
            except Exception as error:  # a key that is refused, a server that went away meanwhile
                if mode != "online":
                    raise
                rank_zero_warn(f"W&B is not reachable ({str(error).splitlines()[0]}): logging off line; `wandb sync` sends it later")
                self._run = self._open("offline")
            self._run.define_metric("*", step_metric=STEP)
        return self._run

    def _open(self, mode: Mode) -> "Run":
        import wandb

        settings = wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, save_code=False, x_disable_meta=True, init_timeout=30
        )  # fmt: skip
        self.folder.mkdir(parents=True, exist_ok=True)
        return wandb.init(
            mode=mode, dir=str(self.folder), project=self.project, entity=self.entity, id=self.run_id, resume="allow", reinit="create_new",
            name=f"{self.config.get('name', self.job_type)} {self.run_id}", group=self.study, job_type=self.job_type,
            tags=sorted(self.config.get("strategy") or {}), config=self.config, settings=settings,
        )  # fmt: skip

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The constructor's config says it all."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if not self._repeats(metrics, step):
            self.experiment.log({**metrics, **({} if step is None else {STEP: step})})

    @rank_zero_only
    def log_audio(self, name: str, audio: Tensor, rate: int, step: int, caption: str = "") -> None:
        import wandb

        sound = wandb.Audio(audio.detach().float().cpu().numpy(), sample_rate=rate, caption=caption or None)
        self.experiment.log({name: sound, STEP: step})

    @rank_zero_only
    def log_mel(self, name: str, mel: Tensor, step: int) -> None:
        import wandb

        self.experiment.log({name: wandb.Image(mel_figure(mel)), STEP: step})

    @rank_zero_only
    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        with self._staging():
            self.experiment.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    @contextmanager
    def _staging(self) -> Iterator[None]:
        """W&B keeps a copy of a table until it is sent: below the run folder, not in the home folder."""
        given = os.environ.get("WANDB_DATA_DIR")
        os.environ["WANDB_DATA_DIR"] = given or str(self.folder.resolve() / "wandb" / "data")
        try:
            yield
        finally:
            if given is None:
                del os.environ["WANDB_DATA_DIR"]

    @rank_zero_only
    def log_artifact(self, name: str, type: str, path: Path, uses: Sequence[Used] = ()) -> None:
        """Lineage: what it `uses` -> this W&B run -> the artifact. A checkpoint is described, unless it is to be uploaded."""
        for used in uses:
            if used.name not in self._made:  # what this run made itself is its output already
                self._use(used)
        artifact = _artifact(name, type, {"hash": content_hash(path), "uses": [f"{u.type}:{u.name}" for u in uses]})
        if path.is_dir():
            for file in sorted(p for p in path.rglob("*") if p.is_file()):  # add_dir would print a line
                artifact.add_file(str(file), name=file.relative_to(path).as_posix(), policy="immutable", skip_cache=True)
        elif path.suffix != ".ckpt" or self.upload_checkpoints:
            artifact.add_file(str(path), policy="immutable", skip_cache=True)
        else:
            self._describe(artifact, {"file": path.name, "bytes": path.stat().st_size, "hash": artifact.metadata["hash"]})
        self.experiment.log_artifact(artifact)
        self._made.add(name)

    def _use(self, used: Used) -> None:
        """`use_artifact` refuses off line, though `wandb sync` handles the record that it would write: write that record."""
        artifact = _artifact(used.name, used.type, {"hash": used.digest})
        self._describe(artifact, {"name": used.name, "type": used.type, "hash": used.digest})
        if self.experiment.offline:
            self.experiment._log_artifact(artifact, is_user_created=True, use_after_commit=True)
        else:
            self.experiment.use_artifact(artifact)
        self._made.add(used.name)

    def _describe(self, artifact: "Artifact", facts: dict[str, Any]) -> None:
        """A file below the run folder, since a copy of it would otherwise be staged in the home folder."""
        path = self.folder / "wandb" / "lineage" / f"{artifact.name.replace(':', '-')}.json"
        write_json(path, facts)
        artifact.add_file(str(path), policy="immutable", skip_cache=True)

    @rank_zero_only
    def finish(self, failed: bool = False) -> None:
        """Also when nothing was logged: a run that failed early is to be seen."""
        if self._run is None and failed:
            _ = self.experiment
        if self._run is not None:
            self._run.finish(exit_code=int(failed))
            self._run = None


def choose_mode(asked: str) -> Mode:
    """Never a prompt: on line only with a key and a network that answers within three seconds."""
    if asked == "auto":
        asked = os.environ.get("WANDB_MODE", "online")
    if asked in ("disabled", "offline", "dryrun"):
        return "disabled" if asked == "disabled" else "offline"
    import wandb

    settings = wandb.setup().settings
    return "online" if has_key(settings) and answers(settings.base_url) else "offline"


def has_key(settings: Any) -> bool:
    """Whether W&B would log in without asking (environment, settings or .netrc). The key itself is left alone."""
    from requests.utils import get_netrc_auth

    return bool(os.environ.get("WANDB_API_KEY") or settings.api_key or settings.identity_token_file or get_netrc_auth(settings.base_url))


def answers(url: str, seconds: float = 3.0) -> bool:
    """In a thread of its own, because looking up a name has no time limit."""
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=seconds).close()
            answered.set()
        except urllib.error.HTTPError:  # an answer, too
            answered.set()
        except (OSError, ValueError):
            pass

    threading.Thread(target=ask, daemon=True).start()
    return answered.wait(seconds)


def public(value: Any, home: str | None = None) -> Any:
    """A copy of plain containers without secrets (texts under a telling key) and without the place of the home folder."""
    home = str(Path.home()) if home is None else home
    if isinstance(value, Mapping):
        return {str(k): public(v, home) for k, v in value.items() if not (isinstance(v, str) and _secret(str(k)))}
    if isinstance(value, list | tuple):
        return [public(v, home) for v in value]
    if isinstance(value, Path):
        value = str(value)
    return value.replace(home, "~") if isinstance(value, str) and len(home) > 1 else value


def _secret(key: str) -> bool:
    key = key.lower().replace("-", "_")
    return any(key == word or key.endswith(f"_{word}") for word in SECRETS)


def _artifact(name: str, type: str, metadata: dict[str, Any]) -> "Artifact":
    import wandb

    legal = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)[:128]
    return wandb.Artifact(legal, type, metadata=metadata)
