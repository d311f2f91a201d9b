"""SAELens' cfg.json of all its ages, read by allow-list: a key is honoured, known to leave codes alone, or refused.

Until 5.11 a training run wrote cfg.json out of the settings of the whole run, from 6.0 on out of the SAE's own. The
keys were taken from the configuration classes of sae-lens 0.5, 1.8, 2.1, 3.0, 3.5, 3.12, 3.18, 3.23, 4.1, 4.4, 5.0,
5.5, 5.11, 6.0, 6.10, 6.20, 6.30, 6.44 and 6.54.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from visae.config.saes import TokenKinds
from visae.errors import ModelError
from visae.notices import Notice
from visae.sae.foreign.contents import read_settings
from visae.sae.foreign.places import place_of_hook
from visae.sae.place import Place

# Without a version SAELens takes a configuration for one of before 6.0; this is the one that tests compare with.
VERSION = "6.54.12"
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
ARCHITECTURES = ("standard", "topk", "jumprelu", "gated", "batchtopk", "matryoshka_batchtopk", *TRANSCODERS)
COMPETING = ("topk", "batchtopk", "matryoshka_batchtopk")
# Names that keys had before.
_RENAMED = {
    "hook_point": "hook_name",
    "hook_point_layer": "hook_layer",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
# Decide codes or what is made of them: read below, or refused with their value.
_DECISIVE = frozenset(
    (
        *("architecture", "d_in", "d_sae", "d_out", "dtype", "k", "activation_fn", "activation_fn_kwargs"),
        *("apply_b_dec_to_input", "normalize_activations", "reshape_activations", "use_error_term"),
        *("rescale_acts_by_decoder_norm", "finetuning_scaling_factor", "finetuning_method"),
    )
)
# Say of which activations an SAE was trained; told, since nothing else tells it.
_PLACE = (
    *("model_name", "hook_name", "hook_layer", "hook_head_index", "seqpos_slice"),
    *("model_from_pretrained_kwargs", "hf_hook_name"),
)
_ABOUT = ("metadata", "sae_lens_version", "sae_lens_training_version", "neuronpedia_id", "device")
# Of data, training and logging: whatever they say, the weights are as they are.
_WITHOUT_EFFECT = frozenset(
    (
        # Of data and model.
        *("act_store_device", "cached_activations_path", "context_size", "dataset_path", "dataset_trust_remote_code"),
        *("exclude_special_tokens", "from_pretrained_path", "hook_eval", "hook_head_index_out", "hook_name_out"),
        *("hook_point_eval", "is_dataset_tokenized", "model_class_name", "model_kwargs", "n_batches_in_buffer"),
        *("prepend_bos", "store_batch_size", "store_batch_size_prompts", "streaming", "tokens_per_buffer"),
        *("train_batch_size", "train_batch_size_tokens", "training_tokens", "use_cached_activations"),
        # Of losses, optimizer and first weights.
        *("adam_beta1", "adam_beta2", "aux_loss_coefficient", "b_dec_init_method", "dead_feature_threshold"),
        *("dead_feature_window", "decoder_heuristic_init", "decoder_heuristic_init_norm", "decoder_init_norm"),
        *("decoder_orthogonal_init", "expansion_factor", "feature_sampling_window", "finetuning_tokens"),
        *("init_encoder_as_decoder_transpose", "jumprelu_bandwidth", "jumprelu_init_threshold"),
        *("jumprelu_sparsity_loss_mode", "jumprelu_ste_to_input", "jumprelu_tanh_scale", "l0_coefficient"),
        *("l0_warm_up_steps", "l1_coefficient", "l1_warm_up_steps", "lp_norm", "lr", "lr_decay_steps", "lr_end"),
        *("lr_scheduler_name", "lr_warm_up_steps", "matryoshka_widths", "mse_loss_normalization", "n_restart_cycles"),
        *("noise_scale", "normalize_sae_decoder", "pre_act_loss_coefficient"),
        *("scale_sparsity_penalty_by_decoder_norm", "seed", "target_l0", "topk_threshold_lr", "use_ghost_grads"),
        *("use_matryoshka_aux_loss", "use_sparse_activations"),
        # Of speed, checkpoints and logs.
        *("autocast", "autocast_lm", "checkpoint_path", "compile_llm", "compile_sae", "eval_batch_size_prompts"),
        *("eval_every_n_wandb_logs", "llm_compilation_mode", "log_activations_store_to_wandb"),
        *("log_optimizer_state_to_wandb", "log_to_wandb", "n_checkpoints", "n_eval_batches", "n_eval_seqs", "resume"),
        *("run_name", "sae_compilation_mode", "verbose", "wandb_entity", "wandb_id", "wandb_log_frequency"),
        *("wandb_project",),
    )
)
_DTYPES = ("float32", "float64", "float16", "bfloat16")
_SCALED, _PER_TOKEN = "expected_average_only_in", "layer_norm"


@dataclass(frozen=True)
class SaeLensConfig:
    """What a cfg.json says of an SAE.

    Attributes
    ----------
    architecture
        One of `ARCHITECTURES`; the code rule, which files of before 6 may name by their activation function.
    d_in, d_sae, d_out
        Sizes; None where it does not say. `d_out` is what a transcoder gives, and None for other SAEs.
    k
        Codes kept; None where the architecture has none.
    subtracts_decoder_bias
        Whether b_dec is subtracted from what is encoded.
    is_rescaled
        Whether codes compete with their decoder rows' norms.
    has_scaling_factor
        Whether a scaling factor of finetuning belongs to the decoder.
    is_scaled
        Whether activations were scaled to a mean norm of sqrt(d_in) while it was trained.
    is_per_token
        Whether each token is standardized by itself first (`layer_norm`).
    is_of_before_6
        Whether SAELens takes it for one of before 6.0.
    place
        Where it belongs, as far as the file says.
    notices
        What a person should know of it.
    """

    architecture: str
    d_in: int | None
    d_sae: int | None
    d_out: int | None
    k: float | None
    subtracts_decoder_bias: bool
    is_rescaled: bool
    has_scaling_factor: bool
    is_scaled: bool
    is_per_token: bool
    is_of_before_6: bool
    place: Place
    notices: tuple[Notice, ...]


def read_config(path: Path) -> SaeLensConfig:
    """Read a cfg.json of any age.

    Raises
    ------
    ModelError
        If it is damaged, has a key that is not known, or a value that cannot be kept.
    """
    said = _Said(path)
    major = said.major_version()
    architecture, k = said.code_rule(is_of_before_6=major < 6)
    said.refuse_unknown(architecture)
    is_rescaled = said.flag("rescale_acts_by_decoder_norm", default=False)
    if is_rescaled and architecture not in COMPETING:
        raise said.wrong("rescale_acts_by_decoder_norm", f"left out in architecture {architecture}")
    said.flag("use_error_term", default=False, allowed=(False,))
    is_transcoder = architecture in TRANSCODERS
    if not is_transcoder and said.values.get("d_out") is not None:
        raise said.wrong("d_out", f"left out in architecture {architecture}")
    subtracts = said.flag("apply_b_dec_to_input", default=not is_transcoder)
    if is_transcoder and subtracts:
        raise said.wrong("apply_b_dec_to_input", f"false in architecture {architecture}")
    return SaeLensConfig(
        architecture,
        said.size("d_in"),
        said.size("d_sae"),
        said.size("d_out"),
        k,
        subtracts,
        is_rescaled,
        said.flag("finetuning_scaling_factor", default=False) or said.values.get("finetuning_method") is not None,
        said.is_scaled(is_of_before_6=major < 6),
        said.values.get("normalize_activations") == _PER_TOKEN,
        major < 6,
        said.place(),
        tuple(said.notices(major)),
    )


class _Said:
    """Entries of one cfg.json under their newest names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        entries = read_settings(path)
        self.values: dict[str, Any] = {}
        self.names: dict[str, str] = {}
        for name, value in entries.items():
            key = str(_RENAMED.get(name, name))
            if key in self.values and self.values[key] != value:
                raise ModelError(
                    f"{path}: {self.names[key]}: {self.values[key]!r} and {name}: {value!r}, which are one key; "
                    "take the wrong one out"
                )
            self.values[key], self.names[key] = value, name
        self.metadata = self.values.get("metadata") or {}
        if not isinstance(self.metadata, dict):
            raise self.wrong("metadata", "a dictionary")
        if misplaced := sorted(self.metadata.keys() & {*_DECISIVE, *_RENAMED}):
            raise ModelError(
                f"{path}: metadata: {', '.join(misplaced)}: SAELens reads nothing of this from metadata; move it one "
                "level up if it is meant, else take it out"
            )

    def wrong(self, key: str, allowed: str) -> ModelError:
        """Error that names a key by the name that it has in the file, its value, and what is allowed."""
        return ModelError(f"{self.path}: {self.names[key]}: {self.values[key]!r}; allowed: {allowed}")

    def refuse_unknown(self, architecture: str) -> None:
        known = {*_DECISIVE, *_PLACE, *_ABOUT, *_WITHOUT_EFFECT}
        if unknown := sorted(self.names[key] for key in self.values.keys() - known):
            raise ModelError(
                f"{self.path}: unknown keys: {', '.join(unknown)}: no {architecture} SAE of SAELens up to {VERSION} "
                "has them, and they may change its codes. If you know that they do not, take them out of cfg.json; "
                "else let the program that wrote them save the SAE without them"
            )

    def flag(self, key: str, default: bool, allowed: tuple[bool, ...] = (True, False)) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool) or value not in allowed:
            raise self.wrong(key, " or ".join(str(choice).lower() for choice in allowed))
        return value

    def size(self, key: str) -> int | None:
        value = self.values.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise self.wrong(key, "a whole number above 0")
        return value

    def major_version(self) -> int:
        """First number of the version that wrote it; 5 where SAELens takes it for one of before 6."""
        version = self.values.get("sae_lens_version") or self.metadata.get("sae_lens_version")
        if not version:
            return 5
        first = str(version).partition(".")[0]
        if not first.isdecimal():
            raise ModelError(f"{self.path}: sae_lens_version: {version!r}; allowed: a version, such as {VERSION}")
        return int(first)

    def code_rule(self, is_of_before_6: bool) -> tuple[str, float | None]:
        """Architecture, and k where it has one."""
        name = self.values.get("architecture", "standard")
        if name not in ARCHITECTURES:
            raise self.wrong("architecture", ", ".join(ARCHITECTURES))
        function, options = self.values.get("activation_fn"), self.values.get("activation_fn_kwargs") or {}
        if function not in (None, "relu", "topk"):
            raise self.wrong("activation_fn", "relu, topk")
        if not isinstance(options, dict) or options.keys() - {"k"}:
            raise self.wrong("activation_fn_kwargs", "k alone")
        if function == "topk":
            if name != "topk" and not (name == "standard" and is_of_before_6):
                where = f"in architecture {name}" + ("" if is_of_before_6 else " of SAELens 6")
                raise self.wrong("activation_fn", f"relu, or left out, {where}")
            name = "topk"
        elif function == "relu" and name in COMPETING:
            raise self.wrong("activation_fn", f"topk, or left out, in architecture {name}")
        elif function is None and options and name not in COMPETING:
            raise self.wrong("activation_fn_kwargs", f"left out in architecture {name} without activation_fn_str")
        return name, self._k(name, options)

    def _k(self, architecture: str, options: dict[str, Any]) -> float | None:
        stated = {
            key: value
            for key, value in (("k", self.values.get("k")), ("activation_fn_kwargs", options.get("k")))
            if value is not None
        }
        if architecture not in COMPETING:
            if "k" in stated:
                raise self.wrong("k", f"left out in architecture {architecture}")
            return None
        if not stated:
            raise ModelError(f"{self.path}: 'k' is missing for architecture {architecture}")
        if len(set(stated.values())) > 1:
            raise self.wrong("k", f"{stated['activation_fn_kwargs']}, which activation_fn_kwargs says")
        key, k = next(iter(stated.items()))
        is_number = isinstance(k, int | float) and not isinstance(k, bool)
        # BatchTopK's is a mean over tokens, and may be a fraction.
        if not is_number or not k > 0 or (architecture == "topk" and k != int(k)):
            raise self.wrong(key, "k, a whole number above 0" if architecture == "topk" else "k, a number above 0")
        return k

    def is_scaled(self, is_of_before_6: bool) -> bool:
        """Whether training scaled activations to a mean norm; other normalizations are refused."""
        normalize, reshape = self.values.get("normalize_activations"), self.values.get("reshape_activations", "none")
        if normalize not in (None, False, True, "none", _SCALED, _PER_TOKEN):
            raise self.wrong("normalize_activations", f"none, {_SCALED}, {_PER_TOKEN}")
        if reshape != "none":
            raise self.wrong("reshape_activations", "none")
        if is_of_before_6 and str(self.values.get("hook_name", "")).endswith("_z"):
            raise self.wrong("hook_name", "places whose activations are not split by attention head")
        return normalize in (True, _SCALED)

    def place(self) -> Place:
        """Where it belongs, as far as model and hook point tell."""
        everything = {**self.metadata, **self.values}
        tokens = everything.get("tokens")
        kinds = {kind: kind for kind in get_args(TokenKinds)}
        return place_of_hook(everything.get("model_name"), everything.get("hook_name"), kinds.get(tokens, "patches"))

    def notices(self, major: int) -> list[Notice]:
        found = []
        if major > int(VERSION.partition(".")[0]):
            text = f"written by SAELens {major}, and only files of up to {VERSION} were ever compared; check its codes"
            found.append(Notice("warning", f"{self.path.name}: {text}"))
        dtype = str(self.values.get("dtype", "float32")).removeprefix("torch.")
        if dtype not in _DTYPES:
            raise self.wrong("dtype", ", ".join(_DTYPES))
        if dtype in ("float16", "bfloat16"):
            text = f"SAELens computes codes in {dtype}, visae in float32: the last digits differ"
            found.append(Notice("note", f"{self.path.name}: dtype: {text}"))
        options = self.values.get("activation_fn_kwargs")
        if options and self.values.get("activation_fn") == "relu":
            text = f"activation_fn_kwargs: {options} is without effect, since activation_fn_str is relu"
            found.append(Notice("warning", f"{self.path.name}: {text}; if TopK was meant, say topk there"))
        everything = {**self.metadata, **self.values}
        place = {key: everything[key] for key in _PLACE if everything.get(key) not in (None, {}, [None], "")}
        if place:
            words = ", ".join(f"{key} {value}" for key, value in place.items())
            found.append(Notice("note", f"trained on {words}: its codes mean something on these activations only"))
        return found
