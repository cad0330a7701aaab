"""The backbone in its three compositions: what it predicts, that neighbours and padding change nothing, that it learns."""

import pickle
from dataclasses import replace
from fnmatch import fnmatch

import pytest
import torch
from hypertts_toys import SIZES, small
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ttsadapt.backbones.base import Request
from ttsadapt.backbones.fastspeech2 import FastSpeech2
from ttsadapt.backbones.fastspeech2_frontend import FastSpeech2Frontend
from ttsadapt.backbones.hypertts_frontend import FittedTable, HyperTTSFrontend
from ttsadapt.backbones.parts import evaluating
from ttsadapt.errors import DataError, TooLong
from ttsadapt.heads import task_loss
from ttsadapt.text.arpabet import ArpabetTable

PITCH = {"cwt": "frames", "voicing": "frames", "pitch_mean": "utterances", "pitch_deviation": "utterances"}
COMMON = {"mel": "frames", "postnet": "frames", "duration": "phones", "pace": "utterances", "energy": "phones"}
LEARNT = {"alignment": "utterances", "binarization": "frames"}


def values(model, batch) -> dict[str, torch.Tensor]:
    return {name: head.per_position() for name, head in model(batch).items()}


def test_heads_hold_supervised_positions_only(model, items):
    heads = model(model.frontend.collate(items))
    expected = COMMON | (PITCH if "cwt" in heads else {"pitch": "phones"}) | (LEARNT if model.aligner else {})
    assert {name: head.unit for name, head in heads.items()} == expected
    for name, head in heads.items():
        assert head.count == sum(model.frontend.lengths(item)[head.unit] for item in items), name
        assert head.per_position().shape == (head.count,) and head.per_position().isfinite().all()
        assert torch.equal(head.row.unique(), torch.arange(len(items)))
    torch.testing.assert_close(heads["mel"].target, torch.cat([item["mel"] for item in items]))


@pytest.mark.parametrize("stage", ["soft", "hard"])
def test_company_changes_nothing(model, items, stage):
    model.eval()
    if model.schedule is not None:
        model.schedule.resume(0 if stage == "soft" else 9)
    batch = model.frontend.collate(items)
    together = model(batch)
    for b, item in enumerate(items):
        alone = values(model, model.frontend.collate([item]))
        keep = torch.arange(len(items)) == b
        for name, head in together.items():
            torch.testing.assert_close(head.select(keep).per_position(), alone[name], atol=1e-5, rtol=1e-5, msg=f"{name}, {b}")


def test_padding_is_never_read(model, items):
    model.eval()
    batch = model.frontend.collate(items)
    before = values(model, batch)
    frames, phones = model.block_mask(batch, "decoder"), model.block_mask(batch, "encoder")
    for name in ("mel", "energy", "pitch", "cwt"):
        batch[name] = torch.where(frames.view(*frames.shape, *[1] * (batch[name].dim() - 2)), batch[name], torch.tensor(7.0))
    batch["phones"] = torch.where(phones, batch["phones"], 1)
    for name, value in values(model, batch).items():
        torch.testing.assert_close(value, before[name], atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_parameter(model, items):
    if model.schedule is not None:
        model.schedule.resume(9)
    sum(task_loss(model(model.frontend.collate(items))).values()).backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


class Waits(TorchDispatchMode):
    """Notes every operation that would make the host wait for an accelerator: values read back, sizes that depend on values."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket._qualified_op_name
        sized = name == "aten::repeat_interleave" and (kwargs or {}).get("output_size") is None
        if sized or name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::unique_dim", "aten::_unique2"):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("passes", [0, 9], ids=["soft", "hard"])
def test_a_training_step_never_waits_for_the_device(model, items, passes):
    batch = model.frontend.collate(items)
    if model.schedule is not None:
        model.schedule.resume(passes)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with Waits() as waits:
        sum(task_loss(model(batch)).values()).backward()
        optimizer.step()
    assert waits.seen == []
    with Waits() as waits:
        batch["mel"].max().item()
        batch["voiced"].nonzero()
    assert waits.seen == ["aten::_local_scalar_dense", "aten::nonzero"]


def test_a_step_of_the_smaller_fastspeech2_never_waits_either(aligned):
    frontend = FastSpeech2Frontend()
    frontend.fit(aligned)
    model = FastSpeech2(frontend, **{k: v for k, v in SIZES.items() if k != "positions"})
    batch = frontend.collate([frontend(u) for u in aligned])
    with Waits() as waits:
        sum(task_loss(model(batch)).values()).backward()
    assert waits.seen == []


def test_stages_change_the_objective_and_nothing_else_counts_them(frontend, aligned):
    model = small(frontend)
    batch = frontend.collate([frontend(u) for u in aligned])
    assert not model.schedule.hard
    weights = []
    for _ in range(5):
        weights.append(model(batch)["binarization"].weight)
    assert weights == [0, 0, 0, 0.5, 1] and model.schedule.hard
    model.eval()(batch)
    assert model.schedule.done == 5


def test_names_match_what_they_promise(model):
    modules = dict(model.named_modules())
    adaptable = [m for name, m in modules.items() if any(fnmatch(name, glob) for glob in model.adaptable)]
    assert len(adaptable) == 3 * 6 + 3 * 2 and all(isinstance(m, nn.Linear | nn.Conv1d) for m in adaptable)
    for name, _ in model.named_parameters():
        assert sum(any(fnmatch(name, glob) for glob in globs) for globs in model.components.values()) == 1, name


def test_synthesis_is_independent_of_the_company(model, aligned):
    model.train()
    requests = [model.frontend.request(u) for u in aligned]
    waves = model.synthesize(requests)
    assert model.training and all(w.ndim == 1 and w.abs().max() <= 1 for w in waves)
    for i in (0, 4):
        with evaluating(model):
            solo, group = model.predict_mel([requests[i]])[0], model.predict_mel(requests)[i]
        torch.testing.assert_close(solo, group, atol=1e-4, rtol=1e-5)
        assert len(solo) >= len(model.frontend.tokens(requests[i].phones)["phones"])
    with pytest.raises(DataError, match="has no phones"):
        model.synthesize([Request("empty", (), requests[0].speaker)])
    with pytest.raises(DataError, match=r"long: \d+ phones, the model has positions for 400: split the text"):
        model.synthesize([replace(requests[0], id="long", phones=("l",) * 500)])


def test_learning_lowers_the_loss(model, items):
    batch = model.frontend.collate(items[:3])
    if model.schedule is not None:
        model.schedule.resume(9)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(20):
        loss = sum(task_loss(model(batch)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_lora_on_linears_and_convolutions_learns(model, items):
    names = [n for n, _ in model.named_modules() if any(fnmatch(n, glob) for glob in model.adaptable)]
    batch = model.frontend.collate(items[:2])
    before = model(batch)["mel"].value.detach()
    inject_adapter_in_model(LoraConfig(r=2, target_modules=names), model)
    if model.schedule is not None:
        model.schedule.resume(0)
    torch.testing.assert_close(model(batch)["mel"].value, before)
    trained = {n: p for n, p in model.named_parameters() if "lora_" in n}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        sum(task_loss(model(batch)).values()).backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.any() for p in trained.values())


# Frontend ----------------------------------------------------------------------------------------------------------------


def test_recordings_need_no_phone_times(frontend, aligned):
    bare = replace(aligned[0], phones=(), text="lie")
    item = frontend(bare)
    assert "durations" not in item and len(item["phones"]) == len(frontend.spoken(bare)) > 1
    heads = small(frontend)(frontend.collate([item]))
    assert heads["duration"].count == len(item["phones"])
    assert frontend.request(bare).phones == frontend.spoken(bare)


def test_given_durations_tile_the_recording(given, aligned):
    for utterance in aligned:
        item = given(utterance)
        assert item["durations"].sum() == len(item["mel"]) and item["durations"].min() >= 1
        assert len(item["durations"]) == len(item["phones"]) == sum(len(given.table.indices(p.symbol)) for p in utterance.phones)


def test_unknown_phones_fall_back_aloud(frontend, caplog):
    table = FittedTable()
    table.restore(frontend.table.state())
    names = [table.symbols[table.indices(phone)[0] - 1] for phone in ("ɪː", "aɪ", "ʃ", "ʃ")]
    assert names[:2] == ["ɪ", "ˈaɪ"] and names[2] == names[3]
    assert table.replaced == {"ɪː": 1, "aɪ": 1, "ʃ": 2} and len(caplog.records) == 1


def test_state_round_trip(frontend, given, aligned, tmp_path):
    for fitted in (frontend, given):
        torch.save(fitted.state(), tmp_path / "state.pt")
        other = HyperTTSFrontend(
            emotions=fitted.with_emotions, learn_durations=fitted.learn_durations, table=ArpabetTable() if fitted is given else None
        )
        other.restore(torch.load(tmp_path / "state.pt", weights_only=True))
        for one in (other, pickle.loads(pickle.dumps(fitted))):
            assert all(torch.equal(one(aligned[2])[name], value) for name, value in fitted(aligned[2]).items())


def test_silence_at_both_ends_can_be_left_out(aligned, frontend):
    trimming = HyperTTSFrontend(emotions=True, trim_db=23.0)
    trimming.restore(frontend.state())
    trimmed, whole = trimming(aligned[2]), frontend(aligned[2])
    assert len(trimmed["mel"]) < len(whole["mel"]) and len(trimmed["phones"]) == len(whole["phones"]) - 1
    with pytest.raises(DataError, match="set trim_db=null"):
        HyperTTSFrontend(learn_durations=False, trim_db=23.0)


def test_mistakes_are_told_in_one_line(frontend, given, aligned):
    tight = HyperTTSFrontend(emotions=True, max_frames=5)
    tight.restore(frontend.state())
    first = aligned[0]
    cases = [
        (given, replace(first, phones=()), DataError, "backbone.frontend.learn_durations=true"),
        (frontend, replace(first, speaker="eve"), DataError, "unknown speaker 'eve'"),
        (frontend, replace(first, emotion="cold"), DataError, "unknown emotion 'cold'"),
        (given, replace(first, phones=(*first.phones[:-1], first.phones[-1]._replace(end=9.0))), DataError, "align the data again"),
        (given, replace(first, phones=tuple(p._replace(symbol="y") for p in first.phones)), DataError, "is none of English"),
        (frontend, replace(first, phones=first.phones * 20), DataError, "phones do not fit into"),
        (tight, first, TooLong, "split the recording"),
    ]
    for fitted, utterance, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            fitted(utterance)
        assert "\n" not in str(caught.value)
