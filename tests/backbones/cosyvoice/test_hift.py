"""The vocoder: against the authors' tensors, and by itself."""

from math import prod

import pytest
import torch

from backbones.cosyvoice import golden
from ttsadapt.backbones import official
from ttsadapt.backbones.cosyvoice.hift import HiFT, layout_of
from ttsadapt.backbones.official import OfficialFile
from ttsadapt.errors import CheckpointError

NAMES = ("cv1_hift", "cv2_hift", "cv3_hift")
SMALL = {"width": 32, "pitch_width": 16}
VERSIONS = {
    1: {"sample_rate": 22050, "rates": (8, 8), "kernels": (16, 16), "source_kernels": (7, 11), "interpolated": False},
    2: {},
    3: {"causal": True},
}
COUNTS = {1: 20_460_591, 2: 20_821_295, 3: 20_779_887}


def hift_of(version: int) -> HiFT:
    torch.manual_seed(0)
    hift = HiFT(**VERSIONS[version], **SMALL)
    with torch.no_grad():
        for name, p in hift.named_parameters():
            p.copy_(torch.full_like(p, 150.0) if name == "f0_predictor.classifier.bias" else p + 0.1 * torch.randn_like(p))
    return hift


def loaded(name: str):
    file = OfficialFile(golden.folder() / f"{name}.weights.pt")
    return *HiFT.from_file(file), file


@pytest.mark.golden
@pytest.mark.parametrize("name", NAMES)
def test_pitch_source_and_waveform_are_the_authors(name):
    hift, _, _, _ = loaded(name)
    io = golden.tensors(name)
    with torch.no_grad():
        torch.testing.assert_close(hift.pitch(io["mel"]), io["f0"], atol=1e-4, rtol=0)
        torch.testing.assert_close(hift.decode(io["mel"], io["source"][:, 0]), io["wav"], atol=1e-4, rtol=0)
        pitch = io["f0_upsampled"][:, :: hift.hop, 0]
        if "sinegen.sine_waves" in io:
            source = hift.m_source.mix(pitch, io["sinegen.rand_ini"], io["sinegen.sine_waves"])
        else:
            source = hift.m_source(pitch, torch.Generator().manual_seed(75))
        torch.testing.assert_close(source, io["source_seed75"][..., 0], atol=1e-4, rtol=0)


@pytest.mark.golden
def test_the_beginning_of_a_stream_is_the_authors():
    hift, _, _, _ = loaded("cv3_hift")
    io = golden.tensors("cv3_hift")
    unheard = 3  # frames that the pitch predictor looks ahead
    with torch.no_grad():
        wav = hift.decode(io["mel"][..., :-unheard], io["source"][:, 0, : -unheard * hift.hop], last=False)
    torch.testing.assert_close(wav, io["wav_partial"], atol=1e-4, rtol=0)


@pytest.mark.golden
@pytest.mark.parametrize("name", NAMES)
def test_a_released_vocoder_comes_back_bit_for_bit(name):
    hift, layout, origin, file = loaded(name)
    back, there = official.save(hift, layout, origin), dict(file.tensors(file.shapes))
    assert back.keys() == there.keys() and all(torch.equal(back[k], there[k]) for k in there)


@pytest.mark.golden
@pytest.mark.parametrize(("version", "name"), enumerate(("cosyvoice", "cosyvoice2", "cosyvoice3"), 1))
def test_a_vocoder_of_official_size_has_the_authors_keys_and_shapes(version, name):
    wanted = {key: tuple(shape) for key, shape in golden.full()["keys"][f"{name}.hift"].items()}
    place = layout_of().place
    with torch.device("meta"):
        default, found = HiFT(**VERSIONS[version]), HiFT(**HiFT.sizes(wanted))
    for hift in (default, found):
        assert {place(key).name: tuple(tensor.shape) for key, tensor in hift.state_dict().items()} == wanted
    assert (found.sample_rate, found.hop, found.causal) == (default.sample_rate, default.hop, default.causal)


@pytest.mark.parametrize(("version", "count"), COUNTS.items())
def test_the_official_size_has_the_official_count(version, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in HiFT(**VERSIONS[version]).parameters()) == count


@pytest.mark.parametrize("version", VERSIONS)
def test_the_same_mel_and_seed_give_the_same_samples(version):
    hift = hift_of(version)
    mel = torch.randn(7, 80) - 4
    state = torch.get_rng_state()
    once, again, other = hift(mel, 1), hift(mel, 1), hift(mel, 2)
    assert once.shape == (7 * prod(hift.rates) * 4,) and once.abs().max() <= 0.99
    assert torch.equal(once, again) and not torch.allclose(once, other)
    assert torch.equal(state, torch.get_rng_state())


def test_version_3_looks_no_further_ahead_than_it_says():
    hift = hift_of(3)
    mel = torch.randn(1, 80, 12) - 4
    source = torch.randn(1, 12 * hift.hop) * 0.1
    with torch.no_grad():
        whole = hift.decode(mel, source)
        begun = hift.decode(mel[..., :9], source[:, : 9 * hift.hop], last=False)
    assert begun.shape[1] == (9 - hift.ahead - 1) * hift.hop
    torch.testing.assert_close(begun, whole[:, : begun.shape[1]], atol=1e-5, rtol=0)


def test_a_training_checkpoint_keeps_its_discriminators(tmp_path):
    place = layout_of("generator.").place
    state = {place(n).name: t for n, t in hift_of(2).state_dict().items()}
    state |= {"discriminator.x.weight": torch.ones(2), "step": 3}
    torch.save(state, tmp_path / "hifigan.pt")
    hift, layout, origin = HiFT.from_file(OfficialFile(tmp_path / "hifigan.pt"))
    assert hift(torch.zeros(2, 80)).isfinite().all()
    back = official.save(hift, layout, origin)
    assert back.keys() == state.keys() - {"step"} and all(torch.equal(back[n], state[n]) for n in back)


def test_foreign_and_incomplete_files_are_told_in_one_line(tmp_path):
    place = layout_of().place
    state = {place(n).name: t for n, t in hift_of(1).state_dict().items()}
    torch.save({n: t for n, t in state.items() if not n.startswith("conv_post")}, tmp_path / "less.pt")
    with pytest.raises(CheckpointError, match=r"3 keys are missing: conv_post\.bias"):
        HiFT.from_file(OfficialFile(tmp_path / "less.pt"))
    torch.save({n: t for n, t in state.items() if not n.startswith("ups")}, tmp_path / "flat.pt")
    with pytest.raises(CheckpointError, match=r"is not a whole CosyVoice HiFT: 1 keys are missing: ups\.0\.bias"):
        HiFT.from_file(OfficialFile(tmp_path / "flat.pt"))
    torch.save({"a": torch.zeros(1)}, tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="none of the keys of a CosyVoice HiFT"):
        HiFT.from_file(OfficialFile(tmp_path / "none.pt"))
