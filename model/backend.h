// The operations that a model is made of, on tensors where a back end computes: on the host
// (model/host/backend.h) or on a device (model/device/backend.h). Transformer, block, MoE layer,
// losses and step are written once, above these.
//
// Shapes are those of model/config.h: T tokens, width D. What a back end stores between operations
// is of one of two types: Residual, of the stream that blocks add to and of its gradients (the host
// keeps it in fp32, a device in the type of its parameters), and Stored, of all else that products
// read. Parameters' gradients, router logits and sums are fp32 or wider everywhere.
//
// Outputs are pointers to tensors that the operation makes, or whose memory it uses again
// (keeps_memory()); tensors that are added to, or changed in place, are passed as they are. Every
// operation may be on its way when it returns: what reads its outputs with another operation waits
// by itself. Those that say so are collective over `ep`. A broken requirement throws c10::Error.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "model/adamw.h"
#include "model/config.h"
#include "model/key_value_cache.h"
#include "model/placed_slice.h"
#include "model/profile.h"
#include "model/rope_table.h"
#include "model/router.h"
#include "model/router_jitter.h"
#include "model/weights.h"
#include "parallel/communicator.h"
#include "parallel/expert_exchange.h"
#include "parallel/traffic.h"

namespace emo {

// What a back end cannot compute.
struct Limit {
  std::string field;  // of ModelConfig, by its name in a config
  std::string why;
};

// A layer's placement, and where each expert stands in its order, i32 [E] where the back end
// computes; undefined where experts go by number.
struct LayerPlacement {
  ExpertPlacement placement;
  at::Tensor position_of;
};
LayerPlacement make_layer_placement(const ExpertPlacement& placement, at::Device device);

class Backend;

// Gives memory back where it was used last, but where the back end keeps it (keeps_memory()).
template <typename Memory>
void give_back(const Backend& backend, Memory* used);

// Which tokens go to which ranks and back, in one MoE layer. A back end's own.
struct Plan {
  Plan() = default;
  virtual ~Plan() = default;
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
};

// What the experts of this rank say of each pair of a row and one of its experts, in the order of
// the plan.
struct PairResults {
  at::Tensor rows;     // Stored [Q, D] results, weighted; or gradients of inputs
  at::Tensor scalars;  // f32 of each pair, the length of the result or the gradient of its weight,
                       // as the back end has them: only return_scalars() reads them
};

// What a backward pass needs of an operation's forward pass:
struct Normalised {
  at::Tensor y;           // Stored [T, D]
  at::Tensor reciprocal;  // f32 [T] of the norm
};
struct QkNormKept {
  at::Tensor raw;         // Stored [T, 2 D] queries and keys before their norm
  at::Tensor reciprocal;  // f32, two for each token: the host [T, 2], a device [2, T]
};
struct AttentionKept {
  at::Tensor out;                   // Stored [T, D]
  at::Tensor logsumexp;             // f32 [T, H], or as the back end's attention has it
  at::Tensor random_state, unused;  // of libtorch's flash attention
};

// The experts of a layer's MoE part that are here, or what every token goes through.
using FeedForwards = std::vector<FeedForwardWeights>;

class Backend {
 public:
  Backend() = default;
  virtual ~Backend() = default;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;

  // What it is.
  virtual at::TensorOptions parameters() const = 0;              // where they lie, and their type
  virtual at::ScalarType stored(Precision precision) const = 0;  // in a pass of this precision
  virtual std::vector<Limit> limits(const ModelConfig& config) const = 0;
  // Whether activations and buffers stay in memory from pass to pass; else they are given back as
  // soon as they were used, to an allocator that keeps them.
  virtual bool keeps_memory() const = 0;
  // What the exchanges since the last call have cost.
  virtual ExchangeCounters take_counters() = 0;

  // x_t = table[tokens_t]; tokens i32 [T], table [V, D], x Residual [T, D].
  virtual void embed(const at::Tensor& tokens, const at::Tensor& table, at::Tensor* x) = 0;
  // Adds d Residual [T, D] to the rows of d_table f32 [V, D].
  virtual void embed_backward(const at::Tensor& tokens, const at::Tensor& d,
                              const at::Tensor& d_table) = 0;

  // RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467) of x Residual [T, D], w [D]:
  //   y = x / sqrt(mean(x^2) + epsilon) * w
  // `stored`, here and below, is the pass's, stored().
  virtual void rms_norm(const at::Tensor& x, const at::Tensor& w, double epsilon,
                        at::ScalarType stored, Normalised* kept) = 0;
  // Adds to d Residual [T, D] and dw f32 [D] what d_y Residual [T, D] says.
  virtual void rms_norm_backward(const at::Tensor& x, const at::Tensor& w, const Normalised& kept,
                                 const at::Tensor& d_y, const at::Tensor& d,
                                 const at::Tensor& dw) = 0;

  // y [n, out] = x W^T, of this type, Stored or fp32, from x Stored [n, in], w [out, in].
  virtual void linear(const at::Tensor& x, const at::Tensor& w, at::ScalarType type,
                      at::Tensor* y) = 0;
  // y = residual + x W^T, Residual [n, out].
  virtual void add_linear(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& w,
                          at::Tensor* y) = 0;
  // From dy Stored [n, out]: dx [n, in] = dy W, of this type, Stored or Residual; adds dy^T x to dw
  // f32 [out, in].
  virtual void linear_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w,
                               at::ScalarType type, at::Tensor* dx, const at::Tensor& dw) = 0;
  // From dy f32 [n, out]: adds dy W to dx Residual [n, in], and dy^T x to dw f32.
  virtual void add_linear_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w,
                                   const at::Tensor& dx, const at::Tensor& dw) = 0;
  virtual void copy(const at::Tensor& from, at::Tensor* to) = 0;  // Residual
  virtual void zeros_like(const at::Tensor& like, at::Tensor* zeros) = 0;
  // Rows of x Residual [T, D], by ascending numbers.
  virtual void gather_rows(const at::Tensor& x, const std::vector<int64_t>& rows,
                           at::Tensor* y) = 0;
  // A gradient Residual [T, D] as Stored: rounded into `buffer`, or itself.
  virtual const at::Tensor& as_stored(const at::Tensor& d, at::ScalarType stored,
                                      at::Tensor* buffer) = 0;

  // Attention, confined to the slice's spans. qkv Stored [T, 3 D]: queries, keys, values.
  // RMSNorm of queries and of keys in place, over all heads together and before they are rotated,
  // as OLMoE does (Muennighoff et al. 2024, arXiv 2409.02060).
  virtual void qk_norm(const LayerWeights& weights, double epsilon, const at::Tensor& qkv,
                       QkNormKept* kept) = 0;
  virtual void qk_norm_backward(const LayerWeights& weights, const QkNormKept& kept,
                                const at::Tensor& d_qkv, const LayerWeights& gradients) = 0;
  // Rotates queries and keys in place (rope_table.h).
  virtual void rotate(const RopeTable& table, Rotation rotation, const PlacedSlice& slice,
                      int64_t heads, const at::Tensor& qkv) = 0;
  virtual void attention(const PlacedSlice& slice, int64_t heads, const at::Tensor& qkv,
                         AttentionKept* kept) = 0;
  virtual void attention_backward(const PlacedSlice& slice, int64_t heads, const at::Tensor& qkv,
                                  const AttentionKept& kept, const at::Tensor& d_out,
                                  at::Tensor* d_qkv) = 0;
  // Decoding: puts keys and values into the cache's layer, then attends to all that is there. What
  // is kept is for no backward pass.
  virtual CachedTokens cached_tokens(const Slice& slice, const KeyValueCache& cache) = 0;
  virtual void attention_with_cache(const PlacedSlice& slice, int64_t heads, const at::Tensor& qkv,
                                    KeyValueCache* cache, int64_t layer, AttentionKept* kept) = 0;

  // What a router sees in training, y = x times noise, of x's type [T, D]; and from the gradient d
  // of that, Residual [T, D], to that of x: dx += d times the same noise (router_jitter.h).
  virtual void jitter(const at::Tensor& x, const RouterJitter& noise, at::Tensor* y) = 0;
  virtual void add_jittered(const at::Tensor& d, const RouterJitter& noise,
                            const at::Tensor& dx) = 0;
  // The router (router.h).
  virtual void route(const RouterInput& input, const RoutingContract& contract,
                     Routing* routing) = 0;
  // d_logits f32 [T, E] from d_weights f32 [T, K] of the experts' results; balance f32 [E], or
  // [N, E] by document, the derivative of the balance loss by each score; z, the factor of
  // logsumexp^2 in the z loss. REQUIRES: no subset.
  virtual void route_backward(const RouterInput& input, const RoutingContract& contract,
                              const Routing& routing, const at::Tensor& d_weights,
                              const at::Tensor& balance, float z, at::Tensor* d_logits) = 0;

  // Tokens to the ranks of their experts and back (parallel/expert_exchange.h); all collective over
  // `ep`. `plan` is made, or its memory used again. The rows of `tokens` Stored [T, D] of other
  // ranks arrive in `arrived` after wait(): on the host [R - own_rows, D], own rows stay where they
  // are; a device copies its own in front, [R, D], but on one rank, where rows are the tokens and
  // `arrived` stays as it is. PlanRows, below, are both.
  virtual void plan(Communicator& ep, const LayerPlacement& where, const Routing& routing,
                    ExchangeMode mode, std::unique_ptr<Plan>* plan) = 0;
  virtual RowsInFlight send_rows(Communicator& ep, const Plan& plan, const at::Tensor& tokens,
                                 at::Tensor* arrived) = 0;
  // Adds the sums of each row's pairs to its token in y Residual [T, D]. `timed` counts as experts
  // when it begins, as exchange when it ends.
  virtual void return_rows(Communicator& ep, const Plan& plan, const PairResults& pairs,
                           Timed* timed, const at::Tensor& y) = 0;
  // The pairs' scalars to slots f32 [T, K]; 0 where a slot is unused.
  virtual void return_scalars(Communicator& ep, const Plan& plan, const PairResults& pairs,
                              at::Tensor* slots) = 0;

  // SwiGLU feed-forwards (Shazeer 2020, arXiv 2002.05202): y = (SiLU(x G^T) * (x U^T)) D^T.
  // Routed experts of this rank on a plan's rows, each result times the router's weight. `hidden`
  // Stored [Q, 2 F] is what the backward pass needs, and overwrites.
  virtual void experts(const FeedForwardWeights& weights, const Plan& plan, const PlanRows& rows,
                       at::Tensor* hidden, PairResults* results) = 0;
  // `hidden` alone, the same bits: where it was not kept.
  virtual void experts_hidden(const FeedForwardWeights& weights, const Plan& plan,
                              const PlanRows& rows, at::Tensor* hidden) = 0;
  virtual void experts_lengths(const Plan& plan, PairResults* results) = 0;  // to its scalars
  // From d_out Stored, the gradients of the sums over a row's pairs. Adds to the experts' gradients
  // (`onto`), or writes over them, zeros where an expert has no pairs.
  virtual void experts_backward(const FeedForwardWeights& weights,
                                const FeedForwardWeights& gradients, bool onto, const Plan& plan,
                                const PlanRows& rows, at::Tensor* hidden, const PlanRows& d_out,
                                PairResults* results) = 0;
  // The same three of what every token goes through: shared experts, or a dense layer's one. x and
  // dy Stored [T, D];
  // adds to y Residual [T, D]; hidden Stored [T, 2 F] each; dx Residual [T, D], of none: zeros.
  virtual void feed_forward(const FeedForwards& weights, const at::Tensor& x,
                            std::vector<at::Tensor>* hidden, const at::Tensor& y) = 0;
  virtual void feed_forward_hidden(const FeedForwards& weights, const at::Tensor& x,
                                   std::vector<at::Tensor>* hidden) = 0;
  virtual void feed_forward_backward(const FeedForwards& weights, const FeedForwards& gradients,
                                     const at::Tensor& x, const at::Tensor& dy,
                                     std::vector<at::Tensor>* hidden, at::Tensor* dx) = 0;

  // The head's loss and gradients in chunks of rows, so that [T, V] is never in memory, of
  //   scale * sum_t (cross-entropy_t + z_weight * logsumexp_t^2)
  // from x Stored [T, D], labels i32 [T] (-100: none), w [V, D]. Overwrites dx Residual [T, D],
  // adds to dw; adds to sums f64 [3]: cross-entropy, squares of logsumexp, labels.
  virtual void head_loss(const at::Tensor& x, const at::Tensor& labels, const at::Tensor& w,
                         float scale, float z_weight, at::Tensor* dx, const at::Tensor& dw,
                         const at::Tensor& sums) = 0;
  // Cross-entropy of each row alone, f32 [n] on the host, in nats. x Stored [n, D] of an fp32 pass,
  // labels i32 [n] on the host.
  virtual at::Tensor head_losses(const at::Tensor& x, const at::Tensor& labels,
                                 const at::Tensor& w) = 0;
  // gradient f32 [E]: (E / K) (C_e / T_c) / divisor from counts i64 [E] and tokens i64 [1], T_c; 0
  // where that is 0.
  virtual void balance_gradient(const at::Tensor& counts, const at::Tensor& tokens, int64_t top_k,
                                double divisor, at::Tensor* gradient) = 0;
  // gradient f32 [N, E] of a routing with counts of documents: (P_d / K) (C_de / n_d) / n_d /
  // divisor, 0 where n_d is 0; divisor: the documents of the step.
  virtual void document_balance_gradient(const Routing& routing, double divisor,
                                         at::Tensor* gradient) = 0;
  // Adds what one layer's router saw to sums f64 [7 + E], a RouterSums in the order of its fields.
  // `balance` f32 [E] is balance_gradient()'s, or [N, E] document_balance_gradient()'s; z_labels:
  // RouterInput::labels.
  virtual void add_router_sums(const Routing& routing, const RoutingContract& contract,
                               const at::Tensor& balance, const at::Tensor& z_labels,
                               const at::Tensor& sums) = 0;

  // f64 [1]: the sum of the squares of all numbers of f32 tensors; in a fixed order.
  virtual at::Tensor sum_of_squares(const std::vector<at::Tensor>& parts) = 0;
  // control f32 [2] from a step's sums f64, whose first is the cross-entropy, and the gradients'
  // squares f64 [1]: the factor that clips the norm to `limit`, min(1, limit / (norm + 1e-6)), 0:
  // no limit; and 1, or 0 where one of both is not finite.
  virtual void clip_control(const at::Tensor& sums, const at::Tensor& squares, double limit,
                            at::Tensor* control) = 0;
  // AdamW (adamw.h): updates master, m and v f32 [n] by gradient f32 [n] * control[0], and what
  // `parameter` holds of them [n] (undefined: the master is the parameter). Nothing where
  // control[1] is 0.
  virtual void adamw(const AdamWFactors& factors, const at::Tensor& control,
                     const at::Tensor& gradient, const at::Tensor& master, const at::Tensor& m,
                     const at::Tensor& v, const at::Tensor& parameter) = 0;
};

template <typename Memory>
void give_back(const Backend& backend, Memory* used) {
  if (!backend.keeps_memory()) *used = Memory();
}

}  // namespace emo
