"""`ttsadapt report`: tables, plots and a page that compare the runs of a study."""

from omegaconf import DictConfig

from ttsadapt.config.app import command


def job(cfg: DictConfig) -> None:
    from pathlib import Path

    from ttsadapt.reports import build, console_table

    study = Path(cfg.paths.outputs) / cfg.study
    page = build(study)
    print(console_table(study), page, sep="\n\n")


main = command("report", job)

if __name__ == "__main__":
    main()
