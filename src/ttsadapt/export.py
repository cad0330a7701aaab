"""`ttsadapt export`: writes a finished run's model in its authors' own format, adapters merged in."""

from omegaconf import DictConfig

from ttsadapt.config.app import command


def job(cfg: DictConfig) -> None:
    from ttsadapt.config.finding import find

    folder = find(cfg)
    from ttsadapt.finished import export

    return export(cfg, folder)


main = command("export", job)

if __name__ == "__main__":
    main()
