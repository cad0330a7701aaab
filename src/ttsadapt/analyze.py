"""`ttsadapt analyze`: ranks the blocks of the base model by speaker and emotion, or says how diverse its data are (analysis=diversity)."""

from omegaconf import DictConfig

from ttsadapt.config.app import command


def job(cfg: DictConfig) -> None:
    from ttsadapt.finished import analyze

    return analyze(cfg)


main = command("analyze", job)

if __name__ == "__main__":
    main()
