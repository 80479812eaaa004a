#include "eval/evaluation_size.h"

#include <ATen/ops/full.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "eval/loss/sequence_batch.h"

namespace emo {
namespace {

constexpr int64_t kMostTokens = 8192;  // of a rank, in a pass that is timed

// Rows of the training's length, with tokens that differ.
Slice made_up_rows(const RunConfig& config, int64_t tokens) {
  std::vector<Sequence> sequences;
  const int64_t S = config.data.sequence_length;
  for (int64_t row = 0; row * S < std::max<int64_t>(tokens, 1); ++row) {
    Sequence sequence{{}, 1, row, 0};
    for (int64_t t = 0; t < S; ++t) {
      sequence.tokens.push_back(
          static_cast<int32_t>((row * 31 + t * 7919) % config.model.vocab_size));
    }
    sequences.push_back(std::move(sequence));
  }
  return sequence_batch(sequences);
}

// Collective. Tokens a second of all ranks together, as the first one measures them.
double forward_rate(const RunConfig& config, Inference* inference) {
  const int64_t ranks = inference->mesh().world->size();
  const int64_t step_tokens = config.train.batch * config.data.sequence_length;
  const Slice rows = made_up_rows(config, std::min(kMostTokens, step_tokens / ranks));
  InferenceOptions pass;
  pass.settings.pool = PoolPolicy::none();
  inference->token_losses(rows, pass);  // the first one allocates
  const auto begin = std::chrono::steady_clock::now();
  inference->token_losses(rows, pass);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  return static_cast<double>(rows.num_tokens() * ranks) / std::max(seconds.count(), 1e-9);
}

}  // namespace

int64_t evaluation_tokens(const RunConfig& config, const Observation& observation,
                          Inference* inference) {
  EvaluationSize& size = *observation.size;
  if (config.eval.tokens > 0) return config.eval.tokens;
  if (size.tokens > 0 && size.every == config.eval.every && size.share == config.eval.share) {
    return size.tokens;
  }
  const double rate = forward_rate(config, inference);
  const double seconds =
      config.eval.share * static_cast<double>(config.eval.every) * observation.seconds_per_step;
  const at::Tensor tokens =
      at::full({1}, std::clamp<int64_t>(static_cast<int64_t>(seconds * rate), 1, int64_t{1} << 60),
               at::kLong);
  inference->mesh().world->broadcast(tokens, 0);
  if (observation.is_first) return tokens.item<int64_t>();  // not worth keeping
  size = {tokens.item<int64_t>(), config.eval.every, config.eval.share};
  if (inference->mesh().is_first()) {
    std::fprintf(stderr,
                 "emo: an evaluation takes %lld tokens of forward passes: %.3g s of every %.3g\n",
                 static_cast<long long>(size.tokens), seconds,
                 static_cast<double>(config.eval.every) * observation.seconds_per_step);
  }
  return size.tokens;
}

}  // namespace emo
