"""Every key of a transformers ``config.json``: read, irrelevant, or fixed to what timm has.

What is in none of the tables is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import InputError, shown

# Read by `transformers_format`, which refuses values that timm has no network for.
READ = frozenset(
    [
        *("architectures", "id2label", "image_size", "layer_norm_eps", "model_type"),
        "problem_type",
    ]
)
READ_OF: Mapping[str, frozenset[str]] = {
    "vit": frozenset(
        [
            *("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers"),
            "patch_size",
        ]
    ),
    "mobilevit": frozenset(["hidden_sizes"]),
    "mobilevitv2": frozenset(["width_multiplier"]),
}
# They act in training, in other tasks (segmentation, masked images, text), or describe the rest.
IRRELEVANT = frozenset(
    [
        *("aspp_dropout_prob", "aspp_out_channels", "atrous_rates", "attention_probs_dropout_prob"),
        *("attn_dropout", "classifier_dropout_prob", "encoder_stride", "ffn_dropout"),
        *("hidden_dropout_prob", "initializer_range", "pooler_act", "pooler_output_size"),
        "semantic_loss_ignore_index",
        # of every model of transformers
        *("_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal"),
        *("_commit_hash", "_name_or_path", "_num_labels", "add_cross_attention"),
        *("bad_words_ids", "begin_suppress_tokens", "bos_token_id", "chunk_size_feed_forward"),
        *("cross_attention_hidden_size", "decoder_start_token_id", "diversity_penalty"),
        *("do_sample", "dtype", "early_stopping", "encoder_no_repeat_ngram_size", "eos_token_id"),
        *("exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id"),
        *("forced_eos_token_id", "gradient_checkpointing", "is_decoder", "is_encoder_decoder"),
        *("label2id", "length_penalty", "max_length", "min_length", "no_repeat_ngram_size"),
        *("num_beam_groups", "num_beams", "num_labels", "num_return_sequences"),
        *("output_attentions", "output_hidden_states", "output_scores", "pad_token_id", "prefix"),
        *("remove_invalid_values", "repetition_penalty", "return_dict", "return_dict_in_generate"),
        *("sep_token_id", "suppress_tokens", "task_specific_params", "temperature"),
        *("tf_legacy_loss", "tie_encoder_decoder", "tie_word_embeddings", "tokenizer_class"),
        *("top_k", "top_p", "torch_dtype", "torchscript", "transformers_version", "typical_p"),
        *("use_bfloat16", "use_cache"),
    ]
)
# What timm's network has, and no other value; the first is also transformers' default.
FIXED: Mapping[str, tuple[Any, ...]] = {
    "num_channels": (3,),
    "pruned_heads": (None, {}),
}
FIXED_OF: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "vit": {"hidden_act": ("gelu",), "qkv_bias": (True,)},
    "mobilevit": {
        "conv_kernel_size": (3,),
        "hidden_act": ("silu", "swish"),
        "mlp_ratio": (2.0,),
        "num_attention_heads": (4,),
        "output_stride": (32,),
        "patch_size": (2,),
        "qkv_bias": (True,),
    },
    "mobilevitv2": {
        "base_attn_unit_dims": ([128, 192, 256],),
        "conv_kernel_size": (3,),
        "expand_ratio": (2.0,),
        "ffn_multiplier": (2,),
        "hidden_act": ("swish", "silu"),
        "layer_norm_eps": (1e-5,),
        "n_attn_blocks": ([2, 4, 3],),
        "output_stride": (32,),
        "patch_size": (2,),
    },
}
# They change the shapes of weights, so that weights of another value do not fit.
SHAPES_OF = {"mobilevit": frozenset(["expand_ratio", "neck_hidden_sizes"])}
UNUSED_OF = {"mobilevitv2": frozenset(["mlp_ratio"])}  # published files have it, no code reads it


def check_options(config: Mapping[str, Any], source: str) -> None:
    """Check every key of a ``config.json`` whose ``model_type`` is one that is read.

    Raises:
        InputError: a value is not what timm's network has, or a key is not known.
    """
    kind = str(config["model_type"])
    family = "vit" if kind == "deit" else kind
    fixed = {**FIXED, **FIXED_OF[family]}
    for key, value in config.items():
        if key in fixed:
            if value not in fixed[key]:
                raise InputError(
                    f"{source}: config.json: {key} is {shown(repr(value))}, and timm's {kind} has "
                    f"{fixed[key][0]!r}; another value is not supported"
                )
        elif not _is_known(key, family):
            raise InputError(
                f"{source}: config.json: {shown(key)} is not known, and may change the network; "
                "take it out of the file if it does not"
            )


def _is_known(key: str, family: str) -> bool:
    tables = (READ, IRRELEVANT, *(t.get(family, ()) for t in (READ_OF, SHAPES_OF, UNUSED_OF)))
    return any(key in table for table in tables)
