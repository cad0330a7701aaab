"""CSM's released folders: read, written back bit for bit, refused in one line; its size; the codec that is inside."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import CsmConfig, CsmForConditionalGeneration, MimiModel, PreTrainedTokenizerFast

from frames_toys import MIMI, Buckets, mimi
from ttsadapt.adapters import match
from ttsadapt.backbones.csm import Csm
from ttsadapt.backbones.csm_frontend import CsmFrontend
from ttsadapt.backbones.frames_text import PhoneText, TokenizerText
from ttsadapt.codecs.mimi import MimiCodec
from ttsadapt.errors import CheckpointError, ConfigError, DataError, UserError
from ttsadapt.heads import task_loss


def tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    text = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)} | {"]s": 256}, merges=[("]", "s")]))
    text.pre_tokenizer, text.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=text, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>")


def config(**others) -> CsmConfig:
    attention = {"num_attention_heads": 2, "num_key_value_heads": 1}
    depth = {
        "num_codebooks": 4, "vocab_size": 19, "backbone_hidden_size": 32, "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 1, "max_position_embeddings": 5, **attention,
    }  # fmt: skip
    return CsmConfig(
        num_codebooks=4, vocab_size=19, text_vocab_size=264, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        max_position_embeddings=256, codebook_pad_token_id=18, bos_token_id=257, pad_token_id=0, audio_token_id=0, audio_eos_token_id=0,
        depth_decoder_config=depth, codec_config={"model_type": "mimi", **MIMI}, **attention, **others,
    )  # fmt: skip


def released(folder: Path, dtype: torch.dtype = torch.float32, shards: str = "5GB") -> CsmForConditionalGeneration:
    torch.manual_seed(0)
    model = CsmForConditionalGeneration(config())
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    model.codec_model = mimi()
    model.to(dtype).save_pretrained(folder, max_shard_size=shards)
    tokenizer().save_pretrained(folder)
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("csm") / "released"
    released(place)
    return place


@pytest.fixture(scope="module")
def frontend(folder, utterances):
    frontend = CsmFrontend(MimiCodec(str(folder), levels=4), TokenizerText(str(folder)), max_tokens=256, depth_share=0.5)
    frontend.fit(utterances)
    return frontend


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return {n: t for file in folder.glob("*.safetensors") for n, t in load_file(file).items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shards", ["5GB", "60KB"])
def test_what_is_saved_is_what_was_loaded(frontend, tmp_path, dtype, shards, capsys):
    released(tmp_path / "in", dtype, shards)
    model = Csm.load_official(frontend, str(tmp_path / "in"))
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert (f"{str(dtype)[6:]} weights are read as float32" in capsys.readouterr().out) == (dtype != torch.float32)
    model.save_official(tmp_path / "out")
    before, after = weights_of(tmp_path / "in"), weights_of(tmp_path / "out")
    assert before.keys() == after.keys() and any(n.startswith("codec_model.") for n in after)
    assert all(before[n].dtype == after[n].dtype and torch.equal(before[n], after[n]) for n in before)
    assert {f.name for f in (tmp_path / "in").glob("token*")} <= {f.name for f in (tmp_path / "out").iterdir()}
    theirs = CsmForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert theirs.config.text_vocab_size == 264 and theirs.dtype == dtype
    assert torch.equal(theirs.lm_head.weight, before["lm_head.weight"])


def test_it_is_the_model_that_transformers_reads(folder, frontend, utterances):
    model = Csm.load_official(frontend, str(folder)).eval()
    theirs = CsmForConditionalGeneration.from_pretrained(folder).eval()
    batch = frontend.collate([frontend(u) for u in utterances[:3]])
    output = theirs(inputs_embeds=model.embedded(batch["text"], batch["codes"]), attention_mask=batch["mask"], labels=batch["labels"])
    heads = model(batch)
    assert torch.allclose(heads["semantic"].loss(), output.backbone_loss, atol=1e-5)
    assert torch.allclose(heads["acoustic"].loss(), output.depth_decoder_loss, atol=1e-5)
    wanted = theirs.get_input_embeddings()(batch["codes"])
    assert torch.allclose(model.lm.backbone_model.embed_tokens(batch["codes"]), wanted)


def test_the_shared_embedding_stays_one_weight(folder, frontend, tmp_path):
    model = Csm.load_official(frontend, str(folder))
    assert model.lm.backbone_model.embed_tokens.embed_audio_tokens.weight is model.lm.depth_decoder.model.embed_tokens.weight
    own = weights_of(folder)
    shutil.copytree(folder, tmp_path / "both")
    twice = own | {"backbone_model.embed_tokens.embed_audio_tokens.weight": own["depth_decoder.model.embed_tokens.weight"].clone()}
    save_file(twice, tmp_path / "both" / "model.safetensors", metadata={"format": "pt"})
    Csm.load_official(frontend, str(tmp_path / "both")).save_official(tmp_path / "out")
    assert weights_of(tmp_path / "out").keys() == twice.keys()
    edited = twice | {"backbone_model.embed_tokens.embed_audio_tokens.weight": 1 + twice["depth_decoder.model.embed_tokens.weight"]}
    save_file(edited, tmp_path / "both" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="one of them was edited"):
        Csm.load_official(frontend, str(tmp_path / "both"))


def test_a_merged_lora_has_the_same_keys(folder, frontend, utterances, tmp_path):
    model = Csm.load_official(frontend, str(folder))
    names = [n.removeprefix("lm.") for n in match(model, model.adaptable)]
    inject_adapter_in_model(LoraConfig(r=2, target_modules=names, init_lora_weights=False), model.peft_root)
    batch = frontend.collate([frontend(u) for u in utterances[:2]])
    tuned = {n: t.detach() for n, t in task_loss(model(batch)).items()}
    model.save_official(tmp_path / "out")
    before, after = weights_of(folder), weights_of(tmp_path / "out")
    assert before.keys() == after.keys()
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert changed == {f"{n}.weight" for n in names}
    again = Csm.load_official(frontend, str(tmp_path / "out"))
    assert {n: pytest.approx(t.item(), abs=1e-4) for n, t in tuned.items()} == {n: t.item() for n, t in task_loss(again(batch)).items()}


def test_the_official_size_is_that_of_csm_1b():
    with torch.device("meta"):
        theirs = CsmForConditionalGeneration(CsmConfig())
        ours = Csm(full_frontend())
        codec = MimiModel(theirs.config.codec_config)
    count = sum(p.numel() for p in ours.parameters())
    assert count + sum(p.numel() for p in codec.parameters()) == sum(p.numel() for p in theirs.parameters()) == 1_632_100_161
    shapes = {n: p.shape for n, p in theirs.named_parameters() if not n.startswith("codec_model.")}
    assert {n.removeprefix("lm."): p.shape for n, p in ours.named_parameters()} == shapes


def full_frontend() -> CsmFrontend:
    """A frontend of CSM-1B's sizes, without its files."""
    text = PhoneText()
    text.phones = [str(i) for i in range(128_256 - 13)]
    return CsmFrontend(Buckets(levels=32, codewords=2048), text)


def test_text_and_role_are_tokenised_together(frontend, utterances):
    ids = frontend.text.ids(frontend.text.spoken(utterances[0]), "0")
    theirs = tokenizer()
    assert ids == theirs.encode("<|begin_of_text|>[0]say _haɪ_<|end_of_text|>", add_special_tokens=False)
    assert theirs.convert_tokens_to_ids("]s") in ids, "a token that reaches from the role into the text"
    item = frontend(utterances[0])
    assert item["text"][: len(ids)].tolist() != ids and item["text"][item["text"] >= 0][-len(ids) :].tolist() == ids


def test_mimi_is_the_one_inside(folder, tmp_path, utterances):
    own, alone = mimi(), MimiCodec(str(folder), levels=4)
    own.save_pretrained(tmp_path / "mimi")
    audio = torch.randn(24000) * 0.1
    wanted = own.encode(audio[None, None], num_quantizers=4).audio_codes[0].T
    for codec in (alone, MimiCodec(str(tmp_path / "mimi"), levels=4)):
        assert (codec.sample_rate, codec.codewords, codec.rate) == (24000, 16, 50.0)
        assert torch.equal(codec.codes(audio), wanted) and wanted.shape == (13, 4)
        assert torch.allclose(codec.decode_codes(wanted), own.decode(wanted.T[None]).audio_values[0, 0].clamp(-1, 1))
        assert codec.state() == alone.state()
    assert torch.equal(MimiCodec(str(folder), levels=2).codes(audio), wanted[:, :2])
    assert alone.embedding().shape == (4 * 16, 16)
    assert torch.equal(alone.embedding()[16:32], own.quantizer.acoustic_residual_vector_quantizer.layers[0].codebook.embed)
    assert not any(p.requires_grad for p in alone.module.parameters()) and not alone.module.training
    with pytest.raises(CheckpointError, match="not the Mimi"):
        alone.restore({"weights": "other", "levels": 4})


def test_what_it_says_is_a_waveform(folder, frontend, utterances, capsys):
    model = Csm.load_official(frontend, str(folder), top_k=5)
    assert "no watermark" in capsys.readouterr().out
    audio = model.synthesize([frontend.request(u) for u in utterances[:2]])
    assert all(len(a) >= 1920 and a.isfinite().all() and a.abs().max() <= 1 for a in audio)
    assert len(model.resynthesize(torch.randn(24000) * 0.1)) == 13 * 1920


def broken(folder: Path, place: Path, kind: str) -> Path:
    shutil.copytree(folder, place)
    weights, file = weights_of(folder), place / "model.safetensors"
    if kind == "other family":
        (place / "config.json").write_text(json.dumps({"model_type": "moshi"}))
    elif kind == "no model_type":
        (place / "config.json").write_text("{}")
    elif kind == "not JSON":
        (place / "config.json").write_text("{")
    elif kind == "no weights":
        file.unlink()
    elif kind == "cut short":
        file.write_bytes(file.read_bytes()[:-1000])
    elif kind == "missing key":
        save_file({n: t for n, t in weights.items() if n != "lm_head.weight"}, file)
    elif kind == "extra key":
        save_file(weights | {"surprise.weight": torch.zeros(1)}, file)
    elif kind == "other shape":
        save_file(weights | {"lm_head.weight": torch.zeros(7, 32)}, file)
    elif kind == "foreign weights":
        save_file({"text_embeddings.weight": torch.zeros(2, 2), "audio_head": torch.zeros(3)}, file)
    return place


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("other family", "looks like a moshi, not a csm"),
        ("no model_type", "names no model_type"),
        ("not JSON", "is not valid JSON"),
        ("no weights", "holds neither model.safetensors nor"),
        ("cut short", "not a whole .safetensors file"),
        ("missing key", "1 keys are missing: lm_head.weight"),
        ("extra key", "1 keys are too many: surprise.weight"),
        ("other shape", "lm_head.weight has the shape [7, 32]"),
        ("foreign weights", "none of the keys of a CSM"),
    ],
)
def test_a_folder_that_is_no_csm_is_refused_in_one_line(folder, frontend, tmp_path, kind, words):
    with pytest.raises(CheckpointError) as caught:
        Csm.load_official(frontend, str(broken(folder, tmp_path / "it", kind)))
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "words", "act"),
    [
        (CheckpointError, "has no config.json", lambda f, d, t: Csm.load_official(f, str(t))),
        (CheckpointError, "neither a folder of Mimi", lambda f, d, t: MimiCodec(str(t / "none"), 4).sample_rate),
        (ConfigError, "has 1 to 4", lambda f, d, t: MimiCodec(str(d), 5).sample_rate),
        (ConfigError, "model has 4 levels", lambda f, d, t: Csm.load_official(CsmFrontend(MimiCodec(str(d), 3), f.text), str(d))),
        (ConfigError, "max_tokens=999", lambda f, d, t: Csm.load_official(CsmFrontend(f.codec, f.text, max_tokens=999), str(d))),
        (CheckpointError, "no tokenizer can be read", lambda f, d, t: TokenizerText(str(t)).size),
        (CheckpointError, "this model's codec is no Mimi", lambda f, d, t: Csm(small(), 32, 48, 1, 2, 1, 16, 32, 1, 2, 1).save_official(t)),
        (DataError, "codes must be in 0..15", lambda f, d, t: f.codec.decode_codes(torch.full((3, 4), 16))),
    ],
)  # fmt: skip
def test_refusals_are_one_line(frontend, folder, tmp_path, error, words, act):
    with pytest.raises(error) as caught:
        act(frontend, folder, tmp_path)
    assert isinstance(caught.value, UserError) and words in str(caught.value) and "\n" not in str(caught.value)


def small() -> CsmFrontend:
    text = PhoneText()
    text.phones = ["a"]
    return CsmFrontend(Buckets(), text)
