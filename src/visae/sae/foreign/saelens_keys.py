"""Keys of SAELens' cfg.json of all its ages, by what they are to codes.

Until 5.11 a training run wrote cfg.json out of the settings of the whole run, from 6.0 on out of the SAE's own. The
keys were taken from the configuration classes of sae-lens 0.5, 1.8, 2.1, 3.0, 3.5, 3.12, 3.18, 3.23, 4.1, 4.4, 5.0,
5.5, 5.11, 6.0, 6.10, 6.20, 6.30, 6.44 and 6.54.
"""

from __future__ import annotations

# Names that keys had before.
RENAMED = {
    "hook_point": "hook_name",
    "hook_point_layer": "hook_layer",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
# Decide codes or what is made of them: read below, or refused with their value.
DECISIVE = frozenset(
    (
        *("architecture", "d_in", "d_sae", "d_out", "dtype", "k", "activation_fn", "activation_fn_kwargs"),
        *("apply_b_dec_to_input", "normalize_activations", "reshape_activations", "use_error_term"),
        *("rescale_acts_by_decoder_norm", "finetuning_scaling_factor", "finetuning_method"),
    )
)
# Say of which activations an SAE was trained; told, since nothing else tells it.
PLACE = (
    *("model_name", "hook_name", "hook_layer", "hook_head_index", "seqpos_slice"),
    *("model_from_pretrained_kwargs", "hf_hook_name"),
)
ABOUT = ("metadata", "sae_lens_version", "sae_lens_training_version", "neuronpedia_id", "device")
# Of data, training and logging: whatever they say, the weights are as they are.
WITHOUT_EFFECT = frozenset(
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
