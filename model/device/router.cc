#include "model/device/router.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <vector>

#include "model/device/kernels/router_choice.h"
#include "model/device/kernels/router_gradient.h"
#include "model/device/kernels/router_scores.h"
#include "model/score_distributions.h"

namespace emo::device {
namespace {

// u8 [N, E], the same row for each document: 1 for the experts that a subset keeps; undefined where
// all are.
at::Tensor kept_experts(const RouterInput& input) {
  const std::vector<uint8_t>& kept = input.subset.kept;
  if (kept.empty()) return {};
  const at::Tensor row =
      at::empty({1, static_cast<int64_t>(kept.size())}, at::TensorOptions().dtype(at::kByte));
  std::copy(kept.begin(), kept.end(), row.mutable_data_ptr<uint8_t>());
  return to_device(row.ne(0).to(at::kByte), input.logits.device())
      .expand({input.spans.N, input.logits.size(1)})
      .contiguous();
}

// The experts that are in both; undefined: all.
at::Tensor both(const at::Tensor& a, const at::Tensor& b) { return b.defined() ? a.mul(b) : a; }

// Document scores and the pools that follow; needs the softmax over all that are usable.
void choose(const RouterInput& input, const at::Tensor& usable, const at::Tensor& full_logsumexp,
            const at::Tensor& full_entropy, Routing* routing) {
  const Spans& spans = input.spans;
  const int64_t E = input.logits.size(1);
  const auto options = input.logits.options();
  const at::Tensor sums = at::empty({spans.pieces, E}, options);
  sum_scores(input.logits, full_logsumexp, spans, usable, {}, sums);
  const at::Tensor q = at::empty({spans.N, E}, options.dtype(at::kDouble));
  sum_documents(sums, spans, q);
  routing->document_entropy = at::empty({spans.N}, options.dtype(at::kDouble));
  document_means(full_entropy, spans, routing->document_entropy);
  routing->pool_sizes = input.pool_sizes.clone();
  routing->pools = at::empty({spans.N, E}, options.dtype(at::kByte));
  choose_pools(q, input.pool, routing->pool_sizes, at::empty({spans.N, E}, options.dtype(at::kInt)),
               routing->pools);
}

// Pools that were given, in the place of those just chosen.
void keep_given_pools(const RouterInput& input, Routing* routing) {
  const std::vector<uint8_t>& given = input.subset.pools;
  if (given.empty()) return;
  TORCH_CHECK(static_cast<int64_t>(given.size()) == routing->pools.numel(), "route: ", given.size(),
              " entries of given pools, ", routing->pools.numel(), " of chosen ones");
  const at::Tensor pools = at::empty(routing->pools.sizes(), at::TensorOptions().dtype(at::kByte));
  std::copy(given.begin(), given.end(), pools.mutable_data_ptr<uint8_t>());
  const at::Tensor there = to_device(pools, input.logits.device());
  const at::Tensor was_given = there.ne(0).any(1, /*keepdim=*/true).to(at::kByte);
  routing->pools = there.mul(was_given).add(routing->pools.mul(was_given.eq(0).to(at::kByte)));
}

}  // namespace

Routing route(const RouterInput& input, const RoutingContract& contract) {
  const Spans& spans = input.spans;
  const int64_t T = input.logits.size(0);
  const int64_t E = input.logits.size(1);
  const auto options = input.logits.options();
  const ScoreDistributions which(contract);
  const bool pools = input.pool.kind != PoolPolicy::Kind::kNone;
  const at::Tensor kept = kept_experts(input);
  const at::Tensor usable = input.subset.full_weights ? at::Tensor() : kept;
  Routing routing;

  at::Tensor full_logsumexp;
  if (pools || which.full) {
    full_logsumexp = at::empty({T}, options);
    const at::Tensor entropy = at::empty({T}, options);
    softmax_statistics(input.logits, spans, usable, full_logsumexp, entropy);
    if (pools) choose(input, usable, full_logsumexp, entropy, &routing);
    if (pools) keep_given_pools(input, &routing);
  }
  if (!pools) routing.pools = at::ones({spans.N, E}, options.dtype(at::kByte));
  if (which.full) routing.full_logsumexp = full_logsumexp;

  routing.masked_logsumexp = at::empty({T}, options);
  routing.token_entropy = at::empty({T}, options);
  const at::Tensor in_softmax = both(routing.pools, usable);
  softmax_statistics(input.logits, spans, in_softmax, routing.masked_logsumexp,
                     routing.token_entropy);
  routing.experts = at::empty({T, input.top_k}, options.dtype(at::kInt));
  routing.weights = at::empty({T, input.top_k}, options);
  choose_experts(input.logits, which.before ? routing.masked_logsumexp : full_logsumexp, spans,
                 both(routing.pools, kept), input.bias, routing.experts, routing.weights);

  const at::Tensor sums = at::empty({spans.pieces, E}, options);
  const bool inside = !which.balance_full || which.balance_zeroed;
  sum_scores(input.logits, which.balance_full ? full_logsumexp : routing.masked_logsumexp, spans,
             inside ? in_softmax : usable, input.labels, sums);
  routing.score_sum = at::empty({E}, options.dtype(at::kDouble));
  sum_pieces(sums, routing.score_sum);
  routing.counts = at::empty({E}, options.dtype(at::kLong));
  const at::Tensor of_pieces = at::empty({spans.pieces, E}, options.dtype(at::kInt));
  count_choices(routing.experts, spans, input.labels, of_pieces, routing.counts);
  if (contract.balance_scope == BalanceScope::kDocument) {
    routing.document_score_sum = at::empty({spans.N, E}, options.dtype(at::kDouble));
    sum_documents(sums, spans, routing.document_score_sum);
    routing.document_counts = at::empty({spans.N, E}, options.dtype(at::kInt));
    count_documents(of_pieces, spans, routing.document_counts);
  }
  return routing;
}

at::Tensor route_backward(const RouterInput& input, const RoutingContract& contract,
                          const Routing& routing, const at::Tensor& d_weights,
                          const at::Tensor& balance, float z) {
  TORCH_CHECK(input.subset.kept.empty(), "route_backward: a subset, which is for evaluation only");
  const ScoreDistributions which(contract);
  const at::Tensor d_logits = at::zeros_like(input.logits);
  if (which.before || !which.z_full) {
    SoftmaxLosses masked{routing.pools, routing.masked_logsumexp, {}, {}, 0, input.labels, {}, {}};
    if (!which.balance_full) masked.balance = balance;
    if (!which.z_full) masked.z = z;
    if (which.before) {
      masked.experts = routing.experts;
      masked.d_weights = d_weights;
    }
    add_softmax_gradient(input.logits, input.spans, masked, d_logits);
  }
  if (which.full) {
    SoftmaxLosses full{{}, routing.full_logsumexp, {}, {}, 0, input.labels, {}, {}};
    if (which.balance_full) full.balance = balance;
    if (which.balance_zeroed) full.balance_pool = routing.pools;
    if (which.z_full) full.z = z;
    if (!which.before) {
      full.experts = routing.experts;
      full.d_weights = d_weights;
    }
    add_softmax_gradient(input.logits, input.spans, full, d_logits);
  }
  return d_logits;
}

}  // namespace emo::device
