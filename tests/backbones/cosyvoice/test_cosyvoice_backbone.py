"""The parts in one model: what is trained, what adapters do, how it sounds, and the authors' files."""

import copy
from dataclasses import replace
from fnmatch import fnmatchcase

import pytest
import torch
from cosyvoice_toys import VERSIONS, buzz, frontend_of, model_of, recorded
from peft import LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model

from ttsadapt.adapters import match, merged
from ttsadapt.backbones.cosyvoice.backbone import CosyVoice
from ttsadapt.backbones.cosyvoice.hift import HiFT
from ttsadapt.codecs.mel import MelSpectrogram
from ttsadapt.errors import CheckpointError, ConfigError, DataError
from ttsadapt.heads import task_loss


@pytest.fixture(scope="module")
def utterances(tmp_path_factory):
    return recorded(tmp_path_factory.mktemp("audio"))


@pytest.fixture(scope="module", params=VERSIONS)
def version(request):
    return request.param


@pytest.fixture(scope="module")
def frontend(version, utterances):
    return frontend_of(version, utterances)


@pytest.fixture(scope="module")
def model(version, frontend):
    return model_of(version, frontend)


@pytest.fixture(scope="module")
def batch(frontend, utterances):
    torch.manual_seed(0)
    return frontend.collate([frontend(u) for u in utterances])


@pytest.mark.parametrize(("parts", "heads"), [(["llm"], {"tokens"}), (["flow"], {"mel"}), (["llm", "flow"], {"tokens", "mel"})])
def test_only_the_parts_asked_for_are_computed(version, frontend, batch, parts, heads):
    model = model_of(version, frontend, parts=parts)
    for part in {"llm", "flow"} - set(parts):
        for module in getattr(model, part).modules():
            module.register_forward_hook(lambda *_: pytest.fail("a part that is not trained was computed"))
    got = model(batch)
    assert set(got) == heads and set(model.blocks) == set(parts)
    assert list(model.blocks)[-1] == ("llm" if "llm" in parts else "flow"), "what analyses take by default"
    assert {n.partition(".")[0] for n in match(model, model.adaptable)} == set(parts)


def test_weights_of_the_heads(version, frontend, batch):
    plain = task_loss(model_of(version, frontend)(batch))
    heavy = task_loss(model_of(version, frontend, weights={"mel": 3.0})(batch))
    assert torch.allclose(heavy["mel"], 3 * plain["mel"]) and torch.allclose(heavy["tokens"], plain["tokens"])


def test_tokens_that_sound_alike_start_alike(version, frontend):
    _, llm, flow = VERSIONS[version]
    model = CosyVoice(frontend, llm, flow, codec_embedding=True)
    tokens, sound = frontend.codec.tokens, torch.cdist(*[frontend.codec.embedding()] * 2)
    for table, least in ((model.llm.speech_embedding.weight, 0.95), (model.llm.llm_decoder.weight, 0.8)):
        rows = table[:tokens].detach()
        assert torch.corrcoef(torch.stack([torch.cdist(rows, rows).flatten(), sound.flatten()]))[0, 1] > least
        assert rows.std() < 0.5


@pytest.mark.parametrize(("parts", "told"), [(["llm", "hift"], "name one or both of llm, flow"), ([], "name one or both")])
def test_unknown_parts(version, frontend, parts, told):
    with pytest.raises(ConfigError, match=told):
        model_of(version, frontend, parts=parts)


def test_frames_of_the_flow_are_the_real_ones(model, batch):
    head = model(batch)["mel"]
    assert head.count == int(batch["mel_lengths"].sum()) and head.unit == "frames"
    assert torch.equal(head.row.bincount(), batch["mel_lengths"])


def test_padding_changes_nothing_in_the_flow(model, frontend, utterances, batch):
    together = model(batch)["mel"]
    item = frontend(utterances[0])
    alone = frontend.collate([item])
    frames = len(item["mel"])
    for name, value in batch.items():
        if name.startswith("flow_"):
            alone[name] = value[:1, :frames] if value.dim() > 1 else value[:1]
    assert torch.allclose(model(alone)["mel"].value, together.value[together.row == 0], atol=1e-4)


def test_block_masks_cover_what_blocks_give(model, batch):
    for group, blocks in model.blocks.items():
        shapes: list[torch.Size] = []
        handles = [
            b.register_forward_hook(lambda m, i, o, shapes=shapes: shapes.append((o[0] if isinstance(o, tuple) else o).shape))
            for b in blocks.values()
        ]
        model(batch)
        for handle in handles:
            handle.remove()
        mask = model.block_mask(batch, group)
        assert len(shapes) == len(blocks) and all(shape[:2] == mask.shape for shape in shapes), group
        assert mask.any(1).all()
    assert model.block_mask(batch, "llm").sum() == batch["speech_lengths"].sum()


def test_every_parameter_is_in_one_component(model):
    for name, _ in model.named_parameters():
        assert sum(any(fnmatchcase(name, g) for g in globs) for globs in model.components.values()) == 1, name


def test_it_learns(version, frontend, batch):
    model = model_of(version, frontend)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    losses = []
    for _ in range(30):
        terms = task_loss(model(batch))
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        losses.append({n: t.item() for n, t in terms.items()})
    unused = {n for n, p in model.named_parameters() if p.grad is None}
    assert not unused, unused
    assert all(losses[-1][n] < 0.9 * losses[0][n] for n in losses[0]), losses[-1]


def test_an_adapter_acts_after_loading(version, frontend, batch, tmp_path):
    for parts in (["llm"], ["llm", "flow"]):
        tuned, untouched = model_of(version, frontend, parts=parts), model_of(version, frontend, parts=parts)
        prefix = next(f"{n}." if n else "" for n, m in tuned.named_modules() if m is tuned.peft_root)
        names = [n.removeprefix(prefix) for n in match(tuned, tuned.adaptable) if n.startswith(prefix)]
        before = {n: h.loss() for n, h in tuned(batch).items()}
        wrapped = get_peft_model(tuned.peft_root, LoraConfig(r=4, target_modules=names))
        optimizer = torch.optim.Adam([p for p in wrapped.parameters() if p.requires_grad], 0.02)
        for _ in range(3):
            optimizer.zero_grad()
            sum(task_loss(tuned(batch)).values()).backward()
            optimizer.step()
        wanted = {n: h.loss() for n, h in tuned(batch).items()}
        folder = tmp_path / "-".join(parts)
        wrapped.save_pretrained(folder)
        PeftModel.from_pretrained(untouched.peft_root, folder)
        for name, head in untouched(batch).items():
            assert float(head.loss()) == pytest.approx(float(wanted[name]), abs=1e-5)
            assert abs(float(head.loss()) - float(before[name])) > 1e-3, f"the adapter is silent in {name}"


def test_speech_in_the_order_asked_whatever_the_company(model, frontend, utterances):
    requests = [frontend.request(u) for u in utterances[:3]]
    model.train()
    model.llm.llm_decoder.eval()  # as a frozen layer is while others train
    seen: list[int] = []
    audio = model.synthesize(requests, seen.append)
    assert model.training and model.flow.training and not model.llm.llm_decoder.training and sum(seen) == 3
    model.eval()
    for request, samples in zip(requests, audio):
        assert samples.dim() == 1 and len(samples) > 1000 and samples.isfinite().all() and samples.abs().max() <= 1
        assert torch.equal(model.synthesize([request])[0], samples)
    other = model.synthesize([replace(requests[0], seed=5)])[0]
    assert other.shape != audio[0].shape or not torch.equal(other, audio[0])
    voice = model.synthesize([replace(requests[0], speaker=requests[1].speaker)])[0]
    assert voice.shape != audio[0].shape or not torch.allclose(voice, audio[0], atol=1e-3)


def test_a_reference_changes_the_sound(version, utterances):
    frontend = frontend_of(version, utterances, references=True)
    frontend.enroll(utterances)
    model = model_of(version, frontend)
    request = frontend.request(utterances[0])
    bare = replace(request, reference=None)
    tokens = model.speak([bare])[0]
    heard, unheard = (model.to_mel(tokens, r) for r in (request, bare))
    assert heard.shape == unheard.shape and not torch.allclose(heard, unheard, atol=1e-3)
    assert torch.equal(model.speak([replace(request, phones=bare.phones)])[0], model.speak([request])[0])
    model.llm_prompt = False
    assert torch.equal(model.speak([request])[0], tokens)
    with pytest.raises(DataError, match="speaker 'carl' is unknown, there are anna, bert"):
        frontend.request(replace(utterances[0], speaker="carl"))


def test_resynthesis_is_the_vocoder_alone(model):
    audio = buzz(1.0, 150)
    ceiling = model.resynthesize(audio)
    assert ceiling.shape == audio.shape
    mel = MelSpectrogram(hop=320)
    assert (mel(ceiling) - mel(audio))[5:-5].abs().mean() < 0.5


# The authors' files ----------------------------------------------------------------------------------------------------

HIFT = {
    1: {"sample_rate": 22050, "rates": (8, 8), "kernels": (16, 16), "source_kernels": (7, 11), "interpolated": False},
    2: {},
    3: {"causal": True},
}


@pytest.fixture(scope="module")
def released(version, frontend, tmp_path_factory):
    """A folder as it comes: weights of three parts, with what training scripts leave beside them."""
    folder = tmp_path_factory.mktemp(f"cosyvoice{version}")
    model = model_of(version, frontend, seed=1)
    torch.manual_seed(2)
    model.vocoder = HiFT(width=32, pitch_width=16, **HIFT[version])
    model.save_official(folder)
    llm = torch.load(folder / "llm.pt", weights_only=True)
    torch.save(llm | {"epoch": 3, "step": 700}, folder / "llm.pt")
    return folder


def load(frontend, folder, **settings) -> CosyVoice:
    return CosyVoice.load_official(frontend, str(folder), llm_head_size=16, flow_head_size=16, **settings).eval()


def same_files(one, other) -> None:
    for name in ("llm.pt", "flow.pt", "hift.pt"):
        a, b = (torch.load(folder / name, weights_only=True) for folder in (one, other))
        a = {k: v for k, v in a.items() if isinstance(v, torch.Tensor)}
        assert a.keys() == b.keys(), name
        assert all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a), name


def test_written_back_bit_for_bit(version, frontend, released, batch, tmp_path, capsys):
    model = load(frontend, released)
    assert "llm.pt: epoch, step beside the weights is left out" in capsys.readouterr().out
    expected = model_of(version, frontend, seed=1)
    for name, head in expected(batch).items():
        assert torch.equal(model(batch)[name].loss(), head.loss()), name
    model.save_official(tmp_path / "again")
    same_files(released, tmp_path / "again")
    assert isinstance(model.vocoder, HiFT)
    said = model.synthesize([frontend.request(u) for u in recorded(tmp_path)[:1]])[0]
    assert said.isfinite().all() and said.abs().max() <= 1


def test_half_precision_comes_back_as_it_was(frontend, released, batch, tmp_path, capsys):
    half = tmp_path / "half"
    half.mkdir()
    for name in ("llm.pt", "flow.pt", "hift.pt"):
        state = torch.load(released / name, weights_only=True)
        kind = torch.bfloat16 if name == "flow.pt" else torch.float16
        torch.save({k: v.to(kind) for k, v in state.items() if isinstance(v, torch.Tensor)}, half / name)
    model = load(frontend, half)
    assert "llm.pt: float16 weights are read as float32" in capsys.readouterr().out
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert all(h.loss().isfinite() for h in model(batch).values())
    model.save_official(tmp_path / "again")
    same_files(half, tmp_path / "again")


def test_a_merged_adapter_leaves_the_same_keys(frontend, released, batch, tmp_path):
    model = load(frontend, released)
    inject_adapter_in_model(LoraConfig(r=4, target_modules=match(model, model.adaptable), init_lora_weights=False), model)
    tuned = {n: float(h.loss()) for n, h in model(batch).items()}
    model.save_official(tmp_path / "merged")
    for name in ("llm.pt", "flow.pt", "hift.pt"):
        before = torch.load(released / name, weights_only=True)
        after = torch.load(tmp_path / "merged" / name, weights_only=True)
        assert [k for k, v in before.items() if isinstance(v, torch.Tensor)] == list(after) or set(after) == set(before) - {"epoch", "step"}
    again = load(frontend, tmp_path / "merged")
    untouched = load(frontend, released)(batch)
    for name, head in again(batch).items():
        assert float(head.loss()) == pytest.approx(tuned[name], abs=1e-4)
        assert abs(float(untouched[name].loss()) - tuned[name]) > 1e-3
    assert set(merged(model)) == set(again.state_dict())


def test_a_folder_with_one_part_only(frontend, released, batch, utterances, tmp_path):
    for part, other in (("llm", "flow"), ("flow", "llm")):
        folder = tmp_path / part
        folder.mkdir()
        (folder / f"{part}.pt").write_bytes((released / f"{part}.pt").read_bytes())
        model = load(frontend, folder, parts=[part])
        assert set(model(batch)) == {"tokens" if part == "llm" else "mel"}
        with pytest.raises(CheckpointError, match=f"put {other}.pt beside {part}.pt"):
            model.synthesize([frontend.request(utterances[0])])
        with pytest.raises(ConfigError, match=f"there is no {other} in the model"):
            load(frontend, folder)
        model.save_official(tmp_path / f"{part}-again")
        assert [f.name for f in (tmp_path / f"{part}-again").iterdir()] == [f"{part}.pt"]


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text and len(text) < 500
    return text


def test_what_is_said_about_wrong_folders(version, frontend, released, utterances, tmp_path):
    with pytest.raises(CheckpointError, match="there is no such directory") as told:
        load(frontend, tmp_path / "nowhere")
    one_line(told)
    with pytest.raises(CheckpointError, match=r"holds none of llm\.pt, flow\.pt, hift\.pt"):
        load(frontend, tmp_path)
    other = version % 3 + 1
    stranger = frontend_of(other, utterances)
    with pytest.raises(
        CheckpointError, match=rf"llm\.pt: this looks like a CosyVoice{version} LLM, not a CosyVoice{other} LLM: key "
    ) as told:
        load(stranger, released)
    one_line(told)
    (tmp_path / "flow").mkdir()
    (tmp_path / "flow" / "flow.pt").write_bytes((released / "flow.pt").read_bytes())
    with pytest.raises(CheckpointError, match=rf"this looks like a CosyVoice{version} flow, not a CosyVoice{other} flow: key ") as told:
        load(stranger, tmp_path / "flow", parts=["flow"])
    one_line(told)
    (tmp_path / "llm.pt").write_bytes((released / "flow.pt").read_bytes())
    with pytest.raises(CheckpointError, match=rf"this looks like a CosyVoice{version} flow, not a CosyVoice{version} LLM: key ") as told:
        load(frontend, tmp_path, parts=["llm"])
    one_line(told)


def test_what_is_said_about_damaged_files(version, frontend, released, tmp_path):
    state = {k: v for k, v in torch.load(released / "llm.pt", weights_only=True).items() if isinstance(v, torch.Tensor)}
    gone = [k for k in state if ".0.self_attn." in k and k.endswith("weight")][:2]
    torch.save({k: v for k, v in state.items() if k not in gone}, tmp_path / "llm.pt")
    with pytest.raises(CheckpointError, match=rf"is not a whole CosyVoice{version} LLM.*{gone[0].split('.')[-2]}") as told:
        load(frontend, tmp_path, parts=["llm"])
    one_line(told)
    torch.save(state | {"extra.weight": torch.zeros(1)}, tmp_path / "llm.pt")
    with pytest.raises(CheckpointError, match=r"1 keys are too many: extra\.weight"):
        load(frontend, tmp_path, parts=["llm"])
    (tmp_path / "llm.pt").write_bytes((released / "llm.pt").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"llm\.pt cannot be read as plain tensors") as told:
        load(frontend, tmp_path, parts=["llm"])
    one_line(told)


def test_a_tied_weight_that_was_edited(version, frontend, released, tmp_path):
    state = {k: v.clone() for k, v in torch.load(released / "llm.pt", weights_only=True).items() if isinstance(v, torch.Tensor)}
    torch.save(state, tmp_path / "llm.pt")
    assert load(frontend, tmp_path, parts=["llm"]).llm is not None, "stored twice, but the same"
    if "llm.model.lm_head.weight" in state:
        state["llm.model.lm_head.weight"][-1, 0] += 1
        torch.save(state, tmp_path / "llm.pt")
        with pytest.raises(CheckpointError, match=r"lm_head\.weight and .*embed_tokens\.weight are one weight in a CosyVoice\d LLM"):
            load(frontend, tmp_path, parts=["llm"])


def test_weights_of_another_codec_or_text(frontend, released, utterances, monkeypatch):
    monkeypatch.setattr(frontend.codec, "tokens", 21)
    with pytest.raises(CheckpointError, match=r"llm\.pt was made for backbone\.frontend\.codec\.tokens=20, not 21"):
        load(frontend, released)
    monkeypatch.undo()
    monkeypatch.setattr(frontend.text, "table", [*frontend.text.table, "new"])
    with pytest.raises(CheckpointError, match=r"llm\.pt was made for backbone\.frontend\.text\.rows=\d+, not \d+"):
        load(frontend, released)


def test_a_copy_is_another_model(model):
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.llm.llm_decoder.weight.zero_()
    assert model.llm.llm_decoder.weight.abs().sum() > 0
