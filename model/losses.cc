#include "model/losses.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace emo {

RouterLossWeights router_loss_weights(const ModelConfig& config, const RoutingContract& contract,
                                      double divisor) {
  const auto moe_layers = static_cast<double>(config.moe_layers());
  return {static_cast<float>(contract.balance_weight / moe_layers),
          static_cast<float>(contract.z_weight / moe_layers / divisor)};
}

LossSums make_loss_sums(int64_t moe_layers, int64_t experts) {
  LossSums sums;
  sums.layers.resize(moe_layers);
  for (RouterSums& layer : sums.layers) layer.counts.resize(experts);
  return sums;
}

void all_reduce_sums(Communicator& world, LossSums* sums) {
  std::vector<double*> numbers = {&sums->cross_entropy, &sums->z_squares, &sums->labels};
  for (RouterSums& layer : sums->layers) {
    numbers.insert(numbers.end(),
                   {&layer.balance, &layer.z_squares, &layer.token_entropy, &layer.tokens,
                    &layer.document_entropy, &layer.pool_size, &layer.documents});
    for (double& count : layer.counts) numbers.push_back(&count);
  }
  std::vector<double> flat;
  for (const double* number : numbers) flat.push_back(*number);
  world.all_reduce(at::from_blob(flat.data(), {static_cast<int64_t>(flat.size())}, at::kDouble),
                   ReduceOp::kSum);
  for (size_t i = 0; i < flat.size(); ++i) *numbers[i] = flat[i];
}

BalanceCounts::BalanceCounts(int64_t moe_layers, int64_t experts, BalanceScope scope)
    : layers_(moe_layers),
      experts_(experts),
      scope_(scope),
      arriving_(at::zeros({moe_layers, experts + 1}, at::TensorOptions().dtype(at::kLong))),
      total_(moe_layers * (experts + 1)) {}

void BalanceCounts::start_step() { std::fill(total_.begin(), total_.end(), 0); }

void BalanceCounts::start(Communicator& world, const std::vector<const Routing*>& routings,
                          int64_t tokens) {
  auto* counts = arriving_.mutable_data_ptr<int64_t>();
  arriving_.zero_();
  for (size_t i = 0; i < routings.size(); ++i) {
    int64_t* row = counts + static_cast<int64_t>(i) % layers_ * (experts_ + 1);
    const std::vector<int64_t>& chosen = routings[i]->counts;
    for (size_t e = 0; e < chosen.size(); ++e) row[e] += chosen[e];
    row[experts_] = tokens;
  }
  if (scope_ != BalanceScope::kGlobalBatch) start_step();
  if (scope_ != BalanceScope::kRank && layers_ > 0) {
    pending_ = world.all_reduce_async(arriving_, ReduceOp::kSum);
  } else {
    for (size_t i = 0; i < total_.size(); ++i) total_[i] += counts[i];
  }
}

std::vector<float> BalanceCounts::score_gradient(int64_t layer, int64_t experts, int64_t top_k,
                                                 double divisor) {
  if (pending_ != nullptr) {
    pending_->wait();
    pending_.reset();
    const auto* counts = arriving_.const_data_ptr<int64_t>();
    for (size_t i = 0; i < total_.size(); ++i) total_[i] += counts[i];
  }
  const int64_t* row = total_.data() + layer * (experts_ + 1);
  const auto tokens = static_cast<double>(row[experts_]);
  const double factor = static_cast<double>(experts) / static_cast<double>(top_k) / divisor;
  std::vector<float> gradient(experts);
  for (int64_t e = 0; e < experts && tokens > 0; ++e) {
    gradient[e] = static_cast<float>(factor * static_cast<double>(row[e]) / tokens);
  }
  return gradient;
}

}  // namespace emo
