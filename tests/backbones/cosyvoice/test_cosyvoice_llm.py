"""The language models inside the backbone: what is supervised, that the cache is exact, what is drawn."""

from dataclasses import replace

import cosyvoice_toys as toys
import pytest
import torch
from cosyvoice_toys import VERSIONS, frontend_of, model_of, recorded

from ttsadapt.backbones.cosyvoice.layout import NOTHING, SPEECH, TEXT, Layout1, Layout2, Layout3
from ttsadapt.backbones.cosyvoice.llm import QwenLM
from ttsadapt.backbones.cosyvoice.llm1 import TransformerLM
from ttsadapt.backbones.cosyvoice.speech_lm import without_long_silence
from ttsadapt.backbones.decoding import Sampling
from ttsadapt.errors import ConfigError, DataError, TooLong


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
def items(frontend, utterances):
    return [frontend(u) for u in utterances]


def whole(frontend, items):
    """A batch in which nothing alternates."""
    share, frontend.interleave = frontend.interleave, 0.0
    try:
        return frontend.collate(items)
    finally:
        frontend.interleave = share


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: TransformerLM(Layout1(4096)), 310_718_465),
        (lambda: QwenLM(Layout2(6561)), 505_803_812),
        (lambda: QwenLM(Layout3(6561), decoder_bias=False), 506_148_480),
    ],
)
def test_official_sizes(make, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in make().parameters()) == count


def test_supervised_are_speech_and_end_only(frontend, model, items):
    head = model.llm(whole(frontend, items))
    for i, item in enumerate(items):
        assert head.target[head.row == i].tolist() == [*item["speech"].tolist(), frontend.layout.end]
    assert head.count == sum(frontend.lengths(item)["tokens"] for item in items)
    assert head.logits.shape == (head.count, frontend.layout.predicted)


def test_an_alternating_row_says_the_same_speech(version, frontend, items):
    if not frontend.layout.interleaves:
        assert not frontend.layout.fits(1, 1000, (1, 1))
        return
    for item in items:
        text, instruct = frontend._read(item["text"], item["instruct"])
        plain = frontend.layout.whole(text, item["speech"], instruct)
        row = frontend.layout.interleaved(text, item["speech"], instruct, (3, 4))
        chunks = len(text) // 3
        assert len(row.ids) == len(plain.ids) and (row.targets == frontend.layout.fill).sum() == chunks
        said = row.targets[(row.targets != NOTHING) & (row.targets != frontend.layout.fill)]
        assert said.tolist() == [*item["speech"].tolist(), frontend.layout.end]
        speech = (row.kinds == SPEECH) & (row.ids < frontend.layout.tokens)
        follows = row.targets[:-1][speech[1:]]
        assert torch.equal(follows[follows != NOTHING], row.ids[1:][speech[1:]][follows != NOTHING])
        assert (follows == NOTHING).sum() == 0, "every speech token is predicted by the position before it"


def test_alternation_is_drawn_when_a_batch_is_made(version, frontend, items):
    if not frontend.layout.interleaves:
        return
    torch.manual_seed(0)
    seen = {int((frontend.collate(items)["targets"] == frontend.layout.fill).any(1).sum()) for _ in range(20)}
    assert len(seen) > 2
    torch.manual_seed(3)
    one = frontend.collate(items)
    torch.manual_seed(3)
    assert all(torch.equal(v, one[k]) for k, v in frontend.collate(items).items())


def test_an_utterance_counts_the_same_whether_or_not_it_alternates(frontend, model, items):
    torch.manual_seed(1)
    positions = sum(frontend.lengths(item)["tokens"] for item in items)
    head = model.llm(frontend.collate(items))
    assert (len(head.target) > positions) == frontend.layout.interleaves
    assert head.count == positions and torch.isclose(head.loss(), head.per_position().sum() / positions)
    fewer = head.select(torch.arange(len(items)) % 2 == 0)
    assert fewer.count == sum(frontend.lengths(item)["tokens"] for item in items[::2])
    plain = model.llm(whole(frontend, items))
    assert plain.count == positions and torch.allclose(plain.worth, torch.ones(()))
    other = head.kl_per_position(head)
    assert other.shape == head.target.shape and other.abs().max() < 1e-5


def test_padding_changes_nothing(frontend, model, items):
    together = model.llm(whole(frontend, items))
    for i, item in enumerate(items):
        alone = model.llm(whole(frontend, [item]))
        assert torch.allclose(alone.logits, together.logits[together.row == i], atol=1e-5)


def recomputed(model, request, limit: int) -> list[int]:
    """Greedy decoding without a cache."""
    lm, frontend = model.llm, model.frontend
    prompt = model._prompt(request)
    said: list[int] = []
    while len(said) < limit:
        speech = torch.tensor(said, dtype=torch.long)
        kinds = torch.cat([prompt.kinds, torch.full_like(speech, SPEECH)])[None]
        ids = torch.cat([prompt.ids, speech])[None]
        positions = torch.cat([prompt.positions, prompt.positions[-1] + 1 + torch.arange(len(speech))])[None]
        states = lm.states(lm.embed(kinds, ids, prompt.text[None], prompt.speaker[None]), positions)
        logits = lm.llm_decoder(states[0, -1])
        said.append(int((logits[: frontend.codec.tokens] if len(said) < prompt.least else logits).argmax()))
        if said[-1] >= frontend.codec.tokens:
            return said[:-1]
    return said


@torch.no_grad()
def test_cached_greedy_equals_full_recomputation(model, frontend, utterances):
    requests = [frontend.request(u) for u in utterances[:4]]
    for request, tokens in zip(requests, model.speak(requests)):
        assert len(tokens) > 4
        assert tokens.tolist() == recomputed(model, request, model._prompt(request).most)


@pytest.mark.parametrize("numbered", [2, 3])
def test_paced_positions_put_speech_beside_its_text(numbered, utterances):
    plain, paced = (frontend_of(numbered, utterances, paced_positions=p, interleave=0.5) for p in (False, True))
    items = [paced(u) for u in utterances[:3]]
    for item, utterance in zip(items, utterances):
        text, instruct = paced._read(item["text"], item["instruct"])
        row = paced._row(text, item["speech"], instruct, True)
        positions = paced.numbered(row.kinds, row.ids, len(item["instruct"]), item["steps"])
        spoken = (row.kinds == SPEECH) & (row.ids < paced.codec.tokens)
        assert positions[spoken].tolist() == list(range(1, len(item["speech"]) + 1))  # however they alternate
        starts = paced.pacing.starts([p.symbol for p in utterance.phones], utterance.emotion)[:-1] * 25
        assert positions[row.kinds == TEXT].tolist() == [1, *(1 + starts.round()).tolist()]  # the emotion comes first
    torch.manual_seed(0)
    batch = paced.collate(items)
    torch.manual_seed(0)
    assert "positions" not in (other := plain.collate(items)) and torch.equal(batch["symbols"], other["symbols"])
    model = model_of(numbered, paced)
    assert not torch.allclose(model.llm(batch).logits, model.llm(other).logits, atol=1e-3)
    requests = [paced.request(u) for u in utterances[:3]]
    for request, tokens in zip(requests, model.speak(requests)):
        assert len(tokens) > 2 and tokens.tolist() == recomputed(model, request, model._prompt(request).most)


def test_left_to_right_is_what_no_positions_mean(model, frontend, items):
    batch = whole(frontend, items)
    numbered = torch.arange(batch["kinds"].shape[1]).expand_as(batch["kinds"])
    assert torch.allclose(model.llm(batch).logits, model.llm(batch | {"positions": numbered}).logits, atol=1e-5)


def test_dropped_tokens_are_not_heard_in_training_only(version, utterances):
    frontend = frontend_of(version, utterances, dropped=0.5)
    torch.manual_seed(0)
    batch, model = frontend.collate([frontend(u) for u in utterances]), model_of(version, frontend)
    spoken = model.llm.spoken(batch)
    assert batch["heard"][batch["mask"] & ~spoken].all() and 0.3 < batch["heard"][spoken].float().mean() < 0.7
    changed = batch | {"symbols": torch.where(spoken & ~batch["heard"], (batch["symbols"] + 1) % 20, batch["symbols"])}
    for training in (True, False):
        logits = []
        for some in (batch, changed):
            torch.manual_seed(1)  # dropout
            logits.append(model.llm.train(training)(some).logits)
        assert torch.equal(*logits) == training


def test_version_1_numbers_no_positions(utterances):
    with pytest.raises(ConfigError, match="paced_positions: the language model of CosyVoice 1"):
        frontend_of(1, utterances, paced_positions=True)


def test_samples_do_not_depend_on_company(model, frontend, utterances):
    model.sampling, greedy = Sampling(top_k=10, window=5), model.sampling
    requests = [frontend.request(u) for u in utterances]
    together = model.speak(requests)
    for request, tokens in list(zip(requests, together))[::3]:
        assert torch.equal(model.speak([request])[0], tokens)
    assert not torch.equal(model.speak([replace(requests[2], seed=1)])[0], together[2])
    model.sampling = greedy


@pytest.mark.parametrize("wish", [-50.0, 50.0], ids=["never ends by itself", "wants to end at once"])
def test_length_is_bounded_by_the_pace_of_pretraining(version, frontend, utterances, wish):
    model = model_of(version, frontend)
    request, end = frontend.request(utterances[2]), frontend.layout.tokens
    model.llm.llm_decoder.register_forward_hook(lambda m, i, o: wish * (torch.arange(o.shape[-1]) >= end).float().expand_as(o))
    tokens = model.speak([request])[0]
    low, high = (bound * len(request.phones) for bound in frontend.pace)
    assert int(low) <= len(tokens) <= high
    assert (len(tokens) == int(high)) == (wish < 0)


def test_emotion_is_heard(model, frontend, utterances):
    request = frontend.request(utterances[0])
    other = replace(request, emotion="happy")
    prompts = [model._prompt(r) for r in (request, other)]
    states = [model.llm.states(model.llm.embed(p.kinds[None], p.ids[None], p.text[None], p.speaker[None]))[0, -1] for p in prompts]
    assert not torch.allclose(*states, atol=1e-3)
    with pytest.raises(DataError, match=r"emotion 'proud' is not in the pretraining data, which has happy, neutral: .*aliases\.proud"):
        model.speak([replace(request, emotion="proud")])


def test_a_reference_comes_before_the_text_and_the_speech(version, utterances):
    frontend = frontend_of(version, utterances, references=True)
    frontend.enroll(utterances)
    request = frontend.request(utterances[0])
    reference = request.reference
    assert reference is frontend.prompts["anna", "neutral"] and len(reference.mel) >= 2 * len(reference.codes) - 1
    prefix, bare = frontend.prefix(request, reference), frontend.prefix(request, None)
    assert len(prefix["ids"]) == len(bare["ids"]) + len(reference.codes) + len(reference.phones)
    assert prefix["ids"][-len(reference.codes) :].tolist() == reference.codes.tolist()
    again = toys.bare_frontend(version, references=True)
    again.restore(frontend.state())
    assert torch.equal(again.prefix(again.request(utterances[0]), again.request(utterances[0]).reference)["ids"], prefix["ids"])
    kept = again.prompts["anna", "neutral"]
    again.enroll(utterances[::-1])
    assert again.prompts["anna", "neutral"] is kept
    asked = again.request(replace(utterances[0], emotion="sad"))
    assert asked.reference is kept, "no recording is sad: the neutral one"


def test_a_reference_that_is_too_short(version, utterances):
    frontend = frontend_of(version, utterances, references=True)
    short = replace(utterances[0], speaker="cleo", emotion="sad")
    frontend.codec.rate = 60.0  # of which the recording's tokens are less than half a second
    with pytest.raises(DataError, match=r"u0: a reference of 0\.\d+ s is too short to go on from: give cleo a recording"):
        frontend.enroll([short])


def test_too_long_is_left_out(version, frontend, utterances):
    frontend.longest, longest = 1.0, frontend.longest
    with pytest.raises(TooLong, match=r"u2: 1\.\d s are more than backbone\.frontend\.longest=1\.0"):
        frontend(utterances[2])
    frontend.longest = longest


def test_long_silence_is_left_out():
    assert without_long_silence([7, 1, 2, 1, 2, 1, 8, 1], silent=[1, 2], longest=3) == [7, 1, 2, 1, 8, 1]
    assert without_long_silence([1, 1, 1], silent=[], longest=0) == [1, 1, 1]
