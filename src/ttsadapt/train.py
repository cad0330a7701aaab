"""`ttsadapt train`: one run, a sequence of stages, or a sweep of either. See `ttsadapt.run.train` and `ttsadapt.stages.follow`."""

from omegaconf import DictConfig

from ttsadapt.config.app import command


def job(cfg: DictConfig) -> float | None:
    if cfg.stages:
        from ttsadapt.stages import follow

        follow(cfg)
        return None
    from ttsadapt.run import train

    return train(cfg)


main = command("train", job)

if __name__ == "__main__":
    main()
