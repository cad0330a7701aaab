"""Speaker encoders and the vocoder, from files as their authors write them: nothing is downloaded."""

import pickle

import pytest
import torch

from ttsadapt.backbones.hypertts_frontend import HyperTTSFrontend
from ttsadapt.backbones.voices import GE2E, GE2EVoices, SpeechbrainVoices
from ttsadapt.codecs.hifigan import HiFiGAN
from ttsadapt.errors import CheckpointError, DataError, UserError

ECAPA = """
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: 24
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: 24
    channels: [16, 16, 16, 16, 48]
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    attention_channels: 8
    res2net_scale: 2
    se_channels: 8
    lin_neurons: 12
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 12
    out_neurons: 3
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>
label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables: {}
"""

HIFIGAN = """
generator: !new:speechbrain.lobes.models.HifiGAN.HifiganGenerator
    in_channels: 80
    out_channels: 1
    resblock_type: "1"
    resblock_dilation_sizes: [[1, 3, 5]]
    resblock_kernel_sizes: [3]
    upsample_kernel_sizes: [16, 16, 4, 4]
    upsample_initial_channel: 16
    upsample_factors: [8, 8, 2, 2]
modules:
    generator: !ref <generator>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables: {}
"""


@pytest.fixture
def encoder(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "encoder.pt"
    similarity = {"similarity_weight": torch.ones(1), "similarity_bias": torch.ones(1)}
    torch.save({"step": 3, "model_state": GE2E().state_dict() | similarity, "optimizer_state": {}}, path)
    return path


def folder(tmp_path, name: str, text: str) -> str:
    place = tmp_path / name
    place.mkdir()
    (place / "hyperparams.yaml").write_text(text)
    return str(place)


def test_ge2e_gives_a_vector_for_every_voice(encoder, aligned):
    voices = GE2EVoices(str(encoder))
    found = voices.fit(aligned)
    assert set(found) == {"ann", "bob"} and all(v.shape == (256,) and (v >= 0).all() for v in found.values())
    one = voices.vectors(aligned[:1])["ann"]
    assert one.norm().item() == pytest.approx(1, abs=1e-5) and not torch.equal(found["ann"], found["bob"])
    again = pickle.loads(pickle.dumps(voices))
    torch.testing.assert_close(again.vectors(aligned)["bob"], found["bob"])


def test_partials_overlap_by_half_and_the_last_counts_when_mostly_there(encoder):
    voices, noise = GE2EVoices(str(encoder)), 0.1 * torch.randn(16000 * 4)
    heard = []
    voices.encoder.register_forward_pre_hook(lambda module, args: heard.append(len(args[0])))
    for seconds in (0.5, 1.6, 1.9, 2.1, 4.0):
        voices.embed(noise[: int(16000 * seconds)])
    # 0, 1.6 s: one; 2.0 s would be three quarters of the second
    assert heard == [1, 1, 1, 2, 4]


def test_the_frontend_speaks_of_voices_as_it_is_told(encoder, aligned):
    frontend = HyperTTSFrontend(statistics=GE2EVoices(str(encoder)))
    frontend.fit(aligned)
    assert frontend(aligned[0])["speaker"].shape == (256,)


def test_ecapa_through_speechbrain(tmp_path, aligned):
    source = folder(tmp_path, "ecapa", ECAPA)
    voices = SpeechbrainVoices(source, size=12)
    found = voices.vectors(aligned)
    assert found["ann"].shape == (12,) and not torch.equal(found["ann"], found["bob"])
    with pytest.raises(CheckpointError, match="gives vectors of 12 numbers: set size=12"):
        SpeechbrainVoices(source).vectors(aligned)


def test_hifigan_through_speechbrain(tmp_path):
    vocoder = HiFiGAN(folder(tmp_path, "hifigan", HIFIGAN))
    mel = torch.randn(20, 80)
    wave = vocoder(mel)
    assert wave.shape == (20 * 256,) and wave.abs().max() <= 1 and torch.equal(wave, vocoder(mel))
    assert not list(filter(None, (p.requires_grad for p in vocoder.generator.parameters())))
    assert pickle.loads(pickle.dumps(vocoder)).source == vocoder.source
    with pytest.raises(CheckpointError, match="takes frames of 80 bands, the backbone makes 100"):
        HiFiGAN(vocoder.source, n_mels=100)(torch.randn(5, 100))


def test_mistakes_are_told_in_one_line(tmp_path, aligned):
    torch.save({"model_state": {"lstm.weight_ih_l0": torch.ones(2, 2)}}, tmp_path / "bad.pt")
    (tmp_path / "empty").mkdir()
    cases = [
        (lambda: GE2EVoices("nowhere.pt").vectors(aligned), CheckpointError, "there is no such file"),
        (lambda: GE2EVoices(str(tmp_path / "bad.pt")).vectors(aligned), CheckpointError, "is not a GE2E encoder"),
        (lambda: GE2EVoices("nowhere.pt").fit([]), DataError, "the pretraining data is empty"),
        (lambda: HiFiGAN(str(tmp_path / "empty"))(torch.zeros(3, 80)), UserError, "speechbrain cannot load"),
    ]
    for call, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
