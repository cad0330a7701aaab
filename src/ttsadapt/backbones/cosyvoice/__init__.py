"""CosyVoice 1, 2 and 3: text -> speech tokens (language model) -> mel (flow matching) -> waveform (HiFT).

layout.py      where text, speech and control vectors stand in a row of the language model, and what each position predicts
speech_lm.py   what the language models share, decoding with a cache included; head.py: what they predict
llm.py         Qwen2 over text and speech (2, 3);  llm1.py: relative-position Transformer over encoded text and speech (1)
conformer.py   relative-position blocks and their cache, for the language model of 1 and the token encoders of 1 and 2
flow.py        conditional flow matching, its random draws, its solver;  flows.py: the three versions
encoders.py    speech tokens -> what the flow is conditioned on;  unet.py, dit.py: velocity estimators
hift*.py       mel -> waveform;  mel.py: waveform -> mel
text.py        phones, or the pieces of a released tokenizer;  released.py: speech tokenizer and speaker encoder (onnx)
frontend.py    utterance -> text, speech tokens, mel, voice; collate makes the rows and draws what the flow needs
backbone.py    the parts in one model;  loading.py: the model directory of a release
"""
