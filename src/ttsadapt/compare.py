"""`ttsadapt compare`: is one finished run better than another? Their scores.csv are read, nothing is spoken or scored."""

from omegaconf import DictConfig

from ttsadapt.config.app import command


def job(cfg: DictConfig) -> None:
    from ttsadapt.comparing import compare

    return compare(cfg)


main = command("compare", job)

if __name__ == "__main__":
    main()
