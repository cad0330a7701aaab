"""The flows by themselves: counts, padding, streaming, guidance, bad files, adapters."""

import re
from itertools import product

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch.nn.utils.rnn import pad_sequence

from ttsadapt.adapters import match
from ttsadapt.backbones import official
from ttsadapt.backbones.cosyvoice.conformer import ConformerEncoder, by_distance, causal_mask, chunk_mask
from ttsadapt.backbones.cosyvoice.flow import SIGMA_MIN, draw
from ttsadapt.backbones.cosyvoice.flows import CosyVoice1Flow, CosyVoice2Flow, CosyVoice3Flow, flow_class
from ttsadapt.backbones.official import OfficialFile
from ttsadapt.errors import CheckpointError, DataError

MELS, VOICE, TOKENS = 8, 5, 11
SMALL = {"tokens": TOKENS, "voice_size": VOICE, "n_mels": MELS}
UNET = {
    "token_width": 16, "width": 16, "heads": 2, "hidden": 24, "blocks": 1, "middle": 1, "transformers": 1, "unet_heads": 2, "unet_head": 8,
}  # fmt: skip
KINDS = {
    1: (CosyVoice1Flow, {"channels": [16, 16], "token_rate": 25.0, "mel_rate": 50.0, **UNET}),
    2: (CosyVoice2Flow, {"channels": [16], "up_blocks": 1, "chunk": 2, **UNET}),
    3: (CosyVoice3Flow, {"width": 16, "heads": 2, "head": 8, "hidden": 24, "blocks": 2, "ahead_width": 12, "conv_groups": 2, "chunk": 2}),
}
COUNTS = {CosyVoice1Flow: 104_874_752, CosyVoice2Flow: 112_549_360, CosyVoice3Flow: 332_257_088}


def flow_of(version: int, seed: int = 0, **settings):
    """Every weight is drawn, so that nothing that starts at zero hides a mistake."""
    kind, sizes = KINDS[version]
    torch.manual_seed(seed)
    flow = kind(**SMALL, **sizes, **settings).eval()
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return flow


def batch_of(lengths: list[int]) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    tokens = [torch.randint(TOKENS, (n,)) for n in lengths]
    mels = [torch.randn(2 * n, MELS) - 3 for n in lengths]
    count = torch.tensor(lengths)
    return {
        "tokens": pad_sequence(tokens, True), "token_lengths": count, "mel": pad_sequence(mels, True), "mel_lengths": 2 * count,
        "embedding": torch.randn(len(lengths), VOICE),
    }  # fmt: skip


def row_of(values: dict[str, torch.Tensor], i: int, length: int) -> dict[str, torch.Tensor]:
    """Utterance i without company and padding."""
    cut = {"tokens": length, "mel": 2 * length, "noise": 2 * length}
    return {k: v[i : i + 1, : cut[k]] if k in cut else v[i : i + 1] for k, v in values.items()}


@pytest.mark.parametrize(("kind", "count"), COUNTS.items())
def test_the_official_size_has_the_official_count(kind, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in kind().parameters()) == count


@pytest.mark.parametrize("version", KINDS)
def test_an_utterance_is_the_same_alone_and_in_company(version):
    flow, lengths = flow_of(version), [4, 9, 6]
    batch = batch_of(lengths)
    draws = draw(batch["mel_lengths"], MELS)
    draws["keep"][:], draws["streaming"] = True, torch.tensor([True, True, False])
    with torch.no_grad():
        value, target, row, *_ = flow(**batch, draws=draws)
        assert len(value) == 2 * sum(lengths)
        for i, n in enumerate(lengths):
            alone, wanted, *_ = flow(**row_of(batch, i, n), draws=row_of(draws, i, n))
            torch.testing.assert_close(value[row == i], alone, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(target[row == i], wanted)


@pytest.mark.parametrize("version", KINDS)
def test_what_is_wanted_leads_from_the_noise_to_the_standardised_mel(version):
    flow, batch = flow_of(version, mel_mean=-3.0, mel_std=2.0), batch_of([3, 5])
    draws = draw(batch["mel_lengths"], MELS)
    _, target, row, *_ = flow(**batch, draws=draws)
    frame = torch.cat([torch.arange(6), torch.arange(10)])
    noise = draws["noise"][row, frame]
    reached = (1 - (1 - SIGMA_MIN) * 0.0) * noise + target
    torch.testing.assert_close(reached, (batch["mel"][row, frame] + 3) / 2 + SIGMA_MIN * noise)


@pytest.mark.parametrize("version", [2, 3])
def test_a_stream_hears_no_further_than_its_chunk_and_the_look_ahead(version):
    flow = flow_of(version)
    frames, chunk, ahead = 2 * 8, 2, flow.ahead
    batch = batch_of([8])
    draws = draw(batch["mel_lengths"], MELS)
    draws["keep"][:] = True
    reached = torch.zeros(frames, dtype=torch.bool)
    for streaming in (True, False):
        draws["streaming"] = torch.tensor([streaming])
        before = flow(**batch, draws=draws)[0]
        changed = batch | {"tokens": batch["tokens"].clone()}
        changed["tokens"][0, -1] = (changed["tokens"][0, -1] + 1) % TOKENS
        reached = (flow(**changed, draws=draws)[0] - before).abs().sum(-1) > 1e-7
        first = int(reached.nonzero()[0])
        # The last of 8 tokens is heard by the look-ahead of token 4, whose chunk is tokens 4 and 5.
        assert first == (2 * ((7 - ahead) // chunk * chunk) if streaming else 0)


@pytest.mark.parametrize("version", KINDS)
def test_generation_is_a_function_of_its_request(version):
    flow = flow_of(version)
    torch.manual_seed(1)
    tokens, voice, prompt, heard = torch.randint(TOKENS, (6,)), torch.randn(VOICE), torch.randint(TOKENS, (4,)), torch.randn(9, MELS)
    state = torch.get_rng_state()
    flow.train()
    once = flow.generate(tokens, voice, prompt, heard, seed=4, steps=3)
    again = flow.generate(tokens, voice, prompt, heard, seed=4, steps=3)
    other = flow.generate(tokens, voice, prompt, heard, seed=5, steps=3)
    assert once.shape == (12, MELS) and torch.equal(once, again) and not torch.allclose(once, other)
    assert flow.generate(tokens, voice, seed=4, steps=3).shape == (12, MELS)
    assert flow.training and torch.equal(state, torch.get_rng_state())


def test_guidance_pushes_away_from_the_velocity_without_conditions():
    flow = flow_of(3, guidance=0.0)
    told = flow.generate(torch.tensor([1, 2]), torch.ones(VOICE), steps=1)
    flow.guidance = 1.0
    pushed = flow.generate(torch.tensor([1, 2]), torch.ones(VOICE), steps=1)
    z = flow.noise(4, 0)
    nothing = torch.zeros(1, 4, MELS)
    with torch.no_grad():
        mask, never = torch.ones(1, 4, dtype=torch.bool), torch.tensor([False])
        untold = z + flow.decoder["estimator"](z[None], mask, nothing, torch.zeros(1), nothing[:, 0], nothing, never)[0]
    torch.testing.assert_close(pushed, told + (told - untold), atol=1e-4, rtol=1e-4)


def test_speech_longer_than_the_noise_is_refused():
    with pytest.raises(DataError, match="split the text"):
        flow_of(3).noise(15001, 0)


def test_draws_come_from_the_global_generator_and_keep_their_bounds():
    lengths = torch.tensor([10, 40] * 500)
    torch.manual_seed(0)
    drawn = draw(lengths, MELS)
    torch.manual_seed(0)
    assert all(torch.equal(v, drawn[k]) for k, v in draw(lengths, MELS).items())
    shown = drawn["prompt_frames"].view(-1, 2)
    assert shown.min() == 0 and shown.max(0).values.tolist() == [3, 12]  # both ends of each range are reached
    assert 0.75 < drawn["keep"].float().mean() < 0.85 and 0.45 < drawn["streaming"].float().mean() < 0.55
    assert 0.45 < (drawn["prompt_frames"] > 0).float().mean() / (1 - (1 / 4 + 1 / 13) / 2) < 0.55
    assert drawn["noise"].shape == (1000, 40, MELS) and drawn["time"].min() >= 0 and drawn["time"].max() < 1


def test_a_new_dit_starts_from_no_velocity():
    kind, sizes = KINDS[3]
    flow, batch = kind(**SMALL, **sizes), batch_of([3, 4])
    assert flow(**batch, draws=draw(batch["mel_lengths"], MELS))[0].abs().max() == 0


@pytest.mark.parametrize("version", [1, 2])
def test_a_new_unet_passes_the_noisy_mel_on_to_its_last_block(version):
    kind, sizes = KINDS[version]
    torch.manual_seed(0)
    flow, seen = kind(**SMALL, **sizes).eval(), []
    flow.estimator.final_block.register_forward_pre_hook(lambda m, given: seen.append(given[0]))
    x, other = torch.randn(1, 8, MELS), torch.randn(1, 8, MELS)
    mask, never = torch.ones(1, 8, dtype=torch.bool), torch.tensor([False])
    with torch.no_grad():
        flow.estimator(x, mask, other, torch.tensor([0.3]), other[:, 0], other, never)
    torch.testing.assert_close(seen[0][..., :MELS], x)


def silenced(flow):
    """The estimator says nothing."""
    last = getattr(flow.estimator, "proj_out", None) or flow.estimator.final_proj
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    return flow


@pytest.mark.parametrize("version", KINDS)
def test_a_flow_around_mu_starts_from_the_best_linear_guess(version):
    """Of mels that lie around mu as widely as `spread` says, no other line through the point comes closer to the velocity."""
    flow, batch = silenced(flow_of(version, spread=0.4)), batch_of([20])
    draws = draw(batch["mel_lengths"], MELS, drop=0.0, prompted=0.0)
    with torch.no_grad():
        mu = flow.encode(batch["tokens"], batch["token_lengths"], batch["mel_lengths"], batch["mel"].shape[1], draws["streaming"])
        torch.manual_seed(0)
        for time in (0.0, 0.3, 0.7, 1.0):
            draws["time"] = torch.full((1,), time)
            errors, slopes = [], []
            for _ in range(40):
                draws["noise"] = torch.randn_like(draws["noise"])
                batch["mel"] = mu + 0.4 * torch.randn_like(mu)
                guess, wanted, *_ = flow(**batch, draws=draws)
                missed = ((1 - time) * draws["noise"] + time * batch["mel"] - time * mu)[0]
                errors.append((wanted - guess).mean())
                slopes.append(((wanted - guess) * missed).mean() / missed.square().mean())  # what is left does not follow the point
            assert torch.stack(errors).mean().abs() < 0.05 and torch.stack(slopes).mean().abs() < 0.05
        assert torch.equal(flow(**batch, draws=draws).mel, batch["mel"][0]) and torch.equal(flow(**batch, draws=draws).mu, mu[0])


@pytest.mark.parametrize("version", KINDS)
def test_a_flow_around_mu_leads_to_mels_around_mu(version):
    flow = silenced(flow_of(version, spread=0.3, guidance=0.0))
    tokens, voice = torch.arange(1, 11), torch.ones(VOICE)
    mel = torch.cat([flow.generate(tokens, voice, steps=100, seed=seed) for seed in range(1, 9)]).unflatten(0, (8, -1))
    with torch.no_grad():
        mu = flow.encode_one(tokens, tokens[:0], 0, torch.tensor([False]), True)
    assert (mel - mu).std() == pytest.approx(0.3, rel=0.15) and (mel - mu).mean().abs() < 0.02


@pytest.mark.parametrize("version", KINDS)
def test_blocks_are_at_one_rate_and_their_mask_fits(version):
    flow, batch, seen = flow_of(version), batch_of([3, 5]), {}
    for name, block in flow.blocks.items():
        block.register_forward_hook(lambda m, i, o, name=name: seen.__setitem__(name, o.shape))
    flow(**batch, draws=draw(batch["mel_lengths"], MELS))
    mask = flow.block_mask(batch["mel_lengths"], batch["mel"].shape[1])
    assert set(seen) == set(flow.blocks) and all(shape == (*mask.shape, 16) for shape in seen.values())


@pytest.mark.parametrize("version", KINDS)
def test_a_merged_lora_leaves_the_authors_keys(version, tmp_path):
    flow = flow_of(version)
    official.write(official.save(flow, flow.layout()), tmp_path / "flow.pt")
    file = OfficialFile(tmp_path / "flow.pt")
    assert flow_class(file) is type(flow)
    settings = {"unet_head": 8} if version != 3 else {}
    loaded, origin = type(flow).from_file(file, **settings)
    layers = match(loaded, loaded.adaptable)
    inside = re.compile(r"\.(self_attn|attn1?|ff|feed_forward)\.")
    assert set(layers) == {n for n, m in loaded.named_modules() if isinstance(m, torch.nn.Linear) and inside.search(n)}
    inject_adapter_in_model(LoraConfig(r=2, target_modules=layers), loaded)
    batch = batch_of([4, 5])
    draws = draw(batch["mel_lengths"], MELS)
    with torch.no_grad():
        before = loaded.eval()(**batch, draws=draws)[0]
        for n, p in loaded.named_parameters():
            if "lora_B" in n:
                p.normal_(std=0.1)
        adapted = loaded(**batch, draws=draws)[0]
    assert (adapted - before).abs().max() > 1e-3
    official.write(official.save(loaded, loaded.layout(), origin), tmp_path / "again.pt")
    again = OfficialFile(tmp_path / "again.pt")
    assert again.shapes == file.shapes
    merged, _ = type(flow).from_file(again, **settings)
    with torch.no_grad():
        torch.testing.assert_close(merged.eval()(**batch, draws=draws)[0], adapted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("version", "dtype"), product(KINDS, (torch.float16, torch.bfloat16)))
def test_half_precision_files_come_back_bit_for_bit(version, dtype, tmp_path, capsys):
    state = {n: t.to(dtype) for n, t in flow_of(version).state_dict().items()} | {"epoch": 3, "step": 10}
    torch.save(state, tmp_path / "flow.pt")
    file = OfficialFile(tmp_path / "flow.pt")
    flow, origin = flow_class(file).from_file(file, **({"unet_head": 8} if version != 3 else {}))
    told = capsys.readouterr().out
    assert "epoch, step" in told and str(dtype).removeprefix("torch.") in told
    assert all(p.dtype == torch.float32 and not p.is_meta for p in flow.parameters())
    back = official.save(flow, flow.layout(), origin)
    assert back.keys() == state.keys() - {"epoch", "step"}
    assert all(torch.equal(back[n], state[n]) and back[n].dtype == dtype for n in back)


def test_foreign_and_incomplete_files_are_told_in_one_line(tmp_path):
    state = flow_of(3).state_dict()
    torch.save(state, tmp_path / "three.pt")
    with pytest.raises(CheckpointError, match="looks like a CosyVoice3 flow, not a CosyVoice2 flow: key decoder") as error:
        CosyVoice2Flow.from_file(OfficialFile(tmp_path / "three.pt"))
    assert "\n" not in str(error.value)
    torch.save({n: t for n, t in state.items() if not n.startswith("pre_lookahead_layer.conv2")}, tmp_path / "less.pt")
    with pytest.raises(CheckpointError, match=r"2 keys are missing: pre_lookahead_layer\.conv2\.bias"):
        CosyVoice3Flow.from_file(OfficialFile(tmp_path / "less.pt"))
    torch.save({n: t for n, t in state.items() if not n.endswith("inv_freq")}, tmp_path / "without.pt")
    with pytest.raises(CheckpointError, match=r"1 keys are missing: decoder\.estimator\.rotary_embed\.inv_freq"):
        CosyVoice3Flow.from_file(OfficialFile(tmp_path / "without.pt"))
    torch.save({"a": torch.zeros(1)}, tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="is not a CosyVoice flow: it has a"):
        flow_class(OfficialFile(tmp_path / "none.pt"))


def test_a_cached_encoder_equals_one_without_a_cache():
    torch.manual_seed(0)
    encoder = ConformerEncoder(6, 16, 4, 24, 2, legacy=True).eval()
    x = torch.randn(2, 9, 6)
    with torch.no_grad():
        whole, caches = encoder(x, causal_mask(9, 9)), encoder.caches()
        parts = [encoder(x[:, :3], causal_mask(3, 3), caches)]
        parts += [encoder(x[:, i : i + 1], causal_mask(1, i + 1), caches) for i in range(3, 7)]
        parts.append(encoder(x[:, 7:], causal_mask(2, 9), caches))
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)


def test_scores_of_distances_become_scores_of_keys():
    queries, keys = 3, 5
    columns = torch.arange(queries + keys - 1.0).expand(2, queries, -1)
    distance = keys - 1 - by_distance(columns, keys)  # column c holds the distance keys - 1 - c
    wanted = (torch.arange(queries)[:, None] + keys - queries) - torch.arange(keys)
    assert torch.equal(distance, wanted.float().expand(2, -1, -1))


def test_chunks_end_where_they_should():
    mask = torch.tensor([[True] * 5, [True] * 4 + [False]])
    seen = chunk_mask(mask, 2, torch.tensor([True, False]))
    assert seen[0].sum(1).tolist() == [2, 2, 4, 4, 5] and seen[1].sum(1).tolist() == [4] * 5
