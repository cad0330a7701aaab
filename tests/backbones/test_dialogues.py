"""Earlier turns of a dialogue are heard before an utterance, by the models that can, in training and when they speak."""

from dataclasses import replace

import pytest
import torch

from frames_toys import Buckets, recorded
from ttsadapt.backbones.csm import Csm
from ttsadapt.backbones.csm_frontend import CsmFrontend, Dialogue
from ttsadapt.backbones.frames_text import PhoneText
from ttsadapt.backbones.moshi import Moshi
from ttsadapt.backbones.moshi_frontend import MoshiFrontend, PhoneMonologue
from ttsadapt.errors import ConfigError

CSM = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "depth_hidden_size": 16, "depth_intermediate_size": 32, "depth_num_hidden_layers": 1, "depth_num_attention_heads": 2,
    "depth_num_key_value_heads": 1,
}  # fmt: skip
MOSHI = {
    "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "depth_hidden_size": 16,
    "depth_ffn_dim": 32, "depth_num_hidden_layers": 1, "depth_num_attention_heads": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def utterances(tmp_path_factory):
    """The last one answers the three before it."""
    *turns, _, _, _, last = recorded(tmp_path_factory.mktemp("audio"))
    return [*turns[:3], replace(last, context=tuple(turns[:3]))]


@pytest.fixture(scope="module", params=["csm", "moshi"])
def make(request, utterances):
    def made(**settings):
        kind, text = (CsmFrontend, PhoneText()) if request.param == "csm" else (MoshiFrontend, PhoneMonologue())
        frontend = kind(Buckets(), text, **{"max_tokens": 400, "depth_share": 0.5} | settings)
        frontend.fit(utterances)
        return frontend

    return made


@pytest.fixture(scope="module")
def frontend(make):
    return make()


@pytest.fixture(scope="module")
def model(frontend):
    torch.manual_seed(0)
    kind, sizes = (Moshi, MOSHI) if isinstance(frontend, MoshiFrontend) else (Csm, CSM)
    model = kind(frontend, **sizes, temperature=0.0, acoustic_temperature=0.0).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


def heads(model, utterance):
    torch.manual_seed(0)
    return model(model.frontend.collate([model.frontend(utterance)]))


def test_the_context_changes_what_is_said_and_is_not_learnt(frontend, model, utterances):
    answer, alone = utterances[-1], replace(utterances[-1], context=())
    with_it, without = heads(model, answer), heads(model, alone)
    assert with_it.keys() == without.keys()
    for name in with_it:
        assert torch.equal(with_it[name].target, without[name].target), "nothing of the context is supervised"
        assert not torch.allclose(with_it[name].logits, without[name].logits, atol=1e-4), "it is heard"
    assert frontend.lengths(frontend(answer)) == frontend.lengths(frontend(alone))
    heard = frontend(answer)
    own = len(frontend(alone)["text"])
    assert len(heard["text"]) > own + 20 and not heard["learnt"][: len(heard["text"]) - own].any()


def test_no_gradient_comes_from_the_context_s_own_frames(frontend, model, utterances):
    """Other codes in the context are other inputs, never other targets."""
    item = frontend(utterances[-1])
    batch = frontend.collate([item])
    context = item["learnt"] == 0
    assert (batch["labels"][0][context] == -100).all()
    if "text_labels" in batch:
        assert (batch["text_labels"][0][context] == -100).all()


def test_requests_carry_the_turns_with_their_roles(frontend, model, utterances):
    request = frontend.request(utterances[-1])
    assert isinstance(request, Dialogue) and len(request.earlier) == 3 and request.role == "0"
    assert [t.role == "0" for t in request.earlier] == [u.speaker == utterances[-1].speaker for u in utterances[:3]]
    prompt, alone = frontend.prompt(request), frontend.prompt(replace(request, earlier=()))
    assert len(prompt["text"]) > len(alone["text"]) + 20
    (said,), (other,) = model.generate([request]), model.generate([replace(request, earlier=())])
    assert len(said) and not (said.shape == other.shape and torch.equal(said, other))
    assert torch.equal(model.generate([frontend.request(utterances[0]), request])[1], said), "company changes nothing"


def test_the_number_of_turns_is_chosen(make, utterances):
    lengths = [len(make(context_turns=n)(utterances[-1])["text"]) for n in (0, 1, 2, 3, 9)]
    assert lengths == sorted(lengths) and len(set(lengths)) == 4 and lengths[3] == lengths[4]
    assert lengths[0] == len(make()(replace(utterances[-1], context=()))["text"])
    with pytest.raises(ConfigError, match="context_turns=-1"):
        make(context_turns=-1)


def test_the_oldest_turns_go_first_and_none_is_cut(make, utterances):
    full, one, none = (make(context_turns=n)(utterances[-1]) for n in (4, 1, 0))
    for room, wanted in ((len(full["text"]), full), (len(full["text"]) - 1, None), (len(one["text"]), one), (len(none["text"]), none)):
        made = make(max_tokens=room)(utterances[-1])
        assert len(made["text"]) <= room
        if wanted is not None:
            assert torch.equal(made["text"], wanted["text"]) and torch.equal(made["codes"], wanted["codes"])
    short = make(max_tokens=len(full["text"]))
    prompts = [
        len(short.prompt(replace(r, earlier=e))["text"]) for r in [short.request(utterances[-1])] for e in (r.earlier, r.earlier[1:])
    ]
    assert prompts[0] == prompts[1], "speaking needs room for the slowest answer"


def test_features_with_another_context_are_kept_apart(make):
    states = [str(make(**s).state()["heard"]) for s in ({}, {"context_turns": 2}, {"context": False}, {"max_tokens": 300})]
    assert len(set(states)) == 4
