"""`ttsadapt report`: tables, plots and a page that compare the runs of a study; with `page=`, a listening test of them."""

from pathlib import Path

from omegaconf import DictConfig

from ttsadapt.config.app import command


def job(cfg: DictConfig) -> None:
    from ttsadapt.errors import ConfigError
    from ttsadapt.reports import build, console_table

    study = Path(cfg.paths.outputs) / cfg.study
    if cfg.page is not None:
        print(_listening(cfg, study))
    elif cfg.results is not None:
        raise ConfigError("results= holds answers to a listening test: say which, such as page=mos")
    else:
        page = build(study)
        print(console_table(study), page, sep="\n\n")


def _listening(cfg: DictConfig, study: Path) -> str:
    """Builds the test's page, or reads the answers to it."""
    from hydra.utils import instantiate

    test = instantiate(cfg.page, _convert_="all")
    if cfg.results is None:
        return test.build(study)
    places = [cfg.results] if isinstance(cfg.results, str) else cfg.results
    return test.read(study, [Path(place).expanduser() for place in places])


main = command("report", job)

if __name__ == "__main__":
    main()
