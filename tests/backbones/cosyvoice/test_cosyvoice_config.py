"""A folder that looks like a release, adapted by config alone; and the configs at official size."""

import json
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from backbones.cosyvoice import onnx_file
from ttsadapt.artifacts import ensure
from ttsadapt.assembly import Assembly
from ttsadapt.backbones.cosyvoice.flows import CosyVoice1Flow, CosyVoice2Flow, CosyVoice3Flow
from ttsadapt.backbones.cosyvoice.hift import HiFT
from ttsadapt.backbones.cosyvoice.layout import Layout2
from ttsadapt.backbones.cosyvoice.llm import QwenLM
from ttsadapt.backbones.cosyvoice.loading import write
from ttsadapt.config.base import composed
from ttsadapt.config.schema import check
from ttsadapt.errors import CheckpointError
from ttsadapt.heads import task_loss
from ttsadapt.run import build_learner

FLOWS = {1: CosyVoice1Flow, 2: CosyVoice2Flow, 3: CosyVoice3Flow}


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    """Weights of CosyVoice 2 in small, its networks and its Qwen directory. Its heads have 8 channels, which only config.json tells."""
    folder = tmp_path_factory.mktemp("CosyVoice2-small")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    llm = QwenLM(Layout2(128), text_rows=200, rope_theta=1000.0, **sizes)
    flow = CosyVoice2Flow(
        tokens=128, voice_size=80, token_width=32, width=32, heads=2, hidden=48, blocks=1, up_blocks=1, channels=[32], middle=1,
        transformers=1, unet_heads=2, unet_head=64,
    )  # fmt: skip
    write(folder, llm, flow, HiFT(width=32, pitch_width=16), {})
    onnx_file.speech_tokenizer(folder / "speech_tokenizer_v2.onnx")
    onnx_file.speaker_encoder(folder / "campplus.onnx")
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["[UNK]", *"abcdefghijklmnopqrstuvwxyz"])}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]").save_pretrained(folder / "CosyVoice-BlankEN")
    (folder / "CosyVoice-BlankEN" / "config.json").write_text(json.dumps(sizes | {"rope_theta": 1000.0, "rms_norm_eps": 1e-5}))
    return folder


def asked(mini, release, *overrides):
    small = {"frontend.codec.tokens": 128, "frontend.text.rows": 200, "frontend.reference_seconds": 1.0, "path": release, "steps": 2}
    told = [f"backbone.{key}={value}" for key, value in small.items()]
    return mini("backbone=cosyvoice2_released", "base=null", "+backbone.frontend.speakers.size=80", *told, *overrides, small=False)


def test_a_released_folder_is_adapted_by_config_alone(mini, release, tmp_path):
    cfg = asked(mini, release, "strategy=[lora]")
    check(cfg)
    assembly = Assembly(cfg)
    ensure(assembly.corpus)
    ensure(*assembly.needs())
    learner, claims = build_learner(assembly)
    backbone = learner.backbone
    assert assembly.base_cfg is None and assembly.base.hash
    assert backbone.llm.qwen.config.num_attention_heads == 4 and backbone.llm.qwen.config.rms_norm_eps == 1e-5
    (features,) = assembly.features("target.train")
    batch = features.collate(features.ids[:4])
    optimizer = torch.optim.Adam([p for p, _ in claims], 1e-2)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        terms = learner.terms(batch)
        sum(terms.values()).backward()
        optimizer.step()
        losses.append({n: t.item() for n, t in terms.items()})
    assert all(losses[-1][n] < losses[0][n] for n in ("tokens", "mel"))
    request = backbone.frontend.request(assembly.utterances("target.test")[0])
    assert request.reference is not None
    (audio,) = backbone.synthesize([request])
    assert backbone.sample_rate == 24000 and audio.isfinite().all() and len(audio) % 960 == 0
    backbone.save_official(tmp_path)
    for name in ("llm.pt", "flow.pt", "hift.pt"):
        before, after = (torch.load(f / name, weights_only=True) for f in (release, tmp_path))
        assert before.keys() == after.keys()
        changed = {k for k in before if not torch.equal(before[k], after[k])}
        assert bool(changed) == (name != "hift.pt") and all(k.endswith(".weight") for k in changed)
    tuned = task_loss(learner.eval().heads(batch))
    files = {"text.path": "CosyVoice-BlankEN", "codec.path": "speech_tokenizer_v2.onnx", "speakers.path": "campplus.onnx"}
    elsewhere = [f"backbone.frontend.{key}={release / name}" for key, name in files.items()]
    again = Assembly(asked(mini, tmp_path, "backbone.llm_head_size=8", *elsewhere))
    ensure(*again.needs())
    again.base.backbone.llm.qwen.rotary_emb = backbone.llm.qwen.rotary_emb  # config.json was not copied: theta is another
    for name, head in again.base.backbone.eval()(batch).items():
        head.total = None
        assert head.loss().item() == pytest.approx(tuned[name].item(), rel=1e-3)


def test_a_release_without_its_networks(mini, release, tmp_path):
    cfg = asked(mini, tmp_path, f"backbone.frontend.text.path={release}/CosyVoice-BlankEN")
    with pytest.raises(CheckpointError, match=r"backbone\.frontend\.speakers\.path=.*campplus\.onnx: there is no such file") as told:
        instantiate(cfg.backbone.frontend).fit(Assembly(cfg).utterances("source.train")[:2])
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_configs_say_the_official_sizes(mini, version):
    cfg = mini(f"backbone=cosyvoice{version}", "backbone.frontend.codec.path=a", "backbone.frontend.speakers.path=b", small=False)
    check(cfg)
    frontend = instantiate(cfg.backbone.frontend)
    with torch.device("meta"):
        llm = instantiate(cfg.backbone.llm)(layout=frontend.layout, text_rows=frontend.text.rows, speaker_size=frontend.speakers.size)
        flow = instantiate(cfg.backbone.flow)(tokens=frontend.codec.tokens, n_mels=frontend.mel.n_mels, voice_size=frontend.speakers.size)
    assert sum(p.numel() for p in llm.parameters()) == {1: 310_718_465, 2: 505_803_812, 3: 506_148_480}[version]
    assert sum(p.numel() for p in flow.parameters()) == {1: 104_874_752, 2: 112_549_360, 3: 332_257_088}[version]
    assert isinstance(flow, FLOWS[version])


@pytest.mark.parametrize("version", [1, 2, 3])
def test_released_configs_ask_for_a_path_and_no_pretraining(version):
    cfg = composed(f"backbone=cosyvoice{version}_released", "backbone.path=/models/release")
    check(cfg)
    assert cfg.base is None and cfg.backbone.frontend.codec.path == f"/models/release/speech_tokenizer_v{version}.onnx"
