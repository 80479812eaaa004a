#include "model/losses.h"

#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>

namespace emo {
namespace {

constexpr int64_t kHeadSums = 3;
constexpr int64_t kLayerSums = 7;  // before the counts

}  // namespace

RouterLossWeights router_loss_weights(const ModelConfig& config, const RoutingContract& contract,
                                      double divisor) {
  const auto moe_layers = static_cast<double>(config.moe_layers());
  return {static_cast<float>(contract.balance_weight / moe_layers),
          static_cast<float>(contract.z_weight / moe_layers / divisor)};
}

StepSums::StepSums(int64_t moe_layers, int64_t experts, at::Device device)
    : layers_(moe_layers),
      experts_(experts),
      all_(at::zeros({kHeadSums + moe_layers * (kLayerSums + experts)},
                     at::TensorOptions().dtype(at::kDouble).device(device))) {}

at::Tensor StepSums::layer(int64_t layer) const {
  const int64_t size = kLayerSums + experts_;
  return all_.slice(0, kHeadSums + layer * size, kHeadSums + (layer + 1) * size);
}

at::Tensor StepSums::counts(const at::Tensor& all, int64_t layer, int64_t experts) const {
  const int64_t begin = kHeadSums + layer * (kLayerSums + experts_) + kLayerSums;
  return all.slice(0, begin, begin + experts);
}

LossSums StepSums::read(const at::Tensor& copy) const {
  TORCH_CHECK(copy.numel() == all_.numel(), "sums of another model");
  const at::Tensor host = copy.cpu();
  const auto* number = host.const_data_ptr<double>();
  LossSums sums;
  for (double* field : {&sums.cross_entropy, &sums.z_squares, &sums.labels}) *field = *number++;
  sums.layers.resize(layers_);
  for (RouterSums& layer : sums.layers) {
    for (double* field : {&layer.balance, &layer.z_squares, &layer.token_entropy, &layer.tokens,
                          &layer.document_entropy, &layer.pool_size, &layer.documents}) {
      *field = *number++;
    }
    layer.counts.assign(number, number + experts_);
    number += experts_;
  }
  return sums;
}

BalanceCounts::BalanceCounts(int64_t moe_layers, int64_t experts, BalanceScope scope,
                             at::Device device)
    : layers_(moe_layers),
      experts_(experts),
      scope_(scope),
      total_(at::zeros({moe_layers, experts + 1},
                       at::TensorOptions().dtype(at::kLong).device(device))) {}

void BalanceCounts::start_step() { total_.zero_(); }

void BalanceCounts::start(Communicator& world, const std::vector<const Routing*>& routings,
                          int64_t tokens) {
  if (layers_ == 0 || scope_ == BalanceScope::kDocument) return;
  arriving_ = at::zeros_like(total_);
  for (size_t i = 0; i < routings.size(); ++i) {
    const at::Tensor& counts = routings[i]->counts;
    arriving_[static_cast<int64_t>(i) % layers_].slice(0, 0, counts.size(0)).add_(counts);
  }
  arriving_.select(1, experts_).fill_(tokens);
  if (scope_ != BalanceScope::kGlobalBatch) start_step();
  if (scope_ != BalanceScope::kRank) {
    pending_ = world.all_reduce_async(arriving_, ReduceOp::kSum);
  } else {
    total_.add_(arriving_);
  }
}

BalanceCounts::OfLayer BalanceCounts::of_layer(int64_t layer, int64_t experts) {
  if (pending_ != nullptr) {
    pending_->wait();
    pending_.reset();
    total_.add_(arriving_);
  }
  const at::Tensor row = total_[layer];
  return {row.slice(0, 0, experts), row.slice(0, experts_)};
}

}  // namespace emo
