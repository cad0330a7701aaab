"""Released files: read, refused, written back; the second stage's, which hold a pickled object; text features and phones."""

import json
import os
import re
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gpt_sovits_helpers import SIZES, Whistle, buzz
from peft import LoraConfig, get_peft_model
from torch.nn.utils import parametrize
from transformers import BertConfig, BertModel, BertTokenizer, HubertConfig, HubertModel

from ttsadapt.backbones import official
from ttsadapt.backbones.gpt_sovits.arpabet import arpabet
from ttsadapt.backbones.gpt_sovits.backbone import GptSovits
from ttsadapt.backbones.gpt_sovits.bert import Bert
from ttsadapt.backbones.gpt_sovits.codec import SovitsCodec, spectrogram
from ttsadapt.backbones.gpt_sovits.file import LAYOUT
from ttsadapt.backbones.gpt_sovits.frontend import GptSovitsFrontend
from ttsadapt.backbones.gpt_sovits.released import ReleasedGptSovitsFrontend
from ttsadapt.backbones.gpt_sovits.s2 import S2Sizes, Synthesiser
from ttsadapt.backbones.gpt_sovits.s2_file import S2File, theirs
from ttsadapt.backbones.gpt_sovits.table import PhoneTable
from ttsadapt.errors import CheckpointError, DataError

PHONES = ["_", ",", ".", "B", "AH0", "AY1", "HH", "OW1", "AO1", "AO0", "K", "AE0", "T", "S", "IH0", "n", "i3", "h", "ao3"]


def given(phones: list[str], codec) -> GptSovitsFrontend:
    frontend = GptSovitsFrontend(codec)
    frontend._table = PhoneTable(phones)
    return frontend


@pytest.fixture
def frontend():
    return given(PHONES, Whistle())


@pytest.fixture
def released(frontend, tmp_path):
    """A file in half precision, as fine-tuned ones are, of random weights."""
    torch.manual_seed(0)
    path, model = tmp_path / "s1.ckpt", GptSovits(frontend, **SIZES, text_rows=len(PHONES) + 4)
    model.save_official(path)
    whole = torch.load(path, weights_only=True)
    whole["weight"] = {k: v.half() for k, v in whole["weight"].items()}
    torch.save(whole | {"info": "GPT-e15", "epoch": 15}, path)
    return path


def test_a_half_precision_file_comes_back_bit_equal(frontend, released, tmp_path, capsys):
    model = GptSovits.load_official(frontend, str(released))
    told = capsys.readouterr().out
    assert "epoch" in told and "float16" in told
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert len(model.h.layers) == SIZES["layers"] and model.h.layers[0].self_attn.heads == SIZES["heads"]
    model.save_official(tmp_path / "again.ckpt")
    one, two = (torch.load(p, weights_only=True) for p in (released, tmp_path / "again.ckpt"))
    assert two["config"] == one["config"] and two["info"] == "GPT-e15" and one["weight"].keys() == two["weight"].keys()
    for key, tensor in one["weight"].items():
        assert tensor.dtype == two["weight"][key].dtype and torch.equal(tensor, two["weight"][key]), key


def test_a_merged_adapter_has_the_same_keys_and_says_the_same(frontend, released, tmp_path):
    torch.manual_seed(1)
    model = GptSovits.load_official(frontend, str(released)).eval()
    tuned = get_peft_model(model, LoraConfig(r=2, target_modules=r"h\.layers\.\d+\.self_attn\.(query|value|out)", init_lora_weights=False))
    item = {
        "phones": torch.tensor([1, 4, 2]),
        "positions": torch.arange(3),
        "tokens": torch.arange(5),
        "given": torch.tensor(2),
        "speaker": torch.zeros(2),
    }
    batch = frontend.collate([item | {"frames": torch.tensor(9)}])
    adapted = model(batch)["tokens"].logits
    model.save_official(tmp_path / "merged.ckpt")
    before, after = (torch.load(p, weights_only=True)["weight"] for p in (released, tmp_path / "merged.ckpt"))
    assert before.keys() == after.keys() and {t.dtype for t in after.values()} == {torch.float16}
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed == {k for k in before if re.search(r"self_attn\.(in_proj|out_proj)\.?_?weight", k)}
    plain = GptSovits.load_official(frontend, str(tmp_path / "merged.ckpt")).eval()
    assert torch.allclose(plain(batch)["tokens"].logits, adapted, atol=2e-2)  # half precision
    assert tuned is not None


LOAD = """
import resource, sys, torch
from gpt_sovits_helpers import Whistle
from ttsadapt.backbones.gpt_sovits.backbone import GptSovits
from ttsadapt.backbones.gpt_sovits.file import LAYOUT
from ttsadapt.backbones.gpt_sovits.frontend import GptSovitsFrontend
from ttsadapt.backbones.gpt_sovits.table import PhoneTable
frontend = GptSovitsFrontend(Whistle())
frontend._table = PhoneTable(["a"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = GptSovits.load_official(frontend, sys.argv[1])
used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
size = sum(p.numel() * p.element_size() for p in model.parameters())
assert size > 1e8 and used < 1.3 * size, (used, size)
"""


def test_loading_takes_little_more_than_the_model(tmp_path):
    """In a process of its own: peak memory over what was there before, against the parameters' size."""
    empty = official.build(lambda: GptSovits(given(["a"], Whistle()), width=768, layers=4, heads=12))
    places = [(LAYOUT.place(name), tensor) for name, tensor in empty.state_dict().items()]
    weight = {place.name: torch.zeros(place.parts * len(tensor), *tensor.shape[1:]) for place, tensor in places}
    torch.save({"weight": weight, "config": {"model": {"head": 12}}, "info": ""}, tmp_path / "s1.ckpt")
    where = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", LOAD, str(tmp_path / "s1.ckpt")], env=where, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-600:]


def rewritten(path, change):
    whole = torch.load(path, weights_only=True)
    change(whole)
    torch.save(whole, path)
    return path


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("1 keys are missing: model.ar_predict_layer.weight", lambda w: w["weight"].pop("model.ar_predict_layer.weight")),
        ("1 keys are too many: model.more", lambda w: w["weight"].update({"model.more": torch.zeros(1)})),
        ("no 'weight' in it", lambda w: w.pop("weight")),
        ("has the shape [3, 3]", lambda w: w["weight"].update({"model.h.layers.1.linear1.weight": torch.zeros(3, 3)})),
        ("does not divide the width", lambda w: w["config"]["model"].update(head=5)),
        ("semantic tokens", lambda w: w["weight"].update({"model.ar_audio_embedding.word_embeddings.weight": torch.zeros(9, 32)})),
    ],
)
def test_broken_files_are_refused_in_one_line(frontend, released, words, change):
    with pytest.raises(CheckpointError, match=re.escape(words)) as caught:
        GptSovits.load_official(frontend, str(rewritten(released, change)))
    assert "\n" not in str(caught.value)


def test_other_files_are_refused_in_one_line(frontend, released, tmp_path, s2_path):
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(released.read_bytes()[:4000])
    bare = tmp_path / "bare.pt"
    torch.save({"llm_decoder.weight": torch.zeros(2, 2)}, bare)
    for path, words in ((cut, "cannot be read"), (tmp_path / "none.ckpt", "no such file"), (bare, "none of the keys")):
        with pytest.raises(CheckpointError, match=words) as caught:
            GptSovits.load_official(frontend, str(path))
        assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="this looks like a GPT-SoVITS s1"):
        SovitsCodec(str(released)).embedding()
    second = tmp_path / "s2.pth"
    torch.save({"weight": S2File(str(s2_path)).weights, "config": {}}, second)
    with pytest.raises(CheckpointError, match="this looks like a GPT-SoVITS s2, not a GPT-SoVITS s1"):
        GptSovits.load_official(frontend, str(second))


S2 = S2Sizes(
    phones=len(PHONES),
    bins=704,
    width=16,
    latent=8,
    filter=24,
    layers=2,
    voice=20,
    semantic=12,
    codewords=24,
    upsample_rates=(10, 8, 8),
    upsample_kernels=(16, 16, 16),
    upsample_width=16,
    resblock_kernels=(3,),
    resblock_dilations=((1, 3),),
)


def write_s2(path, synthesiser, magic: bytes = b"PK", more: dict[str, torch.Tensor] | None = None) -> None:
    """As the authors write it: half precision, normalised convolutions in two parts, settings as an object of `utils.HParams`."""
    weights = {}
    for name, tensor in synthesiser.state_dict().items():
        key = theirs(name)
        convolution = any(part in key for part in ("conv_", "mrte.", "enc_p.proj.weight", "enc_p.ssl_proj.weight")) and "ref_enc" not in key
        if name.endswith("weight") and tensor.dim() == 2 and convolution:
            tensor = tensor[..., None]
        if re.search(r"dec\.(ups|resblocks)|\.enc\.", key) and key.endswith(".weight"):
            norm = tensor.flatten(1).norm(dim=1).view(-1, *[1] * (tensor.dim() - 1))
            weights |= {f"{key}_g": norm, f"{key}_v": 3 * tensor}
        else:
            weights[key] = tensor
    module = types.ModuleType("utils")
    module.HParams = type("HParams", (), {"__module__": "utils", "__qualname__": "HParams"})
    settings, model = module.HParams(), module.HParams()
    sizes = {"upsample_rates": S2.upsample_rates, "upsample_kernel_sizes": S2.upsample_kernels}
    model.__dict__.update(
        sizes | {"resblock_kernel_sizes": S2.resblock_kernels, "resblock_dilation_sizes": S2.resblock_dilations, "n_heads": 2}
    )
    settings.__dict__.update(model=model, name="test")
    sys.modules["utils"], kept = module, sys.modules.get("utils")
    try:
        torch.save({"weight": weights | (more or {}), "config": settings, "info": "e"}, path)
    finally:
        sys.modules.pop("utils") if kept is None else sys.modules.update(utils=kept)
    path.write_bytes(magic + path.read_bytes()[2:])


@pytest.fixture(scope="module")
def synthesiser():
    torch.manual_seed(3)
    made = Synthesiser(S2).eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return made


@pytest.fixture(scope="module")
def s2_path(synthesiser, tmp_path_factory):
    path = tmp_path_factory.mktemp("s2") / "s2G.pth"
    write_s2(path, synthesiser)
    return path


@pytest.mark.parametrize("magic", [b"PK", b"05"])
def test_an_s2_file_is_read_without_running_what_is_in_it(synthesiser, tmp_path, magic):
    write_s2(tmp_path / "s2.pth", synthesiser, magic)
    assert "utils" not in sys.modules
    read = S2File(str(tmp_path / "s2.pth")).synthesiser()
    assert read.sizes == S2
    tokens, phones, voice, noise = torch.arange(7), torch.tensor([3, 1, 4]), torch.randn(20), torch.randn(1, 8, 14)
    with torch.no_grad():
        assert torch.allclose(read(tokens, phones, voice, noise), synthesiser(tokens, phones, voice, noise), atol=1e-5)
        bare, other = synthesiser(tokens, None, voice, noise), synthesiser(tokens, phones, -voice, noise)
    for changed in (bare, other):
        assert changed.shape == (7 * 1280,) and not torch.allclose(changed, read(tokens, phones, voice, noise), atol=1e-4)


def test_the_flow_is_turned_back(synthesiser):
    latent, voice = torch.randn(1, 8, 9), torch.randn(1, 20, 1)
    there = synthesiser.flow(latent, torch.ones(1, 1, 9), voice)
    assert torch.allclose(synthesiser.flow(there, torch.ones(1, 1, 9), voice, reverse=True), latent, atol=1e-4)
    assert not any(parametrize.is_parametrized(m) for m in synthesiser.modules())


@pytest.mark.parametrize(("phones", "parameters"), [(732, 77_606_402), (512, 77_493_762)], ids=["since v2", "v1"])
def test_official_size(phones, parameters):
    empty = official.build(lambda: GptSovits(given(["a"], Whistle(1024)), text_rows=phones))
    assert sum(p.numel() for p in empty.parameters()) == parameters
    assert sum(p.numel() for p in empty.h.parameters()) == 24 * 3_152_384


@pytest.mark.parametrize(
    ("sizes", "parameters"),
    [(S2Sizes(phones=322, bins=1025), 41_536_960), (S2Sizes(phones=732, bins=704), 41_574_592)],
    ids=["v1", "v2"],
)
def test_official_size_of_the_second_stage(sizes, parameters):
    """The authors' 51.27 and 51.31 M without the posterior encoder, which only trains, and without the lengths of normalised weights."""
    assert sum(p.numel() for p in official.build(lambda: Synthesiser(sizes)).parameters()) == parameters


@pytest.fixture(scope="module")
def hubert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hubert")
    sizes = {"hidden_size": S2.semantic, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 16}
    HubertModel(HubertConfig(**sizes, conv_dim=[8] * 7, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2)).save_pretrained(folder)
    return folder


@pytest.fixture
def codec(s2_path, hubert):
    return SovitsCodec(str(s2_path), str(hubert))


def test_the_released_front_end_takes_english_and_its_own_phones(codec, utterances, tmp_path):
    (tmp_path / "symbols.txt").write_text("\n".join(PHONES))
    settings = {"symbols": str(tmp_path / "symbols.txt"), "shortest": 0.5, "reference_seconds": 0.8}
    frontend = ReleasedGptSovitsFrontend(codec, **settings)
    english = [u for u in utterances if u.text == "_haɪ_"]
    frontend.fit(english)
    request = frontend.request(english[0])
    assert request.phones == request.reference.phones == ("HH", "AE0", "IH0", ".")
    again = ReleasedGptSovitsFrontend(codec, **settings)
    again.restore(frontend.state())
    model = GptSovits(frontend, **SIZES, temperature=1.0)
    one, two = (model.synthesize([r])[0] for r in (request, again.request(english[0])))
    assert torch.equal(one, two) and len(one) % 1280 == 0 and one.abs().max() <= 1
    item = frontend(english[1])
    assert int(item["given"]) == 1 and len(item["tokens"]) == frontend.lengths(item)["tokens"]
    with pytest.raises(DataError, match="not English"):
        frontend.request(replace(english[0], phones=tuple(p._replace(symbol="ʘ") for p in english[0].phones)))
    with pytest.raises(DataError, match="text front end"):
        frontend.request(replace(english[0], phones=(), language="ja"))


def test_codec_of_the_second_stage(codec):
    audio = buzz(1.0, 140)
    tokens, voice = codec.encode(audio), codec.voice(audio)
    assert len(tokens) == 12 and int(tokens.max()) < codec.tokens == 24 and voice.shape == (codec.voice_size,)
    speech = codec.decode(tokens, voice, torch.tensor([3, 4]), seed=1)
    assert len(speech) == 12 * 1280 and torch.equal(speech, codec.decode(tokens, voice, torch.tensor([3, 4]), seed=1))
    assert not torch.equal(speech, codec.decode(tokens, voice, torch.tensor([3, 4]), seed=2))
    assert spectrogram(torch.randn(6400)).shape == (1025, 10)
    with pytest.raises(DataError, match="too short"):
        codec.encode(audio[:1000])
    with pytest.raises(CheckpointError, match="of one version"):
        codec.decode(tokens, voice, torch.tensor([99]))


@pytest.mark.parametrize(("key", "version"), [("sv_emb.weight", "v2Pro"), ("bridge.0.weight", "v3 or v4")])
def test_later_versions_give_tokens_but_no_speech(synthesiser, hubert, tmp_path, key, version):
    write_s2(tmp_path / "later.pth", synthesiser, b"06", {key: torch.zeros(1)})
    codec = SovitsCodec(str(tmp_path / "later.pth"), str(hubert))
    assert len(codec.encode(buzz(1.0, 140))) == 12 and len(codec.voice(buzz(1.0, 140))) == 0
    with pytest.raises(CheckpointError, match=f"is a {version} file") as caught:
        codec.decode(torch.arange(3), torch.zeros(0))
    assert "\n" not in str(caught.value)


def test_an_s2_file_with_other_code_in_it_is_refused(tmp_path):
    torch.save({"weight": {}, "config": official.Place("x")}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        S2File(str(tmp_path / "bad.pth"))
    assert "\n" not in str(caught.value)


def test_text_features_go_to_the_phones_of_their_character(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "你", "好", "。"]))
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 8}
    BertModel(BertConfig(**sizes)).save_pretrained(tmp_path)
    bert = Bert(str(tmp_path))
    found = bert("你 好。", ["n", "i3", "h", "ao3", "."], "zh", "here")
    assert found.shape == (5, 8) and torch.equal(found[0], found[1]) and torch.equal(found[2], found[3])
    assert not torch.allclose(found[0], found[2], atol=1e-3)
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    layers = bert.model(ids, output_hidden_states=True).hidden_states
    assert torch.allclose(found[4], layers[-3][0, 3], atol=1e-6)
    assert not bert("hello", ["a", "b"], "en-us", "here").any()
    with pytest.raises(DataError, match="3 phones for 2 characters"):
        bert("你好", ["a", "b", "c"], "zh", "here")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Bert(str(tmp_path / "nowhere")).model  # noqa: B018


def test_english_in_arpabet():
    assert arpabet(["_", "h", "ə", "l", "ˈoʊ", "_", "w", "ˈɜː", "l", "d", "_"]) == ("HH", "AH0", "L", "OW1", ",", "W", "ER1", "L", "D", ".")
    assert arpabet(["ʘ"]) is None


@pytest.mark.parametrize("text", ['["a", "a"]', '{"a": 1}', "[1]", "["])
def test_bad_phone_tables(tmp_path, text):
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(DataError) as caught:
        PhoneTable.read(str(tmp_path / "table.json"))
    assert "\n" not in str(caught.value)
    (tmp_path / "good.json").write_text(json.dumps(PHONES))
    assert PhoneTable.read(str(tmp_path / "good.json")).rows(["B"], "here").tolist() == [3]
    with pytest.raises(DataError, match="not among the 19"):
        PhoneTable.read(str(tmp_path / "good.json")).rows(["Q"], "here")
