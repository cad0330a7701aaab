"""Recordings in and out."""

import numpy as np
import pytest
import soundfile
import torch

from ttsadapt.data.audio import load, save
from ttsadapt.errors import DataError


def tone(rate, seconds=0.5, hz=440.0):
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def test_stereo_is_averaged(tmp_path):
    left = tone(16000)
    soundfile.write(tmp_path / "a.wav", np.stack([left, 0 * left], 1), 16000, subtype="FLOAT")
    audio = load(tmp_path / "a.wav", 16000)
    assert audio.dtype == torch.float32 and audio.shape == (8000,)
    assert torch.allclose(audio, torch.from_numpy(left / 2))


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000, 37813])
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_odd_rates_are_resampled_to_the_same_tone(tmp_path, rate, suffix):
    soundfile.write(tmp_path / f"a{suffix}", tone(rate), rate)
    audio = load(tmp_path / f"a{suffix}", 16000)
    assert abs(len(audio) - 8000) <= 1
    spectrum = audio.numpy()[:8000]
    peak = np.argmax(np.abs(np.fft.rfft(spectrum * np.hanning(len(spectrum))))) * 16000 / len(spectrum)
    assert abs(peak - 440) < 3
    assert audio[2000:6000].abs().max() == pytest.approx(0.3, abs=0.005)


def test_what_is_saved_loads_again(tmp_path):
    audio = torch.from_numpy(tone(22050))
    save(tmp_path / "deep" / "a.wav", audio, 22050)
    info = soundfile.info(tmp_path / "deep" / "a.wav")
    assert (info.subtype, info.samplerate, info.channels) == ("PCM_16", 22050, 1)
    assert (load(tmp_path / "deep" / "a.wav", 22050) - audio).abs().max() < 1e-4
    save(tmp_path / "loud.wav", 10 * audio, 22050)
    assert load(tmp_path / "loud.wav", 22050).abs().max() <= 1
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["loud.wav"]


def written(path, audio):
    soundfile.write(path, audio, 16000, subtype="FLOAT", format="WAV")


def not_finite(value):
    audio = tone(16000)
    audio[4000] = value
    return audio


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "no recording"),
        (lambda path: path.mkdir(), "no recording"),
        (lambda path: path.write_bytes(b""), "cannot read"),
        (lambda path: path.write_text("not audio"), "cannot read"),
        (lambda path: written(path, np.zeros(0, np.float32)), "no samples"),
        (lambda path: written(path, np.zeros(8000, np.float32)), "silent"),
        (lambda path: written(path, tone(16000) * 1e-4), "silent"),
        (lambda path: written(path, not_finite(np.nan)), "not finite (first at 0.250 s)"),
        (lambda path: written(path, not_finite(-np.inf)), "not finite"),
    ],
)
def test_unusable_files_are_one_line(tmp_path, make, words):
    path = tmp_path / "a.wav"
    make(path)
    with pytest.raises(DataError) as error:
        load(path, 16000)
    assert words in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)
