"""`ttsadapt evaluate`: synthesises and scores the test sentences of a finished run."""

from omegaconf import DictConfig

from ttsadapt.config.app import command


def job(cfg: DictConfig) -> None:
    from ttsadapt.finished import evaluate

    return evaluate(cfg)


main = command("evaluate", job)

if __name__ == "__main__":
    main()
