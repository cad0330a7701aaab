"""`${outputs:}`, `${run_id:}` and `${previous:}` for the yaml files."""

from omegaconf import DictConfig, OmegaConf

from ttsadapt.config import paths


def register() -> None:
    """Idempotent."""
    OmegaConf.register_new_resolver("outputs", lambda: str(paths.outputs()), replace=True)
    OmegaConf.register_new_resolver("run_id", _run_id, replace=True)
    OmegaConf.register_new_resolver("previous", _previous, replace=True)


def _run_id(_root_: DictConfig) -> str:
    """A config that is wrong has no identity: no run folder is made for it."""
    from ttsadapt.config.identity import run_id
    from ttsadapt.config.schema import check

    check(_root_, _root_.hydra.job.config_name if "hydra" in _root_ else "train")
    return run_id(_root_)


def _previous(_root_: DictConfig) -> str | None:
    """The run folder of the stage before; None in a first stage and outside of a sequence."""
    from ttsadapt.config.base import base_config
    from ttsadapt.config.identity import run_folder

    base = base_config(_root_) if _root_.get("previous") is not None else None
    return None if base is None else str(run_folder(base))
