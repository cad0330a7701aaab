"""`ttsadapt evaluate`: synthesises and scores the test sentences of a finished run, or scores a folder of recordings."""

from omegaconf import DictConfig

from ttsadapt.config.app import command


def job(cfg: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig

    asked = list(HydraConfig.get().overrides.task)
    if cfg.wavs is not None:
        from ttsadapt.config.overrides import asked_for
        from ttsadapt.wavs import evaluate as evaluate_wavs

        known = any(asked_for(asked, group) for group in ("data", "experiments"))
        return evaluate_wavs(cfg, bool(asked_for(asked, "metric")), known)
    from ttsadapt.config.finding import find

    folder = find(cfg)
    from ttsadapt.finished import evaluate

    return evaluate(cfg, folder, asked)


main = command("evaluate", job)

if __name__ == "__main__":
    main()
