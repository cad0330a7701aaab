from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ttsadapt.loggers.tensorboard import TensorBoardLogger


def _read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return events


def test_everything_arrives(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, "run1", "compare", {"seed": 1})
    logger.log_hyperparams({"a": 1})
    for step in (0, 1, 1):  # the step of a checkpoint comes twice
        logger.log_metrics({"train/loss": 1.0 / (step + 1)}, step)
        logger.save()
    logger.log_audio("valid/hello", torch.sin(torch.arange(1600) / 5), 16000, 2, "hello")
    logger.log_mel("valid/mel", torch.randn(40, 80), 2)
    logger.log_table("scores", ["set", "mean"], [["target", 0.5]])
    logger.finalize("success")
    logger.log_metrics({"test": 1.0}, 2)
    logger.finish()
    logger.finish()
    events = _read(tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(0, 1.0), (1, 0.5)]
    assert events.Audio("valid/hello")[0].sample_rate == 16000 and events.Images("valid/mel")[0].width > 100
    assert b"| target | 0.5 |" in events.Tensors("scores/text_summary")[0].tensor_proto.string_val[0]
    assert not (tmp_path / "tensorboard" / "hparams.yaml").exists()


def test_a_resumed_run_hides_the_steps_it_takes_again(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    for step in range(6):
        logger.log_metrics({"loss": 10.0 + step}, step)
    logger.finish()
    resumed = TensorBoardLogger(tmp_path)
    resumed.rewind(3)
    for step in range(4, 6):
        resumed.log_metrics({"loss": 20.0 + step}, step)
    resumed.finish()
    assert [e.value for e in _read(tmp_path).Scalars("loss")] == [10.0, 11.0, 12.0, 13.0, 24.0, 25.0]
