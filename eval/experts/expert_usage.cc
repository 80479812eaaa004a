#include "eval/experts/expert_usage.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cmath>

#include "eval/loss/document_batches.h"
#include "model/host/document_pools.h"
#include "model/pool_sizes.h"

namespace emo {
namespace {

constexpr ExpertNumbers ExpertUsage::*kNumbers[] = {&ExpertUsage::probability,
                                                    &ExpertUsage::selections, &ExpertUsage::weight,
                                                    &ExpertUsage::easy_ep, &ExpertUsage::pools};
constexpr double ExpertUsage::*kTotals[] = {&ExpertUsage::documents, &ExpertUsage::pieces,
                                            &ExpertUsage::tokens};

ExpertUsage make_usage(const ModelConfig& config) {
  ExpertUsage usage;
  for (const auto numbers : kNumbers) usage.*numbers = zeros_like_experts(config);
  return usage;
}

// All numbers of a usage, in a fixed order.
template <typename F>
void for_each_number(ExpertUsage* usage, const F& f) {
  for (const auto total : kTotals) f(&(usage->*total));
  for (const auto numbers : kNumbers) {
    for (std::vector<double>& layer : usage->*numbers) {
      for (double& number : layer) f(&number);
    }
  }
}

// Collective.
void all_reduce_usage(Communicator& world, std::vector<ExpertUsage>* groups) {
  std::vector<double> flat;
  for (ExpertUsage& usage : *groups) {
    for_each_number(&usage, [&](const double* number) { flat.push_back(*number); });
  }
  world.all_reduce(at::from_blob(flat.data(), {static_cast<int64_t>(flat.size())}, at::kDouble),
                   ReduceOp::kSum);
  const double* next = flat.data();
  for (ExpertUsage& usage : *groups) {
    for_each_number(&usage, [&](double* number) { *number = *next++; });
  }
}

// max(0, 1 - cos(h_t, h_t + o_t)) of each token: how much the layer turns its input. [T]
std::vector<double> turns(const BlockView& block) {
  const int64_t T = block.y.size(0);
  const int64_t D = block.y.size(1);
  const auto* input = block.feed_forward_input.const_data_ptr<float>();
  const auto* before = block.h.const_data_ptr<float>();
  const auto* after = block.y.const_data_ptr<float>();
  std::vector<double> turned(T);
  for (int64_t t = 0; t < T; ++t) {
    double hh = 0, ss = 0, hs = 0;  // s = h + o
    for (int64_t i = t * D; i < (t + 1) * D; ++i) {
      const double h = input[i];
      const double s = h + (static_cast<double>(after[i]) - before[i]);
      hh += h * h;
      ss += s * s;
      hs += h * s;
    }
    const double norms = std::sqrt(hh) * std::sqrt(ss);
    turned[t] = norms > 0 ? std::max(0.0, 1 - hs / norms) : 0;
  }
  return turned;
}

// What the collectors of one layer of one batch share.
struct LayerPass {
  const UsageOptions* options;
  const PieceBatch* pieces;
  const Slice* batch;
  const BlockView* block;
  int64_t layer() const { return block->layer; }
  const int32_t* ends() const { return batch->routing_ends.const_data_ptr<int32_t>(); }
  int32_t group(size_t piece) const { return options->group_of_document[(*pieces)[piece].number]; }
};

void add_scores_and_pools(const LayerPass& pass, std::vector<ExpertUsage>* groups) {
  const at::Tensor& logits = pass.block->router_logits;
  const int64_t E = logits.size(1);
  const auto N = static_cast<int64_t>(pass.pieces->size());
  const std::vector<float> usable(E, 1);
  const DocumentScores scores = score_documents(pieces_of(pass.ends(), N), pass.ends(), N, E,
                                                logits.const_data_ptr<float>(), usable.data());
  std::vector<uint8_t> pools;
  if (pass.options->pool.kind != PoolPolicy::Kind::kNone) {
    std::vector<int64_t> sizes =
        draw_pool_sizes(pass.options->pool, pass.options->pool_draw, pass.options->seed,
                        pass.batch->sequence_index, pass.batch->ordinal, pass.layer(), E);
    pools = choose_pools(scores, E, pass.options->pool.of_layer(pass.layer()), &sizes);
  }
  for (int64_t piece = 0; piece < N; ++piece) {
    ExpertUsage& usage = (*groups)[pass.group(piece)];
    for (int64_t e = 0; e < E; ++e) {
      usage.probability[pass.layer()][e] += scores.q[piece * E + e];
      if (!pools.empty()) usage.pools[pass.layer()][e] += pools[piece * E + e];
    }
  }
}

void add_choices(const LayerPass& pass, std::vector<ExpertUsage>* groups) {
  const int64_t K = pass.block->experts.size(1);
  const auto* experts = pass.block->experts.const_data_ptr<int32_t>();
  const auto* weights = pass.block->weights.const_data_ptr<float>();
  const float* lengths =
      pass.options->easy_ep ? pass.block->contributions.const_data_ptr<float>() : nullptr;
  const std::vector<double> turned =
      pass.options->easy_ep ? turns(*pass.block) : std::vector<double>();
  for (size_t piece = 0; piece < pass.pieces->size(); ++piece) {
    ExpertUsage& usage = (*groups)[pass.group(piece)];
    for (int64_t t = pass.ends()[piece]; t < pass.ends()[piece + 1]; ++t) {
      for (int64_t slot = t * K; slot < (t + 1) * K; ++slot) {
        const int32_t e = experts[slot];
        if (e < 0) continue;
        usage.selections[pass.layer()][e] += 1;
        usage.weight[pass.layer()][e] += weights[slot];
        if (lengths != nullptr) usage.easy_ep[pass.layer()][e] += lengths[slot] * turned[t];
      }
    }
  }
}

}  // namespace

ExpertNumbers zeros_like_experts(const ModelConfig& config) {
  ExpertNumbers numbers;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    numbers.emplace_back(config.routed_experts(layer), 0.0);
  }
  return numbers;
}

ExpertUsage operator+(ExpertUsage a, const ExpertUsage& b) {
  for (const auto total : kTotals) a.*total += b.*total;
  for (const auto numbers : kNumbers) {
    for (size_t layer = 0; layer < (b.*numbers).size(); ++layer) {
      for (size_t e = 0; e < (b.*numbers)[layer].size(); ++e) {
        (a.*numbers)[layer][e] += (b.*numbers)[layer][e];
      }
    }
  }
  return a;
}

absl::StatusOr<std::vector<ExpertUsage>> measure_usage(Inference* inference,
                                                       const TokenDataset& data,
                                                       const UsageOptions& options) {
  Communicator& world = *inference->mesh().world;
  std::vector<int64_t> documents;
  for (size_t number = 0; number < options.group_of_document.size(); ++number) {
    if (options.group_of_document[number] >= 0) documents.push_back(static_cast<int64_t>(number));
  }
  std::vector<ExpertUsage> groups(options.groups, make_usage(inference->config()));
  InferenceOptions pass;
  pass.settings.pool = PoolPolicy::none();
  pass.want_states = options.easy_ep;
  const auto run = [&](const PieceBatch& pieces, const Slice& batch) {
    pass.after_block = [&](const BlockView& block) {
      if (!block.experts.defined()) return;
      const LayerPass at{&options, &pieces, &batch, &block};
      add_scores_and_pools(at, &groups);
      add_choices(at, &groups);
    };
    inference->run(batch, pass);
    for (const DocumentPiece& piece : pieces) {
      ExpertUsage& usage = groups[options.group_of_document[piece.number]];
      usage.documents += piece.ordinal == 0 ? 1 : 0;
      usage.pieces += 1;
      usage.tokens += static_cast<double>(piece.length());
    }
  };
  const std::vector<DocumentPiece> pieces =
      cut_documents(data, documents, options.sequence_length, options.first_tokens);
  absl::Status status = for_each_batch(
      data, deal_batches(pieces, options.tokens_per_batch, world.size()), world, run);
  if (!status.ok()) return status;
  all_reduce_usage(world, &groups);
  return groups;
}

}  // namespace emo
