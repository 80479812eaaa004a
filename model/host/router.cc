#include "model/host/router.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>

#include "model/host/document_pools.h"
#include "model/host/router_softmax.h"
#include "model/host/simd.h"
#include "model/score_distributions.h"
#include "parallel/buffers.h"
#include "parallel/parallel_for.h"

namespace emo {
namespace {

// The masks of one document, as floats: 1 in, 0 out.
struct Masks {
  std::vector<float> softmax;     // what the score softmax runs over
  std::vector<float> selectable;  // what may be chosen
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

// The same by p + bias; the weights are p. `keys` [E] is scratch.
inline void choose_with_bias(int64_t E, int64_t K, const float* p, const float* bias,
                             const float* selectable, float* keys, int32_t* experts,
                             float* weights) {
  for (int64_t e = 0; e < E; ++e) keys[e] = p[e] + bias[e];
  choose_top_k(E, K, keys, selectable, experts, weights);
  for (int64_t k = 0; k < K; ++k) weights[k] = experts[k] >= 0 ? p[experts[k]] : 0;
}

// Everything route() does with the tokens of one piece; the arrays are the whole batch's.
struct RouteArrays {
  int64_t E, K;
  const float* logits;
  int32_t* experts;
  float* weights;
  float* entropy;
  float* masked_logsumexp;
  float* full_logsumexp;  // null where not needed
  const int32_t* labels;  // null: the losses are of all tokens
  const float* bias;      // null: none
  bool in_losses(int64_t t) const { return labels == nullptr || labels[t] >= 0; }
};

EMO_SIMD void route_piece(const Piece& piece, const ScoreDistributions& which, const RouteArrays& a,
                          const float* softmax_mask, const float* selectable, const float* all,
                          float* score_sum, float* masked, float* full, float* keys) {
  for (int64_t t = piece.begin; t < piece.end; ++t) {
    const float* z = a.logits + t * a.E;
    float ignored = 0;
    a.masked_logsumexp[t] = softmax(a.E, z, softmax_mask, masked, &a.entropy[t]);
    if (a.full_logsumexp != nullptr) a.full_logsumexp[t] = softmax(a.E, z, all, full, &ignored);
    const float* scores = which.before ? masked : full;
    if (a.bias == nullptr) {
      choose_top_k(a.E, a.K, scores, selectable, a.experts + t * a.K, a.weights + t * a.K);
    } else {
      choose_with_bias(a.E, a.K, scores, a.bias, selectable, keys, a.experts + t * a.K,
                       a.weights + t * a.K);
    }
    if (!a.in_losses(t)) continue;
    if (which.balance_zeroed) {
      for (int64_t e = 0; e < a.E; ++e) score_sum[e] += full[e] * softmax_mask[e];
    } else {
      const float* seen = which.balance_full ? full : masked;
      for (int64_t e = 0; e < a.E; ++e) score_sum[e] += seen[e];
    }
  }
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

// A tensor of this shape in the memory that `tensor` has, filled.
template <typename Number>
void fill_tensor(const std::vector<Number>& values, at::IntArrayRef shape, at::Tensor* tensor) {
  shape_buffer(tensor, shape, c10::CppTypeToScalarType<Number>::value);
  std::copy(values.begin(), values.end(), tensor->mutable_data_ptr<Number>());
}

void check_input(const RouterInput& input) {
  const int64_t T = input.logits.size(0);
  const int64_t E = input.logits.size(1);
  const int64_t spans = input.spans.N;
  const auto* ends = input.spans.ends.const_data_ptr<int32_t>();
  TORCH_CHECK(input.pool_sizes.numel() == spans && ends[0] == 0 && ends[spans] == T &&
                  input.top_k >= 1 && input.top_k <= E,
              "route: ", input.pool_sizes.numel(), " pool sizes for ", spans, " spans that end at ",
              ends[spans], " of ", T, " tokens, top ", input.top_k, " of ", E);
}

// The documents' pools and what is told of them.
void route_documents(const RouterInput& input, const std::vector<Piece>& pieces,
                     const std::vector<float>& usable, Routing* routing) {
  const int64_t E = input.logits.size(1);
  const int64_t N = input.spans.N;
  if (input.pool.kind == PoolPolicy::Kind::kNone) {
    shape_buffer(&routing->pools, {N, E}, at::kByte).fill_(1);
    routing->document_entropy.reset();
    routing->pool_sizes.reset();
    return;
  }
  const auto* drawn = input.pool_sizes.const_data_ptr<int32_t>();
  std::vector<int64_t> sizes(drawn, drawn + N);
  const DocumentScores scores =
      score_documents(pieces, input.spans.ends.const_data_ptr<int32_t>(), N, E,
                      input.logits.const_data_ptr<float>(), usable.data());
  std::vector<uint8_t> pools = choose_pools(scores, E, input.pool, &sizes);
  keep_given_pools(input.subset.pools, E, &pools);
  fill_tensor(pools, {N, E}, &routing->pools);
  fill_tensor(scores.entropy, {N}, &routing->document_entropy);
  fill_tensor(std::vector<int32_t>(sizes.begin(), sizes.end()), {N}, &routing->pool_sizes);
}

// Memory for what is told of each token.
RouteArrays shape_tokens(const RouterInput& input, const ScoreDistributions& which,
                         Routing* routing) {
  const int64_t T = input.logits.size(0);
  const int64_t K = input.top_k;
  const auto floats = [](at::Tensor* tensor, at::IntArrayRef shape) {
    return shape_buffer(tensor, shape).mutable_data_ptr<float>();
  };
  if (!which.full) routing->full_logsumexp.reset();
  return {input.logits.size(1),
          K,
          input.logits.const_data_ptr<float>(),
          shape_buffer(&routing->experts, {T, K}, at::kInt).mutable_data_ptr<int32_t>(),
          floats(&routing->weights, {T, K}),
          floats(&routing->token_entropy, {T}),
          floats(&routing->masked_logsumexp, {T}),
          which.full ? floats(&routing->full_logsumexp, {T}) : nullptr,
          labels_of(input),
          input.bias.defined() ? input.bias.const_data_ptr<float>() : nullptr};
}

// Every token's experts; and, summed over the pieces in order, what the losses need of them.
void route_tokens(const RouterInput& input, const std::vector<Piece>& pieces,
                  const ScoreDistributions& which, const std::vector<float>& usable,
                  const RouteArrays& arrays, bool by_document, Routing* routing) {
  const int64_t E = arrays.E;
  const auto count = static_cast<int64_t>(pieces.size());
  const auto* pools = routing->pools.const_data_ptr<uint8_t>();
  std::vector<float> score_sums(count * E, 0.0f);
  parallel_for(count, 2, [&](int64_t begin, int64_t end) {
    std::vector<float> masked(E), full_scores(E), keys(E);
    Masks masks;
    int64_t span = -1;
    for (int64_t p = begin; p < end; ++p) {
      if (pieces[p].span != span) {
        span = pieces[p].span;
        masks = masks_of(pools + span * E, input.subset.kept, usable);
      }
      vectorised<route_piece>(pieces[p], which, arrays, masks.softmax.data(),
                              masks.selectable.data(), usable.data(), score_sums.data() + p * E,
                              masked.data(), full_scores.data(), keys.data());
    }
  });
  std::vector<double> score_sum(E);
  for (int64_t p = 0; p < count; ++p) {
    for (int64_t e = 0; e < E; ++e) score_sum[e] += score_sums[p * E + e];
  }
  fill_tensor(score_sum, {E}, &routing->score_sum);
  if (!by_document) return routing->document_score_sum.reset();
  const int64_t N = input.spans.N;
  std::vector<double> of_documents(N * E);
  for (int64_t p = 0; p < count; ++p) {
    double* sum = of_documents.data() + pieces[p].span * E;
    for (int64_t e = 0; e < E; ++e) sum[e] += score_sums[p * E + e];
  }
  fill_tensor(of_documents, {N, E}, &routing->document_score_sum);
}

void count_choices(int64_t T, const RouteArrays& arrays, Routing* routing) {
  std::vector<int64_t> counts(arrays.E);
  for (int64_t slot = 0; slot < T * arrays.K; ++slot) {
    const int32_t e = arrays.experts[slot];
    if (e >= 0 && arrays.in_losses(slot / arrays.K)) ++counts[e];
  }
  fill_tensor(counts, {arrays.E}, &routing->counts);
}

void count_choices_of_documents(const RouterInput& input, const RouteArrays& arrays,
                                Routing* routing) {
  const auto* ends = input.spans.ends.const_data_ptr<int32_t>();
  std::vector<int32_t> counts(input.spans.N * arrays.E);
  for (int64_t span = 0; span < input.spans.N; ++span) {
    for (int64_t slot = ends[span] * arrays.K; slot < ends[span + 1] * arrays.K; ++slot) {
      const int32_t e = arrays.experts[slot];
      if (e >= 0 && arrays.in_losses(slot / arrays.K)) ++counts[span * arrays.E + e];
    }
  }
  fill_tensor(counts, {input.spans.N, arrays.E}, &routing->document_counts);
}

}  // namespace

void route(const RouterInput& input, const RoutingContract& contract, Routing* routing) {
  check_input(input);
  const ScoreDistributions which(contract);
  const std::vector<Piece> pieces =
      pieces_of(input.spans.ends.const_data_ptr<int32_t>(), input.spans.N);
  const std::vector<float> usable = usable_experts(input, input.logits.size(1));
  route_documents(input, pieces, usable, routing);
  const RouteArrays arrays = shape_tokens(input, which, routing);
  const bool by_document = contract.balance_scope == BalanceScope::kDocument;
  route_tokens(input, pieces, which, usable, arrays, by_document, routing);
  count_choices(input.logits.size(0), arrays, routing);
  if (by_document) {
    count_choices_of_documents(input, arrays, routing);
  } else {
    routing->document_counts.reset();
  }
}

void route_backward(const RouterInput& input, const RoutingContract& contract,
                    const Routing& routing, const at::Tensor& d_weights, const at::Tensor& balances,
                    float z, at::Tensor* d_logits) {
  const int64_t E = input.logits.size(1);
  const int64_t K = input.top_k;
  const ScoreDistributions which(contract);
  const bool by_document = balances.dim() == 2;
  TORCH_CHECK(input.subset.kept.empty() && balances.size(-1) == E &&
                  (!by_document || balances.size(0) == input.spans.N) &&
                  d_weights.sizes() == routing.weights.sizes(),
              "route_backward: shapes, or a subset, which is for evaluation only");
  const auto* ends = input.spans.ends.const_data_ptr<int32_t>();
  const std::vector<Piece> pieces = pieces_of(ends, input.spans.N);
  const auto* pools = routing.pools.const_data_ptr<uint8_t>();
  const auto* balance_data = balances.const_data_ptr<float>();
  const auto* masked_lse = routing.masked_logsumexp.const_data_ptr<float>();
  const auto* full_lse = which.full ? routing.full_logsumexp.const_data_ptr<float>() : nullptr;
  const auto* logits = input.logits.const_data_ptr<float>();
  const auto* experts = routing.experts.const_data_ptr<int32_t>();
  const auto* dw = d_weights.const_data_ptr<float>();
  const int32_t* labels = labels_of(input);
  auto* d_out = shape_buffer(d_logits, input.logits.sizes()).mutable_data_ptr<float>();
  const std::vector<float> all(E, 1.0f);
  const std::vector<float> none(E, 0.0f);
  parallel_for(static_cast<int64_t>(pieces.size()), 2, [&](int64_t begin, int64_t end) {
    std::vector<float> d(E), zeroed(E);
    Masks masks;
    const float* balance = balance_data;
    int64_t span = -1;
    for (int64_t p = begin; p < end; ++p) {
      if (pieces[p].span != span) {
        span = pieces[p].span;
        if (by_document) balance = balance_data + span * E;
        masks = masks_of(pools + span * E, {}, all);
        for (int64_t e = 0; e < E; ++e) zeroed[e] = balance[e] * masks.softmax[e];
      }
      // What the loss says about the softmax over the pool, and what about that over all.
      const float* b_masked = which.balance_full ? none.data() : balance;
      const float* b_full = !which.balance_full    ? none.data()
                            : which.balance_zeroed ? zeroed.data()
                                                   : balance;
      for (int64_t t = pieces[p].begin; t < pieces[p].end; ++t) {
        float* dz = d_out + t * E;
        std::fill_n(dz, E, 0.0f);
        const bool in_losses = labels == nullptr || labels[t] >= 0;
        const float z_of_token = in_losses ? z : 0;
        if (which.before || !which.z_full) {
          vectorised<add_softmax_gradient>(E, logits + t * E, masks.softmax.data(), masked_lse[t],
                                           in_losses ? b_masked : none.data(),
                                           which.z_full ? 0 : z_of_token, which.before ? K : 0,
                                           experts + t * K, dw + t * K, d.data(), dz);
        }
        if (which.full) {
          vectorised<add_softmax_gradient>(E, logits + t * E, all.data(), full_lse[t],
                                           in_losses ? b_full : none.data(),
                                           which.z_full ? z_of_token : 0, which.before ? 0 : K,
                                           experts + t * K, dw + t * K, d.data(), dz);
        }
      }
    }
  });
}

}  // namespace emo
