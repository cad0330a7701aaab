"""`ttsadapt synthesize`: speaks a text with a finished run."""

from omegaconf import DictConfig

from ttsadapt.config.app import command


def job(cfg: DictConfig) -> None:
    from ttsadapt.config.finding import find

    folder = find(cfg)
    from ttsadapt.finished import synthesize

    return synthesize(cfg, folder)


main = command("synthesize", job)

if __name__ == "__main__":
    main()
