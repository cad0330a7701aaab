"""Released NeuTTS folders: the prompt token for token, weights in and out bit for bit, cloning by going on from a reference."""

import copy
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer

from backbones.qwen_tts.small_neutts import CODES, SIZES, CountingCodec, tokenizer_of
from ttsadapt.adapters import match
from ttsadapt.backbones import official
from ttsadapt.backbones.decoding import Sampling
from ttsadapt.backbones.qwen_tts import QwenTTS
from ttsadapt.backbones.qwen_tts_neutts import NeuTTSFrontend
from ttsadapt.backbones.qwen_tts_phones import phones_of
from ttsadapt.backbones.qwen_tts_tokens import SpeechTokenFrontend
from ttsadapt.config.base import composed
from ttsadapt.errors import CheckpointError, ConfigError, DataError, TooLong, UserError

GREEDY = Sampling(temperature=0.0)
PROMPT = "user: Convert the text to speech:<|TEXT_PROMPT_START|>{}<|TEXT_PROMPT_END|>\nassistant:<|SPEECH_GENERATION_START|>"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def loaded(fitted, folder, **settings) -> QwenTTS:
    notice = settings.pop("notice", lambda line: None)
    return QwenTTS.load_official(fitted(folder, **settings), str(folder), sampling=GREEDY, notice=notice).eval()


@pytest.mark.parametrize("first", [None, "<|begin|>"])
def test_prompt_is_the_released_string_token_for_token(released, fitted, sentences, first):
    folder = released(first=first)
    frontend, tokenizer = fitted(folder), AutoTokenizer.from_pretrained(folder)
    item = frontend(sentences[1])
    speech = item["tokens"][item["prompt"] : -1] - frontend.vocabulary.speech.start
    said = "".join(f"<|speech_{c}|>" for c in speech)
    text = PROMPT.format("hˈaʊ ɑːɹ juː?") + said + "<|SPEECH_GENERATION_END|>"
    assert item["tokens"].tolist() == tokenizer.encode(text)
    assert int(item["prompt"]) == len(tokenizer.encode(PROMPT.format("hˈaʊ ɑːɹ juː?")))
    request = frontend.request(replace(sentences[1], emotion="neutral"))
    said = "".join(f"<|speech_{c}|>" for c in request.reference.codes)
    both = PROMPT.format("juː ɑːɹ ðˈɛɹ, həlˈoʊ! hˈaʊ ɑːɹ juː?") + said  # the longest neutral recording of hers
    assert frontend.prompt(request).tolist() == tokenizer.encode(both)


def test_template_of_a_descendant(released, fitted, sentences):
    template = "<|TEXT_PROMPT_START|>{phones}<|TEXT_PROMPT_END|><|SPEECH_GENERATION_START|>"
    folder = released()
    frontend, tokenizer = fitted(folder, template=template, references=False), AutoTokenizer.from_pretrained(folder)
    wanted = tokenizer.encode(template.replace("{phones}", "həlˈoʊ ðˈɛɹ."))
    assert frontend.prompt(frontend.request(sentences[0])).tolist() == wanted
    with pytest.raises(ConfigError, match="template") as caught:
        len(fitted(folder, template="{phones}").vocabulary)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('So I\'m, like, "really" sure... are you?!', 'sˈoʊ aɪm, lˈaɪk, "ɹˈiəli" ʃˈʊɹ... ɑːɹ juː?!'),
        ("  What?  Really!   OK", "wˌʌt? ɹˈiəli! ˌoʊkˈeɪ"),
        ("That is 3.14, co-worker", "ðæt ɪz θɹˈiː pɔɪnt wˈʌn fˈoːɹ, kˈoʊwˈɜːkɚ".replace("oː", "ɔː")),
        ("…and then?", "…ænd ðˈɛn?"),
    ],
)
def test_phones_keep_stress_punctuation_and_words(text, said):
    assert phones_of(text, "en-us") == said


def test_loss_is_on_speech_and_end_only_and_equals_the_authors_softmax_over_them(released, fitted, sentences):
    model = loaded(fitted, released())
    frontend = model.frontend
    items = [frontend(u) for u in sentences[:3]]
    head = model(frontend.collate(items))["tokens"]
    assert head.count == sum(len(i["tokens"]) - int(i["prompt"]) for i in items)
    rows = list(model.classes)
    assert sorted(rows) == sorted([*frontend.vocabulary.speech, frontend.vocabulary.end])
    for k, item in enumerate(items):
        tokens, prompt = item["tokens"], int(item["prompt"])
        whole = model.lm(tokens[None]).logits[0, prompt - 1 : -1]  # all rows, one utterance, no padding
        wanted = torch.nn.functional.cross_entropy(whole[:, rows], torch.tensor([rows.index(t) for t in tokens[prompt:].tolist()]))
        assert head.per_position()[head.row == k].mean().item() == pytest.approx(wanted.item(), abs=1e-5)
        assert torch.allclose(head.logits[head.row == k], whole[:, rows], atol=1e-5)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("dtype", "shards"), [(torch.float32, 1), (torch.bfloat16, 3)])
def test_what_was_loaded_is_written_back_bit_for_bit(released, fitted, tmp_path, kind, tied, dtype, shards):
    folder, told = released(kind, tied, dtype, shards), []
    model = loaded(fitted, folder, notice=told.append)
    assert len(list(folder.glob("*.safetensors"))) >= min(shards, 2)
    assert all(p.dtype == torch.float32 for p in model.parameters()) and bool(told) == (dtype == torch.bfloat16)
    model.save_official(tmp_path / "back")
    before, after = weights(folder), weights(tmp_path / "back")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n], after[n]) and before[n].dtype == after[n].dtype for n in before)
    assert (tmp_path / "back/config.json").read_bytes() == (folder / "config.json").read_bytes()
    assert (tmp_path / "back/tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "back", dtype=torch.float32).eval()
    ids = torch.arange(20)[None]
    assert torch.allclose(theirs(ids).logits, model.lm(ids).logits, atol=1e-5)


def test_a_file_with_the_tied_copy_keeps_it_and_unequal_copies_are_refused(released, fitted, tmp_path):
    folder = tmp_path / "copied"
    shutil.copytree(released(), folder)
    state = load_file(folder / "model.safetensors")
    state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    model = loaded(fitted, folder)
    model.save_official(tmp_path / "back")
    back = weights(tmp_path / "back")
    assert back.keys() == state.keys() and torch.equal(back["lm_head.weight"], back["model.embed_tokens.weight"])
    state["lm_head.weight"][3, 3] += 1
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="one weight"):
        loaded(fitted, folder)


def test_a_lora_acts_and_merges_under_the_same_keys(released, fitted, sentences, tmp_path):
    folder = released("qwen2", False)
    model = loaded(fitted, folder)
    untouched = copy.deepcopy(model)
    names = [n.removeprefix("lm.") for n in match(model, model.adaptable)]
    wrapped = get_peft_model(model.peft_root, LoraConfig(r=2, target_modules=names))
    with torch.no_grad():
        for n, p in wrapped.named_parameters():
            if "lora_B" in n:
                p.normal_(std=0.1)
    model.eval().save_official(tmp_path / "merged")
    assert weights(tmp_path / "merged").keys() == weights(folder).keys()
    batch = model.frontend.collate([model.frontend(sentences[0])])
    adapted = model(batch)["tokens"].logits
    again = loaded(fitted, tmp_path / "merged")
    assert torch.allclose(again(batch)["tokens"].logits, adapted, atol=1e-4)
    assert not torch.allclose(untouched(batch)["tokens"].logits, adapted, atol=1e-2)


def recomputed(model: QwenTTS, request, steps: int) -> list[int]:
    tokens, said = model.frontend.prompt(request), []
    for _ in range(steps):
        logits = model.project(model.lm.model(tokens[None]).last_hidden_state[:, -1])[0, :CODES]
        said.append(int(logits.argmax()))
        tokens = torch.cat([tokens, torch.tensor([said[-1] + model.speech.start])])
    return said


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@torch.no_grad()
def test_cloning_goes_on_from_the_reference(released, fitted, sentences, kind):
    model = loaded(fitted, released(kind))
    requests = [model.frontend.request(u) for u in sentences[:4]]
    cached = model.generate(requests)
    for request, tokens in zip(requests, cached):
        assert tokens.tolist() == recomputed(model, request, len(tokens)) and len(tokens) > 2
        low, high = model.frontend.bounds(request)
        assert low <= len(tokens) <= high
    waves = model.synthesize(requests[:2])
    assert [len(w) for w in waves] == [960 * len(t) for t in cached[:2]]  # what follows the reference, without it
    others = model.generate([replace(requests[0], reference=requests[3].reference)])[0]
    assert others.tolist() != cached[0].tolist()


def test_references_are_chosen_by_speaker_then_emotion(released, fitted, sentences):
    frontend = fitted(released())
    assert {s: sorted(own) for s, own in frontend.references.items()} == {"anna": ["happy", "neutral"], "bert": ["sad"]}
    phones = {e: "".join(frontend.reference("anna", e, "x").phones) for e in ("neutral", "happy", "angry")}
    assert phones == {"neutral": "juː ɑːɹ ðˈɛɹ, həlˈoʊ!", "happy": "hˈaʊ ɑːɹ juː?", "angry": "juː ɑːɹ ðˈɛɹ, həlˈoʊ!"}
    assert "".join(frontend.reference("bert", "happy", "x").phones) == "həlˈoʊ, juː."
    known = copy.deepcopy(frontend)
    known.enroll([replace(sentences[1], id="a", emotion="neutral", text="You!"), replace(sentences[1], id="b", speaker="dora")])
    assert torch.equal(known.references["anna"]["neutral"].codes, frontend.references["anna"]["neutral"].codes)
    assert set(known.references) == {"anna", "bert", "dora"}
    assert fitted(released(), references=False).request(sentences[4]).reference is None


def test_state_holds_references_and_pace(released, fitted, sentences, tmp_path):
    frontend = fitted(released())
    torch.save(frontend.state(), tmp_path / "frontend.pt")
    again = NeuTTSFrontend(CountingCodec(), str(released()), max_tokens=256)
    again.restore(torch.load(tmp_path / "frontend.pt", weights_only=True))
    assert again.pace == frontend.pace
    for utterance in sentences[:4]:
        assert torch.equal(again.prompt(again.request(utterance)), frontend.prompt(frontend.request(utterance)))


def test_phones_of_another_frontend_are_spelled_without_pauses(released, fitted, sentences):
    frontend = fitted(released(), references=False)
    request = replace(frontend.request(sentences[0]), phones=("_", "h", "ə", "l", "ˈoʊ", "_"))
    assert frontend.prompt(request).tolist() == AutoTokenizer.from_pretrained(released()).encode(PROMPT.format("həlˈoʊ"))


def test_too_long_is_left_out_and_a_long_text_is_refused(released, fitted, sentences):
    frontend = fitted(released(), max_tokens=60)
    with pytest.raises(TooLong, match="max_tokens"):
        frontend(sentences[2])
    model = QwenTTS.load_official(frontend, str(released()), notice=lambda line: None)
    with pytest.raises(DataError, match="split the text") as caught:
        model.generate([replace(frontend.request(sentences[0]), phones=tuple("həlˈoʊ ðˈɛɹ " * 9))])
    assert "\n" not in str(caught.value)


def test_official_sizes_on_the_meta_device(released):
    class Rows(SpeechTokenFrontend):
        vocabulary = type("V", (), {"speech": range(151671, 217207), "end": 151670, "pad": 151643, "__len__": lambda self: 217478})()

    Rows.__abstractmethods__ = frozenset()
    frontend = Rows(CountingCodec(), 2048, 256, 0.0)
    with torch.device("meta"):
        model = QwenTTS(frontend)
    count = sum(p.numel() for p in model.parameters())
    embedding = 217478 * 896
    assert count - embedding == 357_898_112 and round(count / 1e5) == 5528
    blocks = [model.blocks["backbone"][i] for i in ("3", "7")]
    assert sum(p.numel() for b in blocks for p in b.parameters()) == 29_824_768 == 2 * 14_912_384
    with torch.device("meta"):
        block = Qwen2DecoderLayer(Qwen2Config(hidden_size=896, intermediate_size=4864, num_attention_heads=14, num_key_value_heads=2), 0)
    assert sum(p.numel() for p in block.parameters()) == 14_912_384


def test_the_released_config_builds(released, fitted, sentences, monkeypatch):
    cfg = composed("backbone=qwen_tts_released", f"backbone.path={released()}")
    assert cfg.base is None
    cfg.backbone.frontend.max_tokens = 256
    frontend = instantiate(cfg.backbone.frontend, codec=CountingCodec())
    frontend.fit(sentences)
    frontend.enroll(sentences)
    model = instantiate({k: v for k, v in cfg.backbone.items() if k != "frontend"}, frontend=frontend)
    assert model.sampling == Sampling(temperature=1.0, top_k=50) and model.sample_rate == 24000
    assert all(torch.isfinite(w).all() for w in model.synthesize([frontend.request(u) for u in sentences[:2]]))
    assert len(model.resynthesize(torch.randn(24000) * 0.1)) == 24000
    assert math.isfinite(model(frontend.collate([frontend(sentences[0])]))["tokens"].loss())


def edited(folder: Path, to: Path, act) -> Path:
    shutil.copytree(folder, to)
    act(to)
    return to


def reshaped(folder: Path, change) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def config(folder: Path, **values) -> None:
    read = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(read | values))


UP = "model.layers.1.mlp.up_proj.weight"
VALLE = {f"{n}.word_embeddings.weight": torch.ones(2, 2) for n in ("ar_language_embedding", "nar_stage_embeddings.0")}


@pytest.mark.parametrize(
    ("words", "act"),
    [
        (f"1 keys are missing: {UP}", lambda f: reshaped(f, lambda s: s.pop(UP))),
        ("1 keys are too many: adapter.scale", lambda f: reshaped(f, lambda s: s.update({"adapter.scale": torch.ones(2)}))),
        ("has the shape", lambda f: reshaped(f, lambda s: s.update({"model.norm.weight": torch.ones(9)}))),
        ("has no config.json", lambda f: (f / "config.json").unlink()),
        ("holds neither", lambda f: (f / "model.safetensors").unlink()),
        ("not a whole", lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:5000])),
        ("this looks like a mimi", lambda f: config(f, model_type="mimi")),
        ("not built like Llama", lambda f: config(f, model_type="gpt2", n_embd=32, n_head=2, n_layer=1)),
        ("they are not of one model", lambda f: config(f, vocab_size=100)),
        ("this looks like a VALL-E", lambda f: reshaped(f, lambda s: (s.clear(), s.update(VALLE)))),
    ],
)  # fmt: skip
def test_wrong_folders_are_refused_in_one_line(released, fitted, tmp_path, words, act):
    frontend = fitted(released())
    folder = edited(released(), tmp_path / "wrong", act)
    with pytest.raises(UserError) as caught:
        QwenTTS.load_official(frontend, str(folder), notice=lambda line: None)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "act"),
    [
        ("no tokenizer can be read", lambda t: (t / "tokenizer.json").write_text("{")),
        ("consecutive rows", lambda t: tokenizer_of(codes=CODES - 1).save_pretrained(t)),
        ("consecutive rows", lambda t: tokenizer_of(order=lambda names: names[::-1]).save_pretrained(t)),
    ],
)
def test_wrong_tokenizers_are_refused_in_one_line(released, tmp_path, words, act):
    folder = edited(released(), tmp_path / "wrong", act)
    with pytest.raises(CheckpointError) as caught:
        len(NeuTTSFrontend(CountingCodec(), str(folder)).vocabulary)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_other_mistakes_are_one_line(released, fitted, sentences, tmp_path):
    frontend = fitted(released())
    file = tmp_path / "model.safetensors"
    save_file({"x": torch.ones(1)}, file)
    mistakes = [
        (CheckpointError, "there is no such folder", lambda: QwenTTS.load_official(frontend, str(tmp_path / "no"))),
        (CheckpointError, "single file", lambda: QwenTTS.load_official(frontend, str(file))),
        (DataError, "has no reference", lambda: frontend.request(sentences[4])),
        (DataError, "can be spoken", lambda: frontend(replace(sentences[0], text="…"))),
        (UserError, "no language", lambda: frontend(replace(sentences[0], language="klingon"))),
        (ConfigError, "512 positions", lambda: QwenTTS.load_official(fitted(released(), max_tokens=513), str(released()))),
    ]
    for kind, words, act in mistakes:
        with pytest.raises(kind) as caught:
            act()
        assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_trained_from_scratch_under_a_released_tokenizer_is_released_the_same_way(released, fitted, sentences, tmp_path):
    frontend = fitted(released())
    sizes = {k: v for k, v in SIZES.items() if k != "max_position_embeddings"}
    model = QwenTTS(frontend, **sizes, sampling=GREEDY).eval()
    model.save_official(tmp_path / "own")
    again = QwenTTS.load_official(frontend, str(tmp_path / "own"), sampling=GREEDY, notice=lambda line: None).eval()
    batch = frontend.collate([frontend(sentences[0])])
    assert torch.equal(model(batch)["tokens"].logits, again(batch)["tokens"].logits)
    assert official.recognise(weights(tmp_path / "own"))[0] == "NeuTTS language model"
