"""`${outputs:}` and `${run_id:}` for the yaml files."""

from omegaconf import DictConfig, OmegaConf

from ttsadapt.config import paths


def register() -> None:
    """Idempotent."""
    OmegaConf.register_new_resolver("outputs", lambda: str(paths.outputs()), replace=True)
    OmegaConf.register_new_resolver("run_id", _run_id, replace=True)


def _run_id(_root_: DictConfig) -> str:
    """A config that is wrong has no identity: no run folder is made for it."""
    from ttsadapt.config.identity import run_id
    from ttsadapt.config.schema import check

    check(_root_, _root_.hydra.job.config_name if "hydra" in _root_ else "train")
    return run_id(_root_)
