"""Moshi: what is said when, that it is transformers' model number for number, that its caches are exact, and its released folders."""

import copy
import json
import pickle
import shutil
from dataclasses import replace
from fnmatch import fnmatchcase

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from transformers import MoshiConfig, MoshiForConditionalGeneration
from transformers.models.moshi.modeling_moshi import MoshiFlexibleLinear

from frames_toys import MIMI, Buckets, mimi, recorded
from ttsadapt.adapters import match
from ttsadapt.backbones.base import Request
from ttsadapt.backbones.moshi import Moshi
from ttsadapt.backbones.moshi_frontend import MoshiFrontend, PhoneMonologue
from ttsadapt.backbones.moshi_parts import PerLevelLinear, Speaker
from ttsadapt.codecs.mimi import MimiCodec
from ttsadapt.data.utterance import Phone
from ttsadapt.errors import CheckpointError, ConfigError, DataError, TooLong
from ttsadapt.heads import task_loss

SIZES = {
    "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "depth_hidden_size": 16,
    "depth_ffn_dim": 32, "depth_num_hidden_layers": 1, "depth_num_attention_heads": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def utterances(tmp_path_factory):
    return recorded(tmp_path_factory.mktemp("audio"))


@pytest.fixture(scope="module", params=[0, 2], ids=["together", "text leads"])
def frontend(request, utterances):
    frontend = MoshiFrontend(Buckets(), PhoneMonologue(), max_tokens=200, depth_share=0.5, lead=request.param)
    frontend.fit(utterances)
    return frontend


@pytest.fixture(scope="module")
def model(frontend):
    """Greedy, and far from uniform, so that a wrong step or mask shows."""
    torch.manual_seed(0)
    model = Moshi(frontend, **SIZES, temperature=0.0, acoustic_temperature=0.0).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


@pytest.fixture(scope="module")
def items(frontend, utterances):
    return [frontend(u) for u in utterances]


def test_states_and_codes_are_transformers_own(frontend, model, items):
    """Their classes, fed with the steps before: the same logits of text, and of every code given the text and codes before it."""
    batch = frontend.collate(items[:1])
    heads = model(batch)
    text, codes = model.before(batch["text"], batch["codes"])
    listener = frontend.silence[None, :, None].expand(1, -1, text.shape[1])
    output = MoshiForConditionalGeneration.forward(
        model.lm, input_ids=text, moshi_audio_codes=codes.transpose(1, 2), user_audio_codes=listener, attention_mask=batch["mask"]
    )
    assert torch.allclose(heads["text"].logits, output.logits[0, batch["words"]], atol=1e-5)
    assert torch.allclose(heads["padding"].logits, output.logits[0, batch["paddings"]], atol=1e-5)
    states = output.last_hidden_state[0]
    deep = torch.cat([batch["text"][0, :, None], batch["codes"][0, :, :-1]], 1)
    theirs = model.lm.depth_decoder(input_ids=deep, last_hidden_state=states[:, None]).logits
    assert torch.allclose(heads["semantic"].logits, theirs[batch["semantic"], 0], atol=1e-5)
    assert torch.allclose(heads["acoustic"].logits, theirs[batch["acoustic"], 1:].flatten(0, 1), atol=1e-5)


def test_what_is_said_when(frontend, utterances):
    own = frontend._codes(utterances[2])
    frames, lead = len(own), frontend.lead
    item = frontend.conversation([frontend.turn(utterances[2])], "alone")
    assert item["text"].shape == (frames + lead + 1,)
    assert torch.equal(item["codes"][lead : lead + frames, 0], own[:, 0])
    assert torch.equal(item["codes"][lead + 1 :, 1:], own[:, 1:])
    assert (item["codes"][:lead] == frontend.nothing).all() and (item["codes"][lead, 1:] == frontend.nothing).all()
    assert item["codes"][-1, 0] == frontend.nothing
    text = item["text"].tolist()
    said = [t for t in text if t != frontend.text.padding]
    assert said == frontend.queue(frontend.request(utterances[2])) and text[frames] == frontend.text.end
    rate = frontend.codec.rate / 4
    places = [i for i, t in enumerate(text[:frames]) if t != frontend.text.padding]
    assert all(0 <= place - int(p.start * rate) <= 1 for place, p in zip(places, utterances[2].phones))


def test_supervised_is_the_last_turn_without_padding(frontend, model, items, utterances):
    heads = model(frontend.collate(items))
    for i, utterance in enumerate(utterances):
        own = frontend._codes(utterance)
        assert torch.equal(heads["semantic"].target[heads["semantic"].row == i], own[:, 0])
        drawn = heads["acoustic"].target[heads["acoustic"].row == i].view(-1, 3)
        assert len(drawn) == max(1, round(0.5 * len(own)))
        assert all(any(torch.equal(d, frame[1:]) for frame in own) for d in drawn)
        assert heads["text"].target[heads["text"].row == i].tolist() == frontend.queue(frontend.request(utterance))
        steps = sum(int((heads[n].row == i).sum()) for n in ("text", "padding"))
        assert steps == len(own) + 1
    for name, head in heads.items():
        assert head.count == sum(frontend.lengths(item)[name] for item in items)
    torch.manual_seed(1)
    one, two = frontend.collate(items), frontend.collate(items)
    assert not torch.equal(one["acoustic"], two["acoustic"]) and len(one["acoustic"]) == len(two["acoustic"])


def test_padding_changes_nothing(frontend, model, items):
    together = frontend.collate(items)
    heads = model(together)
    for i, item in enumerate(items):
        alone = frontend.collate([item])
        alone["labels"] = together["labels"][i : i + 1, : len(item["text"])]
        alone["acoustic"] = (alone["labels"][0, :, 1] != -100).nonzero()[:, 0]
        for name, head in model(alone).items():
            assert torch.allclose(head.logits, heads[name].logits[heads[name].row == i], atol=1e-5)


@torch.no_grad()
def recomputed(model, request) -> torch.Tensor:
    """Greedy frames without any cache: all steps so far through the whole model, again and again."""
    frontend, prompt = model.frontend, model.frontend.prompt(request)
    row, text, codes = Speaker(frontend, request, len(prompt["text"])), prompt["text"], prompt["codes"]
    while True:
        more = F.pad(text, (0, 1))[None], F.pad(codes, (0, 0, 0, 1))[None]
        state = model.lm.decoder.model(inputs_embeds=model.embedded(*model.before(*more))).last_hidden_state[:, -1]
        said = torch.tensor([row.say(model._padding_is_due(state)[0])])
        frame = torch.zeros(1, 0, dtype=torch.long)
        for level in range(4):
            hidden = model.deep_states(state, said, frame)[:, -1]
            frame = torch.cat([frame, (hidden @ model.lm.depth_decoder.lm_heads.weight[level].T).argmax(-1, keepdim=True)], 1)
        semantic, acoustic = row.audible()
        heard = torch.tensor([[semantic, *[acoustic] * 3]])
        frame = torch.where(heard, frame, frontend.nothing)
        row.steps.append(frame[0])
        if row.done:
            return row.frames()
        text, codes = torch.cat([text, said]), torch.cat([codes, frame])


@pytest.mark.parametrize("wait", [-30.0, 0.0, 30.0], ids=["never waits", "as it likes", "waits as long as it may"])
def test_cached_greedy_equals_full_recomputation(frontend, model, utterances, wait):
    biased = copy.deepcopy(model)
    biased.lm.decoder.lm_head.register_forward_hook(lambda m, i, o: o + wait * (torch.arange(o.shape[-1]) == frontend.text.padding))
    requests = [frontend.request(u) for u in utterances[:3]]
    for request, codes in zip(requests, biased.generate(requests)):
        assert torch.equal(codes, recomputed(biased, request))
        limit = Speaker(frontend, request, len(frontend.prompt(request)["text"])).most
        assert len(request.phones) <= len(codes) < limit
        assert len(codes) == {-30.0: len(request.phones), 30.0: limit - 1}.get(wait, len(codes))
        assert int(codes.min()) >= 0 and int(codes.max()) < 16


def test_samples_do_not_depend_on_company(frontend, model, utterances):
    sampler = copy.copy(model)
    sampler.temperature = sampler.acoustic_temperature = 1.0
    requests = [frontend.request(u) for u in utterances]
    seen: list[int] = []
    together = sampler.synthesize(requests, seen.append)
    assert sum(seen) == len(requests)
    for request, audio in list(zip(requests, together))[::3]:
        assert torch.equal(sampler.synthesize([request])[0], audio) and audio.abs().max() <= 1
    assert not torch.equal(sampler.synthesize([replace(requests[2], seed=1)])[0], together[2])


def test_the_voice_is_heard_first(frontend, model, utterances):
    request = frontend.request(utterances[0])
    assert request.reference is not None and len(frontend.prompt(request)["text"]) > 0
    alone = replace(request, reference=None)
    assert len(frontend.prompt(alone)["text"]) == 0
    assert not torch.equal(model.generate([request])[0], model.generate([alone])[0])


def test_block_mask_and_components(frontend, model, items):
    batch = frontend.collate(items)
    shapes: list[torch.Size] = []
    for block in model.blocks["backbone"].values():
        hook = block.register_forward_hook(lambda m, i, o: shapes.append((o[0] if isinstance(o, tuple) else o).shape))
        model(batch)
        hook.remove()
    mask = model.block_mask(batch, "backbone")
    assert all(shape[:2] == mask.shape for shape in shapes) and len(shapes) == 2
    assert mask.sum() == sum(frontend.lengths(item)["semantic"] for item in items)
    for name, _ in model.named_parameters():
        assert sum(any(fnmatchcase(name, g) for g in globs) for globs in model.components.values()) == 1, name
    assert len(match(model, model.adaptable)) == 6 * 2


def test_it_learns(frontend, items):
    torch.manual_seed(0)
    model, batch = Moshi(frontend, **SIZES, codec_embedding=True), frontend.collate(items)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        loss = torch.stack(list(task_loss(model(batch)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None for p in model.parameters()) and losses[-1] < 0.5 * losses[0] and losses[0] < 8


def test_frontend_survives_pickle_and_file(frontend, utterances, items, tmp_path):
    torch.save(frontend.state(), tmp_path / "frontend.pt")
    restored = MoshiFrontend(Buckets(), PhoneMonologue(), max_tokens=200, lead=frontend.lead)
    restored.restore(torch.load(tmp_path / "frontend.pt", weights_only=True))
    for other in (restored, pickle.loads(pickle.dumps(frontend))):
        for name, value in other(utterances[2]).items():
            assert torch.equal(value, items[2][name])


@pytest.mark.parametrize(
    ("error", "words", "act"),
    [
        (DataError, "too many, there is one a frame", lambda f, u: f(replace(u, phones=tuple(Phone("b", 0.0, 0.1) for _ in range(99))))),
        (ConfigError, "at least two levels", lambda f, u: Moshi(MoshiFrontend(Buckets(1), f.text))),
        (TooLong, "max_tokens", lambda f, u: short(f, 20)(u)),
        (DataError, "split the text", lambda f, u: short(f, 20).prompt(Request("r", ("b",) * 20, torch.zeros(0)))),
        (CheckpointError, "no Mimi", lambda f, u: Moshi(f, **SIZES).save_official(u.audio.parent / "x")),
    ],
)
def test_refusals_are_one_line(frontend, utterances, error, words, act):
    with pytest.raises(error) as caught:
        act(frontend, utterances[2])
    assert words in str(caught.value) and "\n" not in str(caught.value)


def short(frontend, steps: int):
    other = copy.copy(frontend)
    other.max_tokens = steps
    return other


def released(folder, dtype=torch.float32, shards="5GB"):
    torch.manual_seed(0)
    depth = {"hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 5}
    config = MoshiConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, ffn_dim=48, num_codebooks=4, audio_vocab_size=16,
        max_position_embeddings=200, audio_encoder_config={"model_type": "mimi", **MIMI}, depth_decoder_config=depth,
    )  # fmt: skip
    model = MoshiForConditionalGeneration(config)
    model.audio_encoder = mimi()
    model.to(dtype).save_pretrained(folder, max_shard_size=shards)


def over_mimi(folder, utterances) -> MoshiFrontend:
    frontend = MoshiFrontend(MimiCodec(str(folder), 4), PhoneMonologue(), max_tokens=200)
    frontend.fit([replace(u, phones=u.phones[1:4]) for u in utterances])
    return frontend


def weights_of(folder):
    return {n: t for file in folder.glob("*.safetensors") for n, t in load_file(file).items()}


@pytest.mark.parametrize(("dtype", "shards"), [(torch.float32, "60KB"), (torch.bfloat16, "5GB")])
def test_released_folders_come_back_bit_for_bit(utterances, tmp_path, dtype, shards):
    released(tmp_path / "in", dtype, shards)
    frontend = over_mimi(tmp_path / "in", utterances)
    model = Moshi.load_official(frontend, str(tmp_path / "in"), top_k=4)
    model.save_official(tmp_path / "out")
    before, after = weights_of(tmp_path / "in"), weights_of(tmp_path / "out")
    assert before.keys() == after.keys() and all(before[n].dtype == t.dtype and torch.equal(before[n], t) for n, t in after.items())
    assert MoshiForConditionalGeneration.from_pretrained(tmp_path / "out").dtype == dtype
    names = [n.removeprefix("lm.") for n in match(model, model.adaptable)]
    item = frontend(replace(utterances[2], phones=utterances[2].phones[1:4]))
    plain = model(frontend.collate([item]))["text"].logits
    inject_adapter_in_model(LoraConfig(r=2, target_modules=names, init_lora_weights=False), model.peft_root)
    tuned = model(frontend.collate([item]))["text"].logits
    model.save_official(tmp_path / "tuned")
    changed = weights_of(tmp_path / "tuned")
    assert changed.keys() == before.keys() and {n for n in before if not torch.equal(before[n], changed[n])} <= {
        f"{n}.weight" for n in names
    }
    again = Moshi.load_official(frontend, str(tmp_path / "tuned"))(frontend.collate([item]))["text"].logits
    assert torch.allclose(again, tuned, atol=1e-4 if dtype == torch.float32 else 0.1) and not torch.allclose(plain, tuned, atol=1e-3)


def test_foreign_folders_are_refused_in_one_line(frontend, utterances, tmp_path):
    released(tmp_path / "in")
    own = over_mimi(tmp_path / "in", utterances)
    cases = {"looks like a csm, not a moshi": "csm", "keys are missing: decoder.lm_head.weight": "moshi"}
    for words, kind in cases.items():
        place = tmp_path / kind
        shutil.copytree(tmp_path / "in", place)
        config = json.loads((place / "config.json").read_text()) | {"model_type": kind}
        (place / "config.json").write_text(json.dumps(config))
        save_file({n: t for n, t in weights_of(place).items() if n != "decoder.lm_head.weight"}, place / "model.safetensors")
        with pytest.raises(CheckpointError) as caught:
            Moshi.load_official(own, str(place))
        assert words in str(caught.value) and "\n" not in str(caught.value)


def test_the_official_size_is_transformers_own():
    text = PhoneMonologue()
    text.phones = [str(i) for i in range(32_000 - 13)]
    frontend = MoshiFrontend(Buckets(levels=8, codewords=2048), text)
    with torch.device("meta"):
        ours = Moshi(frontend)
        theirs = MoshiForConditionalGeneration(MoshiConfig(audio_encoder_config={"model_type": "mimi"}, depth_decoder_config={}))
    shapes = {n: p.shape for n, p in theirs.named_parameters() if not n.startswith("audio_encoder.")}
    assert {n.removeprefix("lm."): p.shape for n, p in ours.named_parameters()} == shapes


@torch.no_grad()
def test_linears_of_the_levels_say_what_transformers_own_say():
    torch.manual_seed(0)
    theirs = MoshiFlexibleLinear(6, 5, 4)
    ours = PerLevelLinear(6, 5, 4)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(7, 4, 6)
    torch.testing.assert_close(ours(x), theirs(x))
    for levels in ([0, 1, 2], [3], [2, 0]):
        index = torch.tensor(levels)
        torch.testing.assert_close(ours(x[:, : len(levels)], index), theirs(x[:, : len(levels)], index))
        torch.testing.assert_close(ours(x[:, :1], index), theirs(x[:, :1], index))


def test_every_linear_of_the_levels_is_ours(model):
    kinds = {type(m) for m in model.lm.modules() if isinstance(m, MoshiFlexibleLinear)}
    assert kinds == {PerLevelLinear}
