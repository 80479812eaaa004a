// Text from a model: prompts in, what it writes after them out. Several sequences at once; where
// one ends, the next prompt takes its place.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/tokenizer/tokenizer.h"
#include "eval/generation/sampling.h"
#include "model/inference.h"

namespace emo {

struct GenerationOptions {
  SamplingOptions sampling;
  int64_t max_new_tokens = 128;
  std::vector<std::string> stop;  // texts that end an answer, and are not part of it
  int32_t eos_id = -1;            // token that ends it too; -1: none
  int64_t max_positions = 0;      // S: prompt and answer together
  int64_t sequences = 16;         // at once on a rank
  // Document pools at inference: chosen from the prompt's tokens and kept while decoding. kNone, as
  // the reference: every expert is open to every token. The seed is sampling's.
  PassSettings pass;
  // Called on the rank that answers prompt `i`, with text as it comes; the parts make up the
  // answer. May be empty.
  std::function<void(int64_t i, const std::string& text)> stream;
  std::function<void(int64_t i)> ended;  // called there where it is complete; may be empty
};

struct Generated {
  std::string text;             // without a stop string
  std::vector<int32_t> tokens;  // all that were drawn, an end-of-document token excepted
  std::string end = "length";   // why it ended: "stop", "eos", "length"
};

// Collective over the mesh; every rank gets the same answers. Rank r of P answers prompts r, r + P,
// and so on, and goes on as an empty batch while others of its expert group need its experts. What
// is drawn for a prompt depends on the seed, its number and its own tokens alone.
// REQUIRES: prompts of 1 to S - 1 tokens; the tokenizer is the model's.
std::vector<Generated> generate(Inference* inference, const Tokenizer& tokenizer,
                                const std::vector<std::vector<int32_t>>& prompts,
                                const GenerationOptions& options);

}  // namespace emo
