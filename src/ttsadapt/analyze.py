"""`ttsadapt analyze`: ranks the blocks of the base model by speaker and emotion, or says how diverse its data are (analysis=diversity)."""

from omegaconf import DictConfig

from ttsadapt.config.app import command


def job(cfg: DictConfig) -> None:
    from hydra.utils import instantiate

    instantiate(cfg.analysis).analyze(cfg)


main = command("analyze", job)

if __name__ == "__main__":
    main()
