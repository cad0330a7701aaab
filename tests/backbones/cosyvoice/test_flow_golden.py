"""The flows against tensors that the authors' own code made."""

import pytest
import torch

from backbones.cosyvoice import golden
from ttsadapt.backbones.cosyvoice.flow import Flow
from ttsadapt.backbones.cosyvoice.flows import FLOWS, CosyVoice1Flow, CosyVoice3Flow, flow_class
from ttsadapt.backbones.official import OfficialFile, save

pytestmark = pytest.mark.golden
NAMES = ("cv1_flow", "cv2_flow", "cv3_flow")
CASES = [("cv1_flow", "full"), *((name, case) for name in NAMES[1:] for case in ("full", "stream"))]


def loaded(name: str):
    """(flow, Origin, file)"""
    file = OfficialFile(golden.folder() / f"{name}.weights.pt")
    config, kind = golden.manifest(name)["config"], flow_class(file)
    settings = {}
    if kind is not CosyVoice3Flow:
        settings["unet_head"] = config["estimator"]["attention_head_dim"]
    if kind is not CosyVoice1Flow:
        settings["chunk"] = config["estimator"]["static_chunk_size"] // config["flow"]["token_mel_ratio"]
    flow, origin = kind.from_file(file, padding_leaks=True, **settings)
    return flow.eval(), origin, file


def draws_of(io: dict[str, torch.Tensor], case: str) -> dict[str, torch.Tensor]:
    time = io[f"{case}.t"].flatten()
    return {
        "time": time,
        "noise": io[f"{case}.z"].mT,
        "keep": io[f"{case}.cfg_keep"].bool(),
        "prompt_frames": (io[f"{case}.cond"].abs().sum(1) > 0).sum(1),
        "streaming": torch.full_like(time, case == "stream", dtype=torch.bool),
    }


def inputs_of(io: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [io["speech_token"], io["speech_token_len"].long(), io["speech_feat"], io["speech_feat_len"].long(), io["embedding"]]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_velocity_its_loss_and_its_gradients_are_the_authors(name, case):
    flow, _, _ = loaded(name)
    io, scalars = golden.tensors(name), golden.manifest(name)["scalars"]
    value, target, row, *_ = flow(*inputs_of(io), draws_of(io, case))
    real = io[f"{case}.mask"][:, 0].bool()
    torch.testing.assert_close(value, io[f"{case}.pred"].mT[real], atol=1e-4, rtol=0)
    torch.testing.assert_close(target, io[f"{case}.u"].mT[real], atol=1e-4, rtol=0)
    assert torch.equal(row, real.nonzero()[:, 0])
    loss = (value - target).square().mean()
    assert loss.item() == pytest.approx(scalars[f"{case}_loss"], abs=1e-5)
    loss.backward()
    golden.assert_norms(flow, flow.layout().place, scalars[f"{case}_grad_norms"])


@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_encoded_tokens_and_the_voice_are_the_authors(name, case):
    flow, _, _ = loaded(name)
    io = golden.tensors(name)
    tokens, lengths, mel, mel_lengths, embedding = inputs_of(io)
    with torch.no_grad():
        mu = flow.encode(tokens, lengths, mel_lengths, mel.shape[1], draws_of(io, case)["streaming"])
        voice = flow.voice(embedding)
    real = io[f"{case}.mask"].bool().mT
    torch.testing.assert_close(mu * real, io[f"{case}.mu"].mT * real, atol=1e-4, rtol=0)
    torch.testing.assert_close(voice, io[f"{case}.spks"], atol=1e-4, rtol=0)


def generated(flow: Flow, io: dict[str, torch.Tensor], **how) -> torch.Tensor:
    return flow.generate(io["inf.token"][0], io["inf.embedding"][0], io["inf.prompt_token"][0], io["inf.prompt_feat"][0], **how)


def test_ten_steps_of_version_1_give_the_authors_mel():
    flow, _, _ = loaded("cv1_flow")
    io = golden.tensors("cv1_flow")
    mel = generated(flow, io, noise=io["inf.noise"][0].T)
    torch.testing.assert_close(mel, io["inf.mel"][0].T, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES[1:])
@pytest.mark.parametrize(
    ("case", "how"),
    [
        ("full_final", {}),
        ("stream_final", {"streaming": True}),
        ("stream_partial", {"streaming": True, "last": False}),
    ],
)
def test_ten_steps_give_the_authors_mel_with_their_noise(name, case, how):
    flow, _, _ = loaded(name)
    io = golden.tensors(name)
    noise = io["inf.noise"][0].T
    torch.testing.assert_close(flow.noise(len(noise), seed=0), noise, atol=0, rtol=0)
    torch.testing.assert_close(generated(flow, io, **how), io[f"inf.{case}.mel"][0].T, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_released_flow_comes_back_bit_for_bit(name):
    flow, origin, file = loaded(name)
    back, there = save(flow, flow.layout(), origin), dict(file.tensors(file.shapes))
    assert back.keys() == there.keys()
    for key, tensor in there.items():
        assert torch.equal(back[key], tensor) and back[key].dtype == tensor.dtype, key


@pytest.mark.parametrize(("kind", "version"), zip(FLOWS, ("cosyvoice", "cosyvoice2", "cosyvoice3")))
def test_a_flow_of_official_size_has_the_authors_keys_and_shapes(kind, version):
    wanted = {name: tuple(shape) for name, shape in golden.full()["keys"][f"{version}.flow"].items()}
    with torch.device("meta"):
        default, found = kind(), kind(**kind.sizes(wanted))
    for flow in (default, found):
        assert {name: tuple(tensor.shape) for name, tensor in flow.state_dict().items()} == wanted
        assert sum(p.numel() for p in flow.parameters()) == golden.full()["counts"][f"{version}.flow"]["total"]
