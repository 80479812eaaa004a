// What the config.json of every architecture says alike.
#pragma once

#include "train/model_folder/json_fields.h"
#include "train/model_folder/model_description.h"

namespace emo {

// Vocabulary, widths, heads, positions, norm, rotary embedding, special tokens; what is missing
// stays as the description has it. Refuses what no model of ours has (biases, tied or grouped
// heads, other activations, scaled rotary embeddings).
void read_attention_and_sizes(JsonFields* fields, ModelDescription* description);

// The keys of the special tokens, as numbers, lists and nulls.
void set_special_tokens(const ModelDescription& description, OrderedJson* json);

}  // namespace emo
