// How likely a model finds given token sequences.
#pragma once

#include <functional>
#include <vector>

#include "eval/loss/perplexity.h"
#include "eval/loss/sequence_batch.h"

namespace emo {

// Collective over the mesh: sequences are dealt to ranks, every rank gets all answers. Of each the
// sum of log P(token | tokens before) over its tokens from `context` on, nats. `progress`: called
// with the number of sequences done; may be empty. Every rank passes the same sequences.
// REQUIRES: no sequence is empty.
std::vector<double> log_likelihoods(Inference* inference, const std::vector<Sequence>& sequences,
                                    const EvalOptions& options,
                                    const std::function<void(int64_t done)>& progress);

}  // namespace emo
