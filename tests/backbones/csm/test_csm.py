"""CSM: what it is trained on, that it is transformers' model number for number, and that its caches are exact."""

import copy
import pickle
from dataclasses import replace
from fnmatch import fnmatchcase

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model

from frames_toys import Buckets
from ttsadapt.adapters import match, merged
from ttsadapt.backbones.csm import Csm
from ttsadapt.backbones.csm_frontend import CsmFrontend, Dialogue, Turn
from ttsadapt.backbones.decoding import least_risk
from ttsadapt.backbones.frames import amortised, choose, drawn_labels, level_tables
from ttsadapt.backbones.frames_text import PhoneText
from ttsadapt.data.utterance import Phone
from ttsadapt.errors import CheckpointError, ConfigError, DataError, TooLong
from ttsadapt.heads import task_loss


def test_both_losses_are_transformers_own(frontend, model, items):
    batch = frontend.collate(items)
    theirs = model.lm(
        inputs_embeds=model.embedded(batch["text"], batch["codes"]),
        attention_mask=batch["mask"],
        position_ids=batch["positions"],
        labels=batch["labels"],
    )
    heads = model(batch)
    assert torch.allclose(heads["semantic"].loss(), theirs.backbone_loss, atol=1e-5)
    assert torch.allclose(heads["acoustic"].loss(), theirs.depth_decoder_loss, atol=1e-5)
    assert torch.allclose(heads["acoustic"].logits, theirs.depth_decoder_logits.flatten(0, 1), atol=1e-5)


def test_supervised_are_the_frames_and_the_end_of_the_last_turn(frontend, model, items, utterances):
    batch = frontend.collate(items)
    heads = model(batch)
    for i, (item, utterance) in enumerate(zip(items, utterances)):
        own = frontend._codes(utterance) + frontend.shift
        said = F.pad(own, (0, 0, 0, 1))
        assert torch.equal(heads["semantic"].target[heads["semantic"].row == i], said[:, 0])
        assert torch.equal(item["codes"][item["learnt"] > 0], said)
        drawn = heads["acoustic"].target[heads["acoustic"].row == i].view(-1, 3)
        assert drawn[-1].tolist() == [0, 0, 0]
        assert len(drawn) == amortised(len(said), 0.3)
        assert all(any(torch.equal(d, frame[1:]) for frame in said) for d in drawn)
    for name in ("semantic", "acoustic"):
        assert heads[name].count == sum(frontend.lengths(item)[name] for item in items)


def test_the_draw_is_new_every_time_and_a_teacher_s_is_the_same(frontend, model, items):
    torch.manual_seed(1)
    one, two = frontend.collate(items), frontend.collate(items)
    assert not torch.equal(one["acoustic"], two["acoustic"]) and len(one["acoustic"]) == len(two["acoustic"])
    assert torch.equal(one["semantic"], two["semantic"])
    torch.manual_seed(1)
    assert torch.equal(frontend.collate(items)["acoustic"], one["acoustic"])
    teacher = model(one)["acoustic"]
    assert torch.equal(teacher.target, model(one)["acoustic"].target)


def test_every_frame_is_drawn_in_the_end():
    codes, learnt = torch.arange(1, 161).view(40, 4), torch.tensor([0] * 8 + [1] * 32)
    seen = torch.zeros(40, dtype=torch.long)
    for _ in range(200):
        labels = drawn_labels(codes, learnt, 1 / 16)
        seen += labels[:, 1] != -100
        assert (labels[:, 1] != -100).sum() == amortised(32, 1 / 16) == 3
    assert seen[:8].sum() == 0 and seen[39] == 200 and (seen[8:39] > 0).all()


def test_padding_changes_nothing(frontend, model, items):
    together = frontend.collate(items)
    heads = model(together)
    for i, item in enumerate(items):
        alone = frontend.collate([item])
        alone["labels"] = together["labels"][i : i + 1, : len(item["text"])]
        alone["acoustic"] = (alone["labels"][0, :, 1] != -100).nonzero()[:, 0]
        for name, head in model(alone).items():
            assert torch.allclose(head.logits, heads[name].logits[heads[name].row == i], atol=1e-5)
    garbage = ~together["mask"]
    together["text"], together["codes"] = together["text"].masked_fill(garbage, 3), together["codes"].masked_fill(garbage[..., None], 5)
    for name, head in model(together).items():
        assert torch.allclose(head.logits, heads[name].logits, atol=1e-5)


def test_part_of_a_batch_keeps_its_levels_apart(frontend, model, items):
    head = model(frontend.collate(items))["acoustic"]
    keep = torch.tensor([i % 2 == 0 for i in range(len(items))])
    whole = head.logits[keep[head.row]]
    fresh = model(frontend.collate(items))["acoustic"]
    fresh.__dict__.pop("logits", None)
    part = replace(head, hidden=head.hidden[keep[head.row]], target=head.target[keep[head.row]], row=head.row[keep[head.row]])
    assert torch.allclose(part.logits, whole, atol=1e-6)


@torch.no_grad()
def recomputed(model, request) -> torch.Tensor:
    """Greedy frames without any cache, through the batches that training sees."""
    frontend, codes = model.frontend, torch.zeros(0, 4, dtype=torch.long)
    prompt = frontend.prompt(request)
    for _ in range(model.most(len(request.phones), len(prompt["text"]))):
        n = len(codes)
        positions = torch.cat([prompt["positions"], prompt["positions"][-1] + 1 + torch.arange(n)])
        context = (torch.arange(len(positions)) < len(prompt["text"]))[None, :, None]
        states = model.lm.backbone_model(
            inputs_embeds=model.embedded(
                torch.cat([prompt["text"], torch.full((n,), -1)])[None],
                torch.cat([prompt["codes"], codes])[None],
                model.own(context) if model.semantic_feedback else None,
            ),
            attention_mask=torch.ones(1, len(positions), dtype=torch.bool),
            position_ids=positions[None],
        ).last_hidden_state[:, -1]
        frame = model.lm.lm_head(states)[:, : model.sayable].argmax(-1)[None]
        for level in range(1, 4):
            guess = F.pad(frame, (0, 4 - level))
            hidden = model.deep_states(states, guess).view(3, -1)[level - 1]
            best = (hidden @ model.lm.depth_decoder.codebooks_head.weight[level - 1])[: model.sayable].argmax()
            frame = torch.cat([frame, best.view(1, 1)], 1)
        if model.ends(frame)[0]:
            break
        codes = torch.cat([codes, frame])
    return codes


def test_cached_greedy_equals_full_recomputation(frontend, model, utterances):
    requests = [frontend.request(u) for u in utterances[:3]]
    for request, codes in zip(requests, model.generate(requests)):
        assert len(codes) > 2  # more than one step goes through the cache
        assert torch.equal(codes, recomputed(model, request))


def test_cached_greedy_equals_full_recomputation_when_only_semantic_codes_are_heard(frontend, model, utterances):
    hears = copy.copy(model)
    hears.semantic_feedback = True
    requests = [frontend.request(u) for u in utterances[:3]]
    said = hears.generate(requests)
    assert all(torch.equal(codes, recomputed(hears, request)) for request, codes in zip(requests, said))
    assert not all(torch.equal(a, b) for a, b in zip(said, model.generate(requests)))  # it does hear something else


def test_of_its_own_frames_a_model_hears_semantic_codes_only(frontend, model, items):
    hears, batch = copy.copy(model), frontend.collate(items[:3])
    hears.semantic_feedback = True
    other = torch.where(batch["labels"][..., :1] >= 0, batch["codes"].flip(0).roll(1, 1), batch["codes"])
    for levels, same in ((slice(1, None), True), (slice(None, 1), False)):
        codes = batch["codes"].clone()
        codes[..., levels] = other[..., levels]
        assert torch.equal(hears(batch)["semantic"].hidden, hears(batch | {"codes": codes})["semantic"].hidden) is same
    codes = torch.where(batch["labels"][..., :1] < 0, (batch["codes"] + 1) % 4, batch["codes"])
    assert not torch.equal(hears(batch)["semantic"].hidden, hears(batch | {"codes": codes})["semantic"].hidden)


def test_greedy_is_what_transformers_generate_says(make_frontend, sizes, utterances):
    """One turn without a context, counted from left to right: the case that their `generate` knows."""
    frontend = make_frontend(context=False)
    torch.manual_seed(3)
    model = Csm(frontend, **sizes, temperature=0.0, acoustic_temperature=0.0).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    request = frontend.request(utterances[0])
    ours = model.generate([request])[0]
    beyond = list(range(model.sayable, model.lm.config.vocab_size))
    theirs = model.lm.generate(
        input_ids=frontend.prompt(request)["text"][None], do_sample=False, depth_decoder_do_sample=False, max_new_tokens=len(ours),
        suppress_tokens=beyond, depth_decoder_suppress_tokens=beyond,
    )  # fmt: skip
    assert len(ours) > 4 and torch.equal(theirs[0], ours)


def test_samples_do_not_depend_on_company(frontend, model, utterances):
    sampler = copy.copy(model)
    sampler.temperature = sampler.acoustic_temperature = 1.0
    requests = [frontend.request(u) for u in utterances]
    together = sampler.generate(requests)
    for request, codes in list(zip(requests, together))[::3]:
        assert torch.equal(sampler.generate([request])[0], codes)
    assert not torch.equal(sampler.generate([replace(requests[2], seed=1)])[0], together[2])


def test_draws_follow_the_probabilities_of_the_best():
    logits = torch.tensor([[0.0, 2.0, 1.0, -9.0]]).expand(4000, -1)
    torch.manual_seed(0)
    drawn = choose(logits, torch.rand(4000, dtype=torch.double), 1.0, 2).bincount(minlength=4) / 4000
    wanted = torch.tensor([2.0, 1.0]).softmax(0)
    assert drawn[0] == drawn[3] == 0 and abs(drawn[1] - wanted[0]) < 0.03
    assert choose(logits[:1], torch.tensor([0.999999], dtype=torch.double), 1.0, 0).item() in (0, 3)
    assert choose(logits[:1], torch.tensor([0.5]), 0.0, 0).item() == 1


@pytest.mark.parametrize("wish", [-50.0, 50.0], ids=["never ends by itself", "wants to end at once"])
def test_an_end_that_never_comes_is_made(frontend, model, utterances, wish):
    biased, request = copy.deepcopy(model), frontend.request(utterances[2])
    with torch.no_grad():
        states = biased.lm.lm_head.weight
        biased.lm.lm_head.register_forward_hook(lambda m, i, o: o + wish * (torch.arange(o.shape[-1]) == 0))
        biased.lm.depth_decoder.codebooks_head.weight.zero_()
        assert states.isfinite().all()
    said = biased.generate([request])[0]
    assert len(said) == (0 if wish > 0 else biased.most(len(request.phones), len(frontend.prompt(request)["text"])))
    audio = biased.synthesize([request])[0]
    assert len(audio) >= 800 and audio.abs().max() <= 1


def test_synthesis_gives_waveforms_in_the_order_asked(frontend, model, utterances):
    requests = [frontend.request(u) for u in utterances[:3]]
    model.train()
    model.lm.backbone_model.layers[0].eval()  # as a frozen block is while others train
    seen: list[int] = []
    audio = model.synthesize(requests, seen.append)
    assert model.training and not model.lm.backbone_model.layers[0].training and sum(seen) == 3
    model.eval()
    for request, samples in zip(requests, audio):
        assert torch.equal(samples, model.sound(model.generate([request])[0]))
    assert len(model.resynthesize(torch.randn(8000))) == 8000


def test_a_watermark_is_put_on_everything_or_on_nothing(frontend, model, utterances):
    marked, request = copy.copy(model), frontend.request(utterances[0])
    rates: list[int] = []
    marked.watermark = lambda audio, rate: rates.append(rate) or audio + 0.01
    assert torch.allclose(marked.synthesize([request])[0], model.synthesize([request])[0] + 0.01)
    assert rates == [16000]


def test_block_mask_covers_the_learnt_frames_of_a_block(frontend, model, items):
    batch = frontend.collate(items)
    shapes: list[torch.Size] = []
    for block in model.blocks["backbone"].values():
        hook = block.register_forward_hook(lambda m, i, o: shapes.append((o[0] if isinstance(o, tuple) else o).shape))
        model(batch)
        hook.remove()
    mask = model.block_mask(batch, "backbone")
    assert len(shapes) == 2 and all(shape[:2] == mask.shape for shape in shapes)
    assert mask.sum() == sum(frontend.lengths(item)["semantic"] - 1 for item in items)


def test_every_parameter_is_in_one_component(model):
    for name, _ in model.named_parameters():
        assert sum(any(fnmatchcase(name, g) for g in globs) for globs in model.components.values()) == 1, name


def test_adapter_of_the_inner_model_loads_and_speaks(frontend, model, items, tmp_path):
    names = [n.removeprefix("lm.") for n in match(model, model.adaptable)]
    assert len(names) == 7 * 3
    tuned, untouched = copy.deepcopy(model), copy.deepcopy(model)
    wrapped = get_peft_model(tuned.peft_root, LoraConfig(r=4, target_modules=names))
    batch = frontend.collate(items)
    before = {n: h.logits for n, h in model(batch).items()}
    optimizer = torch.optim.Adam([p for p in wrapped.parameters() if p.requires_grad], 0.02)
    for _ in range(3):
        optimizer.zero_grad()
        torch.stack(list(task_loss(tuned(batch)).values())).sum().backward()
        optimizer.step()
    wanted = {n: h.logits.detach() for n, h in tuned(batch).items()}
    wrapped.save_pretrained(tmp_path)
    PeftModel.from_pretrained(untouched.peft_root, tmp_path)
    bare = copy.deepcopy(model)
    bare.load_state_dict(merged(tuned))
    for name, head in untouched(batch).items():
        assert torch.allclose(head.logits, wanted[name], atol=1e-5)
        assert torch.allclose(bare(batch)[name].logits, wanted[name], atol=1e-4)
        assert not torch.allclose(head.logits, before[name], atol=1e-2)


def test_it_learns_and_every_weight_takes_part(frontend, sizes, items):
    torch.manual_seed(0)
    model, batch = Csm(frontend, **sizes, codec_embedding=True), frontend.collate(items)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        loss = torch.stack(list(task_loss(model(batch)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None for p in model.parameters())
    assert losses[-1] < 0.5 * losses[0]


def test_codewords_that_sound_alike_start_alike(frontend, sizes):
    torch.manual_seed(0)
    model = Csm(frontend, **sizes | {"hidden_size": 128, "depth_hidden_size": 64}, codec_embedding=True)
    sound = frontend.codec.embedding().unflatten(0, (4, -1))
    tables = model.lm.backbone_model.embed_tokens.embed_audio_tokens.weight.unflatten(0, (4, -1))
    for level in range(4):
        rows = tables[level, frontend.shift : frontend.shift + 16].detach()
        pairs = torch.stack([torch.cdist(rows, rows).flatten(), torch.cdist(sound[level], sound[level]).flatten()])
        assert torch.corrcoef(pairs)[0, 1] > 0.95


def test_the_voice_is_heard_first_and_is_never_the_utterance_itself(frontend, model, utterances, items):
    for utterance in utterances:
        reference = frontend.request(utterance).reference
        assert reference is not None
        assert not torch.equal(reference.codes, frontend._codes(utterance))
    request = frontend.request(utterances[0])
    other = replace(request, reference=frontend.request(utterances[1]).reference)
    assert not torch.equal(*(frontend.prompt(r)["codes"][: len(items[0]["codes"])].sum(0) for r in (request, other)))
    assert torch.equal(frontend.prompt(request)["codes"], items[0]["codes"][: len(frontend.prompt(request)["codes"])])


def test_a_missing_emotion_falls_back_on_the_neutral_voice(frontend, utterances):
    bored = frontend.request(replace(utterances[2], id="new", emotion="bored")).reference
    assert bored is frontend.voices.find("anna", "neutral", "")
    assert frontend.voices.find("anna", "happy", "") is not bored
    own = copy.deepcopy(frontend)
    own.enroll([replace(utterances[0], speaker="cleo", emotion="sad"), replace(utterances[0], emotion="neutral", id="later")])
    assert own.voices.find("cleo", "happy", "") is not None
    assert torch.equal(own.voices.find("anna", "neutral", "").codes, frontend.voices.find("anna", "neutral", "").codes)


def test_a_conversation_may_have_many_turns(frontend, model, utterances):
    turns = [frontend.turn(u, role) for u, role in zip(utterances, "010")]
    item = frontend.conversation(turns, "talk", learnt=[True, False, True])
    batch = frontend.collate([item])
    heads = model(batch)
    said = torch.cat([F.pad(turns[k].codes + frontend.shift, (0, 0, 0, 1)) for k in (0, 2)])
    assert torch.equal(heads["semantic"].target, said[:, 0])
    assert heads["acoustic"].count == frontend.lengths(item)["acoustic"]
    ends = (heads["acoustic"].target.view(-1, 3) == 0).all(1)
    assert ends.sum() >= 2, "the end of every learnt turn is drawn"
    asked = frontend.request(utterances[3])
    dialogue = Dialogue(asked.id, asked.phones, asked.speaker, reference=None, earlier=tuple(turns), role="1", seed=asked.seed)
    assert len(frontend.prompt(dialogue)["text"]) > sum(len(t.codes) for t in turns)
    assert not torch.equal(model.generate([dialogue])[0], model.generate([replace(asked, reference=None)])[0])


def test_frontend_survives_pickle_and_file(frontend, utterances, items, tmp_path):
    torch.save(frontend.state(), tmp_path / "frontend.pt")
    settings = {"max_tokens": 200, "paced_positions": frontend.pacing is not None, "reserve_end": bool(frontend.shift)}
    restored = CsmFrontend(Buckets(), PhoneText(), **settings)
    restored.restore(torch.load(tmp_path / "frontend.pt", weights_only=True))
    for other in (restored, pickle.loads(pickle.dumps(frontend))):
        for name, value in other(utterances[2]).items():
            assert torch.equal(value, items[2][name])
        assert other.pace == frontend.pace
    with pytest.raises(CheckpointError, match="reserve_end"):
        CsmFrontend(Buckets(), PhoneText(), reserve_end=not frontend.shift).restore(frontend.state())


def test_foreign_phones_fall_back_on_near_ones(frontend):
    text = frontend.text
    inner = text.ids(["æ", "ˈæ", "æː", "ˈæ̃ː", "ʘ"], "0")[2:-1]
    assert len(set(inner[:4])) == 1 and inner[0] == text._rows["æ"] and inner[4] == text._rows["<|unknown|>"]


def test_paced_frames_stand_beside_their_phones(make_frontend, utterances):
    paced = make_frontend(paced_positions=True, context=False)
    item, said, rate = paced(utterances[2]), utterances[2].phones, paced.codec.rate / paced.codec.levels
    positions, frames = item["positions"].tolist(), int((item["text"] < 0).sum())
    assert positions[:2] == [0, 1]
    starts = paced.pacing.starts([p.symbol for p in said], utterances[2].emotion) * rate
    assert positions[2 : 2 + len(said)] == [2 + round(float(s)) for s in starts[:-1]]
    assert positions[2 + len(said) :] == list(range(1, 2 + frames))


@torch.no_grad()
def test_acoustic_codes_of_least_risk(make_frontend, sizes, utterances):
    frontend = make_frontend(reserve_end=True)
    torch.manual_seed(0)
    model = Csm(frontend, **sizes, temperature=0.0, minimum_risk=True).eval()
    state, tables = torch.randn(3, sizes["hidden_size"]), level_tables(frontend.codec, torch.device("cpu"))
    codes = model.frame(state, torch.zeros(3, model.levels), tables)
    hidden = model.deep_states(state, codes)
    logits = model.project(hidden).unflatten(0, (3, -1))[..., 1 : model.sayable].float()  # (3, K - 1, codewords)
    for level in range(1, model.levels):
        assert torch.equal(codes[:, level], 1 + least_risk(logits[:, level - 1], tables[level]))
    said = model.generate([frontend.request(u) for u in utterances[:3]])
    assert all(torch.equal(model.generate([frontend.request(u)])[0], s) for u, s in zip(utterances, said))
    with pytest.raises(ConfigError, match=r"minimum_risk needs .*reserve_end"):
        Csm(make_frontend(), **sizes, minimum_risk=True)


def test_dropped_frames_are_not_heard_in_training_only(make_frontend, sizes, utterances):
    frontend = make_frontend(dropped=0.3)
    torch.manual_seed(0)
    batch, model = frontend.collate([frontend(u) for u in utterances[:3]]), Csm(frontend, **sizes)
    learnt, heard = batch["labels"][..., 0] >= 0, batch["heard"]
    assert heard[~learnt].all() and not heard[learnt].any(1).all() and not heard[learnt].any(1).logical_not().all()
    changed = torch.where(heard | ~batch["mask"][..., None], batch["codes"], 1)
    assert torch.equal(model.train()(batch)["semantic"].logits, model(batch | {"codes": changed})["semantic"].logits)
    assert not torch.equal(model.eval()(batch)["semantic"].logits, model(batch | {"codes": changed})["semantic"].logits)
    whole = {n: t for n, t in batch.items() if n != "heard"}
    everything = batch | {"heard": torch.ones_like(heard)}
    assert torch.allclose(model.train()(whole)["semantic"].logits, model(everything)["semantic"].logits, atol=1e-6)


def test_phones_of_an_earlier_turn_fill_its_frames(make_frontend, utterances):
    paced = make_frontend(paced_positions=True, context=False)
    turn = paced.turn(utterances[1])
    slow = replace(turn, codes=turn.codes.repeat(3, 1))
    ids, frames = len(turn.phones) + 3, len(slow.codes)
    positions = paced.numbered(slow, ids, frames, None, last=False)
    assert positions[2 : ids - 1].max() > 0.6 * frames and positions[2 : ids - 1].max() <= 2 + frames
    assert torch.equal(positions[ids:], 2 + torch.arange(frames))


@pytest.mark.parametrize(
    ("error", "words", "act"),
    [
        (DataError, "speaker 'cleo' is unknown", lambda f, u: f(replace(u, speaker="cleo"))),
        (DataError, "no phones", lambda f, u: f(replace(u, phones=(Phone("_", 0.0, 1.0),)))),
        (DataError, "no recording", lambda f, u: f(replace(u, audio=u.audio.with_name("missing.wav")))),
        (DataError, "no symbols yet", lambda f, u: CsmFrontend(f.codec, PhoneText(), context=False)(u)),
        (ConfigError, "at least two levels", lambda f, u: Csm(CsmFrontend(Buckets(1), f.text))),
    ],
)
def test_refusals_are_one_line(frontend, utterances, error, words, act):
    with pytest.raises(error) as caught:
        act(frontend, utterances[0])
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_too_long_is_left_out_not_cut(frontend, model, utterances, items):
    short = copy.copy(frontend)
    short.max_tokens = len(items[2]["text"])
    assert torch.equal(short(utterances[2])["codes"], items[2]["codes"])
    short.max_tokens -= 1
    with pytest.raises(TooLong, match="max_tokens"):
        short(utterances[2])
    short.max_tokens = 12
    with pytest.raises(DataError, match="split the text"):
        short.prompt(short.request(utterances[2]))


def test_a_reference_too_short_is_refused(frontend, utterances, tmp_path):
    from ttsadapt.data.audio import load, save

    save(tmp_path / "short.wav", load(utterances[0].audio, 16000)[:3000], 16000)
    with pytest.raises(DataError, match=r"less than 0\.3 s") as caught:
        frontend.turn(replace(utterances[0], audio=tmp_path / "short.wav"))
    assert "\n" not in str(caught.value) and isinstance(frontend.turn(utterances[0]), Turn)
