"""`ttsadapt evaluate`: synthesises and scores the test sentences of a finished run, or scores a folder of recordings."""

from omegaconf import DictConfig

from ttsadapt.config.app import command


def job(cfg: DictConfig) -> None:
    if cfg.wavs is not None:
        from ttsadapt.wavs import evaluate as evaluate_wavs

        return evaluate_wavs(cfg)
    from hydra.core.hydra_config import HydraConfig

    from ttsadapt.config.finding import find

    folder, asked = find(cfg), list(HydraConfig.get().overrides.task)
    from ttsadapt.finished import evaluate

    return evaluate(cfg, folder, asked)


main = command("evaluate", job)

if __name__ == "__main__":
    main()
