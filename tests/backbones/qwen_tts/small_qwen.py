"""A model from scratch, small: something to hear, a frontend fitted on it, sizes."""

import torch

from ttsadapt.backbones.qwen_tts_frontend import QwenTTSFrontend
from ttsadapt.backbones.speakers import SpeakerStatistics
from ttsadapt.codecs.kmeans import KMeansCodec
from ttsadapt.codecs.mel import MelSpectrogram

SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
}  # fmt: skip


def buzz(seconds: float, pitch: float) -> torch.Tensor:
    time = torch.arange(int(16000 * seconds)) / 16000
    glide = pitch * (1 + 0.2 * torch.sin(6 * time))
    phase = 2 * torch.pi * torch.cumsum(glide / 16000, 0)
    return 0.2 * sum(torch.sin(k * phase) / k for k in range(1, 9)) * (0.6 + 0.4 * torch.cos(9 * time))


def frontend_of(utterances, **settings) -> QwenTTSFrontend:
    speakers = settings.pop("speakers", SpeakerStatistics(MelSpectrogram()))
    codec = settings.pop("codec", None) or KMeansCodec(bands=[[0, 25], [25, 80]], codewords=12, iterations=4)
    frontend = QwenTTSFrontend(codec, speakers, **settings)
    frontend.fit(utterances)
    return frontend
