"""`ttsadapt prepare`: brings a corpus in, lays it out on disk and says what is in it.

data=folder data.path=...      which corpus; data.<name> are its settings
data.bring.<name>              what is done to every recording (sample_rate, trim, loudness, longest ...), and fractions of the splits
data/bring/split_by=speaker    data/bring/denoise=spectral_gate
"""

from omegaconf import DictConfig

from ttsadapt.config.app import command


def job(cfg: DictConfig) -> None:
    from pathlib import Path

    from hydra.utils import instantiate

    from ttsadapt.artifacts import ensure
    from ttsadapt.data.bringing.engine import REJECTED, read_rejected
    from ttsadapt.data.bringing.summary import told
    from ttsadapt.data.prepare import PreparedCorpus

    corpus = PreparedCorpus(instantiate(cfg.data), Path(cfg.paths.cache))
    ensure(corpus)
    print("\n".join(told(corpus.card, read_rejected(corpus.folder / REJECTED), corpus.folder)))


main = command("prepare", job)

if __name__ == "__main__":
    main()
