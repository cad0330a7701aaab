"""`ttsadapt bench`: pairs of sides in turn, ratios with their spread, limits beside them. A case is a file here and one in conf/bench/."""

from omegaconf import DictConfig

from ttsadapt.config.app import command


def job(cfg: DictConfig) -> None:
    from ttsadapt.bench.running import bench

    return bench(cfg)


main = command("bench", job)
