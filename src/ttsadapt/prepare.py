"""`ttsadapt prepare`: lays a corpus out on disk and says what is in it."""

from omegaconf import DictConfig

from ttsadapt.config.app import command


def job(cfg: DictConfig) -> None:
    from pathlib import Path

    from hydra.utils import instantiate

    from ttsadapt.artifacts import ensure
    from ttsadapt.data.prepare import PreparedCorpus

    corpus = PreparedCorpus(instantiate(cfg.data), Path(cfg.paths.cache))
    ensure(corpus)
    print(corpus.card())


main = command("prepare", job)

if __name__ == "__main__":
    main()
