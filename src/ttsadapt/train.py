"""`ttsadapt train`: one run, or a sweep of them. See `ttsadapt.run.train`."""

from omegaconf import DictConfig

from ttsadapt.config.app import command


def job(cfg: DictConfig) -> float | None:
    from ttsadapt.run import train

    return train(cfg)


main = command("train", job)

if __name__ == "__main__":
    main()
