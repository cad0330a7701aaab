"""HyperTTS's checkpoints: {"model": state_dict, "optimizer": ...}, with or without the hypernetworks of an adapted model."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ttsadapt.backbones import official
from ttsadapt.backbones.aligner import Schedule
from ttsadapt.backbones.hypertts_frontend import HyperTTSFrontend
from ttsadapt.backbones.official import Layout, OfficialFile, Place
from ttsadapt.backbones.parts import PostNet
from ttsadapt.backbones.pitch import CwtPitch
from ttsadapt.errors import CheckpointError

if TYPE_CHECKING:
    from ttsadapt.backbones.hypertts import HyperTTSBackbone

SIGNATURES = {
    "HyperTTS backbone": ("encoder.src_word_emb.weight", "variance_adaptor.duration_predictor.conv1d.0.weight", "mel_linear.weight"),
    "Comprehensive-Transformer-TTS": ("encoder.src_word_emb.weight", "variance_adaptor.duration_predictor.conv.0.1.weight"),
}

_UNUSED = tuple(f"variance_adaptor.{part}.embed_positions._float_tensor" for part in ("cwt_predictor.1", "energy_predictor"))
"""buffers that say where the authors' modules live; they hold nothing"""
_HYPER = ("*.hypernet.*", "*.hypernet_source_controller.*")
_ALIGNER = "variance_adaptor.aligner.*"
_MODEL = TypeVar("_MODEL", bound="HyperTTSBackbone")

_NAMES = (
    (r"phone_embedding\.(.*)", r"encoder.src_word_emb.\1"),
    (r"speaker_projection\.(.*)", r"speaker_emb.\1"),
    (r"(en|de)coder\.positions\.table", r"\1coder.position_enc"),
    (r"(en|de)coder\.blocks\.(\d+)\.attention_norm\.(.*)", r"\1coder.layer_stack.\2.slf_attn.layer_norm.\3"),
    (r"(en|de)coder\.blocks\.(\d+)\.attention\.query\.(.*)", r"\1coder.layer_stack.\2.slf_attn.w_qs.linear.\3"),
    (r"(en|de)coder\.blocks\.(\d+)\.attention\.key\.(.*)", r"\1coder.layer_stack.\2.slf_attn.w_ks.linear.\3"),
    (r"(en|de)coder\.blocks\.(\d+)\.attention\.value\.(.*)", r"\1coder.layer_stack.\2.slf_attn.w_vs.linear.\3"),
    (r"(en|de)coder\.blocks\.(\d+)\.attention\.out\.(.*)", r"\1coder.layer_stack.\2.slf_attn.fc.linear.\3"),
    (r"(en|de)coder\.blocks\.(\d+)\.ffn_norm\.(.*)", r"\1coder.layer_stack.\2.pos_ffn.layer_norm.\3"),
    (r"(en|de)coder\.blocks\.(\d+)\.ffn\.expand\.(.*)", r"\1coder.layer_stack.\2.pos_ffn.w_1.\3"),
    (r"(en|de)coder\.blocks\.(\d+)\.ffn\.contract\.(.*)", r"\1coder.layer_stack.\2.pos_ffn.w_2.\3"),
    (r"duration\.convs\.(.*)", r"variance_adaptor.duration_predictor.conv1d.\1"),
    (r"duration\.norms\.(.*)", r"variance_adaptor.duration_predictor.layernorm.\1"),
    (r"duration\.out\.(.*)", r"variance_adaptor.duration_predictor.linear.\1"),
    (r"pitch\.entry\.(.*)", r"variance_adaptor.cwt_predictor.0.\1"),
    (r"pitch\.predictor\.position_gain", r"variance_adaptor.cwt_predictor.1.pos_embed_alpha"),
    (r"pitch\.predictor\.convs\.(\d+)\.(.*)", r"variance_adaptor.cwt_predictor.1.conv.\1.1.\2"),
    (r"pitch\.predictor\.norms\.(\d+)\.(.*)", r"variance_adaptor.cwt_predictor.1.conv.\1.3.\2"),
    (r"pitch\.predictor\.out\.(.*)", r"variance_adaptor.cwt_predictor.1.linear.\1"),
    (r"pitch\.moments\.0\.(.*)", r"variance_adaptor.cwt_stats_layers.0.\1"),
    (r"pitch\.moments\.1\.(.*)", r"variance_adaptor.cwt_stats_layers.2.\1"),
    (r"pitch\.moments\.2\.(.*)", r"variance_adaptor.cwt_stats_layers.4.\1"),
    (r"pitch\.embedding\.(.*)", r"variance_adaptor.pitch_embed.\1"),
    (r"energy\.bins", r"variance_adaptor.energy_bins"),
    (r"energy\.predictor\.position_gain", r"variance_adaptor.energy_predictor.pos_embed_alpha"),
    (r"energy\.predictor\.convs\.(\d+)\.(.*)", r"variance_adaptor.energy_predictor.conv.\1.1.\2"),
    (r"energy\.predictor\.norms\.(\d+)\.(.*)", r"variance_adaptor.energy_predictor.conv.\1.3.\2"),
    (r"energy\.predictor\.out\.(.*)", r"variance_adaptor.energy_predictor.linear.\1"),
    (r"energy\.embedding\.(.*)", r"variance_adaptor.energy_embedding.\1"),
    (r"aligner\.(key|query)_voice\.(.*)", r"variance_adaptor.aligner.\1_spk_proj.linear.\2"),
    (r"aligner\.(key|query)\.0\.(.*)", r"variance_adaptor.aligner.\1_proj.0.conv.\2"),
    (r"aligner\.(key|query)\.1\.(.*)", r"variance_adaptor.aligner.\1_proj.2.conv.\2"),
    (r"aligner\.(key|query)\.2\.(.*)", r"variance_adaptor.aligner.\1_proj.4.conv.\2"),
    (r"postnet\.convs\.(\d+)\.(.*)", r"postnet.convolutions.\1.0.conv.\2"),
    (r"postnet\.norms\.(\d+)\.(.*)", r"postnet.convolutions.\1.1.\2"),
    (r"(mel_linear\..*)", r"\1"),
)


def place(name: str) -> Place:
    """CheckpointError for a part that the authors' model does not have."""
    for ours, theirs in _NAMES:
        if match := re.fullmatch(ours, name):
            return Place(match.expand(theirs))
    raise CheckpointError(
        f"the authors' format has no place for {name}: it holds CwtPitch, and neither emotions, scaled_mel nor phone_places; "
        "use a checkpoint of this package"
    )


def layout(aligned: bool) -> Layout:
    """`aligned`: whether the model has the aligner; where durations are given, a file's aligner is only kept."""
    optional = [*_UNUSED, *_HYPER, *([] if aligned else [_ALIGNER])]
    return Layout("HyperTTS backbone", place, optional=tuple(optional), own=("schedule.*",))


def load(kind: type[_MODEL], frontend: HyperTTSFrontend, path: Path, heads: int, settings: dict[str, Any]) -> _MODEL:
    """The model in a file, past every stage of the schedule."""
    file = OfficialFile(path, inside=None if path.suffix == ".safetensors" else "model")
    wanted = layout(frontend.learn_durations)
    sizes = _sizes(file, wanted.family)
    _fits(file, frontend)
    if adapted := [n for n in file.shapes if ".hypernet" in n]:
        print(f"{path.name}: {len(adapted)} weights of hypernetworks are kept but do not act: the backbone speaks without them")
    model = official.build(lambda: kind(frontend, heads=heads, **(sizes | _parts(file, settings.get("predictor_dropout", 0.5)) | settings)))
    model.origin = official.load(model, file, wanted)
    if model.schedule is not None:
        model.schedule.resume(_stages(model.schedule))
    return model


def save(model: "HyperTTSBackbone", path: Path) -> None:
    """As the authors' code loads it; a `.safetensors` holds the weights alone."""
    if not isinstance(model.pitch, CwtPitch):
        raise CheckpointError(f"the authors' format has no place for pitch={type(model.pitch).__name__}: it holds CwtPitch")
    state = official.save(model, layout(model.aligner is not None), model.origin)
    state |= {} if model.origin else {name: torch.zeros(1) for name in _UNUSED}
    if Path(path).suffix == ".safetensors":
        official.write(state, path)
    else:
        official.write({"model": state} | (model.origin.extras if model.origin else {}), path)


def _sizes(file: OfficialFile, family: str) -> dict[str, Any]:
    """Constructor arguments, as the shapes say."""
    try:
        embedded, expand = file.shapes["encoder.src_word_emb.weight"], file.shapes["encoder.layer_stack.0.pos_ffn.w_1.weight"]
        duration = file.shapes["variance_adaptor.duration_predictor.conv1d.0.weight"]
        return {
            "width": embedded[1],
            "hidden": expand[0],
            "kernel": expand[2],
            "encoder_blocks": official.count_blocks(file.shapes, r"encoder\.layer_stack\.(\d+)\."),
            "decoder_blocks": official.count_blocks(file.shapes, r"decoder\.layer_stack\.(\d+)\."),
            "positions": file.shapes["encoder.position_enc"][1],
            "predictor_hidden": duration[0],
            "duration_kernel": duration[2],
            "energy_kernel": file.shapes["variance_adaptor.energy_predictor.conv.0.1.weight"][2],
            "energy_bins": file.shapes["variance_adaptor.energy_embedding.weight"][0],
        }
    except KeyError as error:
        known = {str(error.args[0])}
        official.check_keys(file, known, set(file.shapes), family)
        raise  # check_keys always finds the key missing


def _parts(file: OfficialFile, dropout: float) -> dict[str, Any]:
    """Pitch and postnet of the file's sizes, to be made when the model is."""
    entry = file.shapes["variance_adaptor.cwt_predictor.0.weight"]
    conv = file.shapes["variance_adaptor.cwt_predictor.1.conv.0.1.weight"]
    first = file.shapes["postnet.convolutions.0.0.conv.weight"]
    rows = file.shapes["variance_adaptor.pitch_embed.weight"][0]
    count = official.count_blocks(file.shapes, r"postnet\.convolutions\.(\d+)\.")
    return {
        "pitch": CwtPitch(entry[1], conv[0], entry[0], conv[2], dropout, rows),
        "postnet": PostNet(first[1], first[0], first[2], count),
    }


def _fits(file: OfficialFile, frontend: HyperTTSFrontend) -> None:
    rows, size = file.shapes["encoder.src_word_emb.weight"][0], file.shapes["speaker_emb.weight"][1]
    if rows != frontend.table.size:
        raise CheckpointError(
            f"{file.path}: its phone table has {rows} rows, backbone.frontend.table has {frontend.table.size}: "
            "use text.arpabet.ArpabetTable"
        )
    if size != frontend.statistics.size:
        raise CheckpointError(
            f"{file.path}: its voices are vectors of {size} numbers, backbone.frontend.statistics gives {frontend.statistics.size}: "
            "use the speaker encoder it was trained with (GE2E: voices.GE2EVoices)"
        )


def _stages(schedule: Schedule) -> int:
    """Passes after which everything is on."""
    return max(schedule.hard_from, schedule.binarize_from + schedule.binarize_over, schedule.variances_from)
