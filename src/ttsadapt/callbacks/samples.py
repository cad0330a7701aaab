"""Lets the loggers that can play audio hear the model at every validation."""

from collections.abc import Sequence

import lightning as L

from ttsadapt.codecs.mel import MelSpectrogram
from ttsadapt.data.utterance import Utterance
from ttsadapt.learner import Learner
from ttsadapt.loggers.base import RunLogger


class Samples(L.Callback):
    """Speaks the same few validation sentences each time."""

    def __init__(self, utterances: Sequence[Utterance]) -> None:
        self.utterances = list(utterances)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        ears = [logger for logger in trainer.loggers if isinstance(logger, RunLogger) and logger.hears]
        if not ears or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Learner)
        backbone, mel = pl_module.backbone, MelSpectrogram()
        waves = backbone.synthesize([backbone.frontend.request(u) for u in self.utterances])
        for utterance, wave in zip(self.utterances, waves):
            for logger in ears:
                logger.log_audio(f"valid/{utterance.id}", wave, backbone.sample_rate, trainer.global_step, utterance.text)
                logger.log_mel(f"valid/{utterance.id}/mel", mel(wave), trainer.global_step)
