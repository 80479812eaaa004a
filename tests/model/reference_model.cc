#include "tests/model/reference_model.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>

#include "model/philox.h"
#include "model/pool_sizes.h"
#include "tests/model/backends.h"

namespace emo {
namespace {

using Parameters = std::map<std::string, at::Tensor>;

Parameters leaf_parameters(const Model& model) {
  Parameters parameters;
  for (const ParameterInfo& p : model.layout.parameters) {
    at::Tensor t = parameter_view(p, model.parameters).to(at::kDouble).clone();
    t.set_requires_grad(true);
    parameters[p.name] = t;
  }
  return parameters;
}

at::Tensor norm(const at::Tensor& x, const at::Tensor& w, double epsilon) {
  return x * at::rsqrt(x.pow(2).mean(-1, true) + epsilon) * w;
}

at::Tensor feed_forward(const at::Tensor& x, const Parameters& p, const std::string& prefix) {
  const at::Tensor gate = x.matmul(p.at(prefix + "gate_proj.weight").t());
  const at::Tensor up = x.matmul(p.at(prefix + "up_proj.weight").t());
  return (at::silu(gate) * up).matmul(p.at(prefix + "down_proj.weight").t());
}

at::Tensor rope(const at::Tensor& x, const at::Tensor& positions, double theta) {  // [T, H, W]
  const int64_t W = x.size(2);
  const at::Tensor frequency =
      at::pow(theta, -at::arange(0, W, 2, at::kDouble) / static_cast<double>(W));
  const at::Tensor angle = positions.to(at::kDouble).view({-1, 1}) * frequency;  // [T, W / 2]
  const at::Tensor c = angle.cos().unsqueeze(1), s = angle.sin().unsqueeze(1);
  const at::Tensor a = x.slice(2, 0, W / 2), b = x.slice(2, W / 2, W);
  return at::cat({a * c - b * s, b * c + a * s}, 2);
}

at::Tensor attend(const Model& model, const at::Tensor& x, const Slice& batch, const Parameters& p,
                  const std::string& prefix) {
  const int64_t H = model.config.n_heads, W = model.config.head_dim(), T = x.size(0);
  const auto project = [&](const char* name) {
    return x.matmul(p.at(prefix + "self_attn." + name + "_proj.weight").t()).view({T, H, W});
  };
  const at::Tensor positions = batch.positions.view({-1});
  const auto query_or_key = [&](const std::string& name) {
    at::Tensor projected = project(name.c_str());
    if (model.config.qk_norm) {
      projected =
          norm(projected.view({T, H * W}), p.at(prefix + "self_attn." + name + "_norm.weight"),
               model.config.norm_epsilon)
              .view({T, H, W});
    }
    return rope(projected, positions, model.config.rope_theta);
  };
  const at::Tensor q = query_or_key("q");
  const at::Tensor k = query_or_key("k");
  const at::Tensor v = project("v");
  std::vector<at::Tensor> outputs;
  const auto* ends = batch.attention_ends.const_data_ptr<int32_t>();
  for (int64_t i = 0; i + 1 < batch.attention_ends.numel(); ++i) {
    const auto part = [&](const at::Tensor& t) {
      return t.slice(0, ends[i], ends[i + 1]).transpose(0, 1);
    };
    const int64_t n = ends[i + 1] - ends[i];
    at::Tensor scores = part(q).matmul(part(k).transpose(1, 2)) / std::sqrt(static_cast<double>(W));
    scores = scores.masked_fill(at::ones({n, n}, at::kBool).triu(1), -INFINITY);
    outputs.push_back(scores.softmax(-1).matmul(part(v)).transpose(0, 1).reshape({n, H * W}));
  }
  return at::cat(outputs).matmul(p.at(prefix + "self_attn.o_proj.weight").t());
}

struct Routed {
  at::Tensor experts, weights;  // [T, K]
  at::Tensor balance_scores;    // [T, E]
  at::Tensor z;                 // scalar, sum of logsumexp^2, of tokens that the losses are of
  std::vector<int64_t> sizes;   // of the documents' pools
};

// Indices of the tokens that the router's losses are of.
at::Tensor tokens_in_losses(const RoutingContract& contract, const Slice& batch) {
  const at::Tensor labels = batch.labels.view({-1});
  const bool all = contract.losses_over == LossTokens::kAll;
  return (all ? at::ones_like(labels) : labels.ge(0)).nonzero().view({-1});
}

// Each number's factor [T, D]; the counters as model/router_jitter.h says.
at::Tensor jitter_factors(const Model& model, const PassOptions& options, const Slice& batch,
                          int64_t layer) {
  const int64_t T = batch.num_tokens(), S = batch.tokens.size(1), D = model.config.d_model;
  const at::Tensor factors = at::empty({T, D}, at::kDouble);
  const auto* ends = batch.routing_ends.const_data_ptr<int32_t>();
  int64_t span = 0;
  for (int64_t t = 0; t < T; ++t) {
    while (ends[span + 1] <= t) ++span;
    const auto row = static_cast<uint64_t>(batch.sequence_index[span].item<int64_t>());
    for (int64_t d = 0; d < D; ++d) {
      const uint32_t last = 0x80000000u + static_cast<uint32_t>(layer * 65536 + d / 4);
      const uint32_t word = philox(philox_key(options.settings.seed),
                                   {static_cast<uint32_t>(row), static_cast<uint32_t>(row >> 32),
                                    static_cast<uint32_t>(t % S), last})[d % 4];
      const double uniform = static_cast<double>(static_cast<int32_t>(word)) / 2147483648.0;
      factors.mutable_data_ptr<double>()[t * D + d] = 1 + model.contract.jitter * uniform;
    }
  }
  return factors;
}

// One document after another (design.md, routing contract).
Routed route_slowly(const Model& model, const PassOptions& options, const at::Tensor& logits,
                    const at::Tensor& bias, const Slice& batch, int64_t layer) {
  const RoutingContract& c = model.contract;
  const int64_t E = logits.size(1), K = model.config.routed_top_k(layer);
  const PoolPolicy& pool = options.settings.pool_of(c);
  const std::vector<int64_t> sizes = draw_pool_sizes(pool, c.pool_draw, options.settings.seed,
                                                     batch.sequence_index, batch.ordinal, layer, E);
  std::vector<at::Tensor> experts, weights, balance, lse;
  std::vector<int64_t> in_pool;
  const auto* ends = batch.routing_ends.const_data_ptr<int32_t>();
  for (int64_t i = 0; i + 1 < batch.routing_ends.numel(); ++i) {
    const at::Tensor part = logits.slice(0, ends[i], ends[i + 1]);
    const at::Tensor full = part.softmax(-1);
    at::Tensor outside = at::zeros({E}, at::kBool);
    if (pool.kind != PoolPolicy::Kind::kNone) {
      const at::Tensor q = full.detach().sum(0);
      const auto ranked = std::get<1>(q.sort(/*stable=*/true, 0, /*descending=*/true));
      int64_t size = std::min(sizes[i], E);
      if (pool.kind == PoolPolicy::Kind::kTopP) {
        const at::Tensor reached = q.index_select(0, ranked).cumsum(0) / q.sum();
        const int64_t n = 1 + (reached < pool.top_p).sum().item<int64_t>();
        size = std::clamp(n, std::min(pool.min_of(layer), E), size);
      }
      outside.fill_(true);
      outside.index_fill_(0, ranked.slice(0, 0, size), false);
    }
    in_pool.push_back(E - outside.sum().item<int64_t>());
    const at::Tensor masked_logits = part.masked_fill(outside, -INFINITY);
    const bool before = c.mask == MaskTime::kBeforeSoftmax;
    const at::Tensor scores = before ? masked_logits.softmax(-1) : full.masked_fill(outside, 0);
    const at::Tensor keys = (scores.detach() + bias).masked_fill(outside, -INFINITY);
    const at::Tensor e = std::get<1>(keys.topk(K, -1));
    weights.push_back(scores.gather(-1, e));
    experts.push_back(e);
    balance.push_back(c.balance_sees == ScoresSeen::kFull ? full : scores);
    lse.push_back((c.z_sees == ScoresSeen::kFull ? part : masked_logits).logsumexp(-1));
  }
  const at::Tensor z = at::cat(lse).index_select(0, tokens_in_losses(c, batch)).pow(2).sum();
  return {at::cat(experts), at::cat(weights), at::cat(balance), z, in_pool};
}

// Of one layer, over all tokens of the batch.
at::Tensor balance_loss(const Routed& r, const at::Tensor& in_losses, double divisor) {
  const int64_t E = r.balance_scores.size(1), K = r.experts.size(1);
  const at::Tensor counts =
      at::bincount(r.experts.index_select(0, in_losses).reshape({-1}), {}, E).to(at::kDouble);
  return (counts / static_cast<double>(in_losses.numel()) *
          r.balance_scores.index_select(0, in_losses).sum(0))
             .sum() *
         (static_cast<double>(E) / static_cast<double>(K) / divisor);
}

// That of one document after another, each over its pool.
at::Tensor balance_loss_of_documents(const Routed& r, const at::Tensor& in_losses,
                                     const Slice& batch, double documents) {
  const int64_t E = r.balance_scores.size(1), K = r.experts.size(1);
  const auto* ends = batch.routing_ends.const_data_ptr<int32_t>();
  at::Tensor loss = at::zeros({}, at::kDouble);
  for (int64_t d = 0; d + 1 < batch.routing_ends.numel(); ++d) {
    const at::Tensor here =
        in_losses.masked_select(in_losses.ge(ends[d]).logical_and(in_losses.lt(ends[d + 1])));
    if (here.numel() == 0) continue;
    const auto n = static_cast<double>(here.numel());
    const at::Tensor counts =
        at::bincount(r.experts.index_select(0, here).reshape({-1}), {}, E).to(at::kDouble);
    const at::Tensor means = r.balance_scores.index_select(0, here).sum(0) / n;
    loss = loss + (counts / n * means).sum() *
                      (static_cast<double>(r.sizes[d]) / static_cast<double>(K) / documents);
  }
  return loss;
}

}  // namespace

ReferenceResult reference_forward_backward(const Model& model, const Slice& batch,
                                           const PassOptions& options, const LossOptions& loss) {
  const ModelConfig& c = model.config;
  const Parameters p = leaf_parameters(model);
  ReferenceResult result;
  const at::Tensor tokens = batch.tokens.view({-1}).to(at::kLong);
  const at::Tensor labels = batch.labels.view({-1}).to(at::kLong);
  at::Tensor x = p.at("model.embed_tokens.weight").index_select(0, tokens);
  at::Tensor objective = at::zeros({}, at::kDouble);
  for (int64_t layer = 0; layer < c.n_layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    x = x + attend(model, norm(x, p.at(prefix + "pre_attention_layernorm.weight"), c.norm_epsilon),
                   batch, p, prefix);
    const at::Tensor h = norm(x, p.at(prefix + "pre_feedforward_layernorm.weight"), c.norm_epsilon);
    if (c.is_dense(layer)) {
      x = x + feed_forward(h, p, prefix + "mlp.");
      continue;
    }
    const int64_t E = c.routed_experts(layer);
    const at::Tensor bias = c.selection_bias
                                ? p.at(selection_bias_name(layer)).detach().slice(0, 0, E)
                                : at::zeros({E}, at::kDouble);
    const at::Tensor seen =
        model.contract.jitter > 0 ? h * jitter_factors(model, options, batch, layer) : h;
    const at::Tensor logits = seen.matmul(p.at(prefix + "mlp.gate.weight").slice(0, 0, E).t());
    const Routed r = route_slowly(model, options, logits, bias, batch, layer);
    at::Tensor y = at::zeros_like(h);
    for (int64_t e = 0; e < E; ++e) {
      const at::Tensor weight = (r.weights * (r.experts == e).to(at::kDouble)).sum(-1, true);
      y = y + weight * feed_forward(h, p, prefix + "mlp.experts." + std::to_string(e) + ".");
    }
    for (int64_t e = E; e < c.experts(layer); ++e) {
      y = y + feed_forward(h, p, prefix + "mlp.experts." + std::to_string(e) + ".");
    }
    x = x + y;
    const at::Tensor in_losses = tokens_in_losses(model.contract, batch);
    const at::Tensor balance = model.contract.balance_scope == BalanceScope::kDocument
                                   ? balance_loss_of_documents(r, in_losses, batch, loss.documents)
                                   : balance_loss(r, in_losses, loss.divisor);
    const at::Tensor z = r.z / loss.divisor;
    const auto layers = static_cast<double>(c.moe_layers());
    objective = objective + balance * (model.contract.balance_weight / layers) +
                z * (model.contract.z_weight / layers);
    result.balance.push_back(balance.item<double>());
    result.z.push_back(z.item<double>());
    result.experts.push_back(r.experts);
  }
  x = norm(x, p.at("model.norm.weight"), c.norm_epsilon);
  const at::Tensor logits = x.matmul(p.at("lm_head.weight").t());
  const at::Tensor used = labels.ge(0).nonzero().view({-1});
  const at::Tensor lse = logits.logsumexp(-1).index_select(0, used);
  const at::Tensor picked =
      logits.index_select(0, used).gather(1, labels.index_select(0, used).view({-1, 1}));
  const at::Tensor ce = (lse - picked.view({-1})).sum();
  objective = objective + (ce + loss.lm_z_weight * lse.pow(2).sum()) / loss.divisor;
  result.cross_entropy = ce.item<double>();
  torch::autograd::backward({objective}, {});
  for (const auto& [name, parameter] : p) {
    result.gradients[name] =
        parameter.grad().defined() ? parameter.grad() : at::zeros_like(parameter);
  }
  return result;
}

}  // namespace emo
