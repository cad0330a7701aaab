"""`ttsadapt evaluate`: synthesises and scores the test sentences of a finished run, or scores a folder of recordings."""

from omegaconf import DictConfig

from ttsadapt.config.app import command

METRIC = ("metric=", "metric.", "metric@", "+metric", "metric/", "~metric")
"""how an override begins that chooses metrics"""


def job(cfg: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig

    asked = list(HydraConfig.get().overrides.task)
    if cfg.wavs is not None:
        from ttsadapt.wavs import evaluate as evaluate_wavs

        return evaluate_wavs(cfg, any(o.startswith(METRIC) for o in asked))
    from ttsadapt.config.finding import find

    folder = find(cfg)
    from ttsadapt.finished import evaluate

    return evaluate(cfg, folder, asked)


main = command("evaluate", job)

if __name__ == "__main__":
    main()
