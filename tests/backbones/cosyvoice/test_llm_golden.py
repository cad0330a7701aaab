"""The language models against tensors that the authors' own code made."""

import pytest
import torch

from backbones.cosyvoice import golden
from ttsadapt.backbones.cosyvoice.head import Spoken
from ttsadapt.backbones.cosyvoice.layout import NOTHING, Layout1, Layout2, Layout3, padded
from ttsadapt.backbones.cosyvoice.llm import QwenLM
from ttsadapt.backbones.cosyvoice.llm1 import TransformerLM
from ttsadapt.backbones.cosyvoice.speech_lm import Prompt
from ttsadapt.backbones.decoding import Sampling, inverse
from ttsadapt.backbones.official import OfficialFile, load, save

pytestmark = pytest.mark.golden
NONE = torch.zeros(0, dtype=torch.long)
KINDS = {"cv1_llm": (TransformerLM, Layout1), "cv2_llm": (QwenLM, Layout2), "cv3_llm": (QwenLM, Layout3)}


def loaded(name: str):
    """(model, Origin, file) of one golden checkpoint."""
    kind, layout = KINDS[name]
    file = OfficialFile(golden.folder() / f"{name}.weights.pt")
    sizes = golden.manifest(name)["config"].get("qwen2")
    settings = {"head_size": sizes["hidden_size"] // sizes["num_attention_heads"], "rope_theta": sizes["rope_theta"]} if sizes else {}
    model = kind.of_file(file, layout, settings)
    origin = load(model, file, kind.places[layout.family])
    return model.eval(), origin, file


def batch_of(name: str, layout, interleave: bool = False) -> dict[str, torch.Tensor]:
    io, ratio = golden.tensors(name), golden.manifest(name)["config"]["lm"].get("mix_ratio")
    rows = []
    for i, (t, s) in enumerate(zip(io["text_token_len"].tolist(), io["speech_token_len"].tolist())):
        text, speech = io["text_token"][i, :t], io["speech_token"][i, :s]
        instruct = io["instruct_token"][i, : io["instruct_token_len"][i]] if "instruct_token" in io else NONE
        mixed = interleave and layout.fits(t, s, ratio)
        rows.append(layout.interleaved(text, speech, instruct, ratio) if mixed else layout.whole(text, speech, instruct))
    speaker = io.get("embedding", torch.zeros(len(rows), 1))
    return padded(rows) | {"text": io["text_token"], "speaker": speaker}


@pytest.mark.parametrize("case", ["uni", "bi"])
@pytest.mark.parametrize("name", ["cv2_llm", "cv3_llm"])
def test_qwen_forward_loss_and_gradients(name, case):
    model, _, _ = loaded(name)
    io, told = golden.tensors(name), golden.manifest(name)["scalars"]
    batch = batch_of(name, model.layout, interleave=case == "bi")
    target = io[f"{case}.lm_target"]
    assert torch.equal(batch["targets"], target)
    assert torch.equal(batch["mask"].sum(1), io[f"{case}.lm_input_len"].long())
    embedded = model.embed(batch["kinds"], batch["symbols"], batch["text"], batch["speaker"])
    assert torch.equal(embedded[batch["mask"]], io[f"{case}.lm_input"][batch["mask"]])
    head = model(batch)
    wanted = target != NOTHING
    assert torch.allclose(head.hidden, io[f"{case}.hidden"][wanted], atol=1e-4)
    assert torch.allclose(head.logits, io[f"{case}.logits"][wanted], atol=1e-4)
    loss = head.loss()
    assert float(loss) == pytest.approx(told[f"{case}_loss"], abs=1e-5)
    accuracy = (head.logits.argmax(-1) == head.target).float().mean()
    assert float(accuracy) == pytest.approx(told[f"{case}_acc"], abs=1e-5)
    loss.backward()
    golden.assert_norms(model, model.places[model.layout.family].place, told[f"{case}_grad_norms"])


def test_label_smoothing_is_a_divergence():
    told, io = golden.manifest("cv2_llm")["scalars"], golden.tensors("cv2_llm")
    wanted = io["uni.lm_target"] != NOTHING
    for smoothing in (0.0, 0.1):
        head = Spoken(
            io["uni.lm_target"][wanted], wanted.nonzero()[:, 0], "tokens",
            hidden=io["uni.logits"][wanted], project=lambda x: x, smoothing=smoothing,
        )  # fmt: skip
        assert float(head.loss()) == pytest.approx(told[f"uni_loss_smooth{smoothing}_norm1"], abs=1e-5)
        head.total = len(wanted)
        assert float(head.loss()) == pytest.approx(told[f"uni_loss_smooth{smoothing}_norm0"], rel=1e-5)
        assert torch.allclose(
            head.log_likelihood_per_position(), -torch.nn.functional.cross_entropy(head.logits, head.target, reduction="none")
        )


def test_five_steps_of_adam():
    model, _, _ = loaded("cv2_llm")
    batch = batch_of("cv2_llm", model.layout)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for wanted in golden.manifest("cv2_llm")["scalars"]["uni_adam_lr1e-3_losses"]:
        optimizer.zero_grad()
        loss = model(batch).loss()
        assert float(loss) == pytest.approx(wanted, abs=1e-5)
        loss.backward()
        optimizer.step()


def test_greedy_decoding_with_a_cache():
    model, _, _ = loaded("cv2_llm")
    io, told = golden.tensors("cv2_llm"), golden.manifest("cv2_llm")["scalars"]
    text = torch.cat([io["inf.prompt_text"][0], io["inf.text"][0]])
    prompt = prompt_of(model, text, io["inf.prompt_speech_token"][0], least=2 * io["inf.text"].shape[1])
    embedded = model.embed(prompt.kinds[None], prompt.ids[None], text[None], prompt.speaker[None])
    assert torch.equal(embedded, io["inf.prefix"])
    heard: list[torch.Tensor] = []
    handle = model.llm_decoder.register_forward_hook(lambda m, i, o: heard.append(o[0]))
    (tokens,) = model.generate([prompt], Sampling(temperature=0.0))
    handle.remove()
    assert tokens == told["inf_tokens_recomputed"]
    logp, end = torch.stack(heard).log_softmax(-1), model.layout.end
    open_end = io["inf.logp_recomputed"].isfinite()
    assert torch.allclose(logp[open_end], io["inf.logp_recomputed"][open_end], atol=1e-4)
    assert (~open_end).sum() == prompt.least and not open_end[: prompt.least, end].any()


def prompt_of(model, text, speech, least: int, most: int = 200) -> Prompt:
    parts = model.layout.prefix(text, speech, NONE)
    kinds = torch.cat([torch.full((len(ids),), kind) for kind, ids in parts])
    return Prompt(kinds, torch.cat([ids for _, ids in parts]), text, torch.arange(len(kinds)), torch.zeros(1), least, most, lambda: 0.0)


def test_what_preference_learning_should_see():
    """Mean log-probability of the whole answer, over valid positions only."""
    model, _, _ = loaded("cv2_llm")
    head = model(batch_of("cv2_llm", model.layout))
    wanted = golden.tensors("cv2_llm")["dpo.chosen_logps_intended"]
    for i, value in enumerate(wanted):
        assert float(head.log_likelihood_per_position()[head.row == i].mean()) == pytest.approx(float(value), abs=1e-4)


def test_cosyvoice1_forward_loss_and_gradients():
    model, _, _ = loaded("cv1_llm")
    io, told = golden.tensors("cv1_llm"), golden.manifest("cv1_llm")["scalars"]
    batch = batch_of("cv1_llm", model.layout)
    encoded = model.encode_text(io["text_token"])
    for i, n in enumerate(io["text_token_len"].tolist()):
        assert torch.allclose(encoded[i, :n], io["text_encoded"][i, :n], atol=1e-4)
    embedded = model.embed(batch["kinds"], batch["symbols"], batch["text"], batch["speaker"])
    assert torch.equal(batch["mask"].sum(1), io["lm_input_len"].long())
    assert torch.allclose(embedded[batch["mask"]], io["lm_input"][batch["mask"]], atol=1e-4)
    head, wanted = model(batch), batch["targets"] != NOTHING
    assert torch.allclose(head.hidden, io["hidden"][wanted], atol=1e-4)
    assert torch.allclose(head.logits, io["logits"][wanted], atol=1e-4)
    loss = head.loss()
    assert float(loss) == pytest.approx(told["loss"], abs=1e-5)
    loss.backward()
    golden.assert_norms(model, model.places[model.layout.family].place, told["grad_norms"])


@pytest.mark.parametrize("name", KINDS)
def test_written_back_bit_for_bit(name):
    model, origin, file = loaded(name)
    assert sum(p.numel() for p in model.parameters()) == golden.manifest(name)["n_params"]
    again, there = save(model, model.places[model.layout.family], origin), torch.load(file.path, weights_only=True)
    assert again.keys() == there.keys()
    for key, tensor in there.items():
        assert again[key].dtype == tensor.dtype and torch.equal(again[key], tensor), key


@pytest.mark.parametrize("name", KINDS)
def test_keys_at_official_size(name):
    kind, layout = KINDS[name]
    entry = {"cv1_llm": "cosyvoice.llm", "cv2_llm": "cosyvoice2.llm", "cv3_llm": "cosyvoice3.llm"}[name]
    tokens = {"cv1_llm": 4096}.get(name, 6561)
    with torch.device("meta"):
        model = kind(layout(tokens), **({"decoder_bias": False} if layout is Layout3 else {}))
    places = kind.places[layout.family]
    got = {places.place(n).name: list(t.shape) for n, t in model.state_dict().items()}
    got |= {copy: got[original] for copy, original in places.tied.items()}
    assert got == {k: list(s) for k, s in golden.full()["keys"][entry].items()}
    assert sum(p.numel() for p in model.parameters()) == golden.full()["counts"][entry]["total"]


def test_repetition_aware_sampling():
    """The authors' draw was replaced by "the first entry", which is what the smallest random number picks."""
    io, told = golden.tensors("ras"), golden.manifest("ras")
    config = told["config"]
    sampling = Sampling(top_p=config["top_p"], top_k=config["top_k"], window=config["win_size"], share=config["tau_r"])
    for i, case in enumerate(told["scalars"]["cases"]):
        scores = io[f"{i}.scores"]
        kept, index = sampling.nucleus(scores)
        wanted = io[f"{i}.nucleus_probs"]
        assert (kept > 0).sum() == case["n_nucleus"] == len(wanted)
        assert torch.allclose(kept[: len(wanted)].float(), wanted, atol=1e-6)
        assert int(index[0]) == case["top"]
        drawn: list[float] = []
        picked = sampling.draw(scores, lambda drawn=drawn: drawn.append(0.0) or 0.0, case["history"])
        assert picked == case["picked"] and len(drawn) == 1 + case["resampled"]
        if case["resampled"]:
            banned = scores.clone()
            banned[case["top"]] = -torch.inf
            assert torch.allclose(banned.softmax(-1), io[f"{i}.resample_probs"], atol=1e-6)
            assert inverse(banned.double().softmax(-1), 0.0) == picked
