"""Judges of a few thousand random weights in the layout of released ones, written by transformers and speechbrain themselves."""

import json
from pathlib import Path

import torch

CONVOLUTIONS = {"conv_dim": (16, 16), "conv_stride": (20, 16), "conv_kernel": (40, 16), "num_feat_extract_layers": 2}
SMALL = CONVOLUTIONS | {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


def extractor(folder: Path) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    Wav2Vec2FeatureExtractor(sampling_rate=16000, do_normalize=True).save_pretrained(folder)


def ctc(folder: Path) -> Path:
    """wav2vec 2.0 over letters."""
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2ForCTC

    folder.mkdir(parents=True)
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz'"]
    (folder / "letters.json").write_text(json.dumps({c: i for i, c in enumerate(letters)}))
    torch.manual_seed(0)
    Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=len(letters), pad_token_id=0, **SMALL)).save_pretrained(folder)
    Wav2Vec2CTCTokenizer(str(folder / "letters.json")).save_pretrained(folder)
    extractor(folder)
    return folder


def whisper(folder: Path) -> Path:
    """Of one layer, with a tokeniser of single bytes."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    folder.mkdir(parents=True)
    pieces = sorted(bytes_to_unicode().values())
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    tokenizer = WhisperTokenizer(vocab={c: i for i, c in enumerate([*pieces, special[0]])}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    end, start = (tokenizer.convert_tokens_to_ids(t) for t in special[:2])
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, num_mel_bins=16, max_target_positions=12, max_source_positions=1500,
        pad_token_id=end, bos_token_id=end, eos_token_id=end, decoder_start_token_id=start, suppress_tokens=None,
        begin_suppress_tokens=None,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    model.generation_config.update(eos_token_id=end, pad_token_id=end, decoder_start_token_id=start, max_length=10)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=16).save_pretrained(folder)
    return folder


def xvector(folder: Path) -> Path:
    from transformers import WavLMConfig, WavLMForXVector

    torch.manual_seed(0)
    sizes = SMALL | {"tdnn_dim": (16, 16), "tdnn_kernel": (3, 1), "tdnn_dilation": (1, 1), "xvector_output_dim": 8}
    WavLMForXVector(WavLMConfig(num_buckets=8, **sizes)).save_pretrained(folder)
    extractor(folder)
    return folder


def emotions(folder: Path) -> Path:
    """wav2vec 2.0 with the labels of IEMOCAP."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification

    torch.manual_seed(0)
    labels = dict(enumerate(("neu", "hap", "ang", "sad")))
    config = Wav2Vec2Config(id2label=labels, label2id={v: k for k, v in labels.items()}, classifier_proj_size=8, **SMALL)
    Wav2Vec2ForSequenceClassification(config).save_pretrained(folder)
    extractor(folder)
    return folder


HYPERPARAMS = """\
compute_features: !new:speechbrain.lobes.features.Fbank
  n_mels: 80
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
  norm_type: sentence
  std_norm: false
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
  input_size: 80
  channels: [16, 16, 16, 16, 48]
  kernel_sizes: [5, 3, 3, 3, 1]
  dilations: [1, 2, 3, 4, 1]
  attention_channels: 8
  se_channels: 8
  lin_neurons: 12
classifier: !new:torch.nn.Identity
modules:
  compute_features: !ref <compute_features>
  mean_var_norm: !ref <mean_var_norm>
  embedding_model: !ref <embedding_model>
  classifier: !ref <classifier>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
  loadables:
    embedding_model: !ref <embedding_model>
"""


def ecapa(folder: Path) -> Path:
    """As speechbrain lays a released one out."""
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    folder.mkdir(parents=True)
    torch.manual_seed(0)
    network = ECAPA_TDNN(80, channels=[16, 16, 16, 16, 48], attention_channels=8, se_channels=8, lin_neurons=12)
    torch.save(network.state_dict(), folder / "embedding_model.ckpt")
    (folder / "hyperparams.yaml").write_text(HYPERPARAMS)
    return folder


SPEECHMOS = """
import torch

def utmos22_strong(pretrained=True, **options):
    path = torch.hub.get_dir() + "/checkpoints/utmos22_strong_step7459_v1.pt"
    return Predictor(torch.load(path, weights_only=True)["gain"])

class Predictor(torch.nn.Module):
    def __init__(self, gain):
        super().__init__()
        self.gain = gain

    def forward(self, wave, sr):
        return 1 + 4 * torch.tanh(self.gain * wave.abs().mean(1))
"""


def speechmos(hub: Path) -> Path:
    """torch.hub's cache after SpeechMOS was fetched."""
    (hub / "tarepan_SpeechMOS_v1.2.0").mkdir(parents=True)
    (hub / "tarepan_SpeechMOS_v1.2.0" / "hubconf.py").write_text(SPEECHMOS)
    (hub / "checkpoints").mkdir()
    torch.save({"gain": torch.tensor(3.0)}, hub / "checkpoints" / "utmos22_strong_step7459_v1.pt")
    return hub
