#include "model/router.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>

#include "model/host/document_pools.h"
#include "model/host/router_softmax.h"
#include "model/host/simd.h"
#include "model/score_distributions.h"
#include "parallel/parallel_for.h"

namespace emo {
namespace {

// The masks of one document, as floats: 1 in, 0 out.
struct Masks {
  std::vector<float> softmax;     // what the score softmax runs over
  std::vector<float> selectable;  // what may be chosen
};

// Sums of one piece of tokens, added up over pieces in order.
struct PieceSums {
  double z_squares = 0;
  double entropy = 0;
};

// The K largest of p [E] among the selectable, best first, ties to the lower index.
inline void choose_top_k(int64_t E, int64_t K, const float* p, const float* selectable,
                         int32_t* experts, float* weights) {
  int64_t found = 0;
  for (int64_t e = 0; e < E; ++e) {
    if (selectable[e] == 0 || (found == K && p[e] <= weights[K - 1])) continue;
    int64_t at = found < K ? found++ : K - 1;
    for (; at > 0 && weights[at - 1] < p[e]; --at) {
      weights[at] = weights[at - 1];
      experts[at] = experts[at - 1];
    }
    weights[at] = p[e];
    experts[at] = static_cast<int32_t>(e);
  }
  for (; found < K; ++found) {
    experts[found] = -1;
    weights[found] = 0;
  }
}

// Everything route() does with the tokens of one piece; the arrays are the whole batch's.
struct RouteArrays {
  int64_t E, K;
  const float* logits;
  int32_t* experts;
  float* weights;
  float* masked_logsumexp;
  float* full_logsumexp;  // null where not needed
  const int32_t* labels;  // null: the losses are of all tokens
  bool in_losses(int64_t t) const { return labels == nullptr || labels[t] >= 0; }
};

EMO_SIMD PieceSums route_piece(const Piece& piece, const ScoreDistributions& which,
                               const RouteArrays& a, const float* softmax_mask,
                               const float* selectable, const float* all, float* score_sum,
                               float* masked, float* full) {
  PieceSums sums;
  for (int64_t t = piece.begin; t < piece.end; ++t) {
    const float* z = a.logits + t * a.E;
    float entropy = 0;
    float ignored = 0;
    float lse = softmax(a.E, z, softmax_mask, masked, &entropy);
    a.masked_logsumexp[t] = lse;
    sums.entropy += entropy;
    if (a.full_logsumexp != nullptr) {
      const float full_lse = softmax(a.E, z, all, full, &ignored);
      a.full_logsumexp[t] = full_lse;
      if (which.z_full) lse = full_lse;
    }
    choose_top_k(a.E, a.K, which.before ? masked : full, selectable, a.experts + t * a.K,
                 a.weights + t * a.K);
    if (!a.in_losses(t)) continue;
    sums.z_squares += static_cast<double>(lse) * lse;
    if (which.balance_zeroed) {
      for (int64_t e = 0; e < a.E; ++e) score_sum[e] += full[e] * softmax_mask[e];
    } else {
      const float* seen = which.balance_full ? full : masked;
      for (int64_t e = 0; e < a.E; ++e) score_sum[e] += seen[e];
    }
  }
  return sums;
}

// Adds to dz [E] the gradient of  sum_e b_e d_e + sum_k w_k d_{e_k} + c * lse^2  where d is the
// softmax of z over `mask`, with logsumexp lse. `b` is zero where a term does not apply.
EMO_SIMD void add_softmax_gradient(int64_t E, const float* z, const float* mask, float lse,
                                   const float* b, float c, int64_t K, const int32_t* experts,
                                   const float* d_weights, float* d, float* dz) {
  float inner = 0;
#pragma omp simd reduction(+ : inner)
  for (int64_t e = 0; e < E; ++e) {
    d[e] = fast_exp(z[e] - lse) * mask[e];
    inner += d[e] * b[e];
  }
  for (int64_t k = 0; k < K; ++k) {
    if (experts[k] >= 0) inner += d[experts[k]] * d_weights[k];
  }
  const float shift = 2 * c * lse - inner;
  for (int64_t e = 0; e < E; ++e) dz[e] += d[e] * (b[e] + shift);
  for (int64_t k = 0; k < K; ++k) {
    if (experts[k] >= 0) dz[experts[k]] += d[experts[k]] * d_weights[k];
  }
}

std::vector<float> usable_experts(const RouterInput& input, int64_t E) {
  std::vector<float> usable(E, 1.0f);
  if (input.subset.full_weights) return usable;
  for (int64_t e = 0; e < static_cast<int64_t>(input.subset.kept.size()); ++e) {
    usable[e] = input.subset.kept[e] != 0 ? 1.0f : 0.0f;
  }
  return usable;
}

// The masks of a document, from its pool and the subset.
Masks masks_of(const uint8_t* pool, const std::vector<uint8_t>& kept,
               const std::vector<float>& usable) {
  const size_t E = usable.size();
  Masks masks{std::vector<float>(E), std::vector<float>(E)};
  for (size_t e = 0; e < E; ++e) {
    const float in_pool = pool[e] != 0 ? 1.0f : 0.0f;
    masks.softmax[e] = in_pool * usable[e];
    masks.selectable[e] = in_pool * (kept.empty() || kept[e] != 0 ? 1.0f : 0.0f);
  }
  return masks;
}

const int32_t* labels_of(const RouterInput& input) {
  TORCH_CHECK(!input.labels.defined() || input.labels.numel() == input.logits.size(0),
              "route: ", input.labels.numel(), " labels for ", input.logits.size(0), " tokens");
  return input.labels.defined() ? input.labels.const_data_ptr<int32_t>() : nullptr;
}

// Pools that were given, in the place of those just chosen.
void keep_given_pools(const std::vector<uint8_t>& given, int64_t E, std::vector<uint8_t>* pools) {
  TORCH_CHECK(given.empty() || given.size() == pools->size(), "route: ", given.size(),
              " entries of given pools, ", pools->size(), " of chosen ones");
  for (auto row = given.begin(); row != given.end(); row += E) {
    if (std::any_of(row, row + E, [](uint8_t in) { return in != 0; })) {
      std::copy(row, row + E, pools->begin() + (row - given.begin()));
    }
  }
}

void check_input(const RouterInput& input) {
  const int64_t T = input.logits.size(0);
  const int64_t E = input.logits.size(1);
  const int64_t spans = input.span_ends.numel() - 1;
  const auto* ends = input.span_ends.const_data_ptr<int32_t>();
  TORCH_CHECK(static_cast<int64_t>(input.pool_sizes.size()) == spans && ends[0] == 0 &&
                  ends[spans] == T && input.top_k >= 1 && input.top_k <= E,
              "route: ", input.pool_sizes.size(), " pool sizes for ", spans, " spans that end at ",
              ends[spans], " of ", T, " tokens, top ", input.top_k, " of ", E);
}

// The documents' pools and what is told of them.
void route_documents(const RouterInput& input, const std::vector<Piece>& pieces,
                     const std::vector<float>& usable, Routing* routing) {
  const int64_t E = input.logits.size(1);
  const int64_t spans = input.span_ends.numel() - 1;
  routing->documents = 0;
  routing->document_entropy = routing->pool_size = 0;
  if (input.pool.kind == PoolPolicy::Kind::kNone) {
    routing->pools.assign(spans * E, 1);
    return;
  }
  routing->documents = spans;
  std::vector<int64_t> sizes = input.pool_sizes;
  const DocumentScores scores =
      score_documents(pieces, input.span_ends.const_data_ptr<int32_t>(), spans, E,
                      input.logits.const_data_ptr<float>(), usable.data());
  routing->pools = choose_pools(scores, E, input.pool, &sizes);
  keep_given_pools(input.subset.pools, E, &routing->pools);
  for (int64_t span = 0; span < spans; ++span) {
    routing->document_entropy += scores.entropy[span];
    routing->pool_size += static_cast<double>(std::min(sizes[span], E));
  }
}

// Memory for what is told of each token.
RouteArrays shape_tokens(const RouterInput& input, const ScoreDistributions& which,
                         Routing* routing) {
  const int64_t T = input.logits.size(0);
  const int64_t K = input.top_k;
  routing->experts = at::empty({T, K}, at::TensorOptions().dtype(at::kInt));
  routing->weights = at::empty({T, K}, at::TensorOptions().dtype(at::kFloat));
  routing->masked_logsumexp.resize(T);
  routing->full_logsumexp.resize(which.full ? T : 0);
  return {input.logits.size(1),
          K,
          input.logits.const_data_ptr<float>(),
          routing->experts.mutable_data_ptr<int32_t>(),
          routing->weights.mutable_data_ptr<float>(),
          routing->masked_logsumexp.data(),
          which.full ? routing->full_logsumexp.data() : nullptr,
          labels_of(input)};
}

// Every token's experts; and, summed over the pieces in order, what the losses need of them.
void route_tokens(const RouterInput& input, const std::vector<Piece>& pieces,
                  const ScoreDistributions& which, const std::vector<float>& usable,
                  const RouteArrays& arrays, Routing* routing) {
  const int64_t E = arrays.E;
  const auto count = static_cast<int64_t>(pieces.size());
  std::vector<PieceSums> sums(count);
  std::vector<float> score_sums(count * E, 0.0f);
  parallel_for(count, 2, [&](int64_t begin, int64_t end) {
    std::vector<float> masked(E), full_scores(E);
    Masks masks;
    int64_t span = -1;
    for (int64_t p = begin; p < end; ++p) {
      if (pieces[p].span != span) {
        span = pieces[p].span;
        masks = masks_of(routing->pools.data() + span * E, input.subset.kept, usable);
      }
      sums[p] = vectorised<route_piece>(
          pieces[p], which, arrays, masks.softmax.data(), masks.selectable.data(), usable.data(),
          score_sums.data() + p * E, masked.data(), full_scores.data());
    }
  });
  routing->z_squares = routing->token_entropy = 0;
  routing->score_sum.assign(E, 0.0);
  for (int64_t p = 0; p < count; ++p) {
    routing->z_squares += sums[p].z_squares;
    routing->token_entropy += sums[p].entropy;
    for (int64_t e = 0; e < E; ++e) routing->score_sum[e] += score_sums[p * E + e];
  }
}

void count_choices(int64_t T, const RouteArrays& arrays, Routing* routing) {
  routing->counts.assign(arrays.E, 0);
  for (int64_t slot = 0; slot < T * arrays.K; ++slot) {
    const int32_t e = arrays.experts[slot];
    if (e >= 0 && arrays.in_losses(slot / arrays.K)) ++routing->counts[e];
  }
}

}  // namespace

void route(const RouterInput& input, const RoutingContract& contract, Routing* routing) {
  check_input(input);
  const ScoreDistributions which(contract);
  const std::vector<Piece> pieces =
      pieces_of(input.span_ends.const_data_ptr<int32_t>(), input.span_ends.numel() - 1);
  const std::vector<float> usable = usable_experts(input, input.logits.size(1));
  route_documents(input, pieces, usable, routing);
  const RouteArrays arrays = shape_tokens(input, which, routing);
  route_tokens(input, pieces, which, usable, arrays, routing);
  count_choices(input.logits.size(0), arrays, routing);
}

void route_backward(const RouterInput& input, const RoutingContract& contract,
                    const Routing& routing, const at::Tensor& d_weights,
                    const std::vector<float>& balance, float z, const at::Tensor& d_logits) {
  const int64_t E = input.logits.size(1);
  const int64_t K = input.top_k;
  const ScoreDistributions which(contract);
  TORCH_CHECK(input.subset.kept.empty() && static_cast<int64_t>(balance.size()) == E &&
                  d_weights.sizes() == routing.weights.sizes() &&
                  d_logits.sizes() == input.logits.sizes(),
              "route_backward: shapes, or a subset, which is for evaluation only");
  const auto* ends = input.span_ends.const_data_ptr<int32_t>();
  const std::vector<Piece> pieces = pieces_of(ends, input.span_ends.numel() - 1);
  const auto* logits = input.logits.const_data_ptr<float>();
  const auto* experts = routing.experts.const_data_ptr<int32_t>();
  const auto* dw = d_weights.const_data_ptr<float>();
  const int32_t* labels = labels_of(input);
  auto* d_out = d_logits.mutable_data_ptr<float>();
  const std::vector<float> all(E, 1.0f);
  const std::vector<float> none(E, 0.0f);
  parallel_for(static_cast<int64_t>(pieces.size()), 2, [&](int64_t begin, int64_t end) {
    std::vector<float> d(E), zeroed(E);
    Masks masks;
    int64_t span = -1;
    for (int64_t p = begin; p < end; ++p) {
      if (pieces[p].span != span) {
        span = pieces[p].span;
        masks = masks_of(routing.pools.data() + span * E, {}, all);
        for (int64_t e = 0; e < E; ++e) zeroed[e] = balance[e] * masks.softmax[e];
      }
      // What the loss says about the softmax over the pool, and what about that over all.
      const float* b_masked = which.balance_full ? none.data() : balance.data();
      const float* b_full = !which.balance_full    ? none.data()
                            : which.balance_zeroed ? zeroed.data()
                                                   : balance.data();
      for (int64_t t = pieces[p].begin; t < pieces[p].end; ++t) {
        float* dz = d_out + t * E;
        std::fill_n(dz, E, 0.0f);
        const bool in_losses = labels == nullptr || labels[t] >= 0;
        const float z_of_token = in_losses ? z : 0;
        if (which.before || !which.z_full) {
          vectorised<add_softmax_gradient>(
              E, logits + t * E, masks.softmax.data(), routing.masked_logsumexp[t],
              in_losses ? b_masked : none.data(), which.z_full ? 0 : z_of_token,
              which.before ? K : 0, experts + t * K, dw + t * K, d.data(), dz);
        }
        if (which.full) {
          vectorised<add_softmax_gradient>(E, logits + t * E, all.data(), routing.full_logsumexp[t],
                                           in_losses ? b_full : none.data(),
                                           which.z_full ? z_of_token : 0, which.before ? 0 : K,
                                           experts + t * K, dw + t * K, d.data(), dz);
        }
      }
    }
  });
}

}  // namespace emo
