"""CosyVoice 1, 2 and 3: text -> speech tokens (language model) -> mel (flow matching) -> waveform (HiFT).

How the parts meet (B utterances, padded on the right; masks are bool, true where there is something):

    conformer.py   ConformerEncoder: Linear + LayerNorm (+ ReLU in the `legacy` input of CosyVoice 1's language model), scaled by
                   sqrt(width), relative-position blocks, `after_norm`. Called as
                   encoder(x (B, T, C), mask (B, 1 | T, T) or broadcastable, caches: list[decoding.KeyValues] | None) -> (B, T, width).
                   With caches, x holds the next N positions after those that the caches hold: keys are all S positions so far,
                   relative distances run from S - 1 down to -(N - 1), and the mask is (B, 1 | N, S). `encoder.blocks` is the list.
                   The names of the two norms of a block (norm_mha / norm_ff or norm1 / norm2) belong to the layout.
    flow*.py       Flow.forward(tokens (B, S) long, token_lengths (B,), mel (B, T, n_mels), mel_lengths (B,), embedding (B, E), draws)
                   -> (value (N, n_mels), target (N, n_mels), row (N,)) at real frames.
                   Flow.draw(mel_lengths) -> dict of CPU tensors whose first dimension is B or whose rows collate may keep, drawn
                   from torch's global generator (noise, time, cfg drop, prompt length, streaming); collate puts it in batch["draws"].
                   Flow.generate(tokens (T,), embedding (E,), prompt_tokens, prompt_mel, seed, steps) -> mel (frames, n_mels).
                   Flow.blocks {name: module} for layer analysis, Flow.block_mask(batch) (B, T), Flow.adaptable globs,
                   flow_of(file: OfficialFile) -> an empty flow of the sizes in the file, and its official.Layout.
    hift*.py       hift(mel (frames, n_mels), seed) -> (samples,)
    mel.py         MatchaMel: (samples,) -> (frames, n_mels), with sample_rate, hop, n_mels
    layout.py      where text, speech and control vectors stand in a row of the language model, and what each position predicts
    llm.py llm1.py Qwen2 over text and speech (2, 3); relative-position Transformer over encoded text and speech (1)
    frontend.py    utterance -> text ids, speech tokens, mel, speaker vector; collate builds the rows and the flow's draws
    backbone.py    CosyVoice: the parts in one model
"""
